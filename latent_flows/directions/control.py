"""Control: move latents so that a factor changes by an amount, or takes a value.

A model's `t` is known up to a constant (see `calibrate`). Beyond the range of `t` that a model was
fitted to, a straight direction goes on with the slope of its last piece and a curved one with the
flow of its potential; both are guesses. So a `t` known before the program runs that lies outside is
an error unless `extrapolate=True`; one that is traced is not checked.
"""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any, Protocol, TypeAlias, runtime_checkable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from latent_flows import flows
from latent_flows._compiled import keep_compiled
from latent_flows.directions.model import Direction, DirectionModel, PotentialModel
from latent_flows.typing import Latent, Scalar

__all__ = [
    "Distribution",
    "Quantile",
    "check_reach",
    "move",
    "place",
    "place_many",
    "sample",
    "shift",
    "shift_many",
]

_FLOW_STEPS = 16
_CORRECTIONS = 2  # Newton steps after a flow, which leave an error of its size to the fourth power


@runtime_checkable
class Quantile(Protocol):
    """A distribution by its inverse cumulative distribution function."""

    def ppf(self, q: Scalar) -> Scalar:
        """The value below which a share `q` lies."""


Distribution: TypeAlias = Callable[[PRNGKeyArray], Scalar] | Quantile
"""A sampler `key -> t`, or an object with an inverse distribution function `ppf`."""


def shift(model: Direction, z: Latent, dt: Scalar | float, *, extrapolate: bool = False) -> Latent:
    r"""Changes a factor by an amount.

    $$z + \bigl(g^{-1}(g(s) + dt) - s\bigr)\, u, \quad s = \langle z, u \rangle
      \qquad\text{or}\qquad \frac{dz}{dt} = \frac{\nabla u}{|\nabla u|^2}$$

    for a straight direction, or a curved one. Through the latter derivatives go in reverse mode.

    Args:
        model: of the factor.
        z: a latent.
        dt: by how much, in the units of the transformation.
        extrapolate: whether to go beyond the range of `t` that the model was fitted to.

    Returns:
        The latent, with `model(shift(model, z, dt)) = model(z) + dt`.

    Raises:
        ValueError: for a latent of another length than the model's, a `dt` that is not one number,
            or, where neither is traced, one that leads out of the model's range.

    >>> import jax.numpy as jnp
    >>> line = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([0.6, 0.8]), line, 2 * line, 2 * line, *jnp.ones(2))
    >>> print(shift(model, jnp.zeros(2), 1.0))
    [0.3 0.4]
    """
    z, dt = _check(model, z, dt, "dt")
    if not extrapolate:
        check_reach(model, model(z) + dt)
    return move(model, z, dt)


def place(model: Direction, z: Latent, t: Scalar | float, *, extrapolate: bool = False) -> Latent:
    r"""Sets a factor to a value.

    $$z - \langle z, u \rangle u + g^{-1}(t)\, u$$

    for a straight direction; for a curved one, `shift` by the difference from the present value.

    Args:
        model: of the factor.
        z: a latent.
        t: the value, up to the model's constant.
        extrapolate: whether to go beyond the range of `t` that the model was fitted to.

    Returns:
        The latent, with `model(place(model, z, t)) = t`.

    Raises:
        ValueError: for a latent of another length than the model's, a `t` that is not one number,
            or, where it is not traced, one outside the model's range.

    >>> import jax.numpy as jnp
    >>> line = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([1.0, 0.0]), line, 2 * line, 2 * line, *jnp.ones(2))
    >>> print(place(model, jnp.ones(2), 1.0))
    [0.5 1. ]
    >>> place(model, jnp.ones(2), 5.0)
    Traceback (most recent call last):
      ...
    ValueError: t must lie in [0, 2], the range that the direction was fitted to, got 5...
    """
    z, t = _check(model, z, t, "t")
    if not extrapolate:
        check_reach(model, t)
    return move(model, z, t - model(z))


