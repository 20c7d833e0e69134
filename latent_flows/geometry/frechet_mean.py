"""The Frechet mean: the average of points, as a metric measures distances."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from latent_flows._compiled import keep_compiled
from latent_flows._results import Result, message_of
from latent_flows.geometry._spokes import check_points, descend, ended
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["FrechetMean", "frechet_mean"]


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

    @property
    def result(self) -> Result:
        """Why it has not converged, if it has not; `message` says it in words."""
        return ended(self.converged, self.solved)

    @property
    def message(self) -> Any:
        """Why it has not converged; empty if it has. Of a batch, an array of such."""
        return message_of(self.result)


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
    state = descend(
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
