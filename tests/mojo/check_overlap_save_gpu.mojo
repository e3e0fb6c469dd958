"""Overlap-save on the GPU against the direct CPU kernel in float64, as a program of its own.

    mojo build --target-accelerator sm_90a -I src/maxconv tests/mojo/check_overlap_save_gpu.mojo -o check

Signals and taps are pseudo-random and new for every call. Outputs are poisoned beforehand and lie between guards that
must stay; what lies around a row of the signal is NaN, so that an output which depends on it shows. Prints the largest
error relative to ||x||*||k|| for every length of transform. With the argument "brief" it checks a few sizes only,
enough for compute-sanitizer.
"""

from std.math import isnan, log2, nan, sqrt
from std.sys import argv
from max.gpu.host import DeviceContext

from _ops.kernels.direct_cpu import direct_cpu
from _ops.kernels.overlap_save_gpu import (
    LARGEST_SIZE,
    SMALLEST_SIZE,
    best_nfft,
    hop_length,
    overlap_save_gpu,
    plan_length_gpu,
    prepare_plan_gpu,
)
from _ops.shared.accumulate import accum_dtype
from _ops.shared.geometry import Geometry

comptime GUARD = 5
"""Elements between rows: odd, so that rows begin at all alignments."""

comptime POISON = 77
"""What outputs and guards hold before the call."""


struct Random(Movable):
    """A stream of numbers, the same in every run."""

    var state: UInt64
    """Of a linear congruential generator (Knuth's MMIX)."""

    def __init__(out self):
        """Starts the stream."""
        self.state = 20261122

    def next[dtype: DType](mut self) -> Scalar[dtype]:
        """Draws a number.

        Parameters:
            dtype: Its type.

        Returns:
            A number in [-1, 1), rounded to the type.
        """
        self.state = self.state * 6364136223846793005 + 1442695040888963407
        return (Float64(Int(self.state >> 40)) / 8388608 - 1).cast[dtype]()


def pointer_to[dtype: DType](address: Int) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer of an address.

    Parameters:
        dtype: Element type.

    Args:
        address: The address.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=address)


def epsilon[dtype: DType]() -> Float64:
    """Gives the spacing of the numbers just above 1.

    Parameters:
        dtype: A floating-point type.

    Returns:
        2 ** -(stored bits of the mantissa).
    """
    comptime if dtype == DType.float64:
        return 1.0 / Float64(1 << 52)
    elif dtype == DType.float32:
        return 1.0 / Float64(1 << 23)
    elif dtype == DType.float16:
        return 1.0 / Float64(1 << 10)
    return 1.0 / Float64(1 << 7)


