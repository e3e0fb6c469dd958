"""The shortest way of `conv1d` on tensors: taken where nothing has changed, left where anything has."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")
mt = pytest.importorskip("maxconv.torch")

from torch.autograd import forward_ad  # noqa: E402  # behind the skips
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from maxconv.torch import _functional, _operators, _short  # noqa: E402

functional = torch.nn.functional

#: Shapes of input and weight, stride, padding, dilation and groups.
LAYERS = [
    ((2, 6, 41), (9, 6, 3), 2, 1, 1, 1),
    ((3, 8, 17), (8, 1, 4), 1, 3, 1, 8),
    ((4, 30), (6, 2, 5), (1,), (4,), (2,), 2),
    ((1, 5, 12), (5, 5, 3), 1, "same", 1, 1),
]


@pytest.fixture(autouse=True)
def nothing_remembered():
    """Forget the calls of other tests."""
    _short._alike.cache_clear()


@pytest.fixture
def usual(monkeypatch):
    """Count the calls that take the usual way."""
    calls = []
    names = (_functional, "_operands"), (_functional, "_check_devices"), (_operators, "convolve_gradients")
    for module, name in names:
        run = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *operands, run=run, name=name: (calls.append(name), run(*operands))[1])
    return calls


def draw(layer, dtype=torch.float64, **options):
    """Draw input, weight and bias."""
    return [torch.randn(shape, dtype=dtype, **options) for shape in (layer[0], layer[1], layer[1][:1])]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_call_like_one_before_takes_the_short_way(layer, has_bias, usual):
    """Its outputs and gradients are those of PyTorch, of its own operands, and the usual way is not asked."""
    for turn in range(4):
        x, w, b = (operand.requires_grad_() for operand in draw(layer))
        operands, bias = ((x, w, b), b) if has_bias else ((x, w), None)
        y, exact = mt.conv1d(x, w, bias, *layer[2:]), functional.conv1d(x, w, bias, *layer[2:])
        torch.testing.assert_close(y, exact)
        gradient = torch.randn_like(y)
        actual = torch.autograd.grad(y, operands, gradient)
        torch.testing.assert_close(actual, torch.autograd.grad(exact, operands, gradient))
        if turn == 1:
            usual.clear()
    depthwise = ["convolve_gradients"] * 2  # on the CPU they make other operands of their weights
    assert usual == (depthwise if layer[-1] == 8 else [])


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_transposed_and_causal_layers_take_it_too(batch, has_bias, usual):
    """Their outputs and gradients are those of PyTorch every time, and the usual way is asked but once for each."""
    for turn in range(4):
        x, w, b = (
            torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((*batch, 4, 9), (4, 3, 5), (3,))
        )
        taps, offsets = torch.randn(4, 3, dtype=torch.float64).requires_grad_(), b.new_zeros(4).requires_grad_()
        bias, offset = (b, offsets) if has_bias else (None, None)
        pairs = [
            (mt.conv_transpose1d(x, w, bias, 2, 1, 1, 1, 2), functional.conv_transpose1d(x, w, bias, 2, 1, 1, 1, 2)),
            (
                mt.causal_conv1d(x, taps, offset, activation="silu"),
                functional.silu(functional.conv1d(x, taps.unsqueeze(1), offset, 1, 2, 1, 4)[..., :9]),
            ),
        ]
        for (y, exact), last in zip(pairs, ([w, bias], [taps, offset]), strict=True):
            torch.testing.assert_close(y, exact)
            operands = [x, *last[: 2 if has_bias else 1]]
            gradient = torch.randn_like(y)
            actual = torch.autograd.grad(y, operands, gradient)
            torch.testing.assert_close(actual, torch.autograd.grad(exact, operands, gradient))
        if not turn:
            usual.clear()
    assert usual == []


def test_other_arguments_of_a_causal_layer_are_noticed():
    """A remembered layer with another activation, or with a history, is another layer."""
    x, w = torch.randn(2, 4, 9), torch.randn(4, 3)
    plain = [mt.causal_conv1d(x, w) for _ in range(2)][1]
    torch.testing.assert_close(mt.causal_conv1d(x, w, activation="relu"), plain.relu())
    with pytest.raises(ValueError, match="causal_conv1d: precision must be None or 'fast', got 'slow'"):
        mt.causal_conv1d(x, w, precision="slow")
    y, state = mt.causal_conv1d(x[..., :5], w, return_final_state=True)
    rest = mt.causal_conv1d(x[..., 5:], w, initial_state=state)
    torch.testing.assert_close(torch.cat([y, rest], -1), plain)
    numbers = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1]).expand(2, 9)
    expected = torch.cat([y, mt.causal_conv1d(x[..., 5:], w)], -1)
    torch.testing.assert_close(mt.causal_conv1d(x, w, seq_idx=numbers), expected)


def test_neither_way_changes_the_bits(usual):
    """The short way gives the bits of the usual one, in either type that it serves on the CPU."""
    for layer in LAYERS:
        for dtype in (torch.float32, torch.float64):
            operands = draw(layer, dtype)
            first = mt.conv1d(*operands, *layer[2:])
            count = len(usual)
            assert torch.equal(mt.conv1d(*operands, *layer[2:]), first)
            assert len(usual) == count


class Doubled(TorchDispatchMode):
    """Doubles what operators of ours yield."""

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        result = operator(*arguments, **(options or {}))
        return 2 * result if operator.namespace == "maxconv" else result


class Nothing(TorchFunctionMode):
    """Does nothing."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        return function(*arguments, **(options or {}))


