"""`maxconv.torch` on CUDA: its work stands in the order of PyTorch's streams, inside captured graphs, too."""

from __future__ import annotations

import gc
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
mt = pytest.importorskip("maxconv.torch")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
]
functional = torch.nn.functional

#: Some 30 ms on today's GPUs: long enough for anything out of order to come too early.
PRODUCER_CYCLES = 50_000_000

#: One of each kernel: depthwise, dense with and without tensor cores, and what takes their gradients.
LAYERS = [
    {"shape": (2, 64, 500), "weight": (64, 1, 4), "stride": 1, "padding": 3, "dilation": 1, "groups": 64},
    {"shape": (2, 64, 500), "weight": (128, 64, 3), "stride": 2, "padding": 1, "dilation": 1, "groups": 1},
    {"shape": (3, 12, 333), "weight": (8, 3, 5), "stride": 1, "padding": 4, "dilation": 2, "groups": 4},
    {"shape": (2, 40, 129), "weight": (40, 1, 7), "stride": 3, "padding": 0, "dilation": 2, "groups": 40},
]

#: Batch, channels, length, taps and padding of short depthwise layers; no tile of a kernel divides them.
CHANNELS_LAST = [(2, 64, 100, 4, 3), (1, 24, 33, 3, 1), (3, 8, 17, 16, 15), (2, 520, 70, 7, 0), (1, 16, 5, 2, 9)]


def options(layer) -> dict[str, int]:
    """Return what stands behind the operands of a layer."""
    return {name: layer[name] for name in ("stride", "padding", "dilation", "groups")}


def worst(actual, exact) -> float:
    """Return the largest error beside the largest value."""
    actual, exact = actual.detach().double(), exact.detach()
    return float((actual - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer['shape']} {layer['weight']}")
def test_values_and_gradients_are_those_of_float64(layer, dtype):
    """Outputs and all gradients are within the type's accuracy of PyTorch's in float64."""
    shapes = layer["shape"], layer["weight"], layer["weight"][:1]
    operands = [torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes]
    wide = [operand.detach().double().requires_grad_() for operand in operands]
    y, exact = mt.conv1d(*operands, **options(layer)), functional.conv1d(*wide, **options(layer))
    gradient = torch.randn_like(y)
    actual = [y, *torch.autograd.grad(y, operands, gradient)]
    expected = [exact, *torch.autograd.grad(exact, wide, gradient.double())]
    bound = 64 * torch.finfo(dtype).eps
    assert max(map(worst, actual, expected)) <= bound


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer['shape']} {layer['weight']}")
def test_work_waits_for_a_slow_producer_and_its_consumer_waits_for_it(layer):
    """On a side stream a layer sees what a slow kernel before it writes, and what comes after sees its result."""
    side = torch.cuda.Stream()
    x = torch.zeros(layer["shape"], device="cuda", requires_grad=True)
    w = torch.randn(layer["weight"], device="cuda")
    values = torch.randn(layer["shape"], device="cuda")
    expected = functional.conv1d(values.double(), w.double(), **options(layer))
    gradient = torch.ones_like(expected)
    by_input = torch.autograd.grad(functional.conv1d(x.double(), w.double(), **options(layer)), x, gradient)[0]
    for turn in range(4):
        torch.cuda.synchronize()
        x.grad = None
        with torch.cuda.stream(side):
            with torch.no_grad():
                x.zero_()
                torch.cuda._sleep(PRODUCER_CYCLES)
                x.copy_(values)
            y = mt.conv1d(x, w, **options(layer))
            doubled = y * 2
            y.sum().backward()
            is_pending = not side.query()
        assert is_pending or not turn, "the host has waited"  # the first turn loads kernels, which may wait
        done = side.record_event()
        torch.cuda.current_stream().wait_event(done)
        assert worst(doubled, 2 * expected) < 1e-5
        assert worst(x.grad, by_input) < 1e-5


