"""K-means by the distances of a metric: points in clusters, each around its Frechet mean."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from latent_flows._compiled import keep_compiled
from latent_flows._results import Result, message_of
from latent_flows.geometry._spokes import check_points, descend, ended, lines, spokes
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["KMeans", "kmeans", "plus_plus"]


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

    @property
    def result(self) -> Result:
        """Why it has not converged, if it has not; `message` says it in words."""
        return ended(self.converged, self.solved)

    @property
    def message(self) -> Any:
        """Why it has not converged; empty if it has. Of a batch, an array of such."""
        return message_of(self.result)


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
    state = descend(
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
