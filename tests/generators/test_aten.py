"""Each operator of PyTorch's core set, as JAX computes it, is the one of PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra `torch`")

from latent_flows.generators._torch.aten import KEPT, RANDOM, RULES  # noqa: E402

RNG = np.random.default_rng(0)


def normal(*shape):
    return torch.tensor(RNG.normal(size=shape), dtype=torch.float32)


def uniform(*shape, low=0.1, high=0.9):
    return torch.tensor(RNG.uniform(low, high, size=shape), dtype=torch.float32)


def integers(*shape, high=3):
    return torch.tensor(RNG.integers(0, high, size=shape))


def bools(*shape):
    return integers(*shape, high=2).bool()


X, Y, IMAGE = normal(2, 3, 4), normal(2, 3, 4), normal(2, 4, 6, 5)
POSITIVE, NUMBERS = uniform(3, 4), integers(3, 4)
COMPLEX = torch.complex(normal(3, 4, 6), normal(3, 4, 6))
UNARY = """
abs ceil cos cosh exp exp2 expm1 floor round sign sin sinh tan tanh trunc erf erfc neg relu
sigmoid silu gelu mish softplus elu hardtanh leaky_relu isnan isinf logical_not asinh atan
alias clone detach
"""
OF_POSITIVE = """
log log10 log1p log2 sqrt rsqrt reciprocal acos asin atanh erfinv lgamma digamma i0
"""
BINARY = """
add sub mul div maximum minimum fmod remainder atan2 hypot copysign eq ne lt le gt ge multiply
logical_and logical_or logical_xor
"""
REDUCTIONS = ["sum", "mean", "amax", "amin"]
BOTH_ENDS = (([0, 1], False), ([-1], True), ([], False))

CASES = [
    *[(name, (X,), {}) for name in UNARY.split()],
    *[(name, (POSITIVE,), {}) for name in OF_POSITIVE.split()],
    ("acosh", (POSITIVE + 1.5,), {}),
    *[(name, (X, Y), {}) for name in BINARY.split()],
    *[(f"bitwise_{name}", (bools(5), bools(5)), {}) for name in ("and", "or", "xor")],
    ("bitwise_not", (bools(5),), {}),
    ("add", (X, 2), {"alpha": 3}),
    ("sub", (X, Y[0]), {"alpha": 0.5}),
    ("mul", (NUMBERS, 0.5), {}),
    ("div", (NUMBERS, 2), {}),
    *[("div", (X, 0.3), {"rounding_mode": mode}) for mode in ("floor", "trunc")],
    *[("pow", (POSITIVE, power), {}) for power in (2, 3.0, -1, 0.5, 0, 1.7)],
    ("pow", (X, 2), {}),
    ("pow", (2.0, X), {}),
    ("pow", (POSITIVE, POSITIVE), {}),
    ("clamp", (X, -0.5), {}),
    ("clamp", (X, None, 0.5), {}),
    ("clamp", (X, -Y.abs(), Y.abs()), {}),
    ("clamp", (torch.tensor([-1.0, 0.0, 1.0]), 0), {}),
    ("clamp_min", (X, 0.1), {}),
    ("clamp_max", (X, 0.1), {}),
    ("hardtanh", (torch.tensor([-1.0, 0.0, 6.0, 7.0, 0.5]), 0.0, 6.0), {}),
    ("elu", (X, 1.6732, 1.0507), {}),
    ("elu", (torch.tensor([0.0, -200.0, 200.0]),), {}),
    ("gelu", (X,), {"approximate": "tanh"}),
    ("leaky_relu", (torch.tensor([0.0, -2.0, 2.0]), 0.2), {}),
    ("softplus", (torch.tensor([-300.0, 0.0, 19.0, 21.0, 300.0]), 2.0, 20.0), {}),
    *[(name, (X, dim, False), {}) for name in ("_softmax", "_log_softmax") for dim in (1, -1)],
    ("where", (bools(3, 1), X, Y), {}),
    ("copy", (X, Y[:1, :, :1]), {}),
    ("_to_copy", (NUMBERS,), {"dtype": torch.float32}),
    ("_to_copy", (X,), {"dtype": torch.bool}),
    *[(name, (X, *case), {}) for name in REDUCTIONS for case in BOTH_ENDS],
    ("sum", (bools(3, 4), [1]), {}),
    ("mean", (X,), {}),
    ("prod", (X, 1, True), {}),
    ("prod", (X,), {}),
    *[(name, (bools(2, 3), 1), {}) for name in ("any", "all")],
    *[(name, (X, 1, True), {}) for name in ("argmax", "argmin", "max", "min")],
    *[(name, (X,), {}) for name in ("argmax", "max", "min")],
    ("max", (X, -1), {}),
    ("var", (X, [1, 2]), {"correction": 0}),
    ("var", (X, [0]), {"correction": 1, "keepdim": True}),
    *[("linalg_vector_norm", (X, order, [1]), {}) for order in (2, 1, 3, math.inf, -math.inf, 0)],
    ("linalg_vector_norm", (torch.zeros(2, 3), 2, [1], True), {}),
    ("cumsum", (X, 1), {}),
    ("cumprod", (X, -1), {}),
    ("sort", (X, 1, True), {}),
    ("topk", (X, 2, 1), {}),
    ("topk", (X, 2, -1, False), {}),
    ("view", (X, [6, -1]), {}),
    ("_unsafe_view", (X, [24]), {}),
    ("reshape", (X, [4, 6]), {}),
    ("permute", (X, [2, 0, 1]), {}),
    ("unsqueeze", (X, -1), {}),
    ("squeeze", (X[:1, :, :1],), {}),
    ("squeeze", (X[:1, :, :1], 0), {}),
    ("squeeze", (X[:1], [0, 1]), {}),
    ("expand", (X[:, :1], [2, 2, 3, -1]), {}),
    ("expand", (X[:, :1], [-1, 5, 4]), {}),
    ("repeat", (X, [2, 1, 1, 3]), {}),
    ("flip", (X, [0, -1]), {}),
    ("diagonal", (X, 1, -2, -1), {}),
    ("cat", ([X, Y[:, :1]], 1), {}),
    ("cat", ([torch.zeros(0), X], -1), {}),
    ("slice", (X, -1, 1, 9223372036854775807, 2), {}),
    ("slice", (X, 1, -2, -1), {}),
    ("select", (X, -1, -2), {}),
    ("slice_scatter", (X, Y[:, 1:], 1, 1), {}),
    ("select_scatter", (X, Y[:, 0], 1, -1), {}),
    ("split_with_sizes", (X, [1, 2], 1), {}),
    ("unfold", (X, -1, 2, 2), {}),
    ("unfold", (X, 1, 2, 1), {}),
    ("constant_pad_nd", (X, [1, -1, 0, 2], 0.5), {}),
    ("reflection_pad1d", (X, [2, 1]), {}),
    ("reflection_pad2d", (IMAGE, [1, 2, 3, 0]), {}),
    ("reflection_pad3d", (IMAGE[None], [1, 0, 2, 1, 0, 1]), {}),
    ("replication_pad1d", (X, [2, -1]), {}),
    ("replication_pad2d", (IMAGE, [1, 2, 3, 0]), {}),
    ("replication_pad3d", (IMAGE[None], [1, 0, 2, 1, 0, 1]), {}),
    ("pixel_shuffle", (IMAGE, 2), {}),
    ("index", (X, [None, integers(2), integers(2)]), {}),
    ("index", (X, [integers(2, 2, high=2)]), {}),
    ("index", (X, [integers(2, high=2), None, integers(2)]), {}),
    ("index_put", (X, [torch.tensor([1, 0])], Y), {}),
    ("index_put", (X, [torch.tensor([1, 1])], Y), {"accumulate": True}),
    ("index_put", (X, [X > 0], torch.tensor(2.0)), {}),
    ("index_select", (X, 1, torch.tensor([2, 0, 2])), {}),
    ("gather", (X, 1, integers(2, 2, 3)), {}),
    ("gather", (X, -1, integers(2, 2, 1)), {}),
    ("scatter", (X, 1, torch.tensor([[[0, 1, 2, 0]]]), Y[:1, :1]), {}),
    ("scatter", (X, 2, torch.tensor([[[3], [1]]]), 5.0), {}),
    ("scatter_add", (X, 1, torch.tensor([[[0, 1], [0, 0]]]), Y[:1, :2, :2]), {}),
    ("embedding", (normal(5, 3), integers(2, 2, high=5)), {}),
    ("full", ([2, 3], 0.5), {}),
    ("full_like", (X, 2), {"dtype": torch.int32}),
    ("arange", (2, 9, 3), {}),
    ("arange", (0.0, 1.0, 0.25), {"dtype": torch.float32}),
    ("scalar_tensor", (-math.inf,), {"dtype": torch.float32}),
    ("mm", (X[0], Y[0].T), {}),
    ("matmul", (X, Y[0].T), {}),
    ("bmm", (X, Y.mT), {}),
    ("mv", (X[0], Y[0, 0]), {}),
    ("dot", (X[0, 0], Y[0, 0]), {}),
    ("addmm", (normal(3), X[0], Y[0].T), {}),
    ("addmm", (normal(3), X[0], Y[0].T), {"beta": 0.5, "alpha": 2}),
    ("baddbmm", (normal(2, 3, 3), X, Y.mT), {"beta": 2}),
    ("native_layer_norm", (X, [3, 4], normal(3, 4), normal(3, 4), 1e-5), {}),
    ("native_layer_norm", (X, [4], None, None, 1e-5), {}),
    ("native_group_norm", (IMAGE, normal(4), normal(4), 2, 4, 30, 2, 1e-5), {}),
    ("native_group_norm", (IMAGE, None, None, 2, 4, 30, 4, 1e-5), {}),
    ("_native_batch_norm_legit", (IMAGE, normal(4), normal(4), True, 0.1, 1e-5), {}),
    ("_native_batch_norm_legit", (IMAGE, None, None, True, 0.1, 1e-5), {}),
    (
        "_native_batch_norm_legit",
        (IMAGE, normal(4), None, normal(4), uniform(4), False, 0.1, 1e-5),
        {},
    ),
    (
        "_native_batch_norm_legit_no_training",
        (IMAGE, normal(4), normal(4), normal(4), uniform(4), 0.1, 1e-5),
        {},
    ),
    (
        "_native_batch_norm_legit_no_training",
        (X[:, :, 0], None, None, normal(3), uniform(3), 0.1, 1e-5),
        {},
    ),
    ("avg_pool1d", (X, [2]), {}),
    ("avg_pool2d", (IMAGE, [2, 3]), {}),
    ("avg_pool2d", (IMAGE, [3, 3], [2, 2], [1, 1], True), {}),
    ("avg_pool2d", (IMAGE, [3, 3], [2, 2], [1, 1], True, False), {}),
    ("avg_pool2d", (IMAGE[0], [3], [2], [0], False, True, 5), {}),
    ("avg_pool3d", (IMAGE[None], [2, 2, 2]), {}),
    ("max_pool2d_with_indices", (IMAGE, [2, 2]), {}),
    ("max_pool2d_with_indices", (IMAGE, [3, 3], [2, 2], [1, 1], [1, 1], True), {}),
    ("max_pool3d_with_indices", (IMAGE[None], [2, 2, 2]), {}),
    ("_adaptive_avg_pool2d", (IMAGE, [4, 2]), {}),
    ("_adaptive_avg_pool3d", (IMAGE[None], [3, 2, 7]), {}),
    ("upsample_nearest1d", (X, [7]), {}),
    ("upsample_nearest2d", (IMAGE, None, [2.0, 2.0]), {}),
    ("upsample_nearest2d", (IMAGE, [9, 3], None), {}),
    ("upsample_nearest2d", (IMAGE, None, [1.7, 0.6]), {}),
    ("upsample_nearest3d", (IMAGE[None], [8, 6, 7], None), {}),
    ("upsample_linear1d", (X, [7], True), {}),
    *[
        (f"upsample_{kind}2d", (IMAGE, *case), {})
        for kind in ("bilinear", "bicubic")
        for case in (
            ([12, 10], False, None),
            ([7, 3], True, None),
            (None, False, [1.7, 0.6]),
            ([1, 1], True, None),
        )
    ],
    ("upsample_trilinear3d", (IMAGE[None], [8, 6, 10], False, None), {}),
    ("_upsample_bilinear2d_aa", (IMAGE, [2, 9], False), {}),
    ("_upsample_bilinear2d_aa", (IMAGE, [3, 2], False), {}),
    *[
        ("grid_sampler_2d", (IMAGE, uniform(2, 3, 4, 2, low=-1.4, high=1.4), 0, edge, corners), {})
        for edge in (0, 1)
        for corners in (False, True)
    ],
    *[("_fft_c2c", (COMPLEX, [1, 2], norm, way), {}) for norm, way in ((0, True), (2, False))],
    ("_fft_r2c", (IMAGE, [2, 3], 1, True), {}),
    ("_fft_r2c", (IMAGE, [3], 0, False), {}),
    *[("_fft_c2r", (COMPLEX, [1, 2], 2, last), {}) for last in (10, 11)],
    ("complex", (X, Y), {}),
    ("polar", (POSITIVE, POSITIVE), {}),
    ("view_as_real", (COMPLEX,), {}),
    ("view_as_complex", (normal(3, 2),), {}),
    *[(name, (COMPLEX,), {}) for name in ("real", "imag")],
]

CONVOLUTIONS = {
    # input, weight, stride, padding, dilation, transposed, output padding, groups
    "plain": ((2, 4, 6, 5), (3, 4, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "strided": ((2, 4, 6, 5), (3, 4, 3, 2), [2, 1], [0, 2], [1, 2], False, [0, 0], 1),
    "grouped": ((2, 4, 6, 5), (6, 2, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 2),
    "depthwise": ((2, 4, 6, 5), (4, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
    "transposed": ((2, 4, 6, 5), (4, 3, 4, 4), [2, 2], [1, 1], [1, 1], True, [0, 0], 1),
    "transposed, grouped": ((2, 4, 6, 5), (4, 3, 3, 2), [2, 3], [1, 0], [2, 1], True, [1, 2], 2),
    "along a line": ((2, 4, 9), (3, 4, 3), [2], [1], [1], False, [0], 1),
    "transposed, along a line": ((2, 4, 9), (4, 3, 4), [2], [1], [1], True, [1], 1),
    "in space": ((1, 2, 4, 4, 3), (3, 2, 2, 2, 2), [1], [0], [1], False, [0], 1),
}


def ours(value):
    """An argument of PyTorch as a rule takes it."""
    if isinstance(value, torch.Tensor):
        return jnp.asarray(value.numpy())
    if isinstance(value, torch.dtype):
        return jnp.dtype(str(value).removeprefix("torch."))
    return [ours(each) for each in value] if isinstance(value, list) else value


def tensors(made):
    """What an operator gives, without what it does not."""
    parts = made if isinstance(made, list | tuple) else [made]
    return [part for part in parts if part is not None]


def first(function):
    """The first of what a function gives."""
    return lambda *args: function(*args)[0]


def check(operator, rule, args, kwargs, places):
    """Values, and the derivatives by the arguments at these places, are PyTorch's."""
    leaves = [args[i].clone().requires_grad_() for i in places]

    def given(parts):
        filled = list(args)
        for i, part in zip(places, parts, strict=True):
            filled[i] = part
        return filled

    theirs = tensors(operator(*given(leaves), **kwargs))
    settings = {name: ours(value) for name, value in kwargs.items()}
    fixed = [ours(arg) for arg in args]

    def call(parts):
        filled = list(fixed)
        for i, part in zip(places, parts, strict=True):
            filled[i] = part
        return tensors(rule(*filled, **settings))

    smooth = [i for i, part in enumerate(theirs) if part.requires_grad and part.is_floating_point()]
    weights = [normal(*theirs[i].shape) for i in smooth]

    def weighted(parts):
        made = call(parts)
        pairs = zip(smooth, weights, strict=True)
        return sum((jnp.sum(made[i] * ours(w)) for i, w in pairs), jnp.zeros(())), made

    values, slopes = jax.jit(jax.grad(weighted, has_aux=True))(
        [ours(leaf.detach()) for leaf in leaves]
    )[::-1]
    for mine, wanted in zip(values, theirs, strict=False):
        assert mine.shape == tuple(wanted.shape)
        if wanted.dtype != torch.int64:
            assert mine.dtype == str(wanted.dtype).removeprefix("torch.")
        np.testing.assert_allclose(mine, wanted.detach().numpy(), rtol=2e-5, atol=2e-6)
    if smooth and leaves:
        total = sum((theirs[i] * w).sum() for i, w in zip(smooth, weights, strict=True))
        wanted = torch.autograd.grad(total, leaves, allow_unused=True)
        for mine, slope in zip(slopes, wanted, strict=True):
            known = np.zeros(mine.shape) if slope is None else slope.numpy()
            np.testing.assert_allclose(mine, known, rtol=2e-4, atol=2e-5)