def test_without_the_order_the_result_would_be_wrong(monkeypatch):
    """The producer of these tests is slow enough: on another stream than its own, a layer misses what it writes."""
    w = torch.ones((1, 1, 1), device="cuda")
    x = torch.empty((1, 1, 1000), device="cuda").fill_(0)
    other = torch.cuda.Stream()
    for stream in (torch.cuda.current_stream(), other):
        with torch.cuda.stream(stream):
            mt.conv1d(x, w)  # loads the kernel
    torch.cuda.synchronize()
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda _: other.cuda_stream)
    torch.cuda._sleep(PRODUCER_CYCLES)
    x.fill_(1)
    y = mt.conv1d(x, w)
    torch.cuda.synchronize()
    assert not y.any()


def test_the_first_call_on_a_stream_does_not_wait():
    """A stream's first call of a layer whose kernel is loaded leaves the host free, and the stream in its order."""
    w = torch.ones((1, 1, 1), device="cuda")
    x = torch.ones((1, 1, 1000), device="cuda")
    mt.conv1d(x, w)
    fresh = torch.cuda.Stream(priority=-1)  # from a pool that no other test takes streams from
    with torch.cuda.stream(fresh):
        torch.empty_like(x)  # PyTorch's own memory of the stream
    torch.cuda.synchronize()
    with torch.cuda.stream(fresh):
        torch.cuda._sleep(PRODUCER_CYCLES)
        y = mt.conv1d(x, w)
        assert not fresh.query()
    fresh.synchronize()
    assert y.eq(1).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_tensors_of_another_device_than_the_current_one():
    """They are computed on their device, in the order of its stream; the current device stays what it was."""
    w = torch.ones((1, 1, 1), device="cuda:1")
    x = torch.zeros((1, 1, 1000), device="cuda:1")
    for _ in range(3):
        with torch.cuda.device(1):
            x.zero_()
            torch.cuda._sleep(PRODUCER_CYCLES)
            x.fill_(1)
        y = mt.conv1d(x, w)
        assert torch.cuda.current_device() == 0
        assert y.device == x.device
        assert y.eq(1).all()


def test_streams_do_not_wait_for_one_another():
    """A layer on one stream is done while that of another still waits for its producer."""
    w = torch.ones((1, 1, 1), device="cuda")
    x = torch.ones((1, 1, 1000), device="cuda")
    slow, quick = torch.cuda.Stream(), torch.cuda.Stream()
    for stream in (slow, quick):
        with torch.cuda.stream(stream):
            mt.conv1d(x, w)
    torch.cuda.synchronize()
    with torch.cuda.stream(slow):
        torch.cuda._sleep(PRODUCER_CYCLES)
        mt.conv1d(x, w)
    with torch.cuda.stream(quick):
        mt.conv1d(x, w)
    quick.synchronize()
    assert not slow.query()
    torch.cuda.synchronize()


def test_a_captured_graph_computes_anew():
    """Inside `torch.cuda.graph` a layer and its gradients are recorded; each replay reads its inputs again."""
    x = torch.zeros((2, 8, 100), device="cuda", requires_grad=True)
    w = torch.randn((16, 8, 3), device="cuda", requires_grad=True)
    step = partial(mt.conv1d, x, w, padding=1)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step().square().sum().backward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    x.grad = w.grad = None
    with torch.cuda.graph(graph):
        y = step()
        y.square().sum().backward()
    for _ in range(3):
        with torch.no_grad():
            x.normal_()
        graph.replay()
        wide = [operand.detach().double().requires_grad_() for operand in (x, w)]
        exact = functional.conv1d(*wide, padding=1)
        expected = torch.autograd.grad(exact.square().sum(), wide)
        assert worst(y, exact) < 1e-5
        assert worst(x.grad, expected[0]) < 1e-5
        assert worst(w.grad, expected[1]) < 1e-5


def test_memory_that_begins_between_vectors():
    """Tensors whose first element stands at no multiple of 16 bytes are read right."""
    for layer in LAYERS:
        for dtype in (torch.float32, torch.bfloat16):
            x, w = (
                torch.randn(1 + int(np.prod(layer[name])), device="cuda", dtype=dtype)[1:].view(layer[name])
                for name in ("shape", "weight")
            )
            exact = functional.conv1d(x.double(), w.double(), **options(layer))
            assert worst(mt.conv1d(x, w, **options(layer)), exact) <= 64 * torch.finfo(dtype).eps


