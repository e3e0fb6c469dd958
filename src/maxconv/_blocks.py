"""Signals in blocks: graphs of Dask whose every block reads its own samples and the halo that its outputs need.

    cut         outputs begin..end need the samples begin - pad_left .. end - pad_left + K - 1, wherever chunks end
    ends        what stands beyond the signal is the engine's business, asked of the first and the last block alone
    short       chunks of fewer than K - 1 samples are joined with their neighbours, or a sample would be read K times

Nothing is padded, nothing scheduled. Only halos and taps travel between workers: long taps are one task of the graph
and go to each worker once, those that are nothing beside a chunk go with each block's task. A direct sum has the same
bits wherever a signal is cut (CONTRIBUTING, "One order of addition").
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from functools import partial
from itertools import accumulate, chain, product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from . import _composed, _methods, _problem
from ._engine import devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ._layer import LayerProblem

    Compute = Callable[..., np.ndarray]


_LIGHT = 256
"""Taps are part of each block's task where a chunk is so many times as large. As a task of their own they lie on one
worker, which Dask then takes for as good a place for a block as the one that holds its chunk: whole chunks travelled,
and two workers with an H200 each were half as fast as one (chunks of 256 MB, 16 kB of taps; 2026-11-23)."""

_FEWEST_OWN = 8
"""A block is computed in pieces if the longest has so many times the samples of the others."""


class Block(NamedTuple):
    """Some outputs, one behind another, and what they are made of."""

    outputs: int
    """How many."""
    spans: tuple[tuple[int, int], ...]
    """The samples to read, begin and end of each stretch."""
    task: Any
    """What to compute of them: a `Problem`, or the part (start, outputs) of a resampled signal."""


# ---- what a block reads


def cut(problem: _problem.Problem, chunks: tuple[int, ...]) -> Iterator[Block]:
    """Cut a problem at the chunks of its signal."""
    begin = 0
    for end in (*(end for end in _cuts(chunks, problem.taps - 1) if end < problem.outputs), problem.outputs):
        yield _block(problem, begin, end)
        begin = end


def _block(problem: _problem.Problem, begin: int, end: int) -> Block:
    samples = problem.samples
    first, last = begin - problem.pad_left, end - problem.pad_left + problem.taps - 1
    part = problem._replace(outputs=end - begin, pad_left=-first)
    reaches_out = first < 0 or last > samples
    if problem.border == "wrap" and reaches_out:
        if last - first > samples:
            return Block(end - begin, ((0, samples),), part)
        return Block(
            end - begin, _wrapped(first, last, samples), part._replace(samples=last - first, pad_left=0, border="omit")
        )
    low, high = max(0, first), min(samples, last)
    if problem.border in {"reflect", "mirror"}:
        low, high = _with_reflected(low, high, first, last, samples, 1)
    border = problem.border if reaches_out else "omit"
    return Block(end - begin, ((low, high),), part._replace(samples=high - low, pad_left=low - first, border=border))


def cut_resampled(
    samples: int, taps: int, rates: tuple[int, int], outputs: int, chunks: tuple[int, ...], mode: str
) -> Iterator[Block]:
    """Cut a resampling at the chunks of its signal; `mode` is one of `multirate.EXTENSIONS`."""
    up, down = rates
    step = down // math.gcd(up, down)  # a block must begin where the grids of samples and of outputs meet
    ends = (-(-end * up // down) for end in _cuts(chunks, -(-(taps - 1) // up)))
    begin = 0
    for end in (*sorted({end for end in ends if 0 < end < outputs}), outputs):
        first, last = (begin * down - taps + 1) // up, (end - 1) * down // up + 1
        first -= first % step
        low, high = max(0, first), min(samples, last)
        reaches_out = first < 0 or last > samples
        if reaches_out and mode == "wrap" and last - first <= samples:
            yield Block(end - begin, _wrapped(first, last, samples), (begin - first * up // down, end - begin))
            begin = end
            continue
        if reaches_out and mode in {"wrap", "line"}:  # a line leads from the first sample to the last
            low, high = 0, samples
        elif reaches_out:  # two, for a slope
            low, high = _with_reflected(low, high, first, last, samples, 2)
            low -= low % step
        yield Block(end - begin, ((low, high),), (begin - low * up // down, end - begin))
        begin = end


def _wrapped(first: int, last: int, samples: int) -> tuple[tuple[int, int], ...]:
    """Return the two stretches that a window over one end of a circle meets."""
    return ((first + samples, samples), (0, last)) if first < 0 else ((first, samples), (0, last - samples))


def _with_reflected(low: int, high: int, first: int, last: int, samples: int, turn: int) -> tuple[int, int]:
    """Widen low..high by what the window first..last meets beyond an end: as many samples, and those it turns about."""
    return min(low, max(0, 2 * samples - last - turn)), max(high, min(samples, turn - first))


def _cuts(chunks: tuple[int, ...], least: int) -> list[int]:
    """Return where chunks meet, after joining those of fewer than `least` samples with their neighbours."""
    ends, total = [0], sum(chunks)
    for end in accumulate(chunks):
        if min(end - ends[-1], total - end) >= max(1, least):
            ends.append(end)
    return ends[1:]


# ---- graphs


def map_blocks(
    function: str,
    x: Any,
    k: Any,
    axis: int,
    blocks: Iterable[Block],
    compute: Compute,
    dtype: np.dtype,
    device: str,
    *beside: da.Array,
) -> da.Array:
    """Compute every block of an array of Dask.

    Parameters
    ----------
    function
        For the name of the tasks.
    x, k
        Signal and taps, arrays of NumPy or Dask; where `k` has the rank of `x`, each row of `x` meets its own.
    axis
        Of `x`, counted from the front.
    blocks
        Along that axis.
    compute
        Called with the task of a block, its samples, the taps, what lies beside, and the keyword `device`. It must
        pickle.
    dtype
        Of the result.
    device
        "cpu", "gpu:<id>", or "gpu": that of the process which computes a block.
    beside
        Arrays that a block reads the same stretches of as of `x`, and of the same shape, or 1 along other axes.
    """
    x = x if isinstance(x, da.Array) else da.from_array(x, chunks=-1)
    whole_chunk = x.dtype.itemsize * math.prod(map(max, x.chunks))
    is_light = isinstance(k, np.ndarray) and k.nbytes * _LIGHT <= whole_chunk
    if not is_light:
        k = k.rechunk(-1) if isinstance(k, da.Array) else da.from_array(k, chunks=-1)
    taps: Any = k if is_light else (k.name, *(0 for _ in range(k.ndim)))
    read = [x, *(each.rechunk(tuple(map(_like, each.shape, x.shape, x.chunks))) for each in beside)]
    blocks = list(blocks)
    token = tokenize(function, [each.name for each in read], taps, axis, blocks, compute, dtype, device)
    name = f"{function}-{token}"
    begins = [0, *accumulate(x.chunks[axis])]
    pieces = [[piece for span in block.spans for piece in _pieces(begins, *span)] for block in blocks]
    halos: dict[int, list[tuple[int, int]]] = {}
    for chunk, low, high in dict.fromkeys(chain.from_iterable(pieces)):
        if (high - low) * _FEWEST_OWN <= x.chunks[axis][chunk]:
            halos.setdefault(chunk, []).append((low, high))
    tasks: dict[Any, Any] = {}

    def read_pieces(order: int, other: tuple[int, ...], number: int) -> list[Any]:
        """Name the tasks that give a block its samples, and add those that cut them out of chunks."""
        array, keys = read[order], []
        before, after = other[:axis], other[axis:]
        for chunk, low, high in pieces[number]:
            place = (*before, chunk, *after)
            key: tuple[Any, ...] = (array.name, *place)
            if (low, high) in halos.get(chunk, ()):
                whole, halo = key, (f"halo-{order}-{token}", *place)
                tasks[halo] = (_copies, whole, [_along(axis, *stretch) for stretch in halos[chunk]])
                key = (operator.getitem, halo, halos[chunk].index((low, high)))
            elif high - low < x.chunks[axis][chunk]:
                whole, key = key, (f"part-{order}-{token}", *place, low, high)
                tasks[key] = (operator.getitem, whole, _along(axis, low, high))
            keys.append(key)
        return keys

    for other in product(*(range(len(sizes)) for sizes in _without(x.chunks, axis))):
        places = [tuple(map(min, other, (n - 1 for n in _without(each.numblocks, axis)))) for each in read]
        rows = _rows(x, k, axis, (*other[:axis], 0, *other[axis:])) if k.ndim == x.ndim else None
        for number, block in enumerate(blocks):
            keys = [read_pieces(order, place, number) for order, place in enumerate(places)]
            run = partial(_run, compute, block, axis, rows, dtype, device)
            target = (name, *other[:axis], number, *other[axis:])
            tasks[target] = (run, keys, taps)
    lengths = tuple(block.outputs for block in blocks)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=read if is_light else [*read, k])
    return da.Array(graph, name, chunks=(*x.chunks[:axis], lengths, *x.chunks[axis + 1 :]), dtype=dtype)


def _like(length: int, wanted: int, chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Cut an axis as another array's, or where it is broadcast not at all."""
    return chunks if length == wanted else (length,)


