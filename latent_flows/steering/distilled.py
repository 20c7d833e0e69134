r"""Exact fields taught to networks: cheap to follow, and a measure of what a potential can do.

The field that moves an image costs a Jacobian at every step. A network that was shown it at many
latents costs next to nothing, and the *form* of the network says what can be learnt: any field, the
gradient of a potential, a gradient and a field without divergence, or the dual frame of potentials
that are coordinates.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from latent_flows import flows, potentials, traversals
from latent_flows._norms import safe_norm
from latent_flows._validation import choose
from latent_flows.calculus import Number
from latent_flows.potentials import FieldNet, PotentialNet
from latent_flows.steering._equations import value_and_slopes
from latent_flows.steering.fields import dual_frame
from latent_flows.steering.learnt import AttributeNet
from latent_flows.typing import Field, Latent, Scalar, VectorField

__all__ = [
    "FORMS",
    "Fields",
    "Form",
    "Lesson",
    "Scales",
    "asymmetry",
    "first",
    "form",
    "lesson",
    "mean_losses",
    "scales",
]

USUAL = 3.0
"""How much longer than the median a vector may be before its error is a relative one."""

Fields: TypeAlias = Callable[[Number, Latent], Float[Array, "k d"]]
"""`(t, z) -> [k, d]`: k velocities of one latent."""


class Lesson(NamedTuple):
    """What is true at one latent."""

    z: Latent
    """Where."""
    fields: Float[Array, "k d"]
    """The exact fields there."""
    values: Float[Array, "m"]
    """Attributes of the sample."""
    slopes: Float[Array, "m d"]
    """Their gradients by the latent."""


class Scales(NamedTuple):
    """The sizes of what is learnt, so that networks give numbers of order one."""

    fields: Float[Array, "k"]
    """Median length of each field."""
    middle: Float[Array, "m"]
    """Median of each attribute."""
    values: Float[Array, "m"]
    """Median of its distance from that."""
    slopes: Float[Array, "m"]
    """Median length of its gradient."""


class Form(NamedTuple):
    """One kind of network that fields are taught to."""

    init: Callable[[PRNGKeyArray, Lesson], PyTree]
    """Parameters, for lessons of the shape of one."""
    fields: Callable[[PyTree, Scales], Fields]
    """The velocities that parameters give."""
    loss: Callable[[PyTree, Scales, Lesson], Scalar]
    """How far they are from one lesson: 0 where they are exact, about 1 where they know nothing."""


def lesson(
    fields: Sequence[VectorField], measure: Callable[[Latent], Float[Array, "m"]], z: Latent
) -> Lesson:
    """What is true at a latent.

    Args:
        fields: exact ones, such as those of `transformation_field`.
        measure: `z -> [m]`, attributes of the latent's sample.
        z: the latent.

    Returns:
        The fields, the attributes and their gradients there; 0 where one is not finite, as where
        nothing is seen, so that nothing is taught.

    >>> found = lesson([lambda t, z: 2 * z], lambda z: z[:1] ** 2, jnp.array([3.0, 1.0]))
    >>> print(found.fields, found.values, found.slopes)
    [[6. 2.]] [9.] [[6. 0.]]
    """
    moved = jnp.stack([field(jnp.zeros((), z.dtype), z) for field in fields])
    found = Lesson(z, moved, *value_and_slopes(measure, z))
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), found)


def mean_losses(
    forms: Mapping[str, Form], params: Mapping[str, PyTree], scales: Scales, lessons: Lesson
) -> tuple[Scalar, dict[str, Scalar]]:
    """How far networks of several forms are from many lessons.

    Args:
        forms: by name.
        params: of each.
        scales: of the lessons.
        lessons: with a leading axis.

    Returns:
        The sum of their mean losses, and each by name.

    >>> truth = lesson([lambda t, z: 2 * z], lambda z: z[:1], jnp.array([3.0, 1.0]))
    >>> several = jax.tree.map(lambda leaf: leaf[None], truth)
    >>> forms = {"free field": form("free field", width=8)}
    >>> params = {name: one.init(jax.random.key(0), truth) for name, one in forms.items()}
    >>> total, found = mean_losses(forms, params, scales(several), several)
    >>> print(total == found["free field"])
    True
    """
    losses = {
        name: jnp.mean(jax.vmap(partial(one.loss, params[name], scales))(lessons))
        for name, one in forms.items()
    }
    return sum(losses.values(), jnp.zeros(())), losses


def scales(lessons: Lesson) -> Scales:
    """The sizes of what many lessons say.

    Args:
        lessons: with a leading axis.

    Returns:
        The scales; 1 where all is zero.
    """

    def size(vectors: Float[Array, "n k d"]) -> Float[Array, "k"]:
        return _positive(jnp.sqrt(jnp.median(jnp.sum(vectors**2, -1), 0)))

    middle = jnp.median(lessons.values, 0)
    spread = jnp.median(jnp.abs(lessons.values - middle), 0)
    return Scales(size(lessons.fields), middle, _positive(spread), size(lessons.slopes))


def _positive(sizes: Array) -> Array:
    return jnp.where(sizes > 0, sizes, 1)


def asymmetry(field: VectorField, z: Latent) -> Scalar:
    r"""How far a field is from any gradient: the antisymmetric share of its Jacobian.

    $$ \frac{|J - J^\top|_F}{2\, |J|_F}, \qquad J = \frac{dv}{dz} $$

    0 for a gradient, 1 for a rotation, and $\sqrt{1/2}$ for a matrix without any structure.

    Args:
        field: `(t, z) -> dz/dt`.
        z: where.

    Returns:
        The share; 0 where the field does not change.

    >>> turn = lambda t, z: jnp.array([-z[1], z[0]])
    >>> climb = flows.gradient(lambda t, z: z @ z)
    >>> print(asymmetry(turn, jnp.ones(2)), asymmetry(climb, jnp.ones(2)))
    1.0 0.0
    """
    slopes = jax.jacfwd(partial(field, jnp.zeros((), z.dtype)))(z)
    whole = safe_norm(slopes.reshape(-1))
    return safe_norm((slopes - slopes.T).reshape(-1)) / (2 * jnp.where(whole > 0, whole, 1))


def _error(found: Float[Array, "k d"], truth: Float[Array, "k d"], sizes: Array) -> Scalar:
    # Of vectors far longer than usual the error is relative to them: there are latents from which
    # hardly any way leads on, and they would drown out all others.
    units = jnp.maximum(sizes**2, jnp.sum(truth**2, -1) / USUAL**2)
    return jnp.mean(jnp.sum((found - truth) ** 2, -1) / units)


def _matched(of: Callable[[PyTree, Scales], Fields]) -> Callable[[PyTree, Scales, Lesson], Scalar]:
    """The loss of a form whose velocities are compared with the exact ones."""

    def loss(params: PyTree, scales: Scales, truth: Lesson) -> Scalar:
        found = of(params, scales)(jnp.zeros((), truth.z.dtype), truth.z)
        return _error(found, truth.fields, scales.fields)

    return loss


def _stacked(net: nn.Module, field: Field) -> Form:
    """A network for each of the fields, whose velocity is that of a family of traversals."""

    def init(key: PRNGKeyArray, like: Lesson) -> PyTree:
        return potentials.init_stack(net, key, len(like.fields), len(like.z))

    def fields(params: PyTree, scales: Scales) -> Fields:
        def at(t: Number, z: Latent) -> Float[Array, "k d"]:
            time = jnp.asarray(t, z.dtype)
            return scales.fields[:, None] * jax.vmap(lambda member: field(member, time, z))(params)

        return at

    return Form(init, fields, _matched(fields))


def _free(width: int, depth: int) -> Form:
    net = FieldNet(width, depth, initial="static")
    return _stacked(net, traversals.following(net))


def _gradient(width: int, depth: int) -> Form:
    net = PotentialNet(width, depth, initial="static")
    return _stacked(net, traversals.climbing(net))


def _gradient_and_solenoidal(width: int, depth: int) -> Form:
    gradient = _gradient(width, depth)

    def matrix(like: Latent) -> AttributeNet:
        return AttributeNet(len(like) ** 2, width, depth)

    def init(key: PRNGKeyArray, like: Lesson) -> PyTree:
        keys = jax.random.split(jax.random.fold_in(key, 1), len(like.fields))
        turning = jax.vmap(lambda key: matrix(like.z).init(key, like.z))(keys)
        return {"gradient": gradient.init(key, like), "solenoidal": turning}

    def fields(params: PyTree, scales: Scales) -> Fields:
        climbing = gradient.fields(params["gradient"], scales)

        def at(t: Number, z: Latent) -> Float[Array, "k d"]:
            def turn(member: PyTree) -> Latent:
                def a(_: Scalar, z: Latent) -> Float[Array, "d d"]:
                    found: Any = matrix(z).apply(member, z)
                    return found.reshape(len(z), len(z))

                return flows.solenoidal(a)(jnp.asarray(t, z.dtype), z)

            turned = scales.fields[:, None] * jax.vmap(turn)(params["solenoidal"])
            return climbing(t, z) + turned

        return at

    return Form(init, fields, _matched(fields))


def _dual_frame(width: int, depth: int) -> Form:
    net = PotentialNet(width, depth, initial="static")

    def init(key: PRNGKeyArray, like: Lesson) -> PyTree:
        return potentials.init_stack(net, key, len(like.values), len(like.z))

    def coordinates(params: PyTree, scales: Scales, z: Latent) -> Float[Array, "m"]:
        found: Any = jax.vmap(lambda member: net.apply(member, 0.0, z))(params)
        return scales.middle + scales.values * found

    def fields(params: PyTree, scales: Scales) -> Fields:
        frame = dual_frame(lambda t, z: coordinates(params, scales, z), damping=0.01)
        return lambda t, z: frame(t, z)[: len(scales.fields)]

    def loss(params: PyTree, scales: Scales, truth: Lesson) -> Scalar:
        values, slopes = value_and_slopes(partial(coordinates, params, scales), truth.z)
        off = (truth.values - scales.middle)[:, None]
        missed = (values - scales.middle)[:, None]
        return _error(missed, off, scales.values) + _error(slopes, truth.slopes, scales.slopes)

    return Form(init, fields, loss)


def first(count: int, params: PyTree, scales: Scales) -> tuple[PyTree, Scales]:
    """Some potentials of a dual frame, which is then one of these alone and holds no others.

    Args:
        count: how many, of those that were taught first.
        params: of the form "dual frame".
        scales: of its lessons.

    Returns:
        Parameters and scales of the frame of these.

    Raises:
        ValueError: fewer than there are fields, or more than were taught.

    >>> frame = form("dual frame", width=4, depth=1)
    >>> like = Lesson(jnp.zeros(2), jnp.zeros((1, 2)), jnp.zeros(3), jnp.zeros((3, 2)))
    >>> sizes = Scales(jnp.ones(1), jnp.zeros(3), jnp.ones(3), jnp.ones(3))
    >>> fewer = first(1, frame.init(jax.random.key(0), like), sizes)
    >>> frame.fields(*fewer)(0.0, jnp.zeros(2)).shape
    (1, 2)
    """
    taught, fields = len(scales.values), len(scales.fields)
    if not fields <= count <= taught:
        raise ValueError(
            f"a dual frame of {taught} potentials for {fields} fields has no part of {count}: give "
            f"a count from {fields} to {taught}"
        )
    fewer = (sizes[:count] for sizes in (scales.middle, scales.values, scales.slopes))
    return jax.tree.map(lambda leaf: leaf[:count], params), Scales(scales.fields, *fewer)


FORMS: dict[str, Callable[[int, int], Form]] = {
    "free field": _free,
    "gradient": _gradient,
    "gradient and solenoidal": _gradient_and_solenoidal,
    "dual frame": _dual_frame,
}
"""By name, from width and depth: any field; the gradient of a potential; the same and a field
without divergence, of an antisymmetric matrix; the dual frame of potentials that were taught the
values and slopes of attributes, of which the first are those that the fields change."""


def form(name: str, *, width: int = 256, depth: int = 3) -> Form:
    """A kind of network that fields are taught to.

    Args:
        name: of `FORMS`.
        width: units of a hidden layer.
        depth: hidden layers.

    Returns:
        How it begins, what it gives, and what is wrong with it.

    Raises:
        ValueError: for an unknown name.

    >>> truth = lesson([lambda t, z: 2 * z], lambda z: z[:1], jnp.array([3.0, 1.0]))
    >>> sizes = scales(jax.tree.map(lambda leaf: leaf[None], truth))
    >>> free = form("free field", width=8)
    >>> params = free.init(jax.random.key(0), truth)
    >>> free.fields(params, sizes)(0.0, truth.z).shape, free.loss(params, sizes, truth).shape
    ((1, 2), ())
    """
    return choose("form", name, FORMS)(width, depth)
