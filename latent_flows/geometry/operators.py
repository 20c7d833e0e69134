"""The Laplacian of a manifold: what takes the place of the flat one in any equation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows import calculus
from latent_flows.geometry import metrics
from latent_flows.geometry.curvature import lowered_connection
from latent_flows.typing import Latent, Metric, Scalar

__all__ = [
    "Operator",
    "coordinate_laplacian",
    "frame_and_bend",
    "inverse_root",
    "laplace_beltrami",
    "operator_in",
]

Operator = Callable[[Callable[[Latent], Scalar]], Callable[[Latent], Scalar]]
"""`f -> (z -> scalar)`, like `calculus.laplacian`."""


def laplace_beltrami(metric: Metric, *, laplacian: Operator = calculus.laplacian) -> Operator:
    r"""The Laplacian that goes with a metric.

    $$\Delta_M f = \frac{1}{\sqrt{|M|}}\, \partial_i \big( \sqrt{|M|}\, M^{ij} \partial_j f \big)
      = \mathrm{tr}(M^{-1} \nabla^2 f) + b \cdot \nabla f, \qquad b^k = -M^{ij} \Gamma^k_{ij}$$

    The first part is the flat Laplacian in coordinates in which the metric is the identity at the
    point, so it costs what `laplacian` costs; the second is one derivative along `b`. The
    derivatives of the metric do not meet those of `f`.

    It stands in for `calculus.laplacian` wherever an operator can be given, as in
    `pde.wave(u, speed, laplacian=laplace_beltrami(metric))`.

    Args:
        metric: any metric.
        laplacian: the flat operator that takes second derivatives of `f`.

    Returns:
        `f -> (z -> scalar)`; not finite where the metric is not positive definite.

    Raises:
        ValueError: when called, for a latent that is not one vector, a metric of another shape, an
            `f` whose value is not a scalar.

    References:
        do Carmo, *Riemannian Geometry*, 1992, chapter 3, exercise 9; Lee, *Introduction to
        Riemannian Manifolds*, 2018, proposition 2.46.

    >>> import jax.numpy as jnp
    >>> polar = lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2]))
    >>> print(laplace_beltrami(polar)(lambda z: z[0] ** 2)(jnp.array([2.0, 0.0])))
    4.0
    """
    return operator_in(frame_and_bend(metric), laplacian=laplacian)


def operator_in(
    frame: Callable[[Latent], tuple[Float[Array, "d d"], Latent]],
    *,
    laplacian: Operator = calculus.laplacian,
) -> Operator:
    """`laplace_beltrami` where what it needs of the metric is known already.

    Args:
        frame: `z -> (root, bend)` as `frame_and_bend` gives it, or a look-up of what it gave.
        laplacian: the flat operator that takes second derivatives of `f`.

    Returns:
        `f -> (z -> scalar)`.

    >>> import jax.numpy as jnp
    >>> at = lambda z: (0.5 * jnp.eye(2), jnp.zeros(2))  # of the metric 4 I
    >>> print(operator_in(at)(lambda z: z @ z)(jnp.ones(2)))
    1.0
    """

    def operator(f: Callable[[Latent], Scalar]) -> Callable[[Latent], Scalar]:
        def value(z: Latent) -> Scalar:
            root, bend = frame(z)
            second = laplacian(lambda y: f(z + root @ y))(jnp.zeros_like(z))
            return second + jax.jvp(f, (z,), (bend,))[1]

        return value

    return operator


def coordinate_laplacian(metric: Metric) -> Callable[[Latent], Latent]:
    r"""The Laplacian of the coordinates themselves: twice the drift of Brownian motion.

    $$b^k = \Delta_M z^k = -M^{ij} \Gamma^k_{ij}
      = \frac{1}{\sqrt{|M|}}\, \partial_i \big( \sqrt{|M|}\, M^{ik} \big)$$

    Args:
        metric: any metric.

    Returns:
        `z -> vector`; not finite where the metric is not positive definite.

    Raises:
        ValueError: when called, for a latent that is not one vector or a metric of another shape.

    >>> import jax.numpy as jnp
    >>> polar = lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2]))
    >>> print(coordinate_laplacian(polar)(jnp.array([2.0, 0.0]))[0])
    0.5
    """
    frame = frame_and_bend(metric)
    return lambda z: frame(z)[1]


def frame_and_bend(
    metric: Metric,
) -> Callable[[Latent], tuple[Float[Array, "d d"], Latent]]:
    """An orthonormal basis, and the Laplacian of the coordinates, by one factorisation.

    Args:
        metric: any metric.

    Returns:
        `z -> (inverse_root(M), coordinate_laplacian(metric)(z))`.

    Raises:
        ValueError: as `coordinate_laplacian` does.
    """
    lowered = lowered_connection(metric)

    def frame(z: Latent) -> tuple[Float[Array, "d d"], Latent]:
        root = inverse_root(metrics.matrix(metric, z))
        bend = -jax.vmap(lambda u: lowered(z, u, u))(root.T).sum(0)
        return root, root @ (root.T @ bend)

    return frame


def inverse_root(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    r"""A square root of the inverse: its columns are an orthonormal basis of the metric.

    $$L L^\top = M^{-1}$$

    Args:
        matrix: `M`, positive definite; where it is not, the result is not finite.

    Returns:
        `L`, upper triangular.

    >>> import jax.numpy as jnp
    >>> print(inverse_root(4 * jnp.eye(2)))
    [[0.5 0. ]
     [0.  0.5]]
    """
    lower = jnp.linalg.cholesky(matrix)
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return jax.scipy.linalg.solve_triangular(lower, identity, trans="T", lower=True)