def autocast(x, w):
    """Call it where PyTorch computes in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return mt.conv1d(x, w)


def inference(x, w):
    """Call it where nothing is recorded."""
    with torch.inference_mode():
        return mt.conv1d(x, w).clone()


def tangents(x, w):
    """Derive it forwards: of a linear function, by its own operand."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(mt.conv1d(forward_ad.make_dual(x, x), w)).tangent


def doubled(x, w):
    """Call it where a mode sees operators."""
    with Doubled():
        return mt.conv1d(x, w) / 2


def function_mode(x, w):
    """Call it where a mode sees functions."""
    with Nothing():
        return mt.conv1d(x, w)


WATCHERS = {
    "autocast": autocast,
    "inference mode": inference,
    "a level of forward derivatives": tangents,
    "a dispatch mode": doubled,
    "a function mode": function_mode,
    "vmap": lambda x, w: torch.vmap(mt.conv1d, (0, None))(x.unsqueeze(0), w)[0],
    "a trace": lambda x, w: torch.jit.trace(mt.conv1d, (torch.zeros_like(x), w), check_trace=False)(x, w),
    "a lazy negation": lambda x, w: mt.conv1d(torch._neg_view(-x), w),
    "strides": lambda x, w: mt.conv1d(x.transpose(1, 2).contiguous().transpose(1, 2), w),
    "another type": lambda x, w: mt.conv1d(x.double(), w.double()).float(),
    "another device": lambda x, w: functional.conv1d(x, w) + mt.conv1d(x.to("meta"), w.to("meta")).numel() * 0,
    "a parameter": lambda x, w: mt.conv1d(x, torch.nn.Parameter(w)),
    "an operand of the backward pass": lambda x, w: mt.conv1d(x.requires_grad_(), w),
    "a subclass": lambda x, w: mt.conv1d(x.as_subclass(type("Own", (torch.Tensor,), {})), w).as_subclass(torch.Tensor),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch's tracer, which is to go
@pytest.mark.parametrize("name", WATCHERS)
def test_what_has_changed_is_noticed(name):
    """Where a call differs from the remembered one in more than its values it means what it means the first time."""
    x, w = torch.randn(2, 4, 30), torch.randn(6, 4, 3)
    for _ in range(2):
        mt.conv1d(x, w)
    exact = functional.conv1d(x, w)
    actual = WATCHERS[name](x.clone(), w)
    assert actual.dtype is (torch.bfloat16 if name == "autocast" else torch.float32)
    torch.testing.assert_close(actual.float(), exact, rtol=0, atol=0.1 if name == "autocast" else 1e-5)
    torch.testing.assert_close(mt.conv1d(x, w), exact)
    assert not mt.conv1d(x, w).requires_grad


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16], ids=str)
def test_calls_under_autocast_are_pytorchs(given, monkeypatch):
    """They have the type and the values of PyTorch's own, whatever autocast computed a call like them in before."""
    # As on a GPU, whose kernels take half precision: guards tell whether autocast is on, but not its type.
    monkeypatch.setattr(_short, "_NOT_WIDENED", {torch.float16, torch.bfloat16, torch.float32})
    x, w = torch.randn(2, 4, 30, dtype=given), torch.randn(6, 4, 3, dtype=given)
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            for _ in range(2):
                actual, exact = mt.conv1d(x, w), functional.conv1d(x, w)
                assert actual.dtype is exact.dtype is dtype
                torch.testing.assert_close(actual, exact)