def _pieces(begins: list[int], low: int, high: int) -> Iterator[tuple[int, int, int]]:
    """Yield the chunks that hold some samples, each with the part of it."""
    chunk = bisect_right(begins, low) - 1
    while begins[chunk] < high:
        if begins[chunk] < begins[chunk + 1]:
            begin = begins[chunk]
            yield chunk, max(0, low - begin), min(begins[chunk + 1], high) - begin
        chunk += 1
        if chunk == len(begins) - 1:
            return


def _rows(x: da.Array, k: da.Array, axis: int, index: tuple[int, ...]) -> tuple[slice, ...]:
    """Say which rows of the taps meet a block of a signal."""
    part = []
    for position, (number, sizes) in enumerate(zip(index, x.chunks, strict=True)):
        begin = sum(sizes[:number])
        shared = position == axis or k.shape[position] == 1
        part.append(slice(None) if shared else slice(begin, begin + sizes[number]))
    return tuple(part)


def _along(axis: int, begin: int, end: int) -> tuple[slice, ...]:
    """Index a stretch along an axis."""
    return (*(slice(None) for _ in range(axis)), slice(begin, end))


def _copies(chunk: np.ndarray, stretches: list[tuple[slice, ...]]) -> list[np.ndarray]:
    """Cut the halos out of a chunk, both at once: one of them is wanted early, the other may be by another worker.

    A task each, the second came behind all blocks of this worker, and the other one waited for it to the end. Copies,
    because a view would keep the chunk in memory.
    """
    return [chunk[stretch].copy() for stretch in stretches]


