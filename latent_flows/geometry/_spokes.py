"""Geodesics from several centres to all points, and centres that descend along them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from latent_flows._norms import safe_sqrt
from latent_flows._results import Result, first_failure
from latent_flows._transforms import vmap_chunked
from latent_flows.geometry import _ode, curves, metrics
from latent_flows.geometry.curves import Geodesic
from latent_flows.geometry.geodesics import geodesic, reach
from latent_flows.geometry.splines import spline_geodesic
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["Descent", "Spokes", "check_points", "descend", "ended", "lines", "spokes"]

_ITERATIONS = 25
"""Of one geodesic. Most need fewer, all of a batch wait for the last, and what is not solved goes
on from where it is in the next round."""
_SHORT = 16
"""Numbers of a latent up to which a Newton step, by Jacobians, costs less than it saves."""
_CHORDS = 2
"""Chords between the points of a spline, which longer latents have."""
_TOLERANCE = 1e-2
"""Of the search for such a spline, which goes on in the next round."""


class Spokes(NamedTuple):
    """The geodesics from each of several centres to each of several points."""

    logarithms: Float[Array, "k n d"]
    """Initial velocities at the centres; as long as the geodesics."""
    distances: Float[Array, "k n"]
    """Their lengths; infinite where a curve of finite length was not found."""
    curves: Float[Array, "k n m d"]
    """Their points, from which the next solution can start."""
    solved: Bool[Array, "k n"]
    """Which of them converged."""


def spokes(
    metric: Metric,
    centres: Float[Array, "k d"],
    points: Float[Array, "n d"],
    guesses: Float[Array, "k n m d"],
    *,
    batch_size: int = 256,
) -> Spokes:
    """The geodesics from each centre to each point, a bounded number of them at a time.

    Args:
        metric: any metric.
        centres: where they start.
        points: where they end.
        guesses: curves, from `lines` or from spokes to the same points from nearby centres.
        batch_size: geodesics that are solved at once, which bounds the memory.

    Returns:
        The `Spokes`.

    Raises:
        ValueError: members of an ensemble are drawn at every point of a curve.

    >>> import jax.numpy as jnp
    >>> centres, points = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
    >>> flat = lambda z: jnp.eye(2)
    >>> found = jax.jit(lambda *ends: spokes(flat, *ends, lines(*ends, 8)))(centres, points)
    >>> print(found.distances.round(2), jnp.allclose(found.logarithms[0, 0], points[0], rtol=1e-4))
    [[5.]] True
    """
    if metrics.drawn(metric) is not None:
        raise ValueError(
            "the shortest curves of independent draws of an ensemble have no logarithms, as their "
            'energy is no metric\'s: take ensemble_pullback(decoders, draws="one") here'
        )
    k, n, m, d = guesses.shape
    # A guess whose centre has moved is moved with it, less and less towards the point.
    fade = jnp.linspace(1, 0, m, dtype=guesses.dtype)[:, None]
    guesses = guesses + fade * (centres[:, None] - guesses[:, :, 0])[:, :, None]

    def connect(curve: Float[Array, "m d"]) -> Geodesic:
        ends, parts = (curve[0], curve[-1]), m - 1
        if d <= _SHORT:
            return geodesic(
                metric, *ends, segments=parts, initial=curve, max_iterations=_ITERATIONS
            )
        return spline_geodesic(
            metric,
            *ends,
            knots=parts,
            segments=_CHORDS * parts,
            initial=curve,
            tolerance=_TOLERANCE,
            max_iterations=_ITERATIONS,
        )

    def spoke(curve: Float[Array, "m d"]) -> tuple[Array, ...]:
        found = connect(curve)
        length = found.length
        zero = jnp.zeros((), curve.dtype)
        velocity = jax.jvp(found, (zero,), (jnp.ones_like(zero),))[1]
        # The direction is that of the discrete curve, the length that of the whole of it.
        speed = safe_sqrt(metrics.squared_norm(metric, curve[0], velocity))
        scale = jnp.where(speed > 0, length / jnp.where(speed > 0, speed, 1), 1)
        logarithm = scale * velocity
        apart = (curve[0] != curve[-1]).any()
        good = jnp.isfinite(logarithm).all() & jnp.where(apart, length > 0, True)
        logarithm = jnp.where(good, logarithm, curve[-1] - curve[0])
        return logarithm, jnp.where(good, length, jnp.inf), found.points, found.converged

    flat = vmap_chunked(spoke, batch_size, effort=reach)(guesses.reshape(k * n, m, d))
    return Spokes(*(leaf.reshape(k, n, *leaf.shape[1:]) for leaf in flat))


def lines(
    centres: Float[Array, "k d"], points: Float[Array, "n d"], segments: int
) -> Float[Array, "k n m d"]:
    """Straight lines from each centre to each point, as `segments + 1` points each.

    Args:
        centres: one a row.
        points: one a row.
        segments: how many parts each has.

    Returns:
        The points of each line.
    """
    to_all = jax.vmap(lambda z0, z1: curves.straight(z0, z1, segments), in_axes=(None, 0))
    return jax.vmap(to_all, in_axes=(0, None))(centres, points)


class Descent(NamedTuple):
    """The search for centres: the best so far, and where to look next."""

    iteration: Int[Array, ""]
    """Steps so far."""
    centres: Float[Array, "k d"]
    """The best so far."""
    spokes: Spokes
    """From `centres`."""
    labels: Int[Array, "n"]
    """The nearest centre of each point."""
    towards: Float[Array, "k d"]
    """Mean of the logarithms of each cluster: minus half the gradient of its variance."""
    variances: Float[Array, "k"]
    """Of each cluster, around its centre."""
    steps: Float[Array, "k"]
    """How far each centre goes along `towards`."""
    settled: Bool[Array, ""]
    """Whether labels and centres no longer change, to tolerance."""


def descend(
    metric: Metric,
    points: Float[Array, "n d"],
    weights: Float[Array, "n"],
    centres: Float[Array, "k d"],
    *,
    segments: int,
    tolerance: float,
    max_iterations: int,
    batch_size: int,
) -> Descent:
    """Lloyd's algorithm with one step of gradient descent where it takes a mean.

    One set of geodesics from all centres to all points serves both the labels and the gradients.
    A step is taken back, and halved, where it would make the old cluster of its centre larger.

    Args:
        metric: any metric.
        points: one a row.
        weights: of the points.
        centres: where to start, one a row.
        segments: of each geodesic.
        tolerance: of the gradients, relative to the deviations of the clusters.
        max_iterations: the most steps.
        batch_size: geodesics that are solved at once.

    Returns:
        Where the search has ended.
    """
    k, dtype = centres.shape[0], points.dtype
    noise = 100 * jnp.finfo(dtype).eps

    def move(z: Latent, step: Latent) -> Latent:
        # To first order a step along the geodesic, which is all that descent needs.
        moved = z + step
        return jnp.where(jnp.isfinite(moved).all(), moved, z)

    def share(labels: Int[Array, "n"]) -> Float[Array, "k n"]:
        member = weights * (labels == jnp.arange(k)[:, None])
        total = member.sum(-1, keepdims=True)
        return member / jnp.where(total > 0, total, 1)

    def variance(distances: Float[Array, "k n"], shares: Float[Array, "k n"]) -> Float[Array, "k"]:
        # Points of other clusters may be infinitely far.
        return jnp.where(shares > 0, shares * distances**2, 0).sum(-1)

    def update(state: Descent) -> Descent:
        proposed = jax.vmap(move)(state.centres, state.steps[:, None] * state.towards)
        found = spokes(metric, proposed, points, state.spokes.curves, batch_size=batch_size)
        first = state.iteration == 0
        old = share(state.labels)
        better = variance(found.distances, old) <= state.variances * (1 + noise)
        take = first | better

        def merge(new: Array, old: Array) -> Array:
            return jnp.where(take.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        centres = merge(proposed, state.centres)
        kept = Spokes(*map(merge, found, state.spokes))
        labels = jnp.argmin(kept.distances, axis=0)
        shares = share(labels)
        towards = jnp.einsum("kn,knd->kd", shares, kept.logarithms)
        variances = variance(kept.distances, shares)
        steps = jnp.where(take, jnp.minimum(1.5 * state.steps, 1), state.steps / 2)
        square = jax.vmap(lambda z, v: metrics.squared_norm(metric, z, v))
        # Rounding bounds how small the gradient can get.
        floor = noise**2 * square(centres, centres)
        still = square(centres, towards) <= tolerance**2 * variances + floor
        unchanged = (labels == state.labels).all() & ~first
        # With one cluster there is no label that could change.
        return Descent(
            state.iteration + 1,
            centres,
            kept,
            labels,
            towards,
            variances,
            jnp.where(first, 1, steps).astype(dtype),
            still.all() & (unchanged | (k == 1)),
        )

    n = points.shape[0]
    start = Descent(
        jnp.array(0),
        centres,
        Spokes(
            jnp.zeros((k, *points.shape), dtype),
            jnp.full((k, n), jnp.inf, dtype),
            lines(centres, points, segments),
            jnp.zeros((k, n), bool),
        ),
        jnp.zeros(n, int),
        jnp.zeros_like(centres),
        jnp.full(k, jnp.inf, dtype),
        jnp.ones(k, dtype),
        jnp.array(False),
    )
    return jax.lax.while_loop(
        lambda state: ~state.settled & (state.iteration < max_iterations), update, start
    )


def ended(converged: Bool[Array, ""], solved: Scalar) -> Result:
    """Why centres have not converged.

    Args:
        converged: whether they have.
        solved: share of the last geodesics that converged.

    Returns:
        The result.
    """
    return first_failure(
        (converged | (solved > 0), Result.unsolved), (converged, Result.max_steps_reached)
    )


def check_points(points: ArrayLike) -> Float[Array, "n d"]:
    """Points as floats, once it is known that they are some.

    Args:
        points: one a row.

    Returns:
        The points, a matrix of floats.

    Raises:
        ValueError: points that are not a matrix of numbers with at least one row.
    """
    points = _ode.floats(points)
    if points.ndim != 2 or points.shape[0] == 0 or not jnp.issubdtype(points.dtype, jnp.floating):
        raise ValueError(
            f"points must be numbers of shape [n, d] with n at least 1, got shape {points.shape} "
            f"and dtype {points.dtype}"
        )
    return points
