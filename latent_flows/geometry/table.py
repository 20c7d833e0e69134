"""A metric of a plane kept as a table: for where an expensive one is asked for again and again."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows.batches import in_batches
from latent_flows.geometry.metrics import root
from latent_flows.typing import Latent, Metric, Scalar

__all__ = ["tabulate"]


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
    found = jax.jit(in_batches(partial(root, metric), batch_size))(plane)
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