def check[
    dtype: DType
](ctx: DeviceContext, mut random: Random, geometry: Geometry, rows: Int, nfft: Int) raises -> Float64:
    """Compares one call on the GPU with direct convolution on the CPU in float64.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        random: Where the numbers come from.
        geometry: Sizes and shifts of a row.
        rows: Number of rows.
        nfft: Length of the transform.

    Returns:
        The largest error, rounding of the result to the type taken off, over ||x||*||k||.

    Raises:
        If an output is wrong, was not written, or something else was written.
    """
    comptime ACC = accum_dtype[dtype]()
    var x_stride = geometry.samples + GUARD
    var y_stride = geometry.outputs + GUARD
    var x = ctx.enqueue_create_host_buffer[dtype](rows * x_stride + GUARD)
    var k = ctx.enqueue_create_host_buffer[dtype](geometry.taps)
    var y = ctx.enqueue_create_host_buffer[dtype](rows * y_stride + GUARD)
    ctx.synchronize()
    for i in range(len(x)):
        x[i] = nan[dtype]()
    for i in range(len(y)):
        y[i] = Scalar[dtype](POISON)
    var taps = List[Float64](length=geometry.taps, fill=0)
    var taps_norm = Float64(0)
    for j in range(geometry.taps):
        k[j] = random.next[dtype]()
        taps[j] = k[j].cast[DType.float64]()
        taps_norm += taps[j] * taps[j]
    for row in range(rows):
        for i in range(geometry.samples):
            x[GUARD + row * x_stride + i] = random.next[dtype]()

    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var k_there = ctx.enqueue_create_buffer[dtype](len(k))
    var y_there = ctx.enqueue_create_buffer[dtype](len(y))
    var plan = ctx.enqueue_create_buffer[ACC](plan_length_gpu(nfft))
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(k_there, k)
    ctx.enqueue_copy(y_there, y)
    ctx.enqueue_memset(plan, nan[ACC]())
    var plan_pointer = pointer_to[ACC](Int(plan.unsafe_ptr()))
    prepare_plan_gpu[dtype](plan_pointer, pointer_to[dtype](Int(k_there.unsafe_ptr())), geometry, nfft, ctx)
    overlap_save_gpu[dtype](
        pointer_to[dtype](Int(y_there.unsafe_ptr().unsafe_offset(GUARD))),
        pointer_to[dtype](Int(x_there.unsafe_ptr().unsafe_offset(GUARD))),
        plan_pointer,
        geometry,
        nfft,
        rows,
        x_stride,
        y_stride,
        ctx,
    )
    ctx.enqueue_copy(y, y_there)
    ctx.synchronize()

    var where_ = String(
        dtype,
        ": nfft=",
        nfft,
        " rows=",
        rows,
        " N=",
        geometry.samples,
        " K=",
        geometry.taps,
        " L_out=",
        geometry.outputs,
        " pad_left=",
        geometry.pad_left,
        " flip=",
        geometry.flip,
    )
    var worst = Float64(0)
    var bound = 10 * epsilon[ACC]() * log2(Float64(nfft))
    comptime rounding = epsilon[dtype]() if dtype != ACC else 0.0
    for row in range(rows):
        var signal = List[Float64](length=geometry.samples, fill=0)
        var signal_norm = Float64(0)
        for i in range(geometry.samples):
            signal[i] = x[GUARD + row * x_stride + i].cast[DType.float64]()
            signal_norm += signal[i] * signal[i]
        var expected = List[Float64](length=geometry.outputs, fill=0)
        direct_cpu(
            pointer_to[DType.float64](Int(expected.unsafe_ptr())),
            pointer_to[DType.float64](Int(signal.unsafe_ptr())),
            pointer_to[DType.float64](Int(taps.unsafe_ptr())),
            geometry,
            0,
        )
        var norm = sqrt(signal_norm * taps_norm)
        for i in range(geometry.outputs):
            var found = y[GUARD + row * y_stride + i].cast[DType.float64]()
            var error = (abs(found - expected[i]) - rounding * abs(expected[i])) / norm
            if isnan(found) or not (error <= bound):
                raise Error(where_, ": row ", row, " output ", i, ": ", found, " != ", expected[i], ", error ", error)
            worst = max(worst, error)
        _ = signal^
    for row in range(-1, rows):  # the guards behind each row and before the first
        for i in range(GUARD):
            if y[GUARD + (row + 1) * y_stride - GUARD + i] != Scalar[dtype](POISON):
                raise Error(where_, ": wrote ", GUARD - i, " elements before row ", row + 1)
    _ = taps^
    _ = x_there^
    _ = k_there^
    _ = y_there^
    _ = plan^
    return worst


def check_refusals(ctx: DeviceContext) raises:
    """Checks that what cannot be done is refused before anything is launched.

    Args:
        ctx: The device.

    Raises:
        If it is not.
    """
    var nowhere = pointer_to[DType.float32](256)
    var no_plan = pointer_to[accum_dtype[DType.float32]()](256)
    for wrong in [[500, 3], [512, 513], [512, 0]]:
        var geometry = Geometry(samples=1000, taps=wrong[1], outputs=1000, pad_left=0, flip=False, rows=1, tap_rows=1)
        var refused = False
        try:
            overlap_save_gpu[DType.float32](nowhere, nowhere, no_plan, geometry, wrong[0], 1, 1000, 1000, ctx)
        except:
            refused = True
        if not refused:
            raise Error("not refused: nfft=", wrong[0], " K=", wrong[1])