def test_strided_memory():
    """Signals whose channels, or samples, lie side by side in memory give the values of contiguous ones."""
    for layer in LAYERS:
        batch, channels, length = layer["shape"]
        w = torch.randn(layer["weight"], device="cuda")
        for x in (
            torch.randn((batch, length, channels), device="cuda").transpose(1, 2),
            torch.randn((batch, channels, 2 * length), device="cuda")[..., ::2],
        ):
            exact = functional.conv1d(x.double(), w.double(), **options(layer))
            assert worst(mt.conv1d(x, w, **options(layer)), exact) < 1e-5


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler
def test_autocast_and_compile():
    """Under autocast and `torch.compile(fullgraph=True)` layers are computed in bfloat16."""
    layer = LAYERS[1]
    x, w = (torch.randn(layer[name], device="cuda", requires_grad=True) for name in ("shape", "weight"))
    step = torch.compile(lambda x, w: mt.conv1d(x, w, **options(layer)), fullgraph=True)
    with torch.autocast("cuda", torch.bfloat16):
        y = step(x, w)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert worst(y, functional.conv1d(x.double(), w.double(), **options(layer))) < 0.05
    assert x.grad.dtype == torch.float32


def test_calls_of_changing_shapes_leave_no_memory():
    """A thousand calls of changing shapes, with gradients, leave the device's memory as it was."""
    w = torch.randn((8, 8, 3), device="cuda", requires_grad=True)

    def work(lengths):
        for length in lengths:
            torch.autograd.grad(mt.conv1d(torch.randn((1, 8, length), device="cuda"), w).sum(), w)

    work(range(3, 100))
    gc.collect()
    before = torch.cuda.memory_allocated()
    work(range(100, 1100))
    gc.collect()
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("batch", "channels", "length", "taps", "padding"), CHANNELS_LAST)
def test_short_depthwise_layers_keep_channels_last(batch, channels, length, taps, padding, dtype):
    """Of transposed signals they make transposed results: the bits of contiguous ones, and gradients as exact."""
    x = torch.randn((batch, length, channels), device="cuda", dtype=dtype).mT.requires_grad_()
    w = torch.randn((channels, 1, taps), device="cuda", dtype=dtype, requires_grad=True)
    b = torch.randn(channels, device="cuda", dtype=dtype, requires_grad=True)
    assert not x.is_contiguous()
    y = mt.conv1d(x, w, b, padding=padding, groups=channels)
    assert torch.equal(y, mt.conv1d(x.contiguous(), w, b, padding=padding, groups=channels))
    wide = [operand.detach().double().requires_grad_() for operand in (x, w, b)]
    exact = functional.conv1d(*wide, padding=padding, groups=channels)
    gradient = torch.randn_like(y)
    actual = torch.autograd.grad(y, (x, w, b), gradient)
    expected = torch.autograd.grad(exact, wide, gradient.double())
    assert max(map(worst, actual, expected)) <= 64 * torch.finfo(dtype).eps
    assert y.mT.is_contiguous()
    if padding < taps:  # else no depthwise layer computes this gradient
        assert actual[0].mT.is_contiguous()


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler
def test_channels_last_signals_may_begin_anywhere():
    """A view that begins where no vector may gives the same bits as a copy of it; so does one that `compile` traces."""
    memory = torch.randn(1 + 2 * 50 * 24, device="cuda")
    x, w = memory[1:].view(2, 50, 24).mT, torch.randn((24, 1, 4), device="cuda")
    expected = mt.conv1d(x.contiguous(), w, padding=3, groups=24)
    assert torch.equal(mt.conv1d(x, w, padding=3, groups=24), expected)
    compiled = torch.compile(lambda x: mt.conv1d(x, w, padding=3, groups=24), fullgraph=True)
    assert torch.equal(compiled(x), expected)