def _run(
    compute: Compute,
    block: Block,
    axis: int,
    rows: tuple[slice, ...] | None,
    dtype: np.dtype,
    device: str,
    pieces: list[list[np.ndarray]],
    k: np.ndarray,
) -> np.ndarray:
    signal, *others = pieces
    if not signal[0].size:
        return np.empty((*signal[0].shape[:axis], block.outputs, *signal[0].shape[axis + 1 :]), dtype)
    k = k if rows is None else k[rows]
    compute = partial(compute, device=devices.own() if device == "gpu" else device)
    if len(signal) > 1 and not others and isinstance(block.task, _problem.Problem) and block.task.border == "omit":
        lengths = [piece.shape[axis] for piece in signal]
        if max(lengths) >= _FEWEST_OWN * (sum(lengths) - max(lengths)):
            return _run_in_pieces(compute, block.task, axis, signal, k)
    x, *beside = (each[0] if len(each) == 1 else np.concatenate(each, axis) for each in pieces)
    return compute(block.task, x, k, *beside)


def _run_in_pieces(
    compute: Compute, problem: _problem.Problem, axis: int, pieces: list[np.ndarray], k: np.ndarray
) -> np.ndarray:
    """Compute a block from its longest piece where it lies, then anew the outputs that meet others.

    To join the pieces would copy the whole block; so only the halos at its ends are read twice.
    """
    ends = list(accumulate(piece.shape[axis] for piece in pieces))
    longest = max(range(len(pieces)), key=lambda piece: pieces[piece].shape[axis])
    own, halo = pieces[longest].shape[axis], problem.taps - 1
    pad_left = problem.pad_left + ends[longest] - own
    y = compute(problem._replace(samples=own, pad_left=pad_left), pieces[longest], k)
    left = min(problem.outputs, max(0, pad_left)) if longest else 0
    right = max(left, own - halo + pad_left) if longest < len(pieces) - 1 else problem.outputs
    for begin, end in ((0, left), (right, problem.outputs)):
        if begin < end:
            first, last = begin - problem.pad_left, end - problem.pad_left + halo
            low, high = max(0, first), min(problem.samples, last)
            parts = _pieces([0, *ends], low, high)
            stretch = [pieces[number][_along(axis, at, stop)] for number, at, stop in parts]
            part = problem._replace(samples=high - low, outputs=end - begin, pad_left=low - first)
            y[_along(axis, begin, end)] = compute(part, np.concatenate(stretch, axis), k)
    return y


