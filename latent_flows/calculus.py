"""Differential operators on plain callables: Laplacian, divergence, time derivatives.

The Laplacian is the cost of every partial differential equation here, so it has an implementation
of its own: one pass through the function that carries a value, its first derivatives along every
axis, and a *single* summed second derivative. Summing while propagating is what makes it cheaper
than the trace of a Hessian, whose off-diagonal part is computed only to be thrown away.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._operations import INLINED, bind, body_of, evaluate
from latent_flows._validation import choose
from latent_flows.typing import Latent, Potential, Scalar

Number: TypeAlias = Scalar | float | int
"""A scalar as a user writes it; traced where it is an array."""

__all__ = ["Number", "divergence", "laplacian", "time_derivative"]


def laplacian(
    f: Callable[[Latent], Scalar], *, method: str = "forward", samples: int | None = None
) -> Callable[..., Scalar]:
    r"""The Laplacian of a scalar function.

    $$\Delta f(z) = \sum_{i=1}^{d} \frac{\partial^2 f}{\partial z_i^2}(z)$$

    `"forward"` is exact and the fastest. It pushes $(x, \partial_1 x, \dots, \partial_d x,
    \Delta x)$ through the operations of `f`, for each of which

    $$\Delta\, h(x) = h'(x)\,\Delta x + \sum_i h''(x)[\partial_i x, \partial_i x].$$

    Complex numbers may stand between `z` and the value, where derivatives are those of the real
    and the imaginary part: an absolute value is differentiated in both. A complex value has a
    complex Laplacian.

    Where all that happens to `z` is one product with a fixed matrix, as in the first layer of a
    network, `f(z) = g(z W)` with $W$ of `d` rows and at most `d/2` columns, the sum needs no more
    derivatives than $W$ has columns. It depends on $W$ through $W^\top W = R^\top R$ alone, where
    $W = QR$, so the rows of $R$ take the place of the rows of $W$, still exactly. Second
    derivatives in such a $W$ exist in this form only while its columns are independent, and are
    NaN where they are not (or nearly not); all else is right for every $W$.

    `"hessian"` is exact too, the trace of the full Hessian, and serves as the reference.
    `"hutchinson"` is the unbiased estimate $\frac1m \sum_k e_k^\top H e_k$ with random signs
    $e_k$, propagated in the same way, with `m` first derivatives in place of `d`.

    The results are differentiable in both modes, in the point and in whatever `f` closes over.
    A function with `jax.custom_jvp` keeps its rule; one with `jax.custom_vjp` alone is
    differentiated through its body under `"forward"` and `"hutchinson"`, because a reverse rule
    cannot be pushed forward.

    Args:
        f: `z -> scalar`.
        method: `"forward"`, `"hessian"` or `"hutchinson"`.
        samples: the number of probes `m`; for `"hutchinson"` only, and required there.

    Returns:
        `z -> scalar`, or `(key, z) -> scalar` for `"hutchinson"`.

    Raises:
        ValueError: for an unknown method, for `samples` that are missing or out of place, for a
            point that is not a vector of floats, for an `f` whose value is not a scalar.

    References:
        Li et al., *A computational framework for neural network-based variational Monte Carlo
        with Forward Laplacian*, 2023, eq. (5) to (7); Dangel et al., *Collapsing Taylor Mode
        Automatic Differentiation*, 2025; Hutchinson, 1989, for the estimate.

    >>> import jax.numpy as jnp
    >>> z = jnp.array([1.0, 2.0, 3.0])
    >>> print(laplacian(lambda z: z @ z)(z))
    6.0
    """
    methods = {
        "forward": partial(_forward_laplacian, f),
        "hessian": partial(_hessian_laplacian, f),
        "hutchinson": partial(_hutchinson_laplacian, f, samples or 1),
    }
    _check_samples("laplacian", method, samples)
    return choose("method of laplacian", method, methods)


def divergence(
    v: Callable[[Latent], Latent], *, method: str = "forward", samples: int | None = None
) -> Callable[..., Scalar]:
    r"""The divergence of a vector field.

    $$\nabla \cdot v(z) = \sum_{i=1}^{d} \frac{\partial v_i}{\partial z_i}(z)$$

    Args:
        v: `z -> vector` of the same length.
        method: `"forward"` (exact, `d` Jacobian-vector products), `"reverse"` (exact, `d`
            vector-Jacobian products) or `"hutchinson"` (the unbiased estimate
            $\frac1m \sum_k e_k^\top J e_k$ with random signs $e_k$).
        samples: the number of probes `m`; for `"hutchinson"` only, and required there.

    Returns:
        `z -> scalar`, or `(key, z) -> scalar` for `"hutchinson"`.

    Raises:
        ValueError: for an unknown method, for `samples` that are missing or out of place, for a
            point that is not a vector of floats, for a field of another shape than its point.

    References:
        Grathwohl et al., *FFJORD*, 2019, eq. (7), for the estimate.

    >>> import jax.numpy as jnp
    >>> print(divergence(lambda z: z**2)(jnp.array([1.0, 2.0])))
    6.0
    """
    methods = {
        "forward": partial(_forward_divergence, v),
        "reverse": partial(_reverse_divergence, v),
        "hutchinson": partial(_hutchinson_divergence, v, samples or 1),
    }
    _check_samples("divergence", method, samples)
    return choose("method of divergence", method, methods)


def time_derivative(u: Potential, order: int = 1) -> Potential:
    r"""The derivative of a potential in time, at a fixed point.

    $$(t, z) \mapsto \frac{\partial^n u}{\partial t^n}(t, z)$$

    Args:
        u: `(t, z) -> scalar`; an array of any shape will do as well.
        order: `n`, at least 1.

    Returns:
        `(t, z) -> scalar`.

    Raises:
        ValueError: if `order` is not a whole number of at least 1.

    >>> import jax.numpy as jnp
    >>> print(time_derivative(lambda t, z: t**3 * z.sum(), order=2)(2.0, jnp.ones(2)))
    24.0
    """
    if not isinstance(order, int) or isinstance(order, bool) or order < 1:
        raise ValueError(f"order must be a whole number of at least 1, got {order!r}")

    def derivative(t: Number, z: Latent) -> Array:
        nth: Callable = partial(_swapped, u, z)
        for _ in range(order):
            nth = partial(_along_unit, nth)
        return nth(jnp.asarray(t, z.dtype))

    return derivative


def _swapped(u: Potential, z: Latent, t: Scalar) -> Array:
    return u(t, z)


def _along_unit(f: Callable[[Array], Array], t: Array) -> Array:
    return jax.jvp(f, (t,), (jnp.ones_like(t),))[1]


# --- the methods ---


def _by_parts(operator: Callable, f: Callable, z: Latent) -> Callable[[Latent], Array]:
    """A linear operator for real functions, such as `jax.grad`, on a real or a complex one."""
    if not jnp.issubdtype(jax.eval_shape(f, z).dtype, jnp.complexfloating):
        return operator(f)
    real, imaginary = operator(lambda z: f(z).real), operator(lambda z: f(z).imag)
    return lambda z: jax.lax.complex(real(z), imaginary(z))


def _forward_laplacian(f: Callable, z: Latent) -> Array:
    _check_point(z)
    return _summed_second_derivative(f, z, None)


def _hessian_laplacian(f: Callable, z: Latent) -> Array:
    _check_point(z)
    _check_value("f", jax.eval_shape(f, z), ())
    return jnp.trace(_by_parts(jax.hessian, f, z)(z))


def _hutchinson_laplacian(f: Callable, samples: int, key: Array, z: Latent) -> Array:
    _check_point(z)
    probes = jax.random.rademacher(key, (samples, z.size), z.dtype)
    # The mean over probes goes into their length, since the result is quadratic in them.
    return _summed_second_derivative(f, z, probes / jnp.sqrt(samples).astype(z.dtype))


def _forward_divergence(v: Callable, z: Latent) -> Array:
    return _mean_quadratic(v, z, jnp.eye(z.size, dtype=z.dtype)) * z.size


def _reverse_divergence(v: Callable, z: Latent) -> Array:
    _check_field(v, z)
    return jnp.trace(_by_parts(jax.jacrev, v, z)(z))


def _hutchinson_divergence(v: Callable, samples: int, key: Array, z: Latent) -> Array:
    return _mean_quadratic(v, z, jax.random.rademacher(key, (samples, z.size), z.dtype))


def _mean_quadratic(v: Callable, z: Latent, probes: Float[Array, "m d"]) -> Array:
    """The mean of `e' J e` over the rows `e` of `probes`."""
    _check_field(v, z)
    return jax.vmap(lambda e: e @ jax.jvp(v, (z,), (e,))[1])(probes).mean()


# --- propagation of (value, first derivatives, summed second derivative) ---


class _Jet(NamedTuple):
    """What is known of one intermediate array `x` that depends on `z`."""

    value: Array
    first: Array
    """Derivatives along the `m` probes, stacked on a leading axis."""
    second: Array | None
    """Their second derivatives, summed over the probes; None stands for zero."""


class _Narrow(_Jet):
    """The point itself where one matrix is all that it meets; its derivatives are left empty."""


def _summed_second_derivative(f: Callable, z: Latent, probes: Float[Array, "m d"] | None) -> Array:
    """`sum_i d^2/ds^2 f(z + s e_i)` at `s = 0`, over the rows `e_i` of `probes`.

    None stands for the unit vectors, or for fewer that give the same sum.
    """
    closed, value = jax.make_jaxpr(f, return_shape=True)(z)
    _check_value("f", value, ())
    if probes is not None:
        point = _Jet(z, probes, None)
    elif _can_narrow(closed.jaxpr):
        point = _Narrow(z, jnp.zeros((0, z.size), z.dtype), None)
    else:
        point = _Jet(z, jnp.eye(z.size, dtype=z.dtype), None)
    (out,) = _propagate(closed.jaxpr, closed.consts, [point])
    if isinstance(out, _Jet):
        return jnp.zeros_like(out.value) if out.second is None else out.second
    return jnp.zeros((), z.dtype)


def _propagate(jaxpr: jex.Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list:
    """Evaluate a jaxpr on arguments of which some are jets and the others plain arrays."""
    return evaluate(jaxpr, consts, args, _apply)


def _apply(equation: jex.JaxprEqn, args: list) -> Sequence[Any]:
    """One operation on arguments of which some may be jets."""
    name = equation.primitive.name
    where = [i for i, arg in enumerate(args) if isinstance(arg, _Jet)]
    if where and name in INLINED:
        return _propagate(*body_of(equation), args)
    if any(isinstance(arg, _Narrow) for arg in args):
        return [_narrowed(equation, args, where[0])]
    complex_signs = name == "sign" and _is_complex(equation.invars[0])
    flat = name in _FLAT and not complex_signs
    if not where or flat or not any(map(_is_inexact, equation.outvars)):
        return bind(equation, [arg.value if isinstance(arg, _Jet) else arg for arg in args])

    def f(*xs):
        """The operation as a function of the arguments that depend on `z`."""
        full = list(args)
        for i, x in zip(where, xs, strict=True):
            full[i] = x
        return [_phase(*full)] if complex_signs else bind(equation, full)

    return _rule(equation, where)(f, *(args[i] for i in where))


def _rule(equation: jex.JaxprEqn, where: Sequence[int]) -> Callable[..., Sequence[Any]]:
    """The cheapest rule for an operation of which the arguments `where` depend on `z`."""
    name = equation.primitive.name
    if name in _LINEAR or (name == "div" and where == [0]):
        return _linear
    if name in _BILINEAR:
        return _linear if len(where) == 1 else _bilinear
    # One derivative of a complex number holds in all directions for holomorphic maps only.
    one_slope = name in _HOLOMORPHIC or not _is_complex(equation.invars[where[0]])
    if len(where) == 1 and one_slope and _is_elementwise(equation):
        return _elementwise
    return partial(_general, [_is_inexact(var) for var in equation.outvars])


def _linear(f: Callable, *jets: _Jet) -> list[_Jet]:
    """A map without curvature: second derivatives pass through it as first ones do."""
    values = tuple(jet.value for jet in jets)

    def push(*v):
        return jax.jvp(f, values, v)[1]

    outs, firsts = f(*values), jax.vmap(push)(*(jet.first for jet in jets))
    if all(jet.second is None for jet in jets):
        return [_Jet(out, first, None) for out, first in zip(outs, firsts, strict=True)]
    return list(map(_Jet, outs, firsts, push(*map(_second, jets))))


def _bilinear(f: Callable, a: _Jet, b: _Jet) -> list[_Jet]:
    """A product of two jets: `Lap(ab) = a Lap b + Lap a b + 2 sum_i d_i a d_i b`."""

    def product(x, y):
        return f(x, y)[0]

    first = jax.vmap(lambda da, db: product(a.value, db) + product(da, b.value))(a.first, b.first)
    second = 2 * jax.vmap(product)(a.first, b.first).sum(0)
    if b.second is not None:
        second += product(a.value, b.second)
    if a.second is not None:
        second += product(a.second, b.value)
    return [_Jet(product(a.value, b.value), first, second)]


def _elementwise(f: Callable, x: _Jet) -> list[_Jet]:
    """A function applied to each element: two derivatives of it serve every probe."""

    def value(x):
        return f(x)[0]

    slope = partial(_along_unit, value)
    dy, ddy = slope(x.value), _along_unit(slope, x.value)
    # The square is taken inside the sum, in one loop; nothing of its size is stored.
    second = ddy * jnp.square(x.first).sum(0)
    if x.second is not None:
        second += dy * x.second
    return [_Jet(value(x.value), dy * x.first, second)]


def _general(inexact: Sequence[bool], f: Callable, *jets: _Jet) -> list[Any]:
    """Any operation that can be differentiated forward twice, control flow included."""
    values = tuple(jet.value for jet in jets)
    where = [i for i, keep in enumerate(inexact) if keep]

    def smooth(*xs):
        outs = f(*xs)
        return [outs[i] for i in where]

    def twice(*v):
        return jax.jvp(lambda *xs: jax.jvp(smooth, xs, v)[1], values, v)

    outs = list(f(*values))
    firsts, bends = jax.vmap(twice)(*(jet.first for jet in jets))
    straight = jax.jvp(smooth, values, tuple(map(_second, jets)))[1]
    for i, first, bend, second in zip(where, firsts, bends, straight, strict=True):
        outs[i] = _Jet(outs[i], first, bend.sum(0) + second)
    return outs


def _phase(x: Array) -> Array:
    """`x / |x|`, which is what the sign of a complex number means; for JAX it has no derivative."""
    size = jnp.abs(x)
    return x / jnp.where(size > 0, size, 1)


def _second(jet: _Jet) -> Array:
    return jnp.zeros_like(jet.value) if jet.second is None else jet.second


# --- fewer probes where the point enters through one matrix ---


def _can_narrow(jaxpr: jex.Jaxpr) -> bool:
    """Whether all that happens to the point is a product with one matrix of few columns."""
    (z,) = jaxpr.invars
    w = _only_factor(jaxpr, z)
    if w is None or w.aval.dtype not in (jnp.float32, jnp.float64):
        return False
    # The factorization costs something: it has to save half of the probes or more.
    return 0 < 2 * math.prod(_shape(w)) <= math.prod(_shape(z)) ** 2


def _only_factor(jaxpr: jex.Jaxpr, z: Any) -> Any:
    """The variable with which `z` is contracted, where this is all that happens to `z`."""
    uses = [(e, i) for e in jaxpr.eqns for i, atom in enumerate(e.invars) if atom is z]
    if not uses or any(atom is z for atom in jaxpr.outvars):
        return None
    equation, i = uses[0]
    if len(uses) == 1 and equation.primitive.name in INLINED:
        body, _ = body_of(equation)
        return _only_factor(body, body.invars[i])
    # The factor is known before its first product, hence it does not depend on z...
    if any(e.primitive.name != "dot_general" or _contracted(e)[i] != (0,) for e, i in uses):
        return None
    first, *others = (e.invars[1 - i] for e, i in uses)
    # ... unless it is z.
    return None if first is z or any(w is not first for w in others) else first


def _contracted(equation: jex.JaxprEqn) -> Sequence[tuple[int, ...]]:
    """The axes of each factor over which a product sums."""
    axes, _ = equation.params["dimension_numbers"]
    return list(map(tuple, axes))


def _narrowed(equation: jex.JaxprEqn, args: list, where: int) -> _Jet:
    """The product of the point and a matrix `W`, with the rows of `R` as its derivatives."""
    (axis,) = _contracted(equation)[1 - where]
    w = jnp.moveaxis(args[1 - where], axis, 0)
    args = [arg.value if isinstance(arg, _Jet) else arg for arg in args]
    (value,) = bind(equation, args)
    root = _root(w.reshape(w.shape[0], -1))
    return _Jet(value, root.reshape(-1, *value.shape).astype(value.dtype), None)


@jax.custom_jvp
def _root(w: Float[Array, "d h"]) -> Float[Array, "h h"]:
    """An `R` with `R'R = W'W`, to be used where only `R'R` matters.

    `R` is free up to a rotation `UR`, and this freedom is fixed such that `dR = Q'dW`, which
    gives `R'dR = W'dW` for a `W` of any rank.
    """
    return jnp.linalg.qr(w)[1]


@_root.defjvp
def _(primals, tangents):
    (w,), (dw,) = primals, tangents
    return _root(w), _frame(w).T @ dw


@jax.custom_jvp
def _frame(w: Float[Array, "d h"]) -> Float[Array, "d h"]:
    """The `Q` that belongs to `_root`: `W = QR` and `dW = dQ R + Q dR`."""
    return jnp.linalg.qr(w)[0]


@_frame.defjvp
def _(primals, tangents):
    (w,), (dw,) = primals, tangents
    q, r = _frame(w), _root(w)
    outside = dw - q @ (q.T @ dw)
    # Not a triangular solve: `dR` is full, and the next derivative would take a part of it.
    inverse = jnp.linalg.inv(r)
    condition = jnp.linalg.norm(r) * jnp.linalg.norm(inverse)
    # Beyond this the inverse holds too many rounding errors: better no number than a wrong one.
    independent = condition < jnp.finfo(w.dtype).eps ** -0.5
    return q, outside @ jnp.where(independent, inverse, jnp.nan)


# --- what is known of the operations ---

# Without a derivative: what comes out does not depend on z as far as calculus goes.
_FLAT = frozenset({"stop_gradient", "sign", "floor", "ceil", "round"})
# Linear in all the arguments that depend on z together.
_LINEAR = frozenset(
    {
        "add",
        "sub",
        "neg",
        "add_any",
        "reshape",
        "squeeze",
        "expand_dims",
        "broadcast_in_dim",
        "transpose",
        "reduce_sum",
        "cumsum",
        "slice",
        "pad",
        "concatenate",
        "rev",
        "copy",
        "copy_p",
        "convert_element_type",
        "gather",
        "scatter-add",
        "dynamic_slice",
        "dynamic_update_slice",
        "select_n",
        "reduce_window_sum",
        "split",
        "real",
        "imag",
    }
)
_BILINEAR = frozenset({"mul", "dot_general", "conv_general_dilated"})
# Applied to each element on its own, with curvature.
_CURVED = frozenset(
    {
        "tanh",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "asin",
        "acos",
        "atan",
        "asinh",
        "acosh",
        "atanh",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log1p",
        "logistic",
        "sqrt",
        "rsqrt",
        "cbrt",
        "square",
        "integer_pow",
        "pow",
        "abs",
        "max",
        "min",
        "div",
        "atan2",
        "erf",
        "erfc",
        "erf_inv",
        "lgamma",
        "digamma",
        "clamp",
    }
)
# Those of them that are complex differentiable, where they take complex numbers at all.
_HOLOMORPHIC = _CURVED - {"abs", "max", "min", "atan2", "clamp"}
# What the body of an elementwise custom_jvp function may hold besides.
_ELEMENTWISE = _CURVED | frozenset(
    {
        "add",
        "sub",
        "neg",
        "mul",
        "select_n",
        "convert_element_type",
        "copy",
        "stop_gradient",
        "sign",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "not",
        "is_finite",
        "broadcast_in_dim",
    }
)


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _is_elementwise(equation: jex.JaxprEqn) -> bool:
    """Whether the operation has one result, each element of which needs one element of `x`."""
    shapes = set(map(_shape, (*equation.invars, *equation.outvars))) - {()}
    if len(equation.outvars) != 1 or len(shapes) > 1:
        return False
    if equation.primitive.name == "custom_jvp_call":
        return _body_is_elementwise(equation)
    # A scalar that depends on z would meet a larger array only through a broadcast.
    return equation.primitive.name in _CURVED


def _body_is_elementwise(equation: jex.JaxprEqn) -> bool:
    body, _ = body_of(equation)
    shapes = ((), _shape(equation.outvars[0]))
    return all(
        all(_shape(var) in shapes for var in inner.outvars)
        and (
            _body_is_elementwise(inner)
            if inner.primitive.name in (*INLINED, "custom_jvp_call")
            else inner.primitive.name in _ELEMENTWISE
        )
        for inner in body.eqns
    )


def _is_inexact(var: Any) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.inexact)


def _is_complex(atom: Any) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.complexfloating)


# --- checks ---


def _check_samples(operator: str, method: str, samples: int | None) -> None:
    if method != "hutchinson":
        if samples is not None:
            raise ValueError(
                f"{operator}(method={method!r}) is exact and takes no samples, got {samples!r}"
            )
    elif not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise ValueError(
            f"{operator}(method='hutchinson') needs samples, a whole number of at least 1, "
            f"got {samples!r}"
        )


def _check_point(z: Latent) -> None:
    if jnp.ndim(z) != 1 or not jnp.issubdtype(jnp.result_type(z), jnp.floating):
        raise ValueError(
            f"expected one latent, a vector of floats, got shape {jnp.shape(z)} and dtype "
            f"{jnp.result_type(z)}; use jax.vmap for a batch"
        )


def _check_field(v: Callable, z: Latent) -> None:
    _check_point(z)
    _check_value("the vector field", jax.eval_shape(v, z), z.shape)


def _check_value(what: str, got: Any, expected: tuple[int, ...]) -> None:
    shape = getattr(got, "shape", None)
    if shape != expected:
        raise ValueError(
            f"{what} must return shape {expected}, got {got if shape is None else shape}"
        )
