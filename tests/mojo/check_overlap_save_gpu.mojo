"""Overlap-save on the GPU against the direct CPU kernel in float64, as a program of its own.

    mojo build --target-accelerator sm_90a -I src/maxconv tests/mojo/check_overlap_save_gpu.mojo -o check

Signals and taps are pseudo-random and new for every call. Outputs are poisoned beforehand and lie between guards that
must stay; what lies around the signals is NaN, so that an output which depends on it shows. Prints the largest
error relative to ||x||*||k|| for every length of transform. With the argument "brief" it checks a few sizes only,
enough for compute-sanitizer; with "least" every kernel once on small arrays, and what it is to write before it reads
holds nothing: enough for initcheck, which takes long for a launch. A length behind "least" checks that one alone.
"""

from std.math import isnan, log2, nan, sqrt
from std.sys import argv
from max.gpu.host import DeviceContext

from _ops.kernels.direct_cpu import direct_cpu
from _ops.kernels.overlap_save_gpu import overlap_save_gpu, plan_length_gpu, prepare_plan_gpu
from _ops.kernels.overlap_save_long_gpu import overlap_save_long_gpu, prepare_plan_long_gpu
from _ops.kernels.overlap_save_parts_gpu import (
    overlap_save_parts_gpu,
    plan_length_parts_gpu,
    prepare_plan_parts_gpu,
)
from _ops.kernels.overlap_save_rows_gpu import overlap_save_rows_gpu, row_length, workspace_length_rows_gpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.block_pair import hop_length
from _ops.shared.border import CONSTANT, OMIT, REFLECT, WRAP, Border
from _ops.shared.epilogue import NONE, Epilogue
from _ops.shared.fft_columns import LONGEST, SHORTEST, plan_length_long_gpu
from _ops.shared.fft_parts import PARTS_BLOCK
from _ops.shared.fft_points import LARGEST_SIZE, SMALLEST_SIZE
from _ops.shared.geometry import Geometry
from _ops.shared.tuning_gpu import BLOCK_PAIR_LONGEST_BLOCK as LONGEST_BLOCK

comptime GUARD = 5
"""Elements before and behind signals and outputs: odd, so that they begin at an odd address."""

comptime ALIGNED_GUARD = 8
"""So many let rows begin where vectors may."""

comptime STRETCH = 1500
"""Outputs that are compared at once; of long outputs a few stretches are."""

