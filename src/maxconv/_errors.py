"""The errors maxconv raises on purpose; `_recording.RecordingError` of the command line joins them.

    MaxconvError
    ├── ShapeError(ValueError)      rank, length or channel counts do not fit together
    ├── ArgumentError(ValueError)   a value that is not one of those accepted
    ├── DtypeError(TypeError)       an element type that no kernel serves
    ├── DeviceError(RuntimeError)   the device asked for is not there, or operands are on different devices
    └── CompileError(RuntimeError)  the toolchain could not build a kernel

Messages read *function: what is wrong, with the values; what would be right*. All but CompileError are raised before
anything is compiled or launched. A device that runs out of memory raises Python's MemoryError.
"""


class MaxconvError(Exception):
    """Base of every error that maxconv raises on purpose."""


class ShapeError(MaxconvError, ValueError):
    """A rank, length or channel count that does not fit."""


class ArgumentError(MaxconvError, ValueError):
    """A value that is not one of those accepted."""


class DtypeError(MaxconvError, TypeError):
    """An element type that no kernel serves."""


class DeviceError(MaxconvError, RuntimeError):
    """A device that is not there, or operands on different devices."""


class CompileError(MaxconvError, RuntimeError):
    """The toolchain could not build a kernel."""