def test_an_infinite_gradient_reaches_only_the_weights_it_meets():
    """Where a window reaches beyond the signal an infinite gradient makes no NaN, in either layout."""
    gradient = torch.zeros((1, 8, 20), device="cuda")
    gradient[0, :, 0] = torch.inf
    for x in (torch.ones((1, 8, 20), device="cuda"), torch.ones((1, 20, 8), device="cuda").mT):
        w = torch.ones((8, 1, 4), device="cuda", requires_grad=True)
        mt.conv1d(x, w, padding=3, groups=8)[..., :20].backward(gradient)
        assert torch.equal(w.grad[:, 0], torch.tensor([0, 0, 0, torch.inf], device="cuda").expand(8, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 160), (1, 300, 16), (7, 2, 4096), (6, 48)])
def test_causal_layers_of_four_taps_take_one_launch_for_both_gradients(shape, dtype, monkeypatch):
    """Both gradients at once have the type's accuracy; signals' have the bits of a launch of their own."""
    launched = []
    both = mt._operators.tensors.Gradients.__call__
    monkeypatch.setattr(mt._operators.tensors.Gradients, "__call__", lambda *a: launched.append(a) or both(*a))
    x, w, gradient = (
        torch.randn(sizes, device="cuda", dtype=dtype, requires_grad=index < 2)
        for index, sizes in enumerate((shape, (shape[-2], 4), shape))
    )
    wide = [operand.detach().double().requires_grad_() for operand in (x, w)]
    exact = functional.conv1d(wide[0], wide[1][:, None], padding=3, groups=shape[-2])[..., : shape[-1]]
    expected = torch.autograd.grad(exact, wide, gradient.double())
    layers = (
        mt.causal_conv1d,
        lambda x, w: mt.conv1d(x, w[:, None], padding=(3, 0), groups=shape[-2]),
    )
    for layer in layers:
        for _ in range(3):  # the usual way, then the short one
            by_x, by_w = torch.autograd.grad(layer(x, w), (x, w), gradient)
            assert max(worst(by_x, expected[0]), worst(by_w, expected[1])) <= 64 * torch.finfo(dtype).eps
        (alone,) = torch.autograd.grad(layer(x, w.detach()), (x,), gradient)
        assert torch.equal(by_x, alone)
    assert len(launched) == 2 * 3


def test_an_infinite_weight_reaches_only_the_signals_it_meets():
    """Behind the last gradient stand zeros that an infinite tap does not turn into NaN."""
    x = torch.ones((2, 3, 32), device="cuda", requires_grad=True)
    w = torch.ones((3, 4), device="cuda", requires_grad=True)
    with torch.no_grad():
        w[1, 0] = torch.inf
    mt.causal_conv1d(x, w).backward(torch.ones_like(x))
    expected = torch.full_like(x, 4)
    expected[:, 1] = torch.inf
    expected[..., -3:] = torch.tensor([3.0, 2.0, 1.0])
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("length", "taps"), [(16, 17), (1001, 33), (4097, 130), (777, 400), (5, 40)])
def test_fast_causal_layers(length, taps, dtype):
    """They are right in outputs and gradients, and of the same bits by function, module, operator and compiler."""
    x, w, b = (torch.randn(shape, device="cuda", dtype=dtype) for shape in ((2, 12, length), (12, taps), (12,)))
    module = mt.CausalConv1d(12, taps, device="cuda", dtype=dtype, precision="fast")
    with torch.no_grad():
        module.weight.copy_(w[:, None])
        module.bias.copy_(b)
    operands = [operand.requires_grad_() for operand in (x, w, b)]
    wide = [operand.detach().double().requires_grad_() for operand in operands]
    y = mt.causal_conv1d(*operands, precision="fast")
    exact = functional.conv1d(wide[0], wide[1][:, None], wide[2], padding=taps - 1, groups=12)[..., :length]
    gradient = torch.randn_like(y)
    actual = [y, *torch.autograd.grad(y, operands, gradient)]
    expected = [exact, *torch.autograd.grad(exact, wide, gradient.double())]
    assert max(map(worst, actual, expected)) <= 64 * torch.finfo(dtype).eps
    compiled = torch.compile(partial(mt.causal_conv1d, precision="fast"), fullgraph=True)
    for other in (
        mt.causal_conv1d(*operands, precision="fast"),
        mt.conv1d(x, w[:, None], b, padding=(taps - 1, 0), groups=12, precision="fast"),
        module(x),
        compiled(*operands),
    ):
        assert torch.equal(y, other)
