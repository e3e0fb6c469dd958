"""`maxconv.torch` is PyTorch's `conv1d` and kin: values, gradients, errors, and what PyTorch does with operators."""

from __future__ import annotations

import gc
from functools import partial

import numpy as np
import pytest
from conftest import compiled
from hypothesis import assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
mt = pytest.importorskip("maxconv.torch")

from maxconv import ArgumentError, DeviceError, DtypeError, ShapeError  # noqa: E402  # behind the skips
from maxconv._engine import native  # noqa: E402
from maxconv.torch import _functional, _operators, _short  # noqa: E402

functional = torch.nn.functional

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(scope="module", autouse=True)
def layer_kernels() -> None:
    """Build the layers' kernels first: an example of hypothesis must not wait for it."""
    mt.conv1d(torch.ones((1, 1)), torch.ones((1, 1, 1)))


def draw(*shape, dtype=torch.float64, requires_grad=True):
    """Draw normal numbers."""
    return torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_(requires_grad)


def assert_close(actual, exact, terms=1):
    """Fail unless results are within the accuracy of their type of those in float64, for sums of so many terms."""
    assert actual.shape == exact.shape
    assert actual.dtype in DTYPES
    scale = float(exact.detach().abs().max()) if exact.numel() else 0.0
    accumulator = torch.float64 if actual.dtype is torch.float64 else torch.float32
    bound = 4 * (terms * torch.finfo(accumulator).eps + torch.finfo(actual.dtype).eps) * scale
    error = (actual.double() - exact.double()).abs()
    assert bool((error <= bound).all()), f"wrong by {float(error.max())}, bound {bound}"


def assert_same_layer(ours, theirs, operands, terms):
    """Compare a layer's outputs and gradients with PyTorch's of the same operands in float64, remembered or not."""
    wide = [operand.detach().double().requires_grad_() for operand in operands]
    exact = theirs(*wide)
    gradient = draw(*exact.shape, dtype=operands[0].dtype, requires_grad=False)
    expected = torch.autograd.grad(exact, wide, gradient.double())
    for _ in range(3):  # the second call is remembered, and its backward pass the third time
        actual = ours(*operands)
        assert actual.dtype == operands[0].dtype
        assert_close(actual, exact, terms)
        for one, other in zip(torch.autograd.grad(actual, operands, gradient), expected, strict=True):
            assert_close(one, other, terms * max(1, actual.numel()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_long_filter_and_its_gradients_go_by_fft(monkeypatch, dtype):
    """One long filter a channel takes the FFT forward and for both gradients, within the bound of FFTs."""
    kernels = []
    run = native.run_layer_on_cpu
    monkeypatch.setattr(native, "run_layer_on_cpu", lambda kernel, *rest: (kernels.append(kernel), run(kernel, *rest)))
    x, w, b = draw(2, 6, 3000, dtype=dtype), draw(6, 1, 2048, dtype=dtype), draw(6, dtype=dtype)
    y = mt.conv1d(x, w, b, padding=1000, groups=6)
    g = draw(*y.shape, dtype=dtype, requires_grad=False)
    actual = y, *torch.autograd.grad(y, (x, w, b), g)
    kind = str(dtype).removeprefix("torch.")
    assert kernels == [*3 * [f"depthwise_fft_{kind}"], f"weight_gradient_{kind}"]  # the last one by the bias
    wide = [operand.detach().double().requires_grad_() for operand in (x, w, b)]
    exact = functional.conv1d(*wide, padding=1000, groups=6)
    expected = exact, *torch.autograd.grad(exact, wide, g.double())
    of_x, of_w, of_g = (operand.detach().double().norm(dim=-1, keepdim=True) for operand in (x, w, g))
    scales = of_x * of_w[:, 0], of_g * of_w[:, 0], (of_x * of_g).sum(0)[:, None]
    for one, other, scale in zip(actual[:3], expected[:3], scales, strict=True):
        bound = 10 * torch.finfo(dtype).eps * 12 * scale
        assert bool(((one.double() - other).abs() <= bound).all())


def samples(name: str, dtype):
    """List PyTorch's own sample inputs of a function: (tensors, other arguments)."""
    pytest.importorskip("expecttest")  # PyTorch's test library needs it
    from torch.testing._internal.common_methods_invocations import op_db

    operator = next(op for op in op_db if op.name == f"nn.functional.{name}")
    for sample in operator.sample_inputs("cpu", dtype, requires_grad=True):
        operands = [value for value in (sample.input, *sample.args) if isinstance(value, torch.Tensor)]
        rest = [value for value in sample.args if not isinstance(value, torch.Tensor)]
        yield operands, rest, sample.kwargs
    yield None, operator, None


@pytest.mark.filterwarnings("ignore")  # of PyTorch's test library
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["conv1d", "conv_transpose1d"])
def test_pytorchs_own_samples(name, dtype):
    """PyTorch's sample inputs give its outputs and gradients; its error inputs raise."""
    *given_samples, (_, operator, _) = samples(name, dtype)
    assert len(given_samples) > 5
    for operands, rest, options in given_samples:
        ours, theirs = (
            lambda *tensors, f=f, rest=rest, options=options: f(*tensors, *rest, **options)
            for f in (getattr(mt, name), getattr(functional, name))
        )
        assert_same_layer(ours, theirs, operands, operands[1].numel())
    if operator.error_inputs_func is not None and dtype is torch.float32:
        for error in operator.error_inputs("cpu"):
            sample = error.sample_input
            with pytest.raises((ArgumentError, DtypeError, ShapeError)):
                getattr(mt, name)(sample.input, *sample.args, **sample.kwargs)


sizes = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 3),
        "groups": st.integers(1, 5),
        "group_in": st.integers(1, 6),
        "group_out": st.integers(1, 6),
        "taps": st.integers(1, 9),
        "length": st.integers(1, 70),
        "stride": st.integers(1, 4),
        "padding": st.integers(0, 9),
        "dilation": st.integers(1, 4),
        "dtype": st.sampled_from(DTYPES),
        "is_batched": st.booleans(),
        "has_bias": st.booleans(),
    }
)


