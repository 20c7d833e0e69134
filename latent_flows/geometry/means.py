"""Averages under a metric: the Frechet mean, and clusters around several of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from latent_flows._compiled import keep_compiled
from latent_flows._norms import safe_norm, safe_sqrt
from latent_flows._transforms import vmap_chunked
from latent_flows.geometry import _ode, curves, metrics
from latent_flows.geometry.geodesics import geodesic, reach
from latent_flows.typing import Latent, Metric, Scalar

__all__ = [
    "FrechetMean",
    "KMeans",
    "Spokes",
    "check_points",
    "chord_length",
    "frechet_mean",
    "kmeans",
    "lines",
    "plus_plus",
    "spokes",
]

_ITERATIONS = 25
"""Of one geodesic. Most need fewer, all of a batch wait for the last, and what is not solved goes
on from where it is in the next round."""


class FrechetMean(NamedTuple):
    """The point with the least squared distance to others."""

    point: Latent
    """The mean."""
    variance: Scalar
    """The mean of the squared distances to it."""
    converged: Bool[Array, ""]
    """Whether the gradient there is zero to tolerance."""
    solved: Scalar
    """Share of the last geodesics that converged."""


class KMeans(NamedTuple):
    """Points in clusters."""

    centres: Float[Array, "k d"]
    """The Frechet mean of each cluster; the start of one that stayed empty."""
    labels: Int[Array, "n"]
    """The cluster of each point, that of the nearest centre."""
    inertia: Scalar
    """The sum of the squared distances of points to their centres."""
    converged: Bool[Array, ""]
    """Whether the labels no longer change and every centre is the mean of its cluster, to
    tolerance."""
    solved: Scalar
    """Share of the last geodesics, all centres to all points, that converged."""


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

    >>> import jax.numpy as jnp
    >>> centres, points = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])
    >>> found = spokes(lambda z: jnp.eye(2), centres, points, lines(centres, points, 8))
    >>> print(found.distances.round(2), jnp.allclose(found.logarithms[0, 0], points[0], rtol=1e-4))
    [[5.]] True
    """
    k, n, m, d = guesses.shape
    # A guess whose centre has moved is moved with it, less and less towards the point.
    fade = jnp.linspace(1, 0, m, dtype=guesses.dtype)[:, None]
    guesses = guesses + fade * (centres[:, None] - guesses[:, :, 0])[:, :, None]

    def spoke(curve: Float[Array, "m d"]) -> tuple[Array, ...]:
        found = geodesic(
            metric,
            curve[0],
            curve[-1],
            segments=m - 1,
            initial=curve,
            max_iterations=_ITERATIONS,
        )
        # Where the curve is too coarse for its length, that of the chords at least is certain.
        length = jnp.maximum(found.length, chord_length(metric, found.points))
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


def chord_length(metric: Metric, points: Float[Array, "n d"]) -> Scalar:
    """The length in data space of a polygon, which no curve through its corners falls below.

    Args:
        metric: one that is pulled back from Euclidean space; for any other the result is 0.
        points: the corners, in latent space.

    Returns:
        The length.

    >>> import jax.numpy as jnp
    >>> doubled = metrics.pullback(lambda z: 2 * z)
    >>> print(chord_length(doubled, jnp.array([[0.0, 0.0], [3.0, 4.0]])))
    10.0
    """
    if not (isinstance(metric, metrics.Pullback) and metric.ambient is None):
        return jnp.zeros((), points.dtype)
    return safe_norm(jnp.diff(jax.vmap(metric.flat)(points), axis=0), axis=1).sum()


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


class _State(NamedTuple):
    """The search for centres: the best so far, and where to look next."""

    iteration: Int[Array, ""]
    centres: Float[Array, "k d"]
    spokes: Spokes
    """From `centres`."""
    labels: Int[Array, "n"]
    towards: Float[Array, "k d"]
    """Mean of the logarithms of each cluster: minus half the gradient of its variance."""
    variances: Float[Array, "k"]
    steps: Float[Array, "k"]
    settled: Bool[Array, ""]


