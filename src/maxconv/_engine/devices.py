"""Which device a call runs on, and what is there.

A device is named ``"cpu"`` or ``"gpu:<id>"``. `max.driver` is loaded when a GPU is asked for, not before.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from .._errors import ArgumentError, DeviceError
from .arrays import is_lazy

ENVIRONMENT_VARIABLE = "MAXCONV_DEVICE"

default: str | None = None


def set_default_device(device: str | None) -> None:
    """Choose where host arrays are computed when a call does not say.

    Parameters
    ----------
    device
        ``"cpu"``, ``"gpu"``, ``"gpu:<id>"``, ``"auto"`` (the accelerator when the modelled time, transfers included,
        is lower), or None: what the environment variable ``MAXCONV_DEVICE`` says now if it is set, else the CPU.
        Without any call, that is what it says at the first need.

    Raises
    ------
    ArgumentError
        If `device` is none of these.
    DeviceError
        If that device is not there.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.set_default_device("cpu")
    >>> maxconv.get_default_device()
    'cpu'
    >>> maxconv.set_default_device(None)
    """
    global default  # noqa: PLW0603  # the default of this process is what the function is for
    if device is not None:
        default = _checked("set_default_device: device", device)
    elif named := os.environ.get(ENVIRONMENT_VARIABLE):
        default = _checked(ENVIRONMENT_VARIABLE, named)
    else:
        default = "cpu"


def get_default_device() -> str:
    """Return where host arrays are computed when a call does not say: see `set_default_device`."""
    if default is None:
        set_default_device(None)
    return default or "cpu"


def requested(function: str, device: str | None, *operands: object) -> str:
    """Return the device a call asks for: ``"cpu"``, ``"gpu:<id>"`` or ``"auto"``.

    Where an operand is Dask's, ``"gpu"`` stays as it is, the `own` of each process that will compute, and no GPU need
    be here.
    """
    if device is None:
        return get_default_device()
    return _checked(f"{function}: device", device, is_here=not is_lazy(*operands))


def place(function: str, device: str | None, here: str, argument: str, *operands: object) -> str:
    """Decide where a call is computed: where its operands are; of host memory where the call asks, or "auto".

    Parameters
    ----------
    function, device, operands
        As for `requested`.
    here
        The device of the operands.
    argument
        The first of them, for messages.

    Raises
    ------
    DeviceError
        If another device was asked for than an accelerator that they are on.
    """
    wanted = requested(function, device, *operands)
    if here == "cpu":
        return wanted
    if device is not None and wanted not in {here, "auto"}:
        message = f"{function}: device={device!r} was asked for, but {argument} is on {here}"
        raise DeviceError(message)
    return here


def _checked(argument: str, device: object, *, is_here: bool = True) -> str:
    if device in ("cpu", "auto"):
        return str(device)
    name, _, number = str(device).partition(":")
    if not isinstance(device, str) or name != "gpu" or not (number.isdecimal() or device == "gpu"):
        message = f'{argument} must be "cpu", "gpu", "gpu:<id>" or "auto", got {device!r}'
        raise ArgumentError(message)
    if not is_here:
        return device
    accelerator(index := int(number or 0), argument)
    return f"gpu:{index}"


def accelerator_count() -> int:
    """Count the accelerators that MAX finds."""
    from max.driver import accelerator_count as count  # MAX loads when it is needed

    return int(count())


_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


@cache
def compute_capability() -> int:
    """Return that of the oldest NVIDIA GPU which this process sees, 75 for 7.5; 0 if there is none.

    CUDA's driver is asked itself: MAX would take memory on each GPU to tell.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count, device, number, found = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), []
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0  # an error: no GPU, or no permission
    for index in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), index)
        numbers = []
        for attribute in _CAPABILITY:
            cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            numbers.append(number.value)
        found.append(10 * numbers[0] + numbers[1])
    return min(found, default=0)


def accelerator(index: int, argument: str = "device") -> Any:
    """Return MAX's handle of an accelerator; the same one each time.

    Raises
    ------
    DeviceError
        If it is not there, or was opened before this process was forked.
    """
    count = accelerator_count()
    if index >= count:
        found = f"{count} accelerator{'s' if count > 1 else ''}" if count else "no accelerator"
        message = f"{argument}: gpu:{index} was asked for, but MAX finds {found}; `maxconv info` shows what is there"
        raise DeviceError(message)
    return handle(f"gpu:{index}")


def own() -> str:
    """Return the GPU of this process: of several, one that as few other processes as possible have taken.

    Raises
    ------
    DeviceError
        If there is none.
    """
    with _claiming:
        return _claim()[0]


_claiming = threading.Lock()


@cache
def _claim() -> tuple[str, Any]:
    """Take a GPU; return it and the lock that says so, which the system opens when the process ends.

    Processes that see different GPUs, or the same in another order, agree: locks have the names that
    CUDA_VISIBLE_DEVICES gives.
    """
    count = accelerator_count()
    if count <= 1:
        accelerator(0)
        return "gpu:0", None
    from filelock import FileLock, Timeout  # needed by hosts of several GPUs alone

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == count else list(map(str, range(count)))
    for attempt in itertools.count():
        turn, index = divmod(attempt, count)
        name = f"maxconv-{os.getuid()}-gpu-{names[index]}-{turn}.lock"  # not in the cache, which hosts may share
        lock = FileLock(Path(tempfile.gettempdir()) / name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return f"gpu:{index}", lock
    raise AssertionError  # turns do not end


def index_of(device: str) -> int:
    """Return the number in "gpu:<id>", 0 for "cpu"."""
    return int(device.partition(":")[2] or 0)


def handle(device: str) -> Any:
    """Return MAX's handle of "cpu" or "gpu:<id>".

    Raises
    ------
    DeviceError
        If MAX was started before this process was forked: it would wait for ever for threads that are not here.
    """
    if _forked_after_start:
        message = (
            "MAX does not survive fork: this process was forked after MAX had been started; start workers with "
            'multiprocessing.get_context("spawn"), or before the first call that needs MAX'
        )
        raise DeviceError(message)
    return _open(device)


@cache
def _open(device: str) -> Any:
    from max.driver import CPU, Accelerator

    return CPU() if device == "cpu" else Accelerator(index_of(device))


_forked_after_start = False
"""True in a process forked from one that had started MAX."""


def _note_fork() -> None:
    global _forked_after_start  # noqa: PLW0603  # a property of the process, which is what fork changes
    _forked_after_start = _open.cache_info().currsize > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
