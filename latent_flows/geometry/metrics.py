"""Metrics: what a latent space's lengths and angles are.

A metric is any callable `z -> M(z)`, a symmetric positive definite matrix. That is all it has to
be. What it knows better ways for it may have as attributes, each of which is tried before the
matrix, and None where there is none after all:

- `inner(z, u, v)`: the inner product of two tangent vectors at `z`,
- `squared_norm(z, v)`: that of one with itself,
- `sqrt(z)`: the lower triangular `L` with `M = L L'` and a positive diagonal,
- `immersion`: a map `z -> x` through which it is pulled back, from Euclidean space or from one with
  the metric `ambient`; solvers then use the map itself, and need neither of the others.

Everything in `latent_flows.geometry` asks for these here and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.typing import Generator, Latent, Metric, Scalar

__all__ = [
    "Ambient",
    "Pullback",
    "check_tangent",
    "conformal",
    "drawn",
    "euclidean",
    "inner",
    "local_pca",
    "log_volume",
    "matrix",
    "products",
    "pullback",
    "pullback_metrics",
    "pulled_back",
    "root",
    "squared_norm",
    "stochastic_pullback",
    "unit_metric",
    "volume",
]

FORMED = 64
"""Latents up to this length have their Jacobian formed where products with it would do as well; of
longer ones it is not held."""
Ambient = Callable[[Float[Array, "n"]], Array]
"""`x -> A(x)`, a metric of data space at a flattened sample: `[n, n]`; `[n]` if diagonal; or
`[m, b, b]` if made of blocks of `b` neighbours, `n = m b`."""


@dataclass(frozen=True)
class Pullback:
    """The metric of a latent space seen through a map into data space; see `pullback`."""

    immersion: Generator
    """`z -> x`, of any event shape."""
    ambient: Ambient | None = None
    """The metric of data space; Euclidean if None."""

    @property
    def is_euclidean(self) -> bool:
        """Whether data space is, so that lengths are those of differences of samples."""
        return self.ambient is None

    def __call__(self, z: Latent) -> Float[Array, "d d"]:
        x, rows = self.push(z)
        return products(rows) if self.ambient is None else rows @ self.lower(x, rows.T)

    def push(self, z: Latent) -> tuple[Float[Array, "n"], Float[Array, "d n"]]:
        """The sample, and where each coordinate of the latent moves it: the transposed Jacobian."""
        x, tangent = jax.linearize(self.flat, z)
        return x, jax.vmap(tangent)(jnp.eye(z.shape[0], dtype=z.dtype))

    def flat(self, z: Latent) -> Float[Array, "n"]:
        """The immersion with its sample as one vector."""
        _check_latent(z)
        return jnp.ravel(self.immersion(z))

    @property
    def is_drawn(self) -> bool:
        """Whether some numbers of a sample are drawn anew at every point of a discretised curve."""
        return False

    def split(self, images: Float[Array, "*k n"], z: Latent) -> tuple[Array, Array]:
        """What is drawn anew at every point of a discretised curve, and what is not.

        Args:
            images: samples, or their derivatives.
            z: any latent, for its shape.

        Returns:
            The numbers of which a chord is made, here all; and those that are drawn at each end of
            it, with a mean of zero, here none.
        """
        return images, images[..., :0]

    def inner(self, z: Latent, u: Latent, v: Latent) -> Scalar:
        """`u' M(z) v` by one forward pass with two tangents."""
        x, push = jax.linearize(self.flat, z)
        return push(u) @ self.lower(x, push(v))

    def squared_norm(self, z: Latent, v: Latent) -> Scalar:
        """`v' M(z) v` by one forward pass; NaN where the image is not finite."""
        x, pushed = jax.jvp(self.flat, (z,), (v,))
        return jnp.where(jnp.isfinite(x).all(), pushed @ self.lower(x, pushed), jnp.nan)

    @property
    def sqrt(self) -> Callable[[Latent], Float[Array, "d d"]] | None:
        """`z -> L`, from Euclidean space the triangle of the Jacobian; else None."""
        return self._triangle if self.is_euclidean else None

    def _triangle(self, z: Latent) -> Float[Array, "d d"]:
        jacobian = jax.jacfwd(self.flat)(z)
        missing = max(0, jacobian.shape[1] - jacobian.shape[0])
        triangle = jnp.linalg.qr(jnp.pad(jacobian, ((0, missing), (0, 0))), mode="r")
        diagonal = jnp.diagonal(triangle)
        return triangle.T * jnp.where(diagonal < 0, -1, 1).astype(z.dtype)

    def lower(self, x: Float[Array, "n"], tangents: Array) -> Array:
        """`A(x)` applied to tangents of data space, along their first axis."""
        if self.ambient is None:
            return tangents
        ambient = jnp.asarray(self.ambient(x))
        if ambient.shape == x.shape:
            return (ambient * tangents.T).T
        if ambient.ndim == 3 and ambient.shape[0] * ambient.shape[1] == len(x):
            return (ambient @ tangents.reshape(*ambient.shape[:2], -1)).reshape(tangents.shape)
        if ambient.shape != 2 * x.shape:
            raise ValueError(
                f"the ambient metric must have shape {2 * x.shape}, {x.shape} if it is "
                f"diagonal, or [m, b, b] with m b = {len(x)}, got {ambient.shape}"
            )
        return ambient @ tangents


def products(
    rows: Float[Array, "d n"], others: Float[Array, "e n"] | None = None
) -> Float[Array, "d e"]:
    """The inner products of long rows with others, or with themselves.

    XLA is slow at matrix products of very few rows on a CPU: they are sums then.

    Args:
        rows: `[d, n]`.
        others: `[e, n]`; the rows themselves where left out.

    Returns:
        The matrix of inner products.

    >>> print(products(jnp.array([[1.0, 2.0], [0.0, 1.0]])))
    [[5. 2.]
     [2. 1.]]
    """
    second = rows if others is None else others
    d, e = len(rows), len(second)
    if d > 3:
        return rows @ second.T
    if others is not None:
        return jnp.stack([jnp.stack([_dot(a, b) for b in second]) for a in rows])
    half = {(i, j): _dot(rows[i], rows[j]) for i in range(d) for j in range(i + 1)}
    return jnp.stack([jnp.stack([half[max(i, j), min(i, j)] for j in range(e)]) for i in range(d)])


def _dot(a: Float[Array, "n"], b: Float[Array, "n"]) -> Scalar:
    """16 sums side by side are one vector instruction where a single sum is none."""
    product = a * b
    whole = product.shape[0] // 16 * 16
    return product[:whole].reshape(-1, 16).sum(0).sum() + product[whole:].sum()


def pullback(immersion: Generator, ambient: Ambient | None = None) -> Pullback:
    r"""The metric that makes an immersion keep lengths.

    $$M(z) = J(z)^\top A(f(z))\, J(z), \qquad J = \partial f / \partial z$$

    The Jacobian takes `d` forward-mode passes; `inner` and `squared_norm` take one or two.

    Args:
        immersion: `z -> x`, of any event shape, smooth, with a Jacobian of full rank.
        ambient: `x -> A(x)`, the metric of data space at the flattened sample: `[n, n]`; `[n]`
            where it is diagonal; `[m, b, b]` where it is made of blocks. Euclidean by default.

    Returns:
        The metric, a callable that keeps `immersion` and `ambient`.

    Raises:
        ValueError: when called, for a latent that is not one vector, or an ambient metric of
            another shape.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 3.

    >>> import jax.numpy as jnp
    >>> print(pullback(lambda z: jnp.array([z[0], z[1], z[0] * z[1]]))(jnp.array([1.0, 2.0])))
    [[5. 2.]
     [2. 2.]]
    """
    return Pullback(immersion, ambient)


def stochastic_pullback(mean: Generator, std: Generator) -> Pullback:
    r"""The expected metric of a noisy generator, $f(z) = \mu(z) + \sigma(z) \epsilon$.

    $$\mathbb{E}\, J^\top J = J_\mu^\top J_\mu + J_\sigma^\top J_\sigma$$

    It is the metric pulled back through the stacked map $z \mapsto (\mu(z), \sigma(z))$, which it
    keeps as its immersion.

    Args:
        mean: `z -> mu`, of any event shape.
        std: `z -> sigma`, of any event shape.

    Returns:
        The metric.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, theorem 1.

    >>> import jax.numpy as jnp
    >>> metric = stochastic_pullback(lambda z: 2 * z, lambda z: z @ z)
    >>> print(metric(jnp.array([1.0, 0.0])))
    [[8. 0.]
     [0. 4.]]
    """
    return Pullback(lambda z: jnp.concatenate([jnp.ravel(mean(z)), jnp.ravel(std(z))]))


def pullback_metrics(
    immersion: Generator, points: Float[Array, "n d"], *, batch_size: int = 64
) -> Float[Array, "n d d"]:
    """The pull-back metric `J' J` at many points, a few at a time.

    Args:
        immersion: `z -> x`.
        points: where.
        batch_size: points at once.

    Returns:
        The matrices.

    >>> print(pullback_metrics(lambda z: 3.0 * z, jnp.zeros((2, 1))).ravel())
    [9. 9.]
    """
    return jax.jit(partial(jax.lax.map, pullback(immersion), batch_size=batch_size))(points)


def unit_metric(
    immersion: Generator, points: Float[Array, "n d"], *, damping: float = 0.01
) -> Pullback:
    r"""The pull-back metric in units of its mean over some points, and nowhere singular.

    $$M(z) = J^\top J \Big/ \tfrac1d \mathbb E \operatorname{tr} J^\top J + \varepsilon I$$

    So that lengths in it are of the order of those in the latent space, whatever the unit of data.

    Args:
        immersion: `z -> x`.
        points: over which the mean is taken; a hundred will do.
        damping: `epsilon`, for where nothing that is generated changes.

    Returns:
        The metric, with an immersion.

    Raises:
        ValueError: a damping below 0.

    >>> metric = unit_metric(lambda z: 5.0 * z, jnp.zeros((1, 2)))
    >>> print(metric(jnp.ones(2)).diagonal().round(3))
    [1.01 1.01]
    """
    if not damping >= 0:
        raise ValueError(f"damping must be at least 0, got {damping}")
    size = jnp.trace(pullback_metrics(immersion, points).mean(0)) / points.shape[1]
    unit = jax.lax.rsqrt(jnp.maximum(size, 1e-12))
    return stochastic_pullback(
        lambda z: unit * immersion(z), lambda z: jnp.sqrt(jnp.asarray(damping, z.dtype)) * z
    )


def conformal(factor: Callable[[Latent], Scalar], base: Metric | None = None) -> Metric:
    r"""A metric scaled by a positive function.

    $$M(z) = \lambda(z)\, M_0(z)$$

    Args:
        factor: `z -> lambda(z) > 0`.
        base: the metric that is scaled; Euclidean by default.

    Returns:
        The metric.

    >>> import jax.numpy as jnp
    >>> half_plane = conformal(lambda z: 1 / z[1] ** 2)  # the hyperbolic plane
    >>> print(half_plane(jnp.array([0.0, 0.5])))
    [[4. 0.]
     [0. 4.]]
    """

    def metric(z: Latent) -> Float[Array, "d d"]:
        _check_latent(z)
        return factor(z) * (jnp.eye(z.shape[0], dtype=z.dtype) if base is None else base(z))

    return metric


def local_pca(data: Float[Array, "n d"], sigma: float, rho: float) -> Metric:
    r"""A metric that is small where data is, from local diagonal covariances.

    $$M_{jj}(z) = \Big(\sum_n w_n(z)\,(x_{nj} - z_j)^2 + \rho\Big)^{-1}, \qquad
      w_n(z) = \exp\big(-|x_n - z|^2 / (2 \sigma^2)\big)$$

    Args:
        data: the points, `[n, d]`.
        sigma: reach of a point, positive, in the units of `data`.
        rho: the regulariser, positive, in the units of `data` squared: far from data
            `M = 1 / rho`, the largest that the metric gets.

    Returns:
        The metric, diagonal.

    Raises:
        ValueError: data that are not a matrix with at least one row; `sigma` or `rho` not positive.

    References:
        Arvanitidis, Hansen and Hauberg, *A Locally Adaptive Normal Distribution*, 2016, eq. (9).

    >>> import jax.numpy as jnp
    >>> metric = local_pca(jnp.array([[0.0, 0.0], [1.0, 0.0]]), sigma=1.0, rho=0.1)
    >>> print(jnp.diag(metric(jnp.array([50.0, 0.0]))).round(1))
    [10. 10.]
    """
    data = jnp.asarray(data)
    if data.ndim != 2 or data.shape[0] == 0:
        raise ValueError(f"data must have shape [n, d] with n at least 1, got {data.shape}")
    if not (sigma > 0 and rho > 0):
        raise ValueError(f"sigma and rho must be positive, got {sigma} and {rho}")

    def metric(z: Latent) -> Float[Array, "d d"]:
        if z.shape != data.shape[1:]:
            raise ValueError(f"expected a latent of shape {data.shape[1:]}, got {z.shape}")
        offset = (data - z) ** 2
        weight = jnp.exp(-offset.sum(-1) / (2 * sigma**2))
        return jnp.diag(1 / (weight @ offset + rho))

    return metric


def inner(metric: Metric, z: Latent, u: Latent, v: Latent) -> Scalar:
    r"""The inner product of two tangent vectors, $u^\top M(z)\, v$.

    Where the metric is pulled back, no Jacobian is formed.

    Args:
        metric: any metric.
        z: where.
        u: a tangent vector at `z`.
        v: another.

    Returns:
        The inner product.

    >>> import jax.numpy as jnp
    >>> print(inner(lambda z: 2 * jnp.eye(2), jnp.zeros(2), jnp.ones(2), jnp.ones(2)))
    4.0
    """
    known = getattr(metric, "inner", None)
    return u @ matrix(metric, z) @ v if known is None else known(z, u, v)


def squared_norm(metric: Metric, z: Latent, v: Latent) -> Scalar:
    r"""The squared length of a tangent vector, $v^\top M(z)\, v$.

    Where the metric is pulled back it takes one forward-mode pass, and is NaN where the image is
    not finite, of which derivatives may yet be.

    Args:
        metric: any metric.
        z: a latent.
        v: a tangent vector at `z`.

    Returns:
        The squared length.
    """
    known = getattr(metric, "squared_norm", None)
    return inner(metric, z, v, v) if known is None else known(z, v)


def log_volume(metric: Metric) -> Callable[[Latent], Scalar]:
    r"""The logarithm of the volume measure, $\tfrac12 \log\det M(z)$.

    Where the metric is pulled back from a Euclidean space, $M = J^\top J$ is not formed: in 32 bits
    its determinant can come out negative. $\log|\det R|$ of $J = QR$ has the same value.

    Args:
        metric: any metric.

    Returns:
        `z -> scalar`; `-inf` where the metric is singular, NaN where it is not positive.

    >>> import jax.numpy as jnp
    >>> thin = pullback(lambda z: jnp.array([z[0], z[0] + 1e-4 * z[1]]))
    >>> print(jnp.exp(log_volume(thin)(jnp.zeros(2))).round(6))
    1e-04
    """

    def value(z: Latent) -> Scalar:
        known = getattr(metric, "sqrt", None)
        if known is not None:
            return jnp.log(jnp.diagonal(known(z))).sum()
        sign, logdet = jnp.linalg.slogdet(matrix(metric, z))
        return jnp.where(sign < 0, jnp.nan, logdet / 2)

    return value


def root(metric: Metric, z: Latent) -> Float[Array, "d d"]:
    r"""The lower triangular root of a metric, $M(z) = L L^\top$, with a positive diagonal.

    Where the metric is pulled back from a Euclidean space, $L^\top$ is the triangle of $J = QR$:
    half the digits are lost by forming $J^\top J$ first.

    Args:
        metric: any metric.
        z: where.

    Returns:
        `[d, d]`; NaN where the metric is not positive definite, a zero on the diagonal where it is
        pulled back and singular.

    >>> import jax.numpy as jnp
    >>> slanted = pullback(lambda z: jnp.array([4.0, 0.0]) * z[0] + jnp.array([2.0, 3.0]) * z[1])
    >>> print(root(slanted, jnp.zeros(2)).round(1))
    [[4. 0.]
     [2. 3.]]
    """
    known = getattr(metric, "sqrt", None)
    return jnp.linalg.cholesky(matrix(metric, z)) if known is None else known(z)


def pulled_back(metric: Metric) -> Pullback | None:
    """A metric as that of its immersion, for those that can do more with the map itself.

    Args:
        metric: any metric.

    Returns:
        The pull-back; None where the metric knows of no immersion.

    >>> pulled_back(lambda z: jnp.eye(2)) is None, pulled_back(pullback(jnp.sin)).is_euclidean
    (True, True)
    """
    if isinstance(metric, Pullback):
        return metric
    immersion = getattr(metric, "immersion", None)
    return None if immersion is None else Pullback(immersion, getattr(metric, "ambient", None))


def euclidean(metric: Metric) -> Pullback | None:
    """A metric as that of its immersion into Euclidean space.

    Args:
        metric: any metric.

    Returns:
        The pull-back; None where there is none, or data space has a metric of its own.

    >>> euclidean(pullback(jnp.sin, ambient=jnp.exp)) is None
    True
    """
    found = pulled_back(metric)
    return found if found is not None and found.is_euclidean else None


def drawn(metric: Metric) -> Pullback | None:
    """A metric some of whose samples are drawn anew at every point of a discretised curve.

    The energy of such a curve is another one for every number of points, and no metric's.

    Args:
        metric: any metric.

    Returns:
        Its immersion into Euclidean space; None of all other metrics.

    >>> drawn(pullback(jnp.sin)) is None
    True
    """
    found = euclidean(metric)
    return found if found is not None and found.is_drawn else None


def volume(metric: Metric) -> Callable[[Latent], Scalar]:
    r"""The volume measure: how much data space a piece of latent space covers.

    $$\sqrt{\det M(z)}$$

    Args:
        metric: any metric.

    Returns:
        `z -> scalar`; 0 where the metric is singular, NaN where its determinant is negative.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, eq. (6).

    >>> import jax.numpy as jnp
    >>> print(volume(lambda z: 4.0 * jnp.eye(2))(jnp.zeros(2)))
    4.0
    """
    log = log_volume(metric)
    return lambda z: jnp.exp(log(z))


def matrix(metric: Metric, z: Latent) -> Float[Array, "d d"]:
    """The metric at a point, as a matrix whose shape is known to be right.

    Args:
        metric: any metric.
        z: where.

    Returns:
        `M(z)`.

    Raises:
        ValueError: for a `z` that is not one vector, or a metric that is not square and as wide
            as the latent.

    >>> import jax.numpy as jnp
    >>> matrix(lambda z: jnp.eye(3), jnp.zeros(2))
    Traceback (most recent call last):
      ...
    ValueError: the metric must have shape (2, 2) at a latent of length 2, got (3, 3)
    """
    _check_latent(z)
    value = metric(z)
    if jnp.shape(value) != 2 * z.shape:
        raise ValueError(
            f"the metric must have shape {2 * z.shape} at a latent of length {z.shape[0]}, "
            f"got {jnp.shape(value)}"
        )
    return value


def check_tangent(name: str, z: Latent, v: Latent) -> None:
    """Raise a `ValueError` if `v`, called `name`, is no tangent vector at one latent `z`.

    Args:
        name: what the caller calls the vector.
        z: where.
        v: what should be a vector as long as `z`.

    Raises:
        ValueError: for a `z` that is not one vector, a `v` of another shape.
    """
    _check_latent(z)
    if jnp.shape(v) != jnp.shape(z):
        raise ValueError(
            f"{name} must have the shape of its latent, {jnp.shape(z)}, got {jnp.shape(v)}"
        )


def _check_latent(z: Latent) -> None:
    if jnp.ndim(z) != 1:
        raise ValueError(
            f"expected one latent, a vector, got shape {jnp.shape(z)}; use jax.vmap for a batch"
        )
