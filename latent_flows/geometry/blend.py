"""A metric known at some points, made smooth in between: for flows that need it at every step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.norms import safe_sqrt
from latent_flows.typing import Latent, Scalar

__all__ = ["Blend", "blend", "median_gap"]


@dataclass(frozen=True)
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
