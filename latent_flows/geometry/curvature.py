"""Curvature: how straight lines bend, and how a metric differs from every flat one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.geometry import metrics
from latent_flows.geometry.metrics import Pullback
from latent_flows.typing import Latent, Metric, Scalar

__all__ = [
    "Field",
    "acceleration",
    "christoffel",
    "connection",
    "geodesic_curvature",
    "lowered_connection",
    "ricci",
    "riemann",
    "scalar_curvature",
    "sectional_curvature",
]

Field = Callable[[Latent], Array]
"""A function of a point, with values of any shape."""

# --- the connection ---


def connection(metric: Metric) -> Callable[[Latent, Latent, Latent], Latent]:
    r"""What Christoffel symbols do to two tangent vectors, without the symbols.

    $$\Gamma(u, v)^k = \Gamma^k_{ij}\, u^i v^j = M^{-1} \tfrac12 \big( (\partial_u M) v
      + (\partial_v M) u - \nabla_z (u^\top M v) \big)^k$$

    Through an immersion into Euclidean space it is $M^{-1} J^\top f''(u, v)$: no derivative of the
    metric is taken, and no array of three latent axes is made either way.

    Args:
        metric: any metric, positive definite at the points asked for; where it is not, the result
            is not finite.

    Returns:
        `(z, u, v) -> vector`, symmetric and bilinear in `u` and `v`.

    Raises:
        ValueError: when called, for a tangent vector of another shape than that of `z`.

    References:
        do Carmo, *Riemannian Geometry*, 1992, chapter 2, eq. (9).

    >>> import jax.numpy as jnp
    >>> polar = connection(lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2])))
    >>> print(polar(jnp.array([2.0, 0.0]), jnp.array([0.0, 1.0]), jnp.array([0.0, 1.0])))
    [-2.  0.]
    """

    lowered = lowered_connection(metric)
    return lambda z, u, v: _solve(metrics.matrix(metric, z), lowered(z, u, v))


def lowered_connection(metric: Metric) -> Callable[[Latent, Latent, Latent], Latent]:
    r"""`M connection`: what needs no solve, for those who have a factor of the metric already.

    $$\Gamma_l(u, v) = M_{lk}\, \Gamma^k_{ij}\, u^i v^j$$

    Args:
        metric: any metric.

    Returns:
        `(z, u, v) -> vector`, symmetric and bilinear in `u` and `v`.

    Raises:
        ValueError: as `connection` does.

    >>> import jax.numpy as jnp
    >>> polar = lowered_connection(lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2])))
    >>> print(polar(jnp.array([2.0, 0.0]), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])))
    [0. 2.]
    """
    immersed = metrics.pulled_back(metric)

    def gamma(z: Latent, u: Latent, v: Latent) -> Latent:
        metrics.check_tangent("u", z, u)
        metrics.check_tangent("v", z, v)
        if immersed is None:
            return _first_kind(lambda y, w: metrics.matrix(metric, y) @ w, z, u, v)
        bend = immersed.lower(immersed.flat(z), _second_derivative(immersed.flat, z, u, v))
        jacobian = jax.jacfwd(immersed.flat)(z)
        if not immersed.is_euclidean:
            bend += _first_kind(immersed.lower, immersed.flat(z), jacobian @ u, jacobian @ v)
        return jacobian.T @ bend

    return gamma


def acceleration(metric: Metric) -> Callable[[Latent, Latent], Latent]:
    r"""How a geodesic bends in latent coordinates: the right side of its equation.

    $$\ddot z = -\Gamma(\dot z, \dot z)$$

    Args:
        metric: any metric; see `connection` for what it costs.

    Returns:
        `(z, v) -> vector`.

    Raises:
        ValueError: when called, for a velocity of another shape than that of `z`.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, eq. (4).

    >>> import jax.numpy as jnp
    >>> polar = acceleration(lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2])))
    >>> print(polar(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0])))  # (r w^2, -2 r' w / r)
    [ 2. -1.]
    """
    gamma = connection(metric)
    return lambda z, v: -gamma(z, v, v)


def geodesic_curvature(metric: Metric) -> Callable[[Latent, Latent], Scalar]:
    r"""How fast a straight line turns away from the geodesic that starts along it.

    $$\kappa(z, v) = \lVert \Gamma(v, v)_\perp \rVert_M \,/\, \lVert v \rVert_M^2$$

    in radians per unit of length in the metric, whatever the length of `v`; the part of
    $\Gamma(v, v)$ along `v` only says that the line is not passed at an even pace. It is 0
    everywhere where straight lines are geodesics, as of a generator that is linear.

    Args:
        metric: any metric, positive definite at the points asked for; see `unit_metric` for
            generators that some directions do not change.

    Returns:
        `(z, v) -> scalar`, at least 0; not finite for a `v` of length 0.

    Raises:
        ValueError: when called, for a direction of another shape than that of `z`.

    References:
        do Carmo, *Differential Geometry of Curves and Surfaces*, 1976, section 4-4.

    >>> import jax.numpy as jnp
    >>> polar = geodesic_curvature(lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2])))
    >>> print(polar(jnp.array([2.0, 0.0]), jnp.array([0.0, 3.0])))  # a circle of radius 2
    0.5
    """
    gamma = connection(metric)

    def curvature(z: Latent, v: Latent) -> Scalar:
        bent, size = gamma(z, v, v), metrics.squared_norm(metric, z, v)
        across = bent - metrics.inner(metric, z, bent, v) / size * v
        square = metrics.squared_norm(metric, z, across)
        turns = square > 0
        # Without a derivative that is not finite where it is 0.
        return jnp.where(turns, jnp.sqrt(jnp.where(turns, square, 1.0)) / size, square / size)

    return curvature


def christoffel(metric: Metric) -> Callable[[Latent], Float[Array, "d d d"]]:
    r"""The Christoffel symbols of the second kind.

    $$\Gamma^k_{ij} = \tfrac12 M^{kl} (\partial_i M_{jl} + \partial_j M_{il} - \partial_l M_{ij})$$

    Where they only meet tangent vectors, `connection` does the same for less.

    Args:
        metric: any metric.

    Returns:
        `z -> [d, d, d]`, of which the axes are `k, i, j`; not finite where the metric is not
        positive definite.

    Raises:
        ValueError: when called, for a latent that is not one vector or a metric of another shape.

    References:
        do Carmo, *Riemannian Geometry*, 1992, chapter 2, eq. (10).

    >>> import jax.numpy as jnp
    >>> polar = christoffel(lambda z: jnp.diag(jnp.array([1.0, z[0] ** 2])))
    >>> print(polar(jnp.array([2.0, 0.0]))[0])
    [[ 0.  0.]
     [ 0. -2.]]
    """

    def symbols(z: Latent) -> Float[Array, "d d d"]:
        matrix = metrics.matrix(metric, z)
        slope = jax.jacfwd(metric)(z)  # [j, l, i]
        lowered = (
            slope.transpose(1, 2, 0) + slope.transpose(1, 0, 2) - slope.transpose(2, 0, 1)
        ) / 2
        dim = z.shape[0]
        return _solve(matrix, lowered.reshape(dim, -1)).reshape(3 * (dim,))

    return symbols


# --- curvature ---


def riemann(metric: Metric) -> Callable[[Latent], Float[Array, "d d d d"]]:
    r"""The Riemann curvature tensor $R^i{}_{jkl}$.

    $$R^i{}_{jkl} = \partial_k \Gamma^i_{lj} - \partial_l \Gamma^i_{kj}
      + \Gamma^i_{km} \Gamma^m_{lj} - \Gamma^i_{lm} \Gamma^m_{kj}$$

    In this convention $R_{ijkl} = K (M_{ik} M_{jl} - M_{il} M_{jk})$ where the curvature is the
    constant $K$. Through an immersion into Euclidean space it comes from the equation of Gauss,
    $R_{ijkl} = \langle N_{ik}, N_{jl} \rangle - \langle N_{il}, N_{jk} \rangle$, where `N` is
    the part of the second derivative that is normal to the surface. That takes two derivatives of
    the immersion where the symbols would take three.

    Args:
        metric: any metric.

    Returns:
        `z -> [d, d, d, d]`, of which the axes are `i, j, k, l`; not finite where the metric is not
        positive definite.

    Raises:
        ValueError: as `christoffel` does.

    References:
        Misner, Thorne and Wheeler, *Gravitation*, 1973, eq. (8.44); do Carmo, *Riemannian
        Geometry*, 1992, chapter 6, theorem 2.5, for the equation of Gauss.

    >>> import jax.numpy as jnp
    >>> sphere = riemann(lambda z: jnp.diag(jnp.array([1.0, jnp.sin(z[0]) ** 2])))
    >>> print(sphere(jnp.array([jnp.pi / 2, 0.0]))[0, 1, 0, 1].round(3))
    1.0
    """
    flat = metrics.euclidean(metric)

    def extrinsic(flat: Pullback, z: Latent) -> Float[Array, "d d d d"]:
        normal = _normal_bend(flat)
        basis = jnp.eye(z.shape[0], dtype=z.dtype)
        bends = jax.vmap(lambda u: jax.vmap(lambda v: normal(z, u, v))(basis))(basis)
        products = jnp.einsum("ikn,jln->ijkl", bends, bends)
        lowered = products - products.swapaxes(2, 3)
        matrix = metrics.matrix(metric, z)
        return _solve(matrix, lowered.reshape(z.shape[0], -1)).reshape(lowered.shape)

    def intrinsic(z: Latent) -> Float[Array, "d d d d"]:
        symbols = christoffel(metric)
        gamma = symbols(z)
        slope = jnp.einsum("iljk->ijkl", jax.jacfwd(symbols)(z))
        half = slope + jnp.einsum("ikm,mlj->ijkl", gamma, gamma)
        return half - half.swapaxes(2, 3)

    def tensor(z: Latent) -> Float[Array, "d d d d"]:
        return intrinsic(z) if flat is None else extrinsic(flat, z)

    return tensor


def ricci(metric: Metric) -> Callable[[Latent], Float[Array, "d d"]]:
    r"""The Ricci curvature: the mean bending of the planes through a direction.

    $$R_{jl} = R^i{}_{jil}$$

    Args:
        metric: any metric.

    Returns:
        `z -> [d, d]`, symmetric; not finite where the metric is not positive definite.

    Raises:
        ValueError: as `christoffel` does.

    References:
        Misner, Thorne and Wheeler, *Gravitation*, 1973, eq. (8.47).

    >>> import jax.numpy as jnp
    >>> half_plane = ricci(lambda z: jnp.eye(2) / z[1] ** 2)
    >>> print(jnp.diag(half_plane(jnp.array([0.0, 1.0]))).round(3))
    [-1. -1.]
    """
    curvature = riemann(metric)
    return lambda z: jnp.einsum("ijil->jl", curvature(z))


def scalar_curvature(metric: Metric) -> Callable[[Latent], Scalar]:
    r"""The scalar curvature: twice that of Gauss on a surface.

    $$S = M^{jl} R_{jl}$$

    Args:
        metric: any metric.

    Returns:
        `z -> scalar`; 2 on the unit sphere, -2 in the hyperbolic plane, not finite where the
        metric is not positive definite.

    Raises:
        ValueError: as `christoffel` does.

    References:
        Misner, Thorne and Wheeler, *Gravitation*, 1973, eq. (8.48).

    >>> import jax.numpy as jnp
    >>> half_plane = scalar_curvature(lambda z: jnp.eye(2) / z[1] ** 2)
    >>> print(half_plane(jnp.array([0.0, 1.0])).round(3))
    -2.0
    """
    curvature = ricci(metric)
    return lambda z: jnp.trace(_solve(metrics.matrix(metric, z), curvature(z)))


def sectional_curvature(metric: Metric) -> Callable[[Latent, Latent, Latent], Scalar]:
    r"""The curvature of the surface that geodesics sweep out from a plane of directions.

    $$K(u, v) = \frac{R_{ijkl}\, u^i v^j u^k v^l}
      {|u|_M^2\, |v|_M^2 - \langle u, v \rangle_M^2}$$

    Args:
        metric: any metric.

    Returns:
        `(z, u, v) -> scalar`, the same for all `u` and `v` that span the same plane; 0 where they
        span none, not finite where the metric is not positive definite.

    Raises:
        ValueError: when called, for a tangent vector of another shape than that of `z`.

    References:
        do Carmo, *Riemannian Geometry*, 1992, chapter 4, definition 3.2.

    >>> import jax.numpy as jnp
    >>> sphere = sectional_curvature(lambda z: jnp.diag(jnp.array([1.0, jnp.sin(z[0]) ** 2])))
    >>> print(sphere(jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0])).round(3))
    1.0
    """
    flat = metrics.euclidean(metric)

    def bending(z: Latent, u: Latent, v: Latent) -> Scalar:
        if flat is None:
            tensor = riemann(metric)(z)
            return metrics.matrix(metric, z) @ u @ jnp.einsum("ijkl,j,k,l->i", tensor, v, u, v)
        normal = _normal_bend(flat)
        across = normal(z, u, v)
        return normal(z, u, u) @ normal(z, v, v) - across @ across

    def curvature(z: Latent, u: Latent, v: Latent) -> Scalar:
        metrics.check_tangent("u", z, u)
        metrics.check_tangent("v", z, v)
        overlap = metrics.inner(metric, z, u, v)
        area = metrics.squared_norm(metric, z, u) * metrics.squared_norm(metric, z, v) - overlap**2
        line = area <= 0
        return jnp.where(line, 0, bending(z, u, v) / jnp.where(line, 1, area))

    return curvature


# --- the parts ---


def _normal_bend(metric: Pullback) -> Callable[[Latent, Latent, Latent], Array]:
    """The second fundamental form: the part of `f''(u, v)` that no tangent vector makes."""

    def bend(z: Latent, u: Latent, v: Latent) -> Array:
        jacobian = jax.jacfwd(metric.flat)(z)
        full = _second_derivative(metric.flat, z, u, v)
        return full - jacobian @ _solve(jacobian.T @ jacobian, jacobian.T @ full)

    return bend


def _first_kind(lower: Callable[[Array, Array], Array], x: Array, u: Array, v: Array) -> Array:
    """The connection of a metric given by its action `(x, v) -> M(x) v`, its index lowered."""

    def along(direction: Array, held: Array) -> Array:
        return jax.jvp(lambda y: lower(y, held), (x,), (direction,))[1]

    change = along(u, v) if u is v else (along(u, v) + along(v, u)) / 2
    return change - jax.grad(lambda y: u @ lower(y, v))(x) / 2


def _second_derivative(f: Field, z: Latent, u: Latent, v: Latent) -> Array:
    """`f''(u, v)`."""
    return jax.jvp(lambda y: jax.jvp(f, (y,), (u,))[1], (z,), (v,))[1]


def _solve(matrix: Float[Array, "d d"], right: Array) -> Array:
    """`matrix^-1 right`, for a positive definite matrix."""
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix, lower=True), right)
