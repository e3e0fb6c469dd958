"""Weight gradient of a convolutional layer on GPU: every weight is a dot product of an output and an input channel.

Computes:   w[o, c, j] = sum_{n, i} y[n, o, i] * x[n, c, i*stride + j*dilation - pad_left] for the channels c of o's
            group; terms outside x are left out. With y the gradient of the outputs it is the weight gradient of
            conv1d; with x the gradient of the outputs and y the inputs, that of conv_transpose1d.
Algorithm:  a block computes SIDE by SIDE weights, output channels by columns (c, j): DEPTH outputs at a time, both
            operands in shared memory, a square of sums per thread.
Cost:       2*N*O*L_out*C/G*K flop; a shared read for each multiply-add: a quarter of the adders' rate at most.
Layout:     x (N, C, L), w (O, C/G, K), y (N, O, L_out), contiguous, aligned to their own element only.
Accuracy:   sums in accumulate.accum_dtype, each over signals and outputs in ascending order. A weight that comes out
            as NaN is summed again without the zeros that stand outside x.
Gate:       none: any sizes >= 1, batch and outputs may be 0.
Tuning:     SIDE and DEPTH below: right first, not yet measured.
Source:     the shared-memory tile of a matrix product, CUDA C++ Programming Guide, section on shared memory.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.numerics import isnan
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.layer_geometry import LayerGeometry

comptime SIDE = 32
"""Output channels, and columns, of a block."""

comptime DEPTH = 32
"""Outputs staged at a time: a warp reads neighbours."""

comptime THREADS = 256
"""Threads of a block: a square of 16 by 16."""

comptime THREAD_SIDE = 16
"""Threads along either side of a block's tile."""

comptime PITCH = DEPTH + 1
"""From one staged channel to the next: an odd number spreads what a warp reads over the banks."""


def conv_weight_gradient_gpu[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all weights; returns before they are there.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        w: Weights on the device, shape (O, C/G, K); every one is written.
        x: Signals on the device, shape (N, C, L).
        y: Outputs on the device, shape (N, O, L_out).
        geometry: Sizes and shifts.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    comptime kernel = compute_weights[dtype]
    var columns = geometry.group_in() * geometry.taps
    ctx.enqueue_function[kernel](
        w,
        x,
        y,
        geometry,
        grid_dim=geometry.groups * ceildiv(geometry.group_out(), SIDE) * ceildiv(columns, SIDE),
        block_dim=THREADS,
    )


def compute_weights[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
):
    """Kernel: one block computes one tile of the weights of a group.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        w: As for `conv_weight_gradient_gpu`.
        x: As for `conv_weight_gradient_gpu`.
        y: As for `conv_weight_gradient_gpu`.
        geometry: As for `conv_weight_gradient_gpu`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime PER_SIDE = SIDE // THREAD_SIDE
    comptime WARPS = THREADS // DEPTH
    comptime LOADED = SIDE // WARPS
    var outputs = unsafe_stack_allocation[SIDE * PITCH, Scalar[ACC], address_space=AddressSpace.SHARED]()
    var samples = unsafe_stack_allocation[SIDE * PITCH, Scalar[ACC], address_space=AddressSpace.SHARED]()
    var columns = geometry.group_in() * geometry.taps
    var column_tiles = ceildiv(columns, SIDE)
    var row_tiles = ceildiv(geometry.group_out(), SIDE)
    var block = Int(block_idx.x)
    var group = block // column_tiles // row_tiles
    var first_row = block // column_tiles % row_tiles * SIDE
    var first_column = block % column_tiles * SIDE
    var thread = Int32(thread_idx.x)
    var lane = thread % Int32(DEPTH)
    var warp = thread // Int32(DEPTH)
    var row_place = thread // Int32(THREAD_SIDE)
    var column_place = thread % Int32(THREAD_SIDE)
    var sums = Array[Scalar[ACC], PER_SIDE * PER_SIDE](fill=0)

    for n in range(geometry.batch):
        for first in range(0, geometry.outputs, DEPTH):
            var i = first + Int(lane)
            comptime for each in range(LOADED):
                var place = warp + Int32(each * WARPS)
                var row = first_row + Int(place)
                var output = Scalar[dtype](0)
                if i < geometry.outputs and row < geometry.group_out():
                    var o = group * geometry.group_out() + row
                    output = y[unsafe_offset=geometry.output_offset(n, o, i)]
                outputs[unsafe_offset=place * Int32(PITCH) + lane] = output.cast[ACC]()
                var column = first_column + Int(place)
                var sample = Scalar[dtype](0)
                var at = geometry.position(i, column % geometry.taps)
                if i < geometry.outputs and column < columns and 0 <= at and at < geometry.length:
                    var c = group * geometry.group_in() + column // geometry.taps
                    sample = x[unsafe_offset=geometry.input_offset(n, c, at)]
                samples[unsafe_offset=place * Int32(PITCH) + lane] = sample.cast[ACC]()
            barrier()
            comptime for term in range(DEPTH):
                comptime for u in range(PER_SIDE):
                    var output = outputs[
                        unsafe_offset=(row_place + Int32(u * THREAD_SIDE)) * Int32(PITCH) + Int32(term)
                    ]
                    comptime for v in range(PER_SIDE):
                        var sample = samples[
                            unsafe_offset=(column_place + Int32(v * THREAD_SIDE)) * Int32(PITCH) + Int32(term)
                        ]
                        sums[u * PER_SIDE + v] = multiply_add(output, sample, sums[u * PER_SIDE + v])
            barrier()  # the next outputs overwrite what slower threads still read

    comptime for u in range(PER_SIDE):
        comptime for v in range(PER_SIDE):
            var row = first_row + Int(row_place) + u * THREAD_SIDE
            var column = first_column + Int(column_place) + v * THREAD_SIDE
            if row < geometry.group_out() and column < columns:
                var o = group * geometry.group_out() + row
                var c = column // geometry.taps
                var sum = sums[u * PER_SIDE + v]
                if isnan(sum):
                    sum = sum_existing(x, y, geometry, o, group * geometry.group_in() + c, column % geometry.taps)
                w[unsafe_offset=geometry.weight_offset(o, c, column % geometry.taps)] = sum.cast[dtype]()


@no_inline
def sum_existing[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    o: Int,
    c: Int,
    j: Int,
) -> Scalar[accum_dtype[dtype]()]:
    """Does one sum term by term, without those whose sample lies outside x: it may have been zero times infinity.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        x: Signals.
        y: Outputs.
        geometry: Sizes and shifts.
        o: Output channel.
        c: Input channel.
        j: Tap.

    Returns:
        The sum.
    """
    comptime ACC = accum_dtype[dtype]()
    var sum = Scalar[ACC](0)
    for n in range(geometry.batch):
        for i in range(geometry.outputs):
            var at = geometry.position(i, j)
            if 0 <= at and at < geometry.length:
                var sample = x[unsafe_offset=geometry.input_offset(n, c, at)].cast[ACC]()
                var output = y[unsafe_offset=geometry.output_offset(n, o, i)].cast[ACC]()
                sum = multiply_add(output, sample, sum)
    return sum