def check_length[dtype: DType](ctx: DeviceContext, mut random: Random, nfft: Int, is_thorough: Bool) raises -> Int:
    """Checks one length of transform at awkward sizes, and prints its largest error.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        random: Where the numbers come from.
        nfft: Length of the transform.
        is_thorough: False: a few sizes only.

    Returns:
        Number of calls.

    Raises:
        If one is wrong.
    """
    var worst = Float64(0)
    var checked = 0
    var tap_counts: List[Int] = [1, 2, 17, nfft // 4, nfft // 2 + 1, nfft - 256, nfft - 1, nfft]
    if not is_thorough:
        tap_counts = [3, nfft // 4 + 1]
    for taps in tap_counts:
        var hop = hop_length(nfft, taps)
        var lengths: List[Int] = [
            1,
            2,
            31,
            255,
            hop,
            hop + 1,
            2 * hop - 1,
            2 * hop,
            2 * hop + 1,
            nfft,
            nfft + hop,
            20000,
        ]
        if not is_thorough:
            lengths = [1, 3 * hop + 5]
        for samples in lengths:
            var seed = Geometry(samples=samples, taps=taps, outputs=samples, pad_left=0, flip=False, rows=1, tap_rows=1)
            var full = Geometry(
                samples=samples, taps=taps, outputs=samples + taps - 1, pad_left=taps - 1, flip=True, rows=1, tap_rows=1
            )
            worst = max(worst, check[dtype](ctx, random, seed, 1, nfft))
            worst = max(worst, check[dtype](ctx, random, full, 3, nfft))
            checked += 2
        # Windows that begin behind the first sample, and outputs that meet no sample at all.
        var late = Geometry(samples=3000, taps=taps, outputs=2001, pad_left=-7, flip=True, rows=1, tap_rows=1)
        var early = Geometry(
            samples=100, taps=taps, outputs=3 * nfft, pad_left=nfft + 9, flip=False, rows=1, tap_rows=1
        )
        worst = max(worst, check[dtype](ctx, random, late, 3, nfft))
        if is_thorough:
            worst = max(worst, check[dtype](ctx, random, early, 1, nfft))
            checked += 1
        checked += 1
    var unit = epsilon[accum_dtype[dtype]()]()
    print(
        dtype,
        "nfft",
        nfft,
        ": largest error",
        worst,
        "of ||x||*||k|| =",
        worst / unit,
        "eps, bound",
        10 * log2(Float64(nfft)),
        "eps;",
        checked,
        "calls",
    )
    return checked


def main() raises:
    """Checks float32 thoroughly and the other types at some sizes.

    Raises:
        If one call is wrong.
    """
    var ctx = DeviceContext()
    var random = Random()
    var is_brief = len(argv()) > 1
    var checked = 0
    check_refusals(ctx)
    var nfft = SMALLEST_SIZE
    while nfft <= LARGEST_SIZE:
        checked += check_length[DType.float32](ctx, random, nfft, not is_brief)
        checked += check_length[DType.float64](ctx, random, nfft, False)
        if not is_brief:
            checked += check_length[DType.float16](ctx, random, nfft, False)
            checked += check_length[DType.bfloat16](ctx, random, nfft, False)
        nfft *= 2
    for taps in [1, 64, 256, 1024, 4096, 8192]:
        if best_nfft(taps) < taps:
            raise Error("best_nfft(", taps, ") = ", best_nfft(taps))
    print(checked, "calls agree with direct convolution in float64 on", ctx.name())