def sample(key: PRNGKeyArray, model: Direction, z: Latent, distribution: Distribution) -> Latent:
    """Gives a factor a random value with a wanted distribution.

    Args:
        key: a random key.
        model: of the factor.
        z: a latent, such as one drawn from the prior.
        distribution: a sampler `key -> t`, or an object whose `ppf` is the inverse of the
            cumulative distribution function. Values out of the model's range are extrapolated.

    Returns:
        The latent.

    Raises:
        ValueError: as `place` does, or for a distribution that is neither.

    >>> import jax, jax.numpy as jnp
    >>> line = jnp.array([0.0, 1.0])
    >>> model = DirectionModel(jnp.array([1.0, 0.0]), line, 2 * line, 2 * line, *jnp.ones(2))
    >>> keys, zs = jax.random.split(jax.random.key(0), 500), jnp.zeros((500, 2))
    >>> drawn = jax.vmap(sample, (0, None, 0, None))(keys, model, zs, jax.random.uniform)
    >>> ts = jax.vmap(model)(drawn)
    >>> print(ts.min() >= 0, ts.max() <= 1, jnp.allclose(ts.mean(), 0.5, atol=0.05))
    True True True
    """
    if hasattr(distribution, "ppf"):
        t = jnp.asarray(distribution.ppf(jax.random.uniform(key)))
    elif callable(distribution):
        t = jnp.asarray(distribution(key))
    else:
        raise ValueError(
            "distribution must be a sampler key -> t or have a ppf, got "
            f"{type(distribution).__name__}"
        )
    return place(model, z, t, extrapolate=True)


def shift_many(
    models: Sequence[Direction], z: Latent, dts: Float[ArrayLike, "k"] | Sequence[float]
) -> Latent:
    r"""Changes several factors at once, each by its own amount.

    The smallest step that does what all models ask, so that the directions need not be orthogonal:

    $$z + U^+ (s' - s), \quad s'_i = g_i^{-1}(g_i(s_i) + dt_i) \qquad\text{or}\qquad
      \frac{dz}{d\tau} = J^\top (J J^\top)^{-1} dt, \quad \tau \in [0, 1]$$

    where all are straight, with the directions as rows of `U`; or else, with the gradients of the
    models as rows of `J`. An amount of 0 holds a factor, as its model sees it. Directions that are
    nearly parallel cannot be told apart: then each gets its share.

    Args:
        models: one a factor, at least one.
        z: a latent.
        dts: by how much each factor changes. Not checked against the models' ranges: see
            `check_reach`.

    Returns:
        The latent.

    Raises:
        ValueError: for no models, not one amount a model, or a latent of another length.

    >>> import jax.numpy as jnp
    >>> line = jnp.array([0.0, 1.0])
    >>> x = DirectionModel(jnp.array([1.0, 0.0]), line, line, line, *jnp.ones(2))
    >>> y = DirectionModel(jnp.array([0.6, 0.8]), line, line, line, *jnp.ones(2))
    >>> z = shift_many([x, y], jnp.zeros(2), [0.5, 0.0])
    >>> print(jnp.allclose(x(z), 0.5), jnp.allclose(y(z), 0.0, atol=1e-6))
    True True
    """
    models = tuple(models)
    dts = jnp.asarray(dts)
    if not models or dts.shape != (len(models),):
        raise ValueError(
            f"expected one amount for each of at least one model, got {len(models)} models and "
            f"amounts of shape {dts.shape}"
        )
    for model in models:
        z, _ = _check(model, z, 0.0, "dt")
    dts = dts.astype(z.dtype)
    straight = [model for model in models if isinstance(model, DirectionModel)]
    if len(straight) < len(models):
        return _follow(models, z, dts)
    directions = jnp.stack([model.direction for model in straight])
    before = directions @ z
    after = jnp.stack(
        [
            model.inverse(model.value(s) + dt)
            for model, s, dt in zip(straight, before, dts, strict=True)
        ]
    )
    return z + jnp.linalg.pinv(directions) @ (after - before)


def place_many(
    models: Sequence[Direction], z: Latent, ts: Float[ArrayLike, "k"] | Sequence[float]
) -> Latent:
    """Sets several factors at once: `shift_many` by the differences from their present values.

    Args:
        models: one a factor, at least one.
        z: a latent.
        ts: the value of each, up to its model's constant; not checked against the models' ranges.

    Returns:
        The latent.

    Raises:
        ValueError: as `shift_many` does.
    """
    models = tuple(models)
    ts = jnp.asarray(ts)
    if not models or ts.shape != (len(models),):
        raise ValueError(
            f"expected one value for each of at least one model, got {len(models)} models and "
            f"values of shape {ts.shape}"
        )
    return shift_many(models, z, ts - jnp.stack([model(z) for model in models]))