comptime THOROUGH = 16384
"""The longest block that is checked at all sizes: longer ones take the reference minutes."""

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
](
    ctx: DeviceContext,
    mut random: Random,
    geometry: Geometry,
    nfft: Int,
    border_mode: Int = OMIT,
    by_rows: Bool = False,
    has_bias: Bool = False,
    is_poisoned: Bool = True,
    is_fast: Bool = False,
    guard: Int = GUARD,
) raises -> Float64:
    """Compares one call on the GPU with direct convolution on the CPU in float64.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        random: Where the numbers come from.
        geometry: Sizes and shifts.
        nfft: Length of the transform.
        border_mode: What lies beyond the ends, as in `Border`.
        by_rows: True: overlap_save_rows_gpu.mojo, with blocks of `nfft`.
        has_bias: True: each filter has a bias.
        is_poisoned: Whether the plan and the workspace hold NaN before; else initcheck sees what nothing wrote.
        is_fast: True: as exact as overlap_save_mma_gpu.mojo: the bound is for noise, of which a quarter comes out.
        guard: Elements before and behind signals and outputs.

    Returns:
        The largest error, rounding of the result to the type taken off, over ||x||*||k||.

    Raises:
        If an output is wrong, was not written, or something else was written.
    """
    comptime ACC = accum_dtype[dtype]()
    var border = Border[dtype](border_mode, Scalar[dtype](0.5 if border_mode == CONSTANT else 0.0))
    var is_long = nfft >= SHORTEST
    var matrices = 3
    var x = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.samples + 2 * guard)
    var k = ctx.enqueue_create_host_buffer[dtype](geometry.tap_rows * geometry.taps)
    var bias = ctx.enqueue_create_host_buffer[dtype](geometry.tap_rows)
    var y = ctx.enqueue_create_host_buffer[dtype](geometry.rows * geometry.outputs + 2 * guard)
    ctx.synchronize()
    for i in range(len(x)):
        x[i] = random.next[dtype]() if guard <= i and i < len(x) - guard else nan[dtype]()
    for i in range(len(y)):
        y[i] = Scalar[dtype](POISON)
    for j in range(len(k)):
        k[j] = random.next[dtype]()
    for filter in range(len(bias)):
        bias[filter] = random.next[dtype]() if has_bias else Scalar[dtype](0)

    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var k_there = ctx.enqueue_create_buffer[dtype](len(k))
    var bias_there = ctx.enqueue_create_buffer[dtype](len(bias))
    var y_there = ctx.enqueue_create_buffer[dtype](len(y))
    var length = plan_length_gpu(nfft, geometry.tap_rows)
    if by_rows:
        length = workspace_length_rows_gpu[dtype](geometry)
    elif is_long:
        length = plan_length_long_gpu(nfft, geometry.tap_rows)
    elif nfft == PARTS_BLOCK:
        length = plan_length_parts_gpu(geometry.tap_rows)
    var plan = ctx.enqueue_create_buffer[ACC](length)
    var workspace = ctx.enqueue_create_buffer[ACC](matrices * 2 * nfft if is_long else 1)
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(k_there, k)
    ctx.enqueue_copy(bias_there, bias)
    ctx.enqueue_copy(y_there, y)
    if is_poisoned:
        ctx.enqueue_memset(plan, nan[ACC]())
        ctx.enqueue_memset(workspace, nan[ACC]())
    var plan_at = pointer_to[ACC](Int(plan.unsafe_ptr()))
    var workspace_at = pointer_to[ACC](Int(workspace.unsafe_ptr()))
    var k_at = pointer_to[dtype](Int(k_there.unsafe_ptr()))
    var y_at = pointer_to[dtype](Int(y_there.unsafe_ptr().unsafe_offset(guard)))
    var x_at = pointer_to[dtype](Int(x_there.unsafe_ptr().unsafe_offset(guard)))
    if by_rows:
        var bias_at = Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(bias_there.unsafe_ptr()))
        var epilogue = Epilogue[dtype](bias_at, has_bias, NONE)
        overlap_save_rows_gpu[dtype](y_at, x_at, k_at, epilogue, plan_at, geometry, ctx, is_fast)
    elif is_long:
        prepare_plan_long_gpu[dtype](plan_at, workspace_at, k_at, geometry, nfft, ctx)
        overlap_save_long_gpu[dtype](y_at, x_at, plan_at, workspace_at, matrices, geometry, border, nfft, ctx)
    elif nfft == PARTS_BLOCK:
        comptime if ACC == DType.float32:
            prepare_plan_parts_gpu[dtype](plan_at, k_at, geometry, ctx)
            overlap_save_parts_gpu[dtype](y_at, x_at, plan_at, geometry, border, ctx)
    else:
        prepare_plan_gpu[dtype](plan_at, k_at, geometry, nfft, ctx)
        overlap_save_gpu[dtype](y_at, x_at, plan_at, geometry, border, nfft, ctx)
    ctx.enqueue_copy(y, y_there)
    ctx.synchronize()

    var call = String(dtype, ": nfft=", nfft, " rows=", geometry.rows, " N=", geometry.samples, " K=", geometry.taps)
    call += String(" L_out=", geometry.outputs, " pad_left=", geometry.pad_left, " flip=", geometry.flip)
    call += String(" tap_rows=", geometry.tap_rows, " border=", border_mode, " by rows=", by_rows, " fast=", is_fast)
    var worst = Float64(0)
    var bound = epsilon[DType.float16]() / 8 if is_fast else 10 * epsilon[ACC]() * log2(Float64(nfft))
    comptime rounding = epsilon[dtype]() if dtype != ACC else 0.0
    for row in range(geometry.rows):
        var x_row = pointer_to[dtype](Int(x.unsafe_ptr().unsafe_offset(guard + row * geometry.samples)))
        var taps = List[Float64](length=geometry.taps, fill=0)
        var taps_norm = Float64(0)
        for j in range(geometry.taps):
            taps[j] = k[geometry.taps_offset(row % geometry.tap_rows) + j].cast[DType.float64]()
            taps_norm += taps[j] * taps[j]
        var begins: List[Int] = [0]
        if geometry.outputs > STRETCH:
            var hop = hop_length(nfft, geometry.taps)
            var last = geometry.outputs - STRETCH
            begins = [0, last]
            for blocks in [1, 2, 6]:
                begins.append(max(0, min(last, blocks * hop - STRETCH // 2)))
        for begin in begins:
            # The samples that the stretch needs, beyond the ends too, as a signal of its own.
            var outputs = min(STRETCH, geometry.outputs)
            var samples = outputs + geometry.taps - 1
            var signal = List[Float64](length=samples, fill=0)
            var signal_norm = Float64(0)
            for i in range(samples):
                var position = geometry.input_index(begin, i)
                signal[i] = border.sample(x_row, position, geometry.samples).cast[DType.float64]()
                signal_norm += signal[i] * signal[i]
            var expected = List[Float64](length=outputs, fill=0)
            direct_cpu(
                pointer_to[DType.float64](Int(expected.unsafe_ptr())),
                pointer_to[DType.float64](Int(signal.unsafe_ptr())),
                pointer_to[DType.float64](Int(taps.unsafe_ptr())),
                Geometry(
                    samples=samples,
                    taps=geometry.taps,
                    outputs=outputs,
                    pad_left=0,
                    flip=geometry.flip,
                    rows=1,
                    tap_rows=1,
                ),
                0,
            )
            # ||x|| of two whole blocks is what the bound speaks of; this stretch is a part of them.
            var norm = sqrt(max(signal_norm, Float64(min(samples, nfft)) / 3) * taps_norm)
            for i in range(outputs):
                expected[i] += bias[row % geometry.tap_rows].cast[DType.float64]()
                var found = y[guard + row * geometry.outputs + begin + i].cast[DType.float64]()
                var error = (abs(found - expected[i]) - rounding * abs(expected[i])) / norm
                if isnan(found) or not (error <= bound):
                    raise Error(
                        call, ": row ", row, " output ", begin + i, ": ", found, " != ", expected[i], ", error ", error
                    )
                worst = max(worst, error)
            _ = signal^
            _ = expected^
        _ = taps^
    for i in range(guard):
        if y[i] != Scalar[dtype](POISON) or y[len(y) - 1 - i] != Scalar[dtype](POISON):
            raise Error(call, ": wrote outside y")
    _ = x_there^
    _ = k_there^
    _ = bias_there^
    _ = y_there^
    _ = plan^
    _ = workspace^
    _ = x^
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
    var border = Border[DType.float32](OMIT, 0)
    for wrong in [[500, 3], [512, 513], [512, 0]]:
        var geometry = Geometry(samples=1000, taps=wrong[1], outputs=1000, pad_left=0, flip=False, rows=1, tap_rows=1)
        var refused = 0
        try:
            overlap_save_gpu[DType.float32](nowhere, nowhere, no_plan, geometry, border, wrong[0], ctx)
        except:
            refused += 1
        try:
            overlap_save_long_gpu[DType.float32](nowhere, nowhere, no_plan, no_plan, 1, geometry, border, wrong[0], ctx)
        except:
            refused += 1
        if refused != 2:
            raise Error("not refused: nfft=", wrong[0], " K=", wrong[1])
    for wrong in [[8193, 10], [10, 8193]]:
        var geometry = Geometry(samples=wrong[0], taps=3, outputs=wrong[1], pad_left=0, flip=False, rows=1, tap_rows=1)
        var epilogue = Epilogue[DType.float32](
            Pointer[Float32, MutUntrackedOrigin](unsafe_from_address=256), False, NONE
        )
        var is_refused = False
        try:
            overlap_save_rows_gpu[DType.float32](nowhere, nowhere, nowhere, epilogue, no_plan, geometry, ctx)
        except:
            is_refused = True
        if not is_refused:
            raise Error("not refused: N=", wrong[0], " L_out=", wrong[1])


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
    var is_long = nfft >= SHORTEST
    var tap_counts: List[Int] = [1, 2, 17, nfft // 4, nfft // 2 + 1, nfft - 256, nfft - 1, nfft]
    if is_long:
        tap_counts = [1, 8193, 30011, nfft - 250000]
    if not is_thorough:
        tap_counts = [3, 20001 if is_long else nfft // 4 + 1]
    if nfft == PARTS_BLOCK:
        tap_counts = [1, 16384, nfft - 1, nfft]
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
        if is_long:
            lengths = [1000, 2 * hop + 77, 7 * hop + 1]
        if not is_thorough:
            lengths = [1, 3 * hop + 5]
        for samples in lengths:
            var seed = Geometry(samples=samples, taps=taps, outputs=samples, pad_left=0, flip=False, rows=1, tap_rows=1)
            var full = Geometry(
                samples=samples, taps=taps, outputs=samples + taps - 1, pad_left=taps - 1, flip=True, rows=3, tap_rows=1
            )
            worst = max(worst, check[dtype](ctx, random, seed, nfft))
            worst = max(worst, check[dtype](ctx, random, full, nfft))
            checked += 2
        # A filter for each row, and windows that reach far beyond both ends.
        var samples = 3 * hop // 2 + 3
        var same = Geometry(
            samples=samples, taps=taps, outputs=samples, pad_left=taps // 2, flip=True, rows=2, tap_rows=2
        )
        for mode in [OMIT, CONSTANT, REFLECT, WRAP]:
            worst = max(worst, check[dtype](ctx, random, same, nfft, mode))
            checked += 1
        # Filters that rows take in turn.
        if not is_long:
            same.rows = 6
            worst = max(worst, check[dtype](ctx, random, same, nfft))
            checked += 1
        # Windows that begin behind the first sample, and outputs that meet no sample at all.
        var late = Geometry(samples=3000, taps=taps, outputs=2001, pad_left=-7, flip=True, rows=3, tap_rows=1)
        var early = Geometry(
            samples=100, taps=taps, outputs=3 * nfft, pad_left=nfft + 9, flip=False, rows=1, tap_rows=1
        )
        worst = max(worst, check[dtype](ctx, random, late, nfft))
        if is_thorough and not is_long:
            worst = max(worst, check[dtype](ctx, random, early, nfft))
            checked += 1
        checked += 1
    var unit = epsilon[accum_dtype[dtype]()]()
    var limit = 10 * log2(Float64(nfft))
    print(
        dtype, "nfft", nfft, ": largest error", worst / unit, "eps of ||x||*||k||, bound", limit, ";", checked, "calls"
    )
    return checked


def check_rows[dtype: DType](ctx: DeviceContext, mut random: Random, is_thorough: Bool) raises -> Int:
    """Checks rows that one transform serves, of every length, and prints the largest error.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        random: Where the numbers come from.
        is_thorough: False: a few sizes only.

    Returns:
        Number of calls.

    Raises:
        If one is wrong.
    """
    var worst = Float64(0)
    var checked = 0
    var length = SMALLEST_SIZE
    while length <= LARGEST_SIZE:
        # N, K, L_out, pad_left: causal, whole and cut; windows that reach beyond both ends, begin late or meet nothing.
        var sizes: List[List[Int]] = [
            [length, length, length, length - 1],
            [length - 7, 33, length - 9, 20],
            [length // 2 + 1, 3 * length, length, length + 5],
            [length, 2 * length + 1, length - 1, length],
            [length - 1, length // 2, length // 2 + 1, -9],
            [1, 5, length, 2 * length],
            [length, 1, 1, 0],
        ]
        for each in range(len(sizes) if is_thorough else 2):
            for batch in [1, 3]:
                var geometry = Geometry(
                    samples=sizes[each][0],
                    taps=sizes[each][1],
                    outputs=sizes[each][2],
                    pad_left=sizes[each][3],
                    flip=batch == 1,
                    rows=2 * batch,
                    tap_rows=2,
                )
                if row_length(geometry.samples, geometry.outputs) != length:
                    raise Error("rows of ", geometry.samples, " samples are to take ", length)
                var error = check[dtype](ctx, random, geometry, 2 * length, by_rows=True, has_bias=batch == 3)
                worst = max(worst, error)
                checked += 1
        length *= 2
    if is_thorough:
        # More filters than blocks, and more rows of one than a block takes.
        for batch, filters in [(2, 300), (1000, 1)]:
            var geometry = Geometry(
                samples=LARGEST_SIZE // 2 + 1,
                taps=9,
                outputs=LARGEST_SIZE,
                pad_left=4,
                flip=False,
                rows=batch * filters,
                tap_rows=filters,
            )
            worst = max(worst, check[dtype](ctx, random, geometry, 2 * LARGEST_SIZE, by_rows=True))
            checked += 1
    print(
        dtype, "rows: largest error", worst / epsilon[accum_dtype[dtype]()](), "eps of ||x||*||k||;", checked, "calls"
    )
    return checked


def check_fast_rows[dtype: DType](ctx: DeviceContext, mut random: Random, is_thorough: Bool) raises -> Int:
    """Checks rows that need not be as exact as float32, and prints the largest error.

    Parameters:
        dtype: Element type, of half precision.

    Args:
        ctx: The device.
        random: Where the numbers come from.
        is_thorough: False: a few sizes only.

    Returns:
        Number of calls.

    Raises:
        If one is wrong.
    """
    var worst = Float64(0)
    var checked = 0
    # N, K, L_out, pad_left: causal, whole and cut, in vectors and not; windows beyond both ends, late or on nothing.
    var sizes: List[List[Int]] = [
        [8192, 8192, 8192, 8191],
        [4095, 1777, 4089, 900],
        [4096, 4096, 4096, 4095],
        [5001, 3 * 4096, 7777, 6001],
        [8000, 804, 8000, 803],
        [2049, 16385, 2052, 8192],
        [8191, 4096, 4099, -9],
        [1, 5, 8192, 9000],
        [8192, 1, 1, 0],
        [2600, 2600, 2600, 0],
    ]
    for each in range(len(sizes) if is_thorough else 2):
        for batch in [1, 3]:
            var geometry = Geometry(
                samples=sizes[each][0],
                taps=sizes[each][1],
                outputs=sizes[each][2],
                pad_left=sizes[each][3],
                flip=batch == 1,
                rows=2 * batch,
                tap_rows=2,
            )
            for guard in [GUARD, ALIGNED_GUARD]:
                var error = check[dtype](
                    ctx, random, geometry, 16384, by_rows=True, has_bias=batch == 3, is_fast=True, guard=guard
                )
                worst = max(worst, error)
                checked += 1
    if is_thorough:
        # More filters than blocks, and more rows of one than a block takes.
        for batch, filters in [(2, 300), (600, 1)]:
            var geometry = Geometry(
                samples=2050, taps=9, outputs=2060, pad_left=4, flip=False, rows=batch * filters, tap_rows=filters
            )
            worst = max(worst, check[dtype](ctx, random, geometry, 16384, by_rows=True, is_fast=True))
            checked += 1
    print(dtype, "fast rows: largest error", worst / epsilon[DType.float16](), "eps of ||x||*||k||;", checked, "calls")
    return checked


def check_least[dtype: DType](ctx: DeviceContext, mut random: Random, nfft: Int) raises -> Int:
    """Checks one length of transform once: two filters, and blocks that both ends cut; rows of the same length, too.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        random: Where the numbers come from.
        nfft: Length of the transform.

    Returns:
        Number of calls.

    Raises:
        If it is wrong.
    """
    var taps = nfft // 4 + 1
    var samples = 1001 if nfft >= SHORTEST else 3 * hop_length(nfft, taps) // 2 + 3
    var geometry = Geometry(
        samples=samples, taps=taps, outputs=samples, pad_left=taps // 2, flip=True, rows=2, tap_rows=2
    )
    _ = check[dtype](ctx, random, geometry, nfft, is_poisoned=False)
    if nfft > LARGEST_SIZE:
        return 1
    geometry = Geometry(
        samples=nfft - 3, taps=nfft - 5, outputs=nfft - 1, pad_left=nfft // 2, flip=True, rows=4, tap_rows=2
    )
    _ = check[dtype](ctx, random, geometry, 2 * nfft, by_rows=True, has_bias=True, is_poisoned=False)
    return 2


def next_length(nfft: Int) -> Int:
    """Goes on to the next length of transform that kernels have.

    Args:
        nfft: A length.

    Returns:
        The next one.
    """
    if nfft == LONGEST_BLOCK:
        return PARTS_BLOCK
    return SHORTEST if nfft == PARTS_BLOCK else 2 * nfft


def main() raises:
    """Checks float32 thoroughly and the other types at some sizes.

    Raises:
        If one call is wrong.
    """
    var ctx = DeviceContext()
    var random = Random()
    var is_brief = len(argv()) > 1
    var is_least = is_brief and argv()[1] == "least"
    var only = Int(argv()[2]) if len(argv()) > 2 else 0
    var checked = 0
    check_refusals(ctx)
    if not is_least:
        checked += check_rows[DType.float32](ctx, random, not is_brief)
        checked += check_rows[DType.float64](ctx, random, False)
        checked += check_rows[DType.float16](ctx, random, False)
        checked += check_rows[DType.bfloat16](ctx, random, False)
    if only == 0:
        checked += check_fast_rows[DType.float16](ctx, random, not is_brief)
        checked += check_fast_rows[DType.bfloat16](ctx, random, not is_brief)
    var nfft = SMALLEST_SIZE
    while nfft <= (SHORTEST if is_brief else LONGEST):
        var has_doubles = nfft != PARTS_BLOCK and (nfft <= SHORTEST or not is_brief)
        if is_least:
            if only == 0 or only == nfft:
                checked += check_least[DType.float32](ctx, random, nfft)
                if has_doubles:
                    checked += check_least[DType.float64](ctx, random, nfft)
        else:
            checked += check_length[DType.float32](ctx, random, nfft, not is_brief and nfft <= THOROUGH)
            if has_doubles:
                checked += check_length[DType.float64](ctx, random, nfft, False)
            if not is_brief and nfft <= SHORTEST:
                checked += check_length[DType.float16](ctx, random, nfft, False)
                checked += check_length[DType.bfloat16](ctx, random, nfft, False)
        nfft = next_length(nfft)
    print(checked, "calls agree with direct convolution in float64 on", ctx.name())