# ---- convolution


def settle(problem: _problem.Problem, x: Any, axis: int, dtype: np.dtype, method: str, device: str) -> tuple[str, str]:
    """Choose method and kind of device once, for a signal as a whole: its blocks would not all choose the same."""
    kind = np.dtype(np.int32) if dtype.kind == "b" else np.empty(0, dtype).real.dtype
    whole = problem._replace(batch=(*x.shape[:axis], *x.shape[axis + 1 :]))
    if device == "auto":
        device = _methods.cheapest(whole, kind, method).partition(":")[0]
    if method == "auto":
        method = "direct" if _methods.is_summed(whole, kind, method, device) else _methods.CHOSEN_FFT
    return method, device


def convolve(
    function: str, x: Any, k: Any, dtype: np.dtype, mode: str, method: str, axis: int, device: str, flip: bool
) -> da.Array:
    """Convolve or correlate arrays of which one is Dask's; types, ranks and shapes fit together.

    Parameters
    ----------
    function, mode, method, device, flip
        As `maxconv.signal` checked them.
    x, k
        Signal and taps, (K) or of the same rank.
    dtype
        Of the result.
    axis
        Counted from the front.
    """
    taps = k.shape[axis] if k.ndim == x.ndim else k.shape[0]
    problem = _problem.part_of_full(x.shape[axis], taps, mode, flip)
    if flip and taps > problem.samples:
        k = k if k.ndim == x.ndim else k.reshape([-1 if place == axis else 1 for place in range(x.ndim)])
        x, k, problem = k, x, _problem.swapped(problem)
    x, k = x.astype(dtype, copy=False), k.astype(dtype, copy=False)
    if math.prod(k.shape) == problem.taps:
        k, sums = k.reshape(-1), _sum_lines
    else:
        shape = list(np.broadcast_shapes(_without(x.shape, axis), _without(k.shape, axis)))
        x = da.broadcast_to(x, (*shape[:axis], problem.samples, *shape[axis:]))
        problem, sums = problem._replace(tap_rows=math.prod(shape)), _sum_rows
    method, device = settle(problem, x, axis, dtype, method, device)
    problem = problem._replace(tap_rows=1)
    compute = partial(sums, function, axis - x.ndim, method)
    return map_blocks(function, x, k, axis, cut(problem, _chunks(x, axis)), compute, dtype, device)