def check_reach(model: Direction, t: ArrayLike | Sequence[float]) -> None:
    """Checks that values of a factor lie in the range that a model was fitted to.

    Args:
        model: of the factor.
        t: one value or many. Where they or the model are traced, nothing is checked.

    Raises:
        ValueError: with the range, for the first value outside.
    """
    t = jnp.asarray(t)
    if isinstance(t, jax.core.Tracer) or isinstance(model.limits, jax.core.Tracer):
        return
    low, high = np.asarray(model.limits)
    values = np.ravel(np.asarray(t))
    slack = 1e-5 * max(high - low, 0)
    outside = values[~((values >= low - slack) & (values <= high + slack))]
    if outside.size:
        raise ValueError(
            f"t must lie in [{low:.4g}, {high:.4g}], the range that the direction was fitted to, "
            f"got {outside[0]:.4g}; extrapolate=True goes on regardless"
        )


@singledispatch
def move(model: Any, z: Latent, dt: Scalar) -> Latent:
    """The latent after a change by `dt`; each kind of model registers how.

    Args:
        model: of the factor.
        z: a latent.
        dt: by how much.

    Returns:
        The latent.

    Raises:
        ValueError: a kind of model that has not registered.
    """
    del z, dt
    raise ValueError(_unknown(model))


def _unknown(model: object) -> str:
    known = " or a ".join(sorted(kind.__name__ for kind in move.registry if kind is not object))
    return f"expected a {known}, got {type(model).__name__}"


@move.register
def _(model: DirectionModel, z: Latent, dt: Scalar) -> Latent:
    s = z @ model.direction
    return z + (model.inverse(model.value(s) + dt) - s) * model.direction


@move.register
def _(model: PotentialModel, z: Latent, dt: Scalar) -> Latent:
    return _follow((model,), z, dt[None])


@keep_compiled()
def _follow(models: Sequence[Direction], z: Latent, dts: Float[Array, "k"]) -> Latent:
    """The flow that changes all models at the wanted rates by the smallest velocity."""
    floors = jnp.stack(
        [m.floor if isinstance(m, PotentialModel) else jnp.zeros((), z.dtype) for m in models]
    )

    def values(y: Latent) -> Float[Array, "k"]:
        return jnp.stack([model(y) for model in models])

    def velocity(y: Latent, rates: Float[Array, "k"]) -> Latent:
        slopes = jax.jacrev(values)(y)
        gram = slopes @ slopes.T
        squares = jnp.diag(gram)
        # A floor under the slopes bounds the speed; a trace of ridge parts parallel directions.
        if len(models) == 1:
            return slopes[0] * (rates[0] / jnp.maximum(squares[0], floors[0]))
        ridge = jnp.maximum(floors - squares, 0) + 1e-5 * squares
        return slopes.T @ jax.scipy.linalg.solve(gram + jnp.diag(ridge), rates, assume_a="pos")

    target = values(z) + dts
    times = jnp.linspace(0.0, 1.0, _FLOW_STEPS + 1, dtype=z.dtype)
    path = flows.integrate(lambda _, y: velocity(y, dts), z, times, solver=diffrax.Midpoint())
    return jax.lax.fori_loop(
        0, _CORRECTIONS, lambda _, y: y + velocity(y, target - values(y)), path.zs[-1]
    )


def _check(model: Direction, z: Latent, amount: Scalar | float, name: str) -> tuple[Latent, Scalar]:
    """The latent and the amount as floats of one dtype, once they are known to fit the model."""
    if move.dispatch(type(model)) is move.dispatch(object):
        raise ValueError(_unknown(model))
    z, amount = jnp.asarray(z), jnp.asarray(amount)
    shape = (model.latent_dim,)
    if z.shape != shape or not jnp.issubdtype(z.dtype, jnp.floating):
        raise ValueError(
            f"expected one latent of floats with shape {shape}, got shape {z.shape} and dtype "
            f"{z.dtype}; use jax.vmap for a batch"
        )
    if amount.ndim != 0:
        raise ValueError(f"{name} must be one number, got shape {amount.shape}")
    return z, amount.astype(z.dtype)
