"""Kernels with a fault each, by which a test learns that the emulated GPU finds it: no check is one that finds nothing.

The argument names the fault; "none" runs the kernel as it should be.
"""

from std.memory import AddressSpace, unsafe_stack_allocation
from std.sys import argv
from max.gpu import thread_idx
from max.gpu.host import DeviceContext
from max.gpu.sync import barrier

from _ops.shared.shared_memory import await_copies, begin_copy

comptime THREADS = 128
"""Of the one block: four warps."""

comptime NONE = 0
"""No fault."""

comptime BOUNDS = 1
"""The last thread reads behind the array."""

comptime BARRIER = 2
"""Threads read what others of another warp wrote, without a barrier between."""

comptime AWAIT = 3
"""Threads read what they copied without waiting for the copy."""


def mirror[fault: Int](y: Pointer[Float32, MutAnyOrigin], x: Pointer[Float32, MutAnyOrigin]):
    """Writes the elements of x in reverse, by way of shared memory.

    Parameters:
        fault: What is wrong.

    Args:
        y: As many elements as threads.
        x: As many.
    """
    var shared = unsafe_stack_allocation[THREADS, Float32, address_space=AddressSpace.SHARED]()
    var thread = thread_idx.x
    var source = x.unsafe_offset(thread + (1 if fault == BOUNDS else 0))
    begin_copy[1](shared.unsafe_offset(thread), source)
    comptime if fault != AWAIT:
        await_copies()
    comptime if fault != BARRIER:
        barrier()
    y[unsafe_offset=thread] = shared[unsafe_offset=THREADS - 1 - thread]


def launch[fault: Int](ctx: DeviceContext) raises:
    """Launches the kernel and checks what it wrote.

    Parameters:
        fault: What is wrong.

    Args:
        ctx: The device.

    Raises:
        If an element is wrong.
    """
    var x = ctx.enqueue_create_host_buffer[DType.float32](THREADS)
    var y = ctx.enqueue_create_host_buffer[DType.float32](THREADS)
    for i in range(THREADS):
        x[i] = Float32(i + 1)
    var x_device = ctx.enqueue_create_buffer[DType.float32](THREADS)
    var y_device = ctx.enqueue_create_buffer[DType.float32](THREADS)
    ctx.enqueue_copy(x_device, x)
    ctx.enqueue_function[mirror[fault]](y_device.unsafe_ptr(), x_device.unsafe_ptr(), grid_dim=1, block_dim=THREADS)
    ctx.enqueue_copy(y, y_device)
    ctx.synchronize()
    for i in range(THREADS):
        if y[i] != Float32(THREADS - i):
            raise Error(t"element {i} is {y[i]}")


def main() raises:
    """Runs the kernel with the fault that the argument names.

    Raises:
        If a result is wrong.
    """
    var ctx = DeviceContext()
    var fault = argv()[1]
    if fault == "bounds":
        launch[BOUNDS](ctx)
    elif fault == "barrier":
        launch[BARRIER](ctx)
    elif fault == "await":
        launch[AWAIT](ctx)
    else:
        launch[NONE](ctx)
    print("mirrored")