def _without(shape: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _chunks(x: Any, axis: int) -> tuple[int, ...]:
    return tuple(x.chunks[axis]) if isinstance(x, da.Array) else (x.shape[axis],)


def _sum_lines(
    function: str, axis: int, method: str, problem: _problem.Problem, x: np.ndarray, k: np.ndarray, device: str
) -> np.ndarray:
    """Convolve a block along an axis counted from the end, with one filter."""

    def convolve_lines(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        return _methods.along_axis(function, problem, x, k, axis, method, device)

    return _composed.apply(x, k, problem.flip, convolve_lines) if x.dtype.kind in "cb" else convolve_lines(x, k)


def _sum_rows(
    function: str, axis: int, method: str, problem: _problem.Problem, x: np.ndarray, k: np.ndarray, device: str
) -> np.ndarray:
    """Convolve a block along an axis counted from the end, each row with its own filter."""

    def convolve_rows(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        batch = x.shape[:-1]
        rows = np.broadcast_to(k, (*batch, problem.taps)).reshape(-1, problem.taps)
        task = problem._replace(batch=batch, tap_rows=len(rows))
        y: np.ndarray = _methods.apply(function, task, x.reshape(-1, problem.samples), rows, method, device)
        return y

    x, k = np.moveaxis(x, axis, -1), np.moveaxis(k, axis, -1)
    y = _composed.apply(x, k, problem.flip, convolve_rows) if x.dtype.kind in "cb" else convolve_rows(x, k)
    return np.moveaxis(y, -1, axis)


def filter_lines(
    function: str, problem: _problem.Problem, x: Any, k: Any, axis: int, compute: Callable[..., np.ndarray], device: str
) -> da.Array:
    """Filter an array of Dask along an axis counted from the end; `compute` is `ndimage`'s, for the blocks."""
    front = axis + x.ndim
    method, device = settle(problem, x, front, x.dtype, "auto", device)
    compute = partial(compute, function, axis=axis, method=method)
    return map_blocks(function, x, k, front, cut(problem, _chunks(x, front)), compute, x.dtype, device)


def resample(
    function: str,
    x: Any,
    taps: np.ndarray,
    rates: tuple[int, int],
    outputs: int,
    axis: int,
    mode: str,
    compute: Compute,
    device: str,
) -> da.Array:
    """Resample an array of Dask; `compute` is `multirate`'s, for the blocks."""
    blocks = cut_resampled(x.shape[axis], len(taps), rates, outputs, _chunks(x, axis), mode)
    return map_blocks(function, x, taps, axis, blocks, compute, np.result_type(x.dtype, taps, np.float32), device)


def causal(
    problem: LayerProblem,
    x: Any,
    parameters: Any,
    state: Any,
    numbers: Any,
    compute: Compute,
    device: str,
) -> da.Array:
    """Apply a causal layer to an array of Dask; `compute` is `neural`'s, for the blocks.

    Parameters
    ----------
    problem
        The layer as a whole.
    x, state
        Signal, (N, C, L) or (C, L), and the samples before it or None.
    parameters
        Weights and, in a further column, bias: (C, K) or (C, K + 1).
    numbers
        The sequence of each sample, (N, L) or (L), or None; not beside a state.
    compute, device
        As for `map_blocks`.
    """
    signal: da.Array = da.asarray(x)
    if not problem.outputs:
        return signal
    halo, chunks = problem.taps - 1, signal.chunks[-1]
    before = 0 if state is None else halo
    line = _problem.Problem(before + problem.length, problem.taps, problem.outputs, halo - before, flip=False)
    joined = signal if state is None else _joined(state, signal)
    k = parameters.reshape((1,) * (x.ndim - parameters.ndim) + parameters.shape)
    beside = () if numbers is None else (da.asarray(numbers)[..., None, :],)
    return map_blocks("causal_conv1d", joined, k, x.ndim - 1, cut(line, chunks), compute, x.dtype, device, *beside)


def last_samples(state: Any, x: Any, count: int) -> da.Array:
    """Return the last samples of a signal of Dask and of what came before it: `state`, or zeros."""
    whole = _joined(da.zeros((*x.shape[:-1], count), dtype=x.dtype) if state is None else state, x)
    last: da.Array = whole[..., whole.shape[-1] - count :]
    return last


def _joined(before: Any, x: Any) -> da.Array:
    whole: da.Array = da.concatenate([da.asarray(before), da.asarray(x)], axis=-1)
    return whole