def test_a_subclass_keeps_its_type():
    """What PyTorch's operators make of a subclass, ours do, remembered shapes or not."""
    own = type("Own", (torch.Tensor,), {})
    x, w = torch.randn(2, 4, 30), torch.randn(6, 4, 3)
    for _ in range(2):
        mt.conv1d(x, w)
    assert type(mt.conv1d(x.as_subclass(own), w)) is type(functional.conv1d(x.as_subclass(own), w))


def test_options_that_equal_others_are_checked():
    """A stride of True equals the 1 of a remembered call, and is refused as ever."""
    x, w = torch.randn(2, 4, 30), torch.randn(6, 4, 3)
    for _ in range(2):
        mt.conv1d(x, w, None, 1, 0, 1, 1)
    for stride in (1.0, "1"):
        with pytest.raises(ValueError, match="conv1d: stride must be an integer >= 1"):
            mt.conv1d(x, w, None, stride, 0, 1, 1)


def test_derivatives_of_higher_order_of_a_remembered_call():
    """They are those of float64 numerics, and PyTorch's where the gradient that comes in is a constant."""
    operands = [operand.requires_grad_() for operand in draw(((2, 4, 9), (6, 2, 3)))]
    step, exact = (partial(f, stride=2, padding=1, groups=2) for f in (mt.conv1d, functional.conv1d))
    gradient = torch.randn(2, 6, 5, dtype=torch.float64)
    for _ in range(3):
        torch.autograd.grad(step(*operands), operands, gradient)
        second = []
        for function in (step, exact):
            by_x, by_w, _ = torch.autograd.grad(function(*operands), operands, gradient, create_graph=True)
            second.append(torch.autograd.grad(by_x.square().sum() + by_w.square().sum(), operands[:2]))
        torch.testing.assert_close(*second)
    assert torch.autograd.gradcheck(step, operands)
    assert torch.autograd.gradgradcheck(step, operands)


def test_frozen_operands_of_a_remembered_call():
    """Gradients of some operands alone are those of PyTorch, whichever they are, every time."""
    for wanted in ((0,), (1,), (2,), (0, 2), (1, 2)):
        for _ in range(3):
            operands = draw(LAYERS[0])
            trained = [operands[index].requires_grad_() for index in wanted]
            y, exact = mt.conv1d(*operands, *LAYERS[0][2:]), functional.conv1d(*operands, *LAYERS[0][2:])
            gradient = torch.randn_like(y)
            actual = torch.autograd.grad(y, trained, gradient)
            torch.testing.assert_close(actual, torch.autograd.grad(exact, trained, gradient))
            if len(wanted) > 1:  # and one of those that could be had
                y, exact = mt.conv1d(*operands, *LAYERS[0][2:]), functional.conv1d(*operands, *LAYERS[0][2:])
                actual = torch.autograd.grad(y, trained[0], gradient)
                torch.testing.assert_close(actual, torch.autograd.grad(exact, trained[0], gradient))


def test_gradients_in_other_memory():
    """A gradient that is expanded, or whose samples lie apart, is not taken for the contiguous one of before."""
    x, w = (operand.requires_grad_() for operand in draw(LAYERS[0])[:2])
    y, exact = mt.conv1d(x, w), functional.conv1d(x, w)
    for gradient in (torch.randn_like(y), torch.ones_like(y), torch.ones(()).double().expand(y.shape)):
        for _ in range(2):
            y = mt.conv1d(x, w)
            actual = torch.autograd.grad(y, (x, w), gradient)
            expected = torch.autograd.grad(exact, (x, w), gradient, retain_graph=True)
            torch.testing.assert_close(actual, expected)


def test_operands_that_hooks_pack():
    """What hooks keep of operands, here as copies with strides, is what the gradients are made of."""
    x, w = (operand.requires_grad_() for operand in draw(LAYERS[0])[:2])
    exact = torch.autograd.grad(functional.conv1d(x, w).square().sum(), (x, w))
    apart = partial(torch.repeat_interleave, repeats=2, dim=-1)
    for _ in range(4):
        with torch.autograd.graph.saved_tensors_hooks(apart, lambda packed: packed[..., ::2]):
            y = mt.conv1d(x, w)
        torch.testing.assert_close(torch.autograd.grad(y, (x, w), 2 * y.detach()), exact)
        torch.testing.assert_close(torch.autograd.grad(mt.conv1d(x, w).square().sum(), (x, w)), exact)
