"""A metric known at some points, made smooth in between: cheap where the metric itself is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows._norms import safe_sqrt
from latent_flows._transforms import vmap_chunked
from latent_flows.geometry.metrics import root
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["Blend", "blend", "median_gap", "tabulate"]


@dataclass(frozen=True, eq=False)
class Blend:
    """The metric of `blend`: a weighted mean of known ones."""

    points: Float[Array, "n d"]
    """Where the metric is known."""
    matrices: Float[Array, "n d d"]
    """What it is there."""
    width: Scalar
    """The distance at which a known metric has lost most of its weight."""

    def __call__(self, z: Latent) -> Float[Array, "d d"]:
        squares = jnp.sum(((self.points - z) / self.width) ** 2, axis=-1)
        return jnp.einsum("n,nij->ij", jax.nn.softmax(-squares / 2), self.matrices)


def blend(
    points: Float[Array, "n d"],
    matrices: Float[Array, "n d d"],
    width: Scalar | float | None = None,
) -> Blend:
    r"""The weighted mean of metrics known at some points.

    $$M(z) = \sum_i w_i(z)\, M_i, \qquad w_i(z) \propto \exp\big(-|z - z_i|^2 / (2 h^2)\big),
      \quad \sum_i w_i = 1$$

    A mean of positive definite matrices is positive definite, so this is a metric as well, smooth,
    and cheap wherever the generator whose pull-back the `M_i` are is not. Far from all points it is
    the metric of the nearest. Its *derivatives* follow the data's gaps as much as the metric:
    for curvature or a Laplacian take the metric itself.

    Args:
        points: where the metric is known, at least two.
        matrices: what it is there.
        width: `h`; by default the median distance from a point to the nearest other.

    Returns:
        The metric, `z -> M(z)`.

    Raises:
        ValueError: for shapes that do not agree, a single point, a width that is not positive.

    References:
        The regression of Nadaraya, 1964, and Watson, 1964, applied to matrices.

    >>> import jax.numpy as jnp
    >>> line = jnp.array([[0.0], [1.0]])
    >>> print(blend(line, jnp.array([[[1.0]], [[3.0]]]))(jnp.array([0.5])))
    [[2.]]
    """
    count, dim = jnp.shape(points)
    if count < 2 or jnp.shape(matrices) != (count, dim, dim):
        raise ValueError(
            "expected points [n, d], at least two, and matrices [n, d, d], got "
            f"{jnp.shape(points)} and {jnp.shape(matrices)}"
        )
    if width is None:
        width = median_gap(points)
    elif not isinstance(width, jax.core.Tracer) and not width > 0:
        raise ValueError(f"width must be positive, got {width}")
    return Blend(points, matrices, jnp.asarray(width, points.dtype))


def median_gap(points: Float[Array, "n d"]) -> Scalar:
    """The median distance from a point to the nearest other.

    Args:
        points: one a row.

    Returns:
        The distance.

    >>> print(median_gap(jnp.array([[0.0], [1.0], [3.0], [4.0]])))
    1.0
    """

    # One row at a time: all distances at once would be large for many points.
    def nearest(i: Array) -> Scalar:
        squares = jnp.sum((points - points[i]) ** 2, axis=-1)
        return safe_sqrt(jnp.min(squares.at[i].set(jnp.inf)))

    return jnp.median(jax.lax.map(nearest, jnp.arange(len(points))))


def tabulate(
    metric: Metric,
    low: Sequence[float] | Array | np.ndarray,
    high: Sequence[float] | Array | np.ndarray,
    *,
    resolution: int = 128,
    batch_size: int = 256,
) -> Metric:
    r"""A cubic spline through a metric of two latent dimensions.

    $$M(z) = L(z) L(z)^\top$$

    where the lower triangular `L`, with the logarithm of its diagonal, is the spline through the
    Cholesky factors at the points of a grid: positive definite everywhere and twice continuously
    differentiable. Its cost does not depend on the generator. What is narrower than two cells of
    the grid is lost. Outside of the grid the metric is that of the nearest point of its border.

    Args:
        metric: any metric of two dimensions.
        low: lower left corner of the grid, two numbers.
        high: upper right corner.
        resolution: points on each side.
        batch_size: points at which the metric is evaluated at once.

    Returns:
        The metric, which knows nothing of an immersion.

    Raises:
        ValueError: corners that are none, fewer than 8 points a side, or a metric that is not
            positive definite and finite on the whole grid.

    >>> import jax.numpy as jnp
    >>> metric = tabulate(lambda z: jnp.exp(z[0]) * jnp.eye(2), [-1, -1], [1, 1], resolution=16)
    >>> print(metric(jnp.array([0.5, 0.0])).round(3))
    [[1.649 0.   ]
     [0.    1.649]]
    """

    from scipy.ndimage import spline_filter

    corners = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    if any(corner.shape != (2,) for corner in corners) or not (corners[0] < corners[1]).all():
        raise ValueError(f"low must lie below and left of high, two numbers each, got {corners}")
    if resolution < 8:
        raise ValueError(f"resolution must be at least 8, got {resolution}")
    axes = [np.linspace(a, b, resolution) for a, b in zip(*corners, strict=True)]
    plane = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2))
    found = jax.jit(vmap_chunked(partial(root, metric), batch_size))(plane)
    factors = np.asarray(found, dtype=float).reshape(resolution, resolution, 2, 2)
    if not (np.isfinite(factors).all() and (factors[..., [0, 1], [0, 1]] > 0).all()):
        raise ValueError("metric must be positive definite and finite on the whole grid")
    entries = np.log(factors[..., 0, 0]), factors[..., 1, 0], np.log(factors[..., 1, 1])
    # Two more points on each side, for the neighbours of the border; odd, so that no kink arises.
    padded = [np.pad(entry, 2, mode="reflect", reflect_type="odd") for entry in entries]
    coefficients = np.stack([spline_filter(entry, mode="mirror") for entry in padded], -1)
    cell = (corners[1] - corners[0]) / (resolution - 1)

    def tabulated(z: Latent) -> Float[Array, "2 2"]:
        if z.shape != (2,):
            raise ValueError(f"expected a latent of shape (2,), got {z.shape}")
        place = (z - jnp.asarray(corners[0], z.dtype)) / jnp.asarray(cell, z.dtype)
        place = jnp.clip(place, 0, resolution - 1)
        corner = jnp.clip(jnp.floor(place), 0, resolution - 2)
        weights = jax.vmap(_cubic)(place - corner)
        first = corner.astype(int) + 1  # the padding moves all by two, the spline starts one before
        table = jnp.asarray(coefficients, z.dtype)
        patch = jax.lax.dynamic_slice(table, (first[0], first[1], jnp.zeros((), int)), (4, 4, 3))
        a, b, c = jnp.einsum("i,j,ijk->k", weights[0], weights[1], patch)
        factor = jnp.array([[jnp.exp(a), 0], [b, jnp.exp(c)]])
        return factor @ factor.T

    return tabulated


def _cubic(x: Scalar) -> Float[Array, "4"]:
    """The cubic B-splines of four neighbours, at a place in [0, 1] between the middle two."""
    y = 1 - x
    inner = 2 / 3 - x**2 + x**3 / 2, 2 / 3 - y**2 + y**3 / 2
    return jnp.array([y**3 / 6, *inner, x**3 / 6])