def name(case):
    return case[0]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_an_operator_has_the_values_and_derivatives_of_pytorch(case):
    operator, args, kwargs = case
    # The statistics of batch norms have no derivative in PyTorch, and nobody reads what it gives of
    # them; a copy has none by itself either.
    floats = [isinstance(arg, torch.Tensor) and arg.is_floating_point() for arg in args]
    places = [i for i, is_float in enumerate(floats[:3]) if is_float]
    theirs, rule = getattr(torch.ops.aten, operator), RULES[operator]
    if "batch_norm" in operator:
        theirs, rule = first(theirs), first(rule)
    check(theirs, rule, args, kwargs, [] if operator == "copy" else places)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_convolution_is_that_of_pytorch(kind):
    x, w, *settings = CONVOLUTIONS[kind]
    transposed, groups = settings[3], settings[5]
    outputs = w[1] * groups if transposed else w[0]

    def rule(x, w, b, *settings):
        return RULES["convolution"](x, RULES["kernel"](w, transposed, groups), b, *settings)

    args = (normal(*x), normal(*w), normal(outputs), *settings)
    check(torch.ops.aten.convolution, rule, args, {}, [0, 1, 2])


def test_every_rule_is_compared_and_none_is_random():
    spared = {"kernel", "convolution", "empty", "_local_scalar_dense", "lift_fresh_copy"}
    spared |= {"contiguous"}  # convolutions are above, and the others have no values of their own
    assert set(RULES) - {case[0] for case in CASES} == spared
    assert set(RULES) >= KEPT
    assert not set(RULES) & RANDOM