@settings(max_examples=150, deadline=None)
@given(size=sizes, seed=st.integers(0, 2**63 - 1))
def test_any_layer_and_its_gradients(size, seed):
    """Outputs and gradients of any `conv1d` are PyTorch's in float64."""
    torch.manual_seed(seed)
    groups, taps, dilation = size["groups"], size["taps"], size["dilation"]
    assume(size["length"] + 2 * size["padding"] > dilation * (taps - 1))
    channels, outputs = groups * size["group_in"], groups * size["group_out"]
    batch = (size["batch"],) if size["is_batched"] else ()
    operands = [
        draw(*batch, channels, size["length"], dtype=size["dtype"]),
        draw(outputs, size["group_in"], taps, dtype=size["dtype"]),
    ]
    if size["has_bias"]:
        operands.append(draw(outputs, dtype=size["dtype"]))
    rest = {name: size[name] for name in ("stride", "padding", "dilation", "groups")}
    ours, theirs = partial(mt.conv1d, **rest), partial(functional.conv1d, **rest)
    assert_same_layer(ours, theirs, operands, size["group_in"] * taps + 1)


@settings(max_examples=100, deadline=None)
@given(size=sizes, extra=st.integers(0, 3), seed=st.integers(0, 2**63 - 1))
def test_any_transposed_layer_and_its_gradients(size, extra, seed):
    """Outputs and gradients of any `conv_transpose1d` are PyTorch's in float64."""
    torch.manual_seed(seed)
    groups, taps, dilation, stride = size["groups"], size["taps"], size["dilation"], size["stride"]
    extra = min(extra, max(stride, dilation) - 1)
    assume((size["length"] - 1) * stride + dilation * (taps - 1) + extra >= 2 * size["padding"])
    channels, outputs = groups * size["group_in"], groups * size["group_out"]
    operands = [
        draw(max(1, size["batch"]), channels, size["length"], dtype=size["dtype"]),
        draw(channels, size["group_out"], taps, dtype=size["dtype"]),
        draw(outputs, dtype=size["dtype"]),
    ]
    rest = {name: size[name] for name in ("stride", "padding", "dilation", "groups")} | {"output_padding": extra}
    ours, theirs = partial(mt.conv_transpose1d, **rest), partial(functional.conv_transpose1d, **rest)
    assert_same_layer(ours, theirs, operands, size["group_in"] * taps + 1)


