"""Where kernels are enqueued: the queue of a device, as MAX has it, or the stream of another library."""

from std.builtin.device_passable import DevicePassable
from max.gpu.host import DeviceContext, DeviceStream


struct Queue(ImplicitlyCopyable):
    """A device, and a stream of it if the work is to stand in the order of one that MAX did not make."""

    var context: DeviceContext
    """The device and its queue."""
    var stream: Optional[DeviceStream]
    """The stream to launch on instead."""

    @implicit
    def __init__(out self, context: DeviceContext):
        """Makes the queue of a device.

        Args:
            context: The device.
        """
        self.context = context
        self.stream = None

    def __init__(out self, context: DeviceContext, stream: Int) raises:
        """Makes a queue of a stream, which stays its maker's.

        Args:
            context: The stream's device.
            stream: Its handle, which is 1 for the default stream of CUDA.

        Raises:
            If the device has no streams.
        """
        self.context = context
        self.stream = context.create_external_stream(Pointer[NoneType, MutUntrackedOrigin](unsafe_from_address=stream))

    def enqueue[
        declared: TypeList[Trait=AnyType, ...], //, kernel: def(* args: * declared) thin -> None, *Ts: DevicePassable
    ](self, *args: *Ts, grid_dim: Int, block_dim: Int) raises:
        """Enqueues a kernel; returns before it has run.

        Parameters:
            declared: Types of its arguments.
            kernel: What each thread does.
            Ts: Types of what it is given.

        Args:
            args: What it is given.
            grid_dim: Blocks.
            block_dim: Threads of a block.

        Raises:
            If the launch is refused.
        """
        var compiled = self.context.compile_function[kernel]()  # made with the program; MAX remembers what is loaded
        if self.stream:
            self.stream.value().enqueue_function(compiled, *args, grid_dim=grid_dim, block_dim=block_dim)
        else:
            self.context.enqueue_function(compiled, *args, grid_dim=grid_dim, block_dim=block_dim)