def _descend(
    metric: Metric,
    points: Float[Array, "n d"],
    weights: Float[Array, "n"],
    centres: Float[Array, "k d"],
    *,
    segments: int,
    tolerance: float,
    max_iterations: int,
    batch_size: int,
) -> _State:
    """Lloyd's algorithm with one step of gradient descent where it takes a mean.

    One set of geodesics from all centres to all points serves both the labels and the gradients.
    A step is taken back, and halved, where it would make the old cluster of its centre larger.
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

    def update(state: _State) -> _State:
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
        return _State(
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
    start = _State(
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


@keep_compiled(arrays=["points", "weights", "initial"])
def frechet_mean(
    metric: Metric,
    points: Float[Array, "n d"],
    weights: ArrayLike | None = None,
    *,
    initial: Latent | None = None,
    segments: int = 32,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
    batch_size: int = 256,
) -> FrechetMean:
    r"""The point with the least mean squared distance to others.

    $$\mu = \arg\min_z \sum_n w_n\, \mathrm{dist}(z, x_n)^2, \qquad
      \mu \leftarrow \mu + \eta \sum_n w_n \log_\mu(x_n)$$

    It is unique where the points are not too far apart, and otherwise one of several local minima.
    A step is a straight line in latent space, which to first order is a geodesic; the step size is
    halved where the sum would grow. The geodesics of a step start from those of the step before.

    Args:
        metric: any metric.
        points: `[n, d]`.
        weights: `[n]`, not negative and not all zero; equal by default.
        initial: where to start; the weighted average of the coordinates by default. Give one where
            that average may lie in a hole of the data or outside of the metric's domain.
        segments: of each geodesic.
        tolerance: of the gradient, relative to the standard deviation of the points.
        max_iterations: the most steps, those taken back included.
        batch_size: geodesics that are solved at once.

    Returns:
        A `FrechetMean`.

    Raises:
        ValueError: points that are not a matrix with at least one row; weights or a start of
            another shape.

    References:
        Karcher, *Riemannian Center of Mass and Mollifier Smoothing*, 1977.

    >>> import jax.numpy as jnp
    >>> half_plane = lambda z: jnp.eye(2) / z[1] ** 2
    >>> mean = frechet_mean(half_plane, jnp.array([[0.0, 1.0], [0.0, 4.0]]))
    >>> print(mean.point.round(2), mean.converged)  # (0, sqrt(1 * 4))
    [0. 2.] True
    """
    points = check_points(points)
    n, d = points.shape
    if weights is None:
        weights = jnp.ones(n, points.dtype)
    weights = jnp.asarray(weights, points.dtype)
    if weights.shape != (n,):
        raise ValueError(f"weights must have shape {(n,)}, one for each point, got {weights.shape}")
    weights = weights / weights.sum()
    start = weights @ points if initial is None else jnp.asarray(initial, points.dtype)
    if start.shape != (d,):
        raise ValueError(f"initial must have shape {(d,)}, as wide as points, got {start.shape}")
    state = _descend(
        metric,
        points,
        weights,
        start[None],
        segments=segments,
        tolerance=tolerance,
        max_iterations=max_iterations,
        batch_size=batch_size,
    )
    return FrechetMean(
        state.centres[0], state.variances[0], state.settled, state.spokes.solved.mean()
    )


@keep_compiled(arrays=["key", "points", "initial"])
def kmeans(
    key: PRNGKeyArray,
    metric: Metric,
    points: Float[Array, "n d"],
    k: int,
    *,
    initial: Float[Array, "k d"] | None = None,
    segments: int = 16,
    tolerance: float = 1e-2,
    max_iterations: int = 50,
    batch_size: int = 256,
) -> KMeans:
    r"""Clusters of least variance, as a metric measures it.

    $$\min_{c_1 \dots c_k} \sum_n \min_j \mathrm{dist}(c_j, x_n)^2$$

    Each iteration solves the geodesics from every centre to every point; they give the nearest
    centre of each point, and one step of each centre towards the Frechet mean of its points. In
    flat space that step is the mean, and this is Lloyd's algorithm.

    Args:
        key: decides about the start.
        metric: any metric.
        points: `[n, d]`.
        k: the number of clusters.
        initial: `[k, d]`, the first centres; by default points, chosen one after the other with a
            chance that grows as the squared distance to those chosen before (k-means++).
        segments: of each geodesic.
        tolerance: of the gradients, relative to the standard deviation of a cluster.
        max_iterations: the most iterations.
        batch_size: geodesics that are solved at once. The points of all `n k` of them are kept, so
            that one iteration starts from those of the last.

    Returns:
        A `KMeans`.

    Raises:
        ValueError: points that are not a matrix, fewer points than clusters or no cluster, first
            centres of another shape.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 5.2.
        Arthur and Vassilvitskii, *k-means++*, 2007.

    >>> import jax, jax.numpy as jnp
    >>> points = jnp.array([[0.0, 1.0], [0.0, 2.0], [9.0, 1.0], [9.0, 2.0]])
    >>> found = kmeans(jax.random.key(0), lambda z: jnp.eye(2), points, 2)
    >>> print((found.labels == found.labels[0]), found.inertia.round(3), found.converged)
    [ True  True False False] 1.0 True
    """
    points = check_points(points)
    n, d = points.shape
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of points, {n}, got {k}")
    if initial is None:
        centres = plus_plus(key, metric, points, k, segments=segments, batch_size=batch_size)
    else:
        centres = jnp.asarray(initial, points.dtype)
    if centres.shape != (k, d):
        raise ValueError(f"initial must have shape {(k, d)}, got {centres.shape}")
    state = _descend(
        metric,
        points,
        jnp.ones(n, points.dtype),
        centres,
        segments=segments,
        tolerance=tolerance,
        max_iterations=max_iterations,
        batch_size=batch_size,
    )
    nearest = state.spokes.distances.min(0)
    return KMeans(
        state.centres,
        state.labels,
        jnp.sum(nearest**2),
        state.settled,
        state.spokes.solved.mean(),
    )


def plus_plus(
    key: PRNGKeyArray,
    metric: Metric,
    points: Float[Array, "n d"],
    k: int,
    *,
    segments: int = 16,
    batch_size: int = 256,
) -> Float[Array, "k d"]:
    r"""Points that are far apart, as first centres of k-means.

    The first is any of them, each other one is `x` with a chance that grows as the square of its
    distance to the nearest one chosen before.

    Args:
        key: decides.
        metric: any metric.
        points: `[n, d]`.
        k: how many of them.
        segments: of each geodesic.
        batch_size: geodesics that are solved at once.

    Returns:
        The centres, `[k, d]`.

    References:
        Arthur and Vassilvitskii, *k-means++*, 2007.

    >>> import jax, jax.numpy as jnp
    >>> points = jnp.array([[0.0], [0.0], [5.0]])
    >>> print(jnp.sort(plus_plus(jax.random.key(0), lambda z: jnp.eye(1), points, 2)[:, 0]))
    [0. 5.]
    """
    first, *keys = jax.random.split(key, k)
    start = points[jax.random.randint(first, (), 0, points.shape[0])]

    def choose(
        state: tuple[Array, Latent], key: PRNGKeyArray
    ) -> tuple[tuple[Array, Latent], Array]:
        nearest, last = state
        guess = lines(last[None], points, segments)
        found = spokes(metric, last[None], points, guess, batch_size=batch_size).distances[0]
        nearest = jnp.minimum(nearest, found)
        # A point that no curve reaches is as far as the farthest that one does.
        reached = jnp.where(jnp.isfinite(nearest), nearest, 0).max()
        chance = jnp.log(jnp.minimum(nearest, reached))
        chosen = points[jax.random.categorical(key, jnp.where(reached > 0, chance * 2, 0))]
        return (nearest, chosen), chosen

    if not keys:
        return start[None]
    nearest = jnp.full(points.shape[0], jnp.inf, points.dtype)
    _, others = jax.lax.scan(choose, (nearest, start), jnp.stack(keys))
    return jnp.concatenate([start[None], others])


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
