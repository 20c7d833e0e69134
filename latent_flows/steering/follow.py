"""Steering: a latent led to each amount of a transformation, or value of an attribute."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from latent_flows._compiled import keep_compiled
from latent_flows._norms import safe_norm
from latent_flows.directions.inversion import to_ball
from latent_flows.directions.transformations import Transformation, spread, transformed
from latent_flows.steering._equations import (
    Attributes,
    at,
    check_rates,
    check_settings,
    choice,
    features,
    inverse,
    joined,
    least_change,
    measured_rows,
)
from latent_flows.steering._least_squares import dual
from latent_flows.steering.fields import attribute_field, transformation_field
from latent_flows.typing import Generator, Latent, Metric, Scalar, VectorField

__all__ = ["Steered", "steer", "steer_attribute"]

LEAP = 0.3
"""Longest step, in units of three times the norm that latents of the prior have: what is linear at
one latent is not far away."""


class Steered(NamedTuple):
    """A latent led to several amounts."""

    zs: Float[Array, "n d"]
    """The latents; always finite."""
    ts: Float[Array, "n"]
    """The amounts asked for."""
    residual: Float[Array, "n"]
    """What is missing of the change that was asked for, as a share of it: 0 where the generator
    does all of it, 1 where it does nothing; at `t = 0` nothing is missing."""
    reached: Bool[Array, "n"]
    """Whether that is at most the tolerance, and the latent inside of its bound: how far it got is
    the largest amount that was reached."""


@keep_compiled(arrays=["z0"], known=["ts"])
def steer(
    generator: Generator,
    transformation: Transformation,
    z0: Latent,
    ts: ArrayLike | Sequence[float],
    *,
    hold: Attributes | None = None,
    match: Attributes | None = None,
    blur: float = 3.0,
    damping: float = 0.01,
    steps: int = 1,
    corrections: int = 2,
    tolerance: float = 0.2,
    bound: float | None = None,
) -> Steered:
    r"""Leads a latent so that its sample undergoes a transformation, by each of some amounts.

    From `z0` the transformation's field is followed to one amount after the other, both ways, by
    the midpoint rule; at each amount `t` Gauss-Newton steps towards the exact target $T_t(g(z_0))$
    take away what the rule has missed. What is still missing then is what the generator cannot do,
    and is said.

    Args:
        generator: `z -> x`: an image `[h, w, c]`, or without a blur anything.
        transformation: `(x, t) -> (x, mask)`.
        z0: where to start.
        ts: amounts, in the transformation's unit, in any order.
        hold: attributes `x -> [k]` that shall stay as they are: a shape, while it moves.
        match: attributes that shall be those of the transformed image, black where nothing is known
            of it: where it is.
        blur: in pixels, see `transformation_field`.
        damping: see `transformation_field`.
        steps: of the midpoint rule from one amount to the next.
        corrections: Gauss-Newton steps at each amount.
        tolerance: of the residual, up to which an amount is reached.
        bound: largest norm of a latent; by default three times that of the prior's shell, or of
            `z0` where that is more.

    Returns:
        The latents, with what is missing at each.

    Raises:
        ValueError: settings out of range, amounts that are no vector, a transformation that does
            not return what it should, or a blur of what is no image.

    >>> import jax.numpy as jnp
    >>> from latent_flows.directions import translate_x
    >>> columns = jnp.arange(16.0)
    >>> row = lambda z: jnp.exp(-((columns - 8 - z[0]) ** 2) / 8)
    >>> bump = lambda z: jnp.tile(row(z)[None, :, None], (16, 1, 1))
    >>> led = steer(bump, translate_x, jnp.zeros(2), jnp.array([-0.125, 0.125]), damping=1e-4)
    >>> print(led.zs[:, 0].round(1), led.reached)
    [-2.  2.] [ True  True]
    """
    check_settings(blur, damping)
    field = transformation_field(
        generator, transformation, blur=blur, damping=damping, hold=hold, match=match
    )
    start = generator(z0)
    still = [] if hold is None else [hold(start)]

    def wanted(t: Scalar) -> tuple[Array, Array]:
        target, mask = transformed(transformation, start, t)
        return jnp.where(spread(mask, start) > 0, target, 0), mask

    def correct(z: Latent, t: Scalar) -> Latent:
        target, mask = wanted(t)
        found, weights = at(generator, mask, z, blur, damping, joined(hold, match))
        kept = [*still, match(target)] if match is not None else still
        goal = features(target, mask, blur)
        if kept:
            goal = jnp.concatenate([goal, weights * jnp.concatenate(kept)])
        return z + found.solve(found.pull(goal - found.value))

    def residual(z: Latent, t: Scalar) -> Scalar:
        target, mask = wanted(t)
        goal = features(target, mask, blur)
        left = goal - features(generator(z), mask, blur)
        return _share(left, goal - features(start, mask, blur))

    return _follow(field, correct, residual, z0, ts, steps, corrections, tolerance, bound)


@keep_compiled(arrays=["z0"], known=["ts", "rates"])
def steer_attribute(
    generator: Generator,
    attributes: Attributes,
    index: int | Sequence[int],
    z0: Latent,
    ts: ArrayLike | Sequence[float],
    *,
    rates: Float[ArrayLike, "m"] | Sequence[float] | None = None,
    hold: Sequence[int] | None = None,
    limits: Mapping[int, tuple[float, float]] | None = None,
    pull: Callable[[Latent], Latent] | None = None,
    metric: Metric | None = None,
    damping: float = 0.01,
    steps: int = 1,
    corrections: int = 2,
    tolerance: float = 0.05,
    bound: float | None = None,
) -> Steered:
    """Leads a latent so that attributes change by each of some amounts, and others stay.

    Args:
        generator: `z -> x`, of any event shape.
        attributes: `x -> [k]`, differentiable.
        index: which of them changes, or which change together.
        z0: where to start.
        ts: by how much, in the attribute's own unit, in any order.
        rates: by what multiple of it each does, where several change; by default 1.
        hold: which stay as they are; by default all others that have no limits.
        limits: the least and the greatest value of some others, see `attribute_field`.
        pull: `z -> dz`, where the latent would rather go, such as `lambda z: -0.1 * z` towards the
            middle of the prior: at each correction it goes there as far as none of the attributes
            sees it.
        metric: in which the change of the latent is the shortest; by default the latent's own.
        damping: see `attribute_field`.
        steps: of the midpoint rule from one amount to the next.
        corrections: Newton steps at each amount.
        tolerance: of the residual, up to which an amount is reached.
        bound: largest norm of a latent, see `steer`.

    Returns:
        The latents; the residual is what is missing of an attribute's change, or the change of
        an attribute that should stay, or the way beyond a limit, as a share of the change asked
        for, whichever is most, in units that the gradients have at `z0`.

    Raises:
        ValueError: settings out of range, or amounts that are no vector.

    >>> import jax.numpy as jnp
    >>> turn = lambda z: jnp.array([z[0] * jnp.cos(z[1]), z[0] * jnp.sin(z[1])])
    >>> led = steer_attribute(turn, lambda x: x, 0, jnp.array([2.0, 0.5]), jnp.array([-1.0, 1.0]))
    >>> print((jax.vmap(turn)(led.zs) - turn(jnp.array([2.0, 0.5]))).round(3), led.reached)
    [[-1. -0.]
     [ 1. -0.]] [ True  True]
    """
    z0 = jnp.asarray(z0)
    wanted = check_rates(index, rates).astype(z0.dtype)
    field = attribute_field(
        generator,
        attributes,
        index,
        rates=rates,
        hold=hold,
        limits=limits,
        metric=metric,
        damping=damping,
    )
    chosen = choice(generator, attributes, index, hold, limits, z0)
    moved, fixed = len(chosen.moved), len(chosen.moved) + len(chosen.held)
    start, slopes = measured_rows(generator, attributes, chosen, z0)
    lengths = jax.vmap(safe_norm)(slopes)
    units = jnp.where(lengths > 0, lengths, 1)
    # Where the start lies beyond a limit, it need not come back.
    low, high = jnp.minimum(start[fixed:], chosen.low), jnp.maximum(start[fixed:], chosen.high)

    def missing(values: Float[Array, "k"], t: Scalar) -> Float[Array, "k"]:
        goal = start.at[:moved].add(t * wanted)
        return (goal - values).at[fixed:].set(jnp.clip(values[fixed:], low, high) - values[fixed:])

    def correct(z: Latent, t: Scalar) -> Latent:
        values, rows = measured_rows(generator, attributes, chosen, z)
        solve = inverse(metric, z)
        change = least_change(chosen, values, rows, missing(values, t), solve, damping)
        if pull is not None:
            rest = pull(z)
            change += rest - dual(rows, solve, damping)(rows @ rest)
        return z + change

    def residual(z: Latent, t: Scalar) -> Scalar:
        asked = jnp.max(jnp.abs(t * wanted) / units[:moved])
        values = attributes(generator(z))[jnp.array(chosen.numbers)]
        worst = jnp.max(jnp.abs(missing(values, t)) / units)
        return jnp.where(asked > 0, worst / jnp.where(asked > 0, asked, 1), worst)

    return _follow(field, correct, residual, z0, ts, steps, corrections, tolerance, bound)


def _follow(
    field: VectorField,
    correct: Callable[[Latent, Scalar], Latent],
    residual: Callable[[Latent, Scalar], Scalar],
    z0: Latent,
    ts: ArrayLike | Sequence[float],
    steps: int,
    corrections: int,
    tolerance: float,
    bound: float | None,
) -> Steered:
    z0 = jnp.asarray(z0)
    amounts = jnp.asarray(ts, z0.dtype)
    if amounts.ndim != 1:
        raise ValueError(f"ts must be a vector of amounts, got shape {amounts.shape}")
    for name, value, least in (("steps", steps, 1), ("corrections", corrections, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    shell = 3 * jnp.sqrt(jnp.asarray(z0.shape[0], z0.dtype))
    most = jnp.maximum(shell, safe_norm(z0)) if bound is None else jnp.asarray(bound, z0.dtype)
    leap = LEAP * shell

    def kept(old: Latent, new: Latent) -> Latent:
        """The new latent, inside of the bound, if it is one at all."""
        change = jnp.where(jnp.isfinite(new).all(), new - old, 0)
        return to_ball(old + to_ball(change, leap), most)

    def advance(state: tuple[Latent, Scalar], t: Scalar) -> tuple[tuple[Latent, Scalar], Latent]:
        z, before = state
        pace = (t - before) / steps

        def step(z: Latent, _: None) -> tuple[Latent, None]:
            # A loop over the two places of the midpoint rule, so that there is one program of both.
            def part(there: Latent, share: Scalar) -> tuple[Latent, None]:
                return kept(z, z + share * pace * field(before, there)), None

            return jax.lax.scan(part, z, jnp.array([0.5, 1.0], z.dtype))[0], None

        def correction(z: Latent, _: None) -> tuple[Latent, None]:
            return kept(z, correct(z, t)), None

        z, _ = jax.lax.scan(step, z, length=steps)
        z, _ = jax.lax.scan(correction, z, length=corrections)
        return (z, t), z

    def branch(order: Array) -> Float[Array, "m d"]:
        return jax.lax.scan(advance, (z0, jnp.zeros((), z0.dtype)), amounts[order])[1]

    zs = jnp.zeros((*amounts.shape, *z0.shape), z0.dtype)
    orders = _orders(ts, amounts)
    if len({len(order) for order in orders}) == 1:
        both = jnp.stack(orders)
        found = jax.vmap(branch)(both)
        zs = zs.at[both.reshape(-1)].set(found.reshape(-1, *z0.shape))
    else:
        for order in orders:
            zs = zs.at[order].set(branch(order))
    zs = jnp.where(amounts[:, None] == 0, z0, zs)
    left = jnp.where(amounts == 0, 0, jax.vmap(residual)(zs, amounts))
    inside = jax.vmap(safe_norm)(zs) < most * (1 - 1e-6)
    left = jnp.where(jnp.isfinite(left), left, jnp.inf)
    return Steered(zs, amounts, left, (left <= tolerance) & (inside | (amounts == 0)))


def _orders(ts: ArrayLike | Sequence[float], amounts: Float[Array, "n"]) -> list[Array]:
    """Which amounts are visited one after the other, outward from 0 on either side."""
    if isinstance(ts, jax.core.Tracer):
        if amounts.shape == (1,):
            return [jnp.zeros(1, int)]  # there is one order
        raise ValueError(
            "ts must be known when this is traced, since it says which way to go: close over it"
        )
    known = np.asarray(ts, amounts.dtype)
    if not np.isfinite(known).all():
        raise ValueError(f"ts must be finite, got {known}")
    sides = [np.flatnonzero(known > 0), np.flatnonzero(known < 0)]
    return [jnp.asarray(side[np.argsort(abs(known[side]))]) for side in sides if len(side)]


def _share(left: Array, asked: Array) -> Scalar:
    """The norm of one change in units of another; all is missing where the other cannot be seen."""
    whole = safe_norm(asked)
    return jnp.where(whole > 0, safe_norm(left) / jnp.where(whole > 0, whole, 1), 1)
