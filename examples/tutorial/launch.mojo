"""The tutorial's kernel launched from Mojo, timed beside a copy of the same bytes; needs a GPU to run, none to compile.

    mojo run -I examples/tutorial examples/tutorial/launch.mojo
"""

from max.gpu.host import DeviceContext
from std.math import ceildiv
from std.time import perf_counter_ns

from ops.kernels import TILE, conv1d_gpu

comptime N = 1 << 26
"""Samples: long enough that launching does not count."""
comptime TAPS = 4
"""Taps."""
comptime REPEATS = 50
"""Launches that are timed together."""


# --8<-- [start:launch]
def main() raises:
    """Prints how long the kernel takes, and how long a copy.

    Raises:
        If there is no GPU.
    """
    var ctx = DeviceContext()
    var signal = ctx.enqueue_create_buffer[.float32](N)
    var taps = ctx.enqueue_create_buffer[.float32](TAPS)
    var result = ctx.enqueue_create_buffer[.float32](N)
    ctx.enqueue_memset(signal, 1)
    ctx.enqueue_memset(taps, 1)
    comptime compute_tile = conv1d_gpu[DType.float32, TAPS]
    var start = perf_counter_ns()
    for repeat in range(2 * REPEATS):
        if repeat == REPEATS:  # the first half warms up
            ctx.synchronize()
            start = perf_counter_ns()
        ctx.enqueue_function[compute_tile](
            result.unsafe_ptr(),
            signal.unsafe_ptr(),
            taps.unsafe_ptr(),
            Int32(N),
            grid_dim=ceildiv(N, TILE),
            block_dim=TILE,
        )
    ctx.synchronize()
    print("kernel:", Float64(perf_counter_ns() - start) / REPEATS / 1e3, "us")
    start = perf_counter_ns()
    for _ in range(REPEATS):
        ctx.enqueue_copy(result, signal)
    ctx.synchronize()
    print("copy:  ", Float64(perf_counter_ns() - start) / REPEATS / 1e3, "us")


# --8<-- [end:launch]