def masked_layer(x, w, b, state=None, numbers=None):
    """Compute the sums of a causal layer by tap from PyTorch's elementwise functions."""
    taps, length = w.shape[1], x.shape[-1]
    before = x.new_zeros((*x.shape[:-1], taps - 1)) if state is None else state
    whole = torch.cat([before, x], -1)
    y = 0
    for j in range(taps):
        term = whole[..., j : j + length] * w[:, j, None]
        if numbers is not None:
            beyond = torch.full((*numbers.shape[:-1], taps - 1), -1)
            met = torch.cat([beyond, numbers], -1)[..., j : j + length]
            term = term * (met == numbers).unsqueeze(-2)
        y = y + term
    y = y if b is None else y + b[:, None]
    return y if numbers is None else y * (numbers >= 0).unsqueeze(-2)


ACTIVATIONS = {
    None: lambda sums: sums,
    "silu": functional.silu,
    "swish": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


@pytest.mark.parametrize("history", ["none", "state", "numbers"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_causal_layers(dtype, activation, history):
    """`causal_conv1d` gives outputs, states and gradients of the formula, with each activation and each history."""
    batch, channels, taps, length = 3, 5, 4, 37
    operands = [
        draw(batch, channels, length, dtype=dtype),
        draw(channels, taps, dtype=dtype),
        draw(channels, dtype=dtype),
    ]
    options = {}
    if history == "state":
        operands.append(draw(batch, channels, taps - 1, dtype=dtype))
    elif history == "numbers":
        options["seq_idx"] = torch.randint(-1, 4, (batch, length)).sort().values

    def ours(x, w, b, state=None):
        return mt.causal_conv1d(x, w, b, activation=activation, initial_state=state, **options)

    def theirs(x, w, b, state=None):
        return ACTIVATIONS[activation](masked_layer(x, w, b, state, options.get("seq_idx")))

    assert_same_layer(ours, theirs, operands, taps + 8)


def test_a_signal_in_pieces_gives_the_same_bits():
    """A causal layer's pieces, each begun with the state of the one before, are the whole; so are gradients."""
    x, w = draw(2, 3, 40, dtype=torch.float32), draw(3, 4, dtype=torch.float32)
    whole = mt.causal_conv1d(x, w)
    first, state = mt.causal_conv1d(x[..., :2], w, return_final_state=True)
    second = mt.causal_conv1d(x[..., 2:], w, initial_state=state)
    assert torch.equal(torch.cat([first, second], -1), whole)
    weights = draw(*whole.shape, dtype=torch.float32, requires_grad=False)
    by_pieces = torch.autograd.grad((first * weights[..., :2]).sum() + (second * weights[..., 2:]).sum(), x)[0]
    torch.testing.assert_close(by_pieces, torch.autograd.grad((whole * weights).sum(), x)[0])


def test_filters_of_float32_beside_half_precision():
    """A causal layer takes signals in half precision with float32 filters, whose gradients are float32, too."""
    for half in (torch.float16, torch.bfloat16):
        x, w, b = draw(2, 3, 40, dtype=half), draw(3, 4, dtype=torch.float32), draw(3, dtype=torch.float32)
        y = mt.causal_conv1d(x, w, b, activation="silu")
        exact = functional.silu(masked_layer(x.double(), w.double(), b.double()))
        assert_close(y, exact, 4)
        gradients = torch.autograd.grad(y.sum(), (x, w, b))
        assert [gradient.dtype for gradient in gradients] == [half, torch.float32, torch.float32]


LINEAR = {
    "conv1d": (partial(mt.conv1d, stride=2, padding=3, dilation=2, groups=2), [(2, 4, 9), (6, 2, 3), (6,)]),
    "depthwise": (partial(mt.conv1d, padding="same", groups=3), [(2, 3, 8), (3, 1, 4), (3,)]),
    "unbatched": (mt.conv1d, [(2, 8), (3, 2, 3)]),
    "conv_transpose1d": (
        partial(mt.conv_transpose1d, stride=2, padding=1, output_padding=1, groups=2),
        [(2, 4, 5), (4, 3, 3), (6,)],
    ),
    "causal": (partial(mt.causal_conv1d, activation="silu"), [(2, 3, 7), (3, 4), (3,)]),
    "causal gelu": (partial(mt.causal_conv1d, activation="gelu"), [(2, 3, 7), (3, 4), (3,)]),
    "sequences": (
        partial(mt.causal_conv1d, seq_idx=torch.tensor([0, 0, 1, 1, 1, -1, 2])),
        [(3, 7), (3, 4), (3,)],
    ),
    "state": (
        lambda x, w, state: mt.causal_conv1d(x, w, initial_state=state, return_final_state=True),
        [(2, 3, 5), (3, 4), (2, 3, 3)],
    ),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # PyTorch's own derivatives forwards use it
@pytest.mark.parametrize("layer", LINEAR)
def test_first_and_second_derivatives(layer):
    """`gradcheck` and `gradgradcheck` pass in float64."""
    function, shapes = LINEAR[layer]
    operands = tuple(draw(*shape) for shape in shapes)
    is_bilinear = layer in {"conv1d", "depthwise", "unbatched", "conv_transpose1d"}
    assert torch.autograd.gradcheck(function, operands, check_forward_ad=is_bilinear)
    assert torch.autograd.gradgradcheck(function, operands, check_fwd_over_rev=is_bilinear)


OPERATORS = {
    "conv1d": lambda: (draw(2, 4, 9), draw(6, 2, 3), draw(6), 1, 4, 2, 1, 2, 2),
    "conv_transpose1d": lambda: (draw(2, 6, 4), draw(6, 2, 3), None, 9, 2, 1, 2, 2),
    "conv1d_weight": lambda: (draw(2, 4, 9), draw(2, 6, 4), 3, 2, 1, 2, 2),
    "causal_conv1d": lambda: (draw(2, 3, 7), draw(3, 4), draw(3), draw(2, 3, 3), None, 3, 1),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_operators_pass_pytorchs_checks(name, requires_grad):
    """`torch.library.opcheck` finds nothing wrong with schema, fake kernels, autograd and dynamic shapes."""
    operands = [
        value.detach().requires_grad_(requires_grad) if isinstance(value, torch.Tensor) else value
        for value in OPERATORS[name]()
    ]
    torch.library.opcheck(getattr(torch.ops.maxconv, name).default, operands)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_and_the_way_past_them_give_the_same_bits(name):
    """Calls that go past PyTorch's dispatcher, and those that go through it, agree in outputs and gradients."""
    operands = OPERATORS[name]()
    tensors = [value for value in operands if isinstance(value, torch.Tensor)]
    short = {
        "conv1d": _operators.convolve,
        "conv_transpose1d": _operators.transpose,
        "conv1d_weight": _operators.correlate,
        "causal_conv1d": _operators.causal,
    }[name]
    results = []
    for function in (short, getattr(torch.ops.maxconv, name).default):
        y = function(*operands)
        results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    assert all(map(torch.equal, *results))


def step(x, w, b):
    """Do what a model does around a layer."""
    y = mt.conv1d(x.relu(), w, b, padding=1, stride=2)
    return mt.causal_conv1d(y, b[:, None].expand(-1, 2), activation="silu").sum(-1)


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_layers(backend):
    """`torch.compile(fullgraph=True)` gives the same outputs and gradients, and compiles no anew for a new length."""
    torch.compiler.reset()
    compiled_step = torch.compile(step, fullgraph=True, dynamic=True, backend=backend)
    for length in (20, 33, 50):
        operands = draw(2, 4, length), draw(6, 4, 3), draw(6)
        expected, actual = step(*operands), compiled_step(*operands)
        torch.testing.assert_close(actual, expected)
        gradients = (torch.autograd.grad(y.square().sum(), operands) for y in (actual, expected))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled_step(draw(2, 4, 77), draw(6, 4, 3), draw(6))


@pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter
@pytest.mark.parametrize("strict", [True, False])
def test_exported_layers(strict):
    """`torch.export` takes our modules, with a length that is left open."""
    model = torch.nn.Sequential(mt.Conv1d(4, 6, 3, padding=1), torch.nn.ReLU(), mt.ConvTranspose1d(6, 2, 4, stride=2))
    length = torch.export.Dim("length", min=8, max=1000)
    x = torch.randn(2, 4, 20)
    program = torch.export.export(model, (x,), dynamic_shapes=({2: length},), strict=strict)
    targets = {str(node.target) for node in program.graph.nodes}
    assert {"maxconv.conv1d.default", "maxconv.conv_transpose1d.default"} <= targets
    longer = torch.randn(2, 4, 99)
    torch.testing.assert_close(program.module()(longer), model(longer))


def test_functional_gradients():
    """`torch.func.grad`, `vmap` over signals, filters or both, and `jacrev` give what PyTorch's layers give."""
    from torch.func import grad, jacrev, vmap

    x, w = draw(3, 2, 4, 9, requires_grad=False), draw(3, 6, 2, 3, requires_grad=False)
    b = draw(3, 6, requires_grad=False)

    def by(function):
        return partial(function, stride=2, padding=1, groups=2)

    ours, theirs = by(mt.conv1d), by(functional.conv1d)
    for dims in ((0, None, None), (None, 0, None), (0, 0, 0), (None, None, 0)):
        operands = [value if dim == 0 else value[0] for value, dim in zip((x, w, b), dims, strict=True)]
        torch.testing.assert_close(vmap(ours, dims)(*operands), vmap(theirs, dims)(*operands))
    torch.testing.assert_close(vmap(ours, (0, None))(x[:, 0], w[0]), vmap(theirs, (0, None))(x[:, 0], w[0]))

    def loss(function):
        return lambda w, x: function(x, w).square().sum()

    torch.testing.assert_close(grad(loss(ours))(w[0], x[0]), grad(loss(theirs))(w[0], x[0]))
    per_sample = (vmap(grad(loss(f)), (None, 0))(w[0], x) for f in (ours, theirs))
    torch.testing.assert_close(*per_sample)
    torch.testing.assert_close(jacrev(ours, 1)(x[0], w[0]), jacrev(theirs, 1)(x[0], w[0]))
    twice = (grad(lambda w, f=f: grad(loss(f))(w, x[0]).square().sum())(w[0]) for f in (ours, theirs))
    torch.testing.assert_close(*twice)
    back = by(mt.conv_transpose1d), by(functional.conv_transpose1d)
    torch.testing.assert_close(*(vmap(f)(x, w[:, :4]) for f in back))


def test_a_derivative_that_is_not_there_is_refused():
    """Forward-mode derivatives of `causal_conv1d` raise an error, they are not left out."""
    forward = torch.autograd.forward_ad
    x, w = draw(3, 9, requires_grad=False), draw(3, 4, requires_grad=False)
    with forward.dual_level(), pytest.raises(RuntimeError, match="jvp"):
        mt.causal_conv1d(forward.make_dual(x, x), w)


@pytest.mark.parametrize("shape", [(3, 7, 2011), (7, 6007)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_by_bias_of_large_layers(shape, dtype):
    """It is the sum over everything but the channels, exact on small integers, in any layout, and has derivatives."""
    gradient = torch.randint(-1, 2, shape).to(dtype)
    exact = gradient.double().sum([axis for axis in range(len(shape)) if axis != len(shape) - 2]).to(dtype)
    assert gradient.numel() >= _operators._SUMMED_BY_ONE
    for each in (gradient, gradient.mT.contiguous().mT):
        actual = _operators.bias_gradient(each)
        assert actual.dtype == dtype
        assert torch.equal(actual, exact)
    gradient.requires_grad_()
    factors = torch.arange(7).to(dtype)
    (by_gradient,) = torch.autograd.grad(_operators.bias_gradient(gradient), gradient, factors)
    assert torch.equal(by_gradient, factors[:, None].expand(shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype):
    """Under autocast layers are computed in its type; float64 stays; gradients come in the type of the parameters."""
    x, w, b = (draw(*shape, dtype=torch.float32) for shape in ((2, 4, 30), (6, 4, 3), (6,)))
    with torch.autocast("cpu", dtype):
        y = mt.conv1d(x, w, b)
        transposed = mt.conv_transpose1d(y, w)
        causal = mt.causal_conv1d(y, b[:, None].expand(-1, 3))
        assert mt.conv1d(x.double(), w.double()).dtype == torch.float64
    assert y.dtype == transposed.dtype == causal.dtype == dtype
    assert torch.equal(y, mt.conv1d(*(operand.to(dtype) for operand in (x, w, b))))
    y.float().sum().backward()
    assert x.grad.dtype == w.grad.dtype == b.grad.dtype == torch.float32


def test_memory_of_any_layout():
    """Transposed, sliced, expanded and negated tensors, as operands or as gradients, give the values of plain ones."""
    w = draw(6, 4, 3)
    plain = draw(2, 4, 30, requires_grad=False)
    wide = torch.randn(2, 4, 61, dtype=torch.float64)
    for x in (
        plain.transpose(1, 2).contiguous().transpose(1, 2),
        wide[..., 1::2],
        plain[:, :1].expand(-1, 4, -1),
        torch._neg_view(plain),
        torch.from_numpy(np.asfortranarray(plain.numpy())),
    ):
        x.requires_grad_()
        y, exact = mt.conv1d(x, w), functional.conv1d(x, w)
        torch.testing.assert_close(y, exact)
        for gradient in (torch.ones(()).double().expand(y.shape), torch.randn(28, 6, 2).double().permute(2, 1, 0)):
            actual = torch.autograd.grad(y, (x, w), gradient, retain_graph=True)
            expected = torch.autograd.grad(exact, (x, w), gradient, retain_graph=True)
            for one, other in zip(actual, expected, strict=True):
                torch.testing.assert_close(one, other)
    filters = torch.randn(3, 4, 6, dtype=torch.float64).permute(2, 1, 0)
    torch.testing.assert_close(mt.conv1d(plain, filters), functional.conv1d(plain, filters))


def test_operands_are_neither_copied_nor_changed(monkeypatch):
    """Contiguous operands reach the kernels at their own addresses, results are PyTorch's own memory."""
    from maxconv._engine import native

    seen = []
    run = native.run_layer_on_cpu
    monkeypatch.setattr(
        native, "run_layer_on_cpu", lambda name, addresses, *rest: (seen.append(addresses), run(name, addresses, *rest))
    )
    x, w, b = (draw(*shape, dtype=torch.float32) for shape in ((2, 4, 30), (6, 4, 3), (6,)))
    before = [operand.detach().clone() for operand in (x, w, b)]
    y = mt.conv1d(x, w, b)
    assert seen == [tuple(tensor.data_ptr() for tensor in (y, x, w, b))]
    assert all(map(torch.equal, before, (x, w, b)))


def test_a_frozen_operand_has_no_gradient_and_costs_no_memory():
    """Where only filters train, filters are not kept for the backward pass, nor signals where only signals do."""
    x, w = draw(1, 4, 30), draw(6, 4, 3)
    for frozen, trained in 2 * ((x.detach(), w), (x, w.detach())):
        y = mt.conv1d(frozen, trained)
        kept = [tensor for tensor in y.grad_fn.saved_tensors if tensor is not None]
        assert len(kept) == 1
        y.sum().backward()


def test_a_changed_operand_is_noticed():
    """PyTorch refuses the backward pass of a layer whose operand was overwritten."""
    x, w = draw(1, 4, 30), draw(6, 4, 3)
    signals = x * 1
    y = mt.conv1d(signals, w)
    signals.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (((3, 3), (4, 3, 5)), {}, ShapeError, "a window of 5 samples .* does not fit into the padded input of 3"),
        (((1, 4, 9), (4, 3, 2)), {}, ShapeError, "weight has 3 input channels per group, but input has 4"),
        (((1, 3, 9), (4, 3, 2)), {"stride": 0}, ArgumentError, "stride must be an integer >= 1, got 0"),
        (((1, 3, 9), (4, 3, 2)), {"stride": 1.0}, ArgumentError, "stride must be an integer >= 1, got 1.0"),
        (((1, 3, 9), (4, 3, 2)), {"padding": "full"}, ArgumentError, "padding must be an integer, a pair"),
        (((3,), (4, 3, 2)), {}, ShapeError, r"input has shape \(3,\), but \(N, C, L\) or \(C, L\) is expected"),
    ],
)
def test_errors_name_the_argument(arguments, options, error, text):
    """Wrong arguments raise our errors, with the values, every time."""
    operands = [torch.zeros(shape) for shape in arguments]
    mt.conv1d(torch.zeros(1, 3, 9), torch.zeros(4, 3, 2), stride=1)  # is remembered, and 1.0 == 1
    for _ in range(2):
        with pytest.raises(error, match=f"conv1d: {text}"):
            mt.conv1d(*operands, **options)


def test_errors_of_types_and_devices():
    """Operands of other types, of several types or on several devices raise errors that name them."""
    x, w = torch.zeros(1, 3, 9), torch.zeros(4, 3, 2)
    with pytest.raises(DtypeError, match=r"conv1d: weight must be a torch\.Tensor, got list"):
        mt.conv1d(x, [[[1.0]]])
    with pytest.raises(DtypeError, match=r"conv1d: weight is float64, but input is float32"):
        mt.conv1d(x, w.double())
    with pytest.raises(DtypeError, match=r"conv1d: input has elements of type torch\.int64; expected one of float16"):
        mt.conv1d(x.long(), w.long())
    with pytest.raises(DeviceError, match="conv1d: input is on cpu, but weight is on meta"):
        mt.conv1d(x, w.to("meta"))
    with pytest.raises(ArgumentError, match="causal_conv1d: activation must be one of None, 'relu'"):
        mt.causal_conv1d(x, w[:3, 0], activation="tanh")
    with pytest.raises(ArgumentError, match="causal_conv1d: seq_idx says where sequences begin"):
        mt.causal_conv1d(x, w[:3, 0], seq_idx=torch.zeros(1, 9, dtype=torch.int32), return_final_state=True)
    with pytest.raises(ShapeError, match=r"causal_conv1d: initial_state has shape \(1, 3, 4\), but \(1, 3, 1\)"):
        mt.causal_conv1d(x, w[:3, 0], initial_state=torch.zeros(1, 3, 4))
    with pytest.raises(DtypeError, match=r"causal_conv1d: weight is float16, but x is float32"):
        mt.causal_conv1d(x, w[:3, 0].half())
    assert mt.conv1d(x.to("meta"), w.to("meta"), padding=1).shape == (1, 4, 10)


def test_calls_of_changing_shapes_leave_nothing_behind():
    """Two thousand calls of two thousand shapes compile nothing, and what is remembered of them is bounded."""
    w = draw(8, 8, 3, dtype=torch.float32)
    built = len(compiled)

    def work(lengths):
        for length in lengths:
            torch.autograd.grad(mt.conv1d(torch.zeros(1, 8, length), w).sum(), w)

    work(range(3, 50))
    gc.collect()
    before = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    work(range(50, 2050))
    gc.collect()
    assert sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()) <= before  # of other tests, too
    assert len(compiled) == built
    assert _functional._remembered.cache_info().currsize <= _functional._REMEMBERED
    assert 0 < _short._alike.cache_info().currsize <= _short._MOST


@pytest.mark.parametrize("function", ["causal_conv1d", "conv1d"])
@pytest.mark.parametrize("shape", [(3, 5, 40), (5, 40)])
def test_gradients_of_one_launch_go_to_their_operands(shape, function, monkeypatch):
    """What computes both gradients at once is given the layer, and each operand gets its own of them."""
    served = []

    def both(x, w, gradient, *geometry):
        served.append(geometry)
        by_x = _operators.transpose(gradient, w, None, x.shape[-1], *geometry)
        return by_x, _operators.correlate(x, gradient, w.shape[-1], *geometry)

    x, w, b, gradient = draw(*shape), draw(5, 4), draw(5), draw(*shape, requires_grad=False)

    def gradients():
        if function == "causal_conv1d":
            y = mt.causal_conv1d(x, w, b, activation="silu")
        else:
            y = mt.conv1d(x, w[:, None], b, padding=(3, 0), groups=5)
        return torch.autograd.grad(y, (x, w, b), gradient)

    expected = gradients()
    monkeypatch.setattr(_operators, "both_gradients", both)
    assert all(map(torch.equal, gradients(), expected))
    assert served == [(1, 3, 1, 5)]
