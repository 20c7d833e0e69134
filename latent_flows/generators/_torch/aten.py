"""What each operator of PyTorch's core set means in `jax.numpy`, by its name without overload.

A rule has the arguments of the operator's schema, in their order and under their names; dtypes are
those of NumPy, and arguments about devices and memory are left out. Every rule is differentiable as
often as JAX wants, and has PyTorch's derivative where a function has none of its own.

References:
    https://docs.pytorch.org/docs/stable/torch.compiler_ir.html
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import special
from jaxtyping import Array

from latent_flows._norms import safe_norm
from latent_flows.generators._torch import fourier, interpolation

__all__ = ["KEPT", "RANDOM", "RULES", "kernel"]

Rule = Callable[..., Any]

KEPT = {
    "mish",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "softplus",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_linear1d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_trilinear3d",
}
"""Operators with rules of their own that PyTorch would spell out: in gathers, which are slow, or in
a way whose derivative overflows."""

RANDOM = {
    "bernoulli",
    "exponential",
    "multinomial",
    "native_dropout",
    "normal",
    "normal_functional",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "rrelu_with_noise",
    "rrelu_with_noise_functional",
    "uniform",
}
"""Operators that draw random numbers, which have no rule."""


def _dims(dim: Any) -> Any:
    """Dimensions to reduce as an axis of NumPy: none or an empty list are all."""
    return None if dim is None or dim == [] else dim if isinstance(dim, int) else tuple(dim)


def _each(value: Any, count: int) -> tuple[int, ...]:
    """A setting of each spatial dimension, from one number, a list of one, or a list of all."""
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * count if len(value) == 1 else value


# --- element by element ---


def _add(self: Any, other: Any, alpha: Any = 1) -> Array:
    return jnp.add(self, other if alpha == 1 else other * alpha)


def _sub(self: Any, other: Any, alpha: Any = 1) -> Array:
    return jnp.subtract(self, other if alpha == 1 else other * alpha)


def _div(self: Any, other: Any, rounding_mode: str | None = None) -> Array:
    if rounding_mode is None:
        return jnp.true_divide(self, other)
    if rounding_mode == "floor":
        return jnp.floor_divide(self, other)
    whole = jnp.trunc(jnp.true_divide(self, other))
    return whole.astype(jnp.result_type(self, other))


def _pow(self: Any, exponent: Any) -> Array:
    # A whole exponent has derivatives at zero and below.
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    if isinstance(exponent, int) and not isinstance(self, int | float):
        return lax.integer_pow(self, exponent) if exponent >= 0 else 1 / self**-exponent
    return jnp.power(self, exponent)


def _clamp(self: Array, min: Any = None, max: Any = None) -> Array:
    # By `where`, so that a number on the bound has the derivative 1 that it has in PyTorch.
    self = self if min is None else jnp.where(self < min, min, self)
    return self if max is None else jnp.where(self > max, max, self)


def _hardtanh(self: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    inside = (self > min_val) & (self < max_val)
    return jnp.where(inside, self, lax.stop_gradient(jnp.clip(self, min_val, max_val)))


def _elu(self: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Array:
    below = alpha * jnp.expm1(jnp.where(self > 0, 0, self) * input_scale)
    return scale * jnp.where(self > 0, self, below)


def _softplus(self: Array, beta: float = 1, threshold: float = 20) -> Array:
    scaled = self * beta
    return jnp.where(scaled > threshold, self, jax.nn.softplus(scaled) / beta)


def _gelu(self: Array, approximate: str = "none") -> Array:
    return jax.nn.gelu(self, approximate=approximate == "tanh")


def _leaky_relu(self: Array, negative_slope: float = 0.01) -> Array:
    return jnp.where(self > 0, self, negative_slope * self)


def _softmax(self: Array, dim: int, half_to_float: bool = False) -> Array:
    return jax.nn.softmax(self, axis=dim)


def _log_softmax(self: Array, dim: int, half_to_float: bool = False) -> Array:
    return jax.nn.log_softmax(self, axis=dim)


def _cast(self: Any, dtype: Any = None) -> Array:
    return jnp.asarray(self) if dtype is None else jnp.asarray(self).astype(dtype)


# --- sums and the like ---


def _reduction(reduce: Callable[..., Array]) -> Rule:
    def rule(self: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
        return reduce(_cast(self, dtype), axis=_dims(dim), keepdims=keepdim)

    return rule


def _extremum(reduce: Callable[..., Array], place: Callable[..., Array]) -> Rule:
    """The largest or smallest of all, or with its place along one dimension."""

    def rule(self: Array, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            return reduce(self)
        at = place(self, axis=dim, keepdims=True)
        value = jnp.take_along_axis(self, at, axis=dim)
        return (value, at) if keepdim else (value.squeeze(dim), at.squeeze(dim))

    return rule


def _var(self: Array, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Array:
    correction = 1 if correction is None else correction
    return jnp.var(self, axis=_dims(dim), ddof=correction, keepdims=keepdim)


def _norm(
    self: Array, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Array:
    self, axis = _cast(self, dtype), _dims(dim)
    if ord == 2:
        return safe_norm(self, axis, keepdims=keepdim)
    if math.isinf(ord):
        ends = jnp.max if ord > 0 else jnp.min
        return ends(jnp.abs(self), axis=axis, keepdims=keepdim)
    if ord == 0:
        return jnp.sum(self != 0, axis=axis, keepdims=keepdim).astype(self.dtype)
    return jnp.sum(jnp.abs(self) ** ord, axis=axis, keepdims=keepdim) ** (1 / ord)


def _sort(
    self: Array, dim: int = -1, descending: bool = False, stable: bool | None = None
) -> tuple[Array, Array]:
    order = jnp.argsort(self, axis=dim, descending=descending, stable=True)
    return jnp.take_along_axis(self, order, axis=dim), order


def _topk(
    self: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Array, Array]:
    values, order = _sort(self, dim, largest)
    return tuple(lax.slice_in_dim(each, 0, k, axis=dim) for each in (values, order))  # type: ignore[return-value]


def _cumulative(sum_up: Callable[..., Array]) -> Rule:
    return lambda self, dim, dtype=None: sum_up(_cast(self, dtype), axis=dim)


# --- shapes ---


def _expand(self: Array, size: Sequence[int], implicit: bool = False) -> Array:
    new = len(size) - jnp.ndim(self)
    shape = [jnp.shape(self)[i - new] if n == -1 else n for i, n in enumerate(size)]
    return jnp.broadcast_to(self, shape)


def _squeeze(self: Array, dim: Any = None) -> Array:
    dims = range(self.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return jnp.squeeze(self, tuple(d for d in dims if self.shape[d] == 1))


def _window(self: Array, dim: int, start: Any, end: Any, step: int) -> tuple[slice, ...]:
    dim = dim % self.ndim
    return (*[slice(None)] * dim, slice(start, end, step))


def _slice(self: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    return self[_window(self, dim, start, end, step)]


def _slice_scatter(
    self: Array, src: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Array:
    return self.at[_window(self, dim, start, end, step)].set(src)


def _select(self: Array, dim: int, index: int) -> Array:
    return lax.index_in_dim(self, index, axis=dim, keepdims=False)


def _select_scatter(self: Array, src: Array, dim: int, index: int) -> Array:
    return self.at[(*[slice(None)] * (dim % self.ndim), index)].set(src)


def _split(self: Array, split_sizes: Sequence[int], dim: int = 0) -> list[Array]:
    ends = [sum(split_sizes[: i + 1]) for i in range(len(split_sizes) - 1)]
    return jnp.split(self, ends, axis=dim)


def _cat(tensors: Sequence[Array], dim: int = 0) -> Array:
    # One of no numbers is left out whatever its shape, as in PyTorch.
    return jnp.concatenate([t for t in tensors if jnp.shape(t) != (0,)] or tensors, axis=dim)


def _pad(self: Array, pad: Sequence[int], value: Any = 0) -> Array:
    ends = [(0, 0)] * (self.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[
        ::-1
    ]
    fill = jnp.asarray(value, self.dtype)
    return lax.pad(self, fill, [(low, high, 0) for low, high in ends])


def _edges(mode: str) -> Rule:
    def rule(self: Array, padding: Sequence[int]) -> Array:
        cropped = _pad(self, [min(n, 0) for n in padding])
        sides = list(zip(padding[::2], padding[1::2], strict=True))[::-1]
        ends = [(max(low, 0), max(high, 0)) for low, high in sides]
        return jnp.pad(cropped, [(0, 0)] * (self.ndim - len(ends)) + ends, mode=mode)

    return rule


def _unfold(self: Array, dimension: int, size: int, step: int) -> Array:
    starts = jnp.arange(0, self.shape[dimension] - size + 1, step)
    parts = jnp.take(self, starts[:, None] + jnp.arange(size), axis=dimension)
    return jnp.moveaxis(parts, dimension % self.ndim + 1, -1)


# --- looking up and putting ---


def _places(indices: Sequence[Any]) -> tuple[Any, ...]:
    for index in indices:
        if index is not None and index.dtype == bool:
            raise ValueError("the shape of its result depends on values")
    return tuple(slice(None) if index is None else index for index in indices)


def _index_put(
    self: Array, indices: Sequence[Any], values: Array, accumulate: bool = False
) -> Array:
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == bool:
        mask = indices[0].reshape(*indices[0].shape, *[1] * (self.ndim - indices[0].ndim))
        if jnp.size(values) == 1:
            return jnp.where(mask, self + values if accumulate else values, self)
    at = self.at[_places(indices)]
    return at.add(values) if accumulate else at.set(values)


def _grid(index: Array, dim: int) -> tuple[Array, ...]:
    """Where each entry along one dimension comes from, or goes to."""
    places = list(jnp.indices(index.shape, sparse=True))
    places[dim] = index
    return tuple(places)


def _gather(self: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    return self[_grid(index, dim)]


def _scatter(self: Array, dim: int, index: Array, src: Any = None, value: Any = None) -> Array:
    source = value if src is None else src
    if jnp.ndim(source):
        source = source[tuple(slice(n) for n in index.shape)]
    return self.at[_grid(index, dim)].set(source)


def _scatter_add(self: Array, dim: int, index: Array, src: Array) -> Array:
    return self.at[_grid(index, dim)].add(src[tuple(slice(n) for n in index.shape)])


# --- new ones ---


def _full(size: Sequence[int], fill_value: Any, dtype: Any = None) -> Array:
    return jnp.full(tuple(size), fill_value, dtype)


def _full_like(self: Array, fill_value: Any, dtype: Any = None) -> Array:
    return jnp.full(self.shape, fill_value, self.dtype if dtype is None else dtype)


def _empty(size: Sequence[int], dtype: Any = None) -> Array:
    return jnp.zeros(tuple(size), dtype)


# --- products ---


def _addmm(self: Array, mat1: Array, mat2: Array, beta: Any = 1, alpha: Any = 1) -> Array:
    product = jnp.matmul(mat1, mat2)
    product = product if alpha == 1 else alpha * product
    return product + (self if beta == 1 else beta * self)


def kernel(weight: Array, transposed: bool, groups: int) -> Array:
    """A convolution's weights in JAX's order: the place, one group's inputs, outputs.

    It is a step of its own, so that it is done once where the weights do not change.

    Args:
        weight: `[o, i / g, ...]`, or of a transposed convolution `[i, o / g, ...]`.
        transposed: whether it is one; its weights are mirrored.
        groups: of channels.

    Returns:
        The kernel `[..., i / g, o]`.
    """
    if not transposed:
        return jnp.moveaxis(weight, (0, 1), (-1, -2))
    apart = weight.reshape(groups, -1, *weight.shape[1:])
    apart = jnp.moveaxis(apart, (1, 0, 2), (-3, -2, -1))
    apart = apart.reshape(*apart.shape[:-2], -1)
    return jnp.flip(apart, range(weight.ndim - 2))


def _convolution(
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    """With the weights that `kernel` makes."""
    size = weight.shape[:-2]
    count = len(size)
    stride, padding = _each(stride, count), _each(padding, count)
    dilation, more = _each(dilation, count), _each(output_padding, count)
    place = "DHW"[-count:]
    if transposed:
        reach = [d * (k - 1) - p for d, k, p in zip(dilation, size, padding, strict=True)]
        ends = [(low, low + m) for low, m in zip(reach, more, strict=True)]
    else:
        ends = [(p, p) for p in padding]
    dtype = jnp.result_type(input, weight)
    made = lax.conv_general_dilated(
        input.astype(dtype),
        weight.astype(dtype),
        [1] * count if transposed else stride,
        ends,
        lhs_dilation=stride if transposed else None,
        rhs_dilation=dilation,
        dimension_numbers=(f"NC{place}", f"{place}IO", f"NC{place}"),
        feature_group_count=groups,
    )
    return made if bias is None else made + bias.reshape(-1, *[1] * count)


# --- normalisation ---


def _standardised(x: Array, axis: Any, eps: float) -> tuple[Array, Array, Array]:
    mean = jnp.mean(x, axis, keepdims=True)
    rstd = lax.rsqrt(jnp.var(x, axis, keepdims=True) + eps)
    return (x - mean) * rstd, mean, rstd


def _layer_norm(
    input: Array, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Array, Array, Array]:
    made, mean, rstd = _standardised(input, tuple(range(-len(normalized_shape), 0)), eps)
    made = made if weight is None else made * weight
    return made if bias is None else made + bias, mean, rstd


def _group_norm(
    input: Array, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Array, Array, Array]:
    made, mean, rstd = _standardised(input.reshape(N, group, -1), -1, eps)
    made = _scaled(made.reshape(input.shape), weight, bias)
    return made, mean.reshape(N, group), rstd.reshape(N, group)


def _scaled(x: Array, weight: Any, bias: Any) -> Array:
    """Of an array `[n, c, ...]`, each channel by its own numbers."""
    shape = (-1, *[1] * (x.ndim - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _running_norm(
    input: Array, weight: Any, bias: Any, mean: Array, var: Array, momentum: float, eps: float
) -> tuple[Array, ...]:
    scale = lax.rsqrt(var + eps) if weight is None else weight * lax.rsqrt(var + eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    return _scaled(input, scale, shift), mean, var


def _batch_norm(
    input: Array, weight: Any, bias: Any, *rest: Any, **more: Any
) -> tuple[Array, Array, Array]:
    """By the statistics of what is given, as instance norms are spelt."""
    training, _, eps = rest[-3:]
    if not training:
        return _running_norm(input, weight, bias, *rest[:2], *rest[-2:])  # type: ignore[return-value]
    axes = (0, *range(2, input.ndim))
    made, mean, rstd = _standardised(input, axes, eps)
    return _scaled(made, weight, bias), mean, rstd


# --- pools ---


def _pooled(x: Array, start: Any, reduce: Any, kernel: Any, stride: Any, ends: Any) -> Array:
    lead = x.ndim - len(kernel)
    return lax.reduce_window(
        x,
        np.asarray(start, x.dtype)[()],  # a constant, as derivatives need it
        reduce,
        (*[1] * lead, *kernel),
        (*[1] * lead, *stride),
        [*[(0, 0)] * lead, *ends],
    )


def _ends(shape: Any, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Any:
    """Padding of each side, with what the last window reaches beyond it."""
    ends = []
    for n, k, s, p in zip(shape, kernel, stride, padding, strict=True):
        room = n + 2 * p - k
        count = -(-room // s) if ceil_mode else room // s
        # The last window has to begin within the image or its padding in front.
        count -= ceil_mode and count * s >= n + p
        ends.append((p, max(count * s + k - n - p, 0) if ceil_mode else p))
    return ends


def _avg_pool(
    count: int,
    self: Array,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    size = _each(kernel_size, count)
    stride, padding = _each(stride or size, count), _each(padding, count)
    shape = self.shape[-count:]
    ends = _ends(shape, size, stride, padding, ceil_mode)
    total = _pooled(self, 0, lax.add, size, stride, ends)
    if divisor_override is not None:
        return total / divisor_override
    # What padding counts for, but never what lies beyond it.
    inside = padding if count_include_pad else (0,) * count
    ones = jnp.ones([n + 2 * p for n, p in zip(shape, inside, strict=True)], self.dtype)
    rest = [(a - p, b - p) for (a, b), p in zip(ends, inside, strict=True)]
    return total / _pooled(ones, 0, lax.add, size, stride, rest)


def _max_pool(
    count: int,
    self: Array,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> tuple[Array, None]:
    size, padding = _each(kernel_size, count), _each(padding, count)
    stride = _each(stride or size, count)
    if set(_each(dilation, count)) != {1}:
        raise ValueError("a max-pool is dilated")
    ends = _ends(self.shape[-count:], size, stride, padding, ceil_mode)
    return _pooled(self, -jnp.inf, lax.max, size, stride, ends), None


def _adaptive_avg_pool(self: Array, output_size: Sequence[int]) -> Array:
    return interpolation.along(self, output_size, interpolation.bins)


RULES: Mapping[str, Rule] = {
    # Those that NumPy has under the same name.
    **{
        name: getattr(jnp, name)
        for name in (
            *("abs", "ceil", "cos", "cosh", "exp", "exp2", "expm1", "floor", "log", "log10"),
            *("log1p", "log2", "round", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
            *("isnan", "isinf", "real", "imag", "maximum", "minimum", "fmod", "remainder"),
            *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"),
            *("logical_and", "logical_or", "logical_xor", "logical_not"),
            *("where", "multiply", "matmul", "hypot", "copysign"),
        )
    },
    "acos": jnp.arccos,
    "acosh": jnp.arccosh,
    "asin": jnp.arcsin,
    "asinh": jnp.arcsinh,
    "atan": jnp.arctan,
    "atan2": jnp.arctan2,
    "atanh": jnp.arctanh,
    "digamma": special.digamma,
    "erf": special.erf,
    "erfc": special.erfc,
    "erfinv": special.erfinv,
    "i0": special.i0,
    "lgamma": special.gammaln,
    "neg": jnp.negative,
    "reciprocal": jnp.reciprocal,
    "relu": jax.nn.relu,
    "rsqrt": lax.rsqrt,
    "sigmoid": jax.nn.sigmoid,
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
    "mul": jnp.multiply,
    "add": _add,
    "sub": _sub,
    "div": _div,
    "pow": _pow,
    "clamp": _clamp,
    "clamp_min": lambda self, min: _clamp(self, min=min),
    "clamp_max": lambda self, max: _clamp(self, max=max),
    "elu": _elu,
    "gelu": _gelu,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "mish": lambda self: self * jnp.tanh(jax.nn.softplus(self)),
    "silu": jax.nn.silu,
    "softplus": _softplus,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "_to_copy": _cast,
    "_local_scalar_dense": _cast,
    # Those that leave everything as it is.
    **dict.fromkeys(("alias", "clone", "detach", "lift_fresh_copy", "contiguous"), _cast),
    "copy": lambda self, src: jnp.broadcast_to(src, self.shape).astype(self.dtype),
    "sum": _reduction(jnp.sum),
    "mean": _reduction(jnp.mean),
    "prod": _reduction(jnp.prod),
    "amax": _reduction(jnp.max),
    "amin": _reduction(jnp.min),
    "any": _reduction(jnp.any),
    "all": _reduction(jnp.all),
    "argmax": _reduction(jnp.argmax),
    "argmin": _reduction(jnp.argmin),
    "max": _extremum(jnp.max, jnp.argmax),
    "min": _extremum(jnp.min, jnp.argmin),
    "var": _var,
    "linalg_vector_norm": _norm,
    "cumsum": _cumulative(jnp.cumsum),
    "cumprod": _cumulative(jnp.cumprod),
    "sort": _sort,
    "topk": _topk,
    "view": jnp.reshape,
    "_unsafe_view": jnp.reshape,
    "reshape": jnp.reshape,
    "permute": jnp.transpose,
    "unsqueeze": jnp.expand_dims,
    "squeeze": _squeeze,
    "expand": _expand,
    "repeat": jnp.tile,
    "flip": lambda self, dims: jnp.flip(self, tuple(dims)),
    "diagonal": jnp.diagonal,
    "cat": _cat,
    "slice": _slice,
    "select": _select,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "split_with_sizes": _split,
    "unfold": _unfold,
    "constant_pad_nd": _pad,
    **{f"reflection_pad{n}d": _edges("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": _edges("edge") for n in (1, 2, 3)},
    "pixel_shuffle": interpolation.pixel_shuffle,
    "index": lambda self, indices: self[_places(indices)],
    "index_put": _index_put,
    "index_select": lambda self, dim, index: jnp.take(self, index, axis=dim),
    "gather": _gather,
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "embedding": lambda weight, indices, *unused, **more: weight[indices],
    "full": _full,
    "full_like": _full_like,
    "empty": _empty,
    "arange": jnp.arange,
    "scalar_tensor": jnp.asarray,
    "mm": jnp.matmul,
    "bmm": jnp.matmul,
    "mv": jnp.matmul,
    "dot": jnp.matmul,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "kernel": kernel,
    "convolution": _convolution,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _running_norm,
    **{f"avg_pool{n}d": partial(_avg_pool, n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": partial(_max_pool, n) for n in (2, 3)},
    **{f"_adaptive_avg_pool{n}d": _adaptive_avg_pool for n in (2, 3)},
    **{f"upsample_nearest{n}d": interpolation.nearest for n in (1, 2, 3)},
    **{
        f"upsample_{name}": interpolation.linear
        for name in ("linear1d", "bilinear2d", "trilinear3d")
    },
    "upsample_bicubic2d": interpolation.cubic,
    "_upsample_bilinear2d_aa": interpolation.antialiased,
    "grid_sampler_2d": interpolation.grid_sample,
    "_fft_c2c": fourier.complex_to_complex,
    "_fft_r2c": fourier.real_to_complex,
    "_fft_c2r": fourier.complex_to_real,
    "complex": lax.complex,
    "polar": lambda abs, angle: lax.complex(abs * jnp.cos(angle), abs * jnp.sin(angle)),
    "view_as_real": lambda self: jnp.stack([self.real, self.imag], -1),
    "view_as_complex": lambda self: lax.complex(self[..., 0], self[..., 1]),
}
"""By name without namespace and overload, such as `"add"` for `aten.add.Tensor`."""
