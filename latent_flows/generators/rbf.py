"""The deviation of a generator's noise as a function of the latent.

`std` grows away from the data, so that a metric which counts it keeps geodesics where data is.
`StdNetwork` is the usual network, which says anything at all where it has seen nothing.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from latent_flows._extras import extra
from latent_flows.typing import Latent, Scalar

__all__ = ["RBF", "StdNetwork", "init_rbf", "precision", "std"]


class RBF(NamedTuple):
    """Parameters of a positive radial basis function network for the precision."""

    centres: Float[Array, "k d"]
    """Where the kernels are."""
    bandwidths: Float[Array, "k"]
    """`lambda_k`, the inverse of twice a kernel's squared reach."""
    log_weights: Float[Array, "k *event"]
    """Logarithms of `W`: what is learnt. Precisions of pixels differ by orders of magnitude."""
    zeta: Scalar
    """Precision far from all centres."""


def init_rbf(
    codes: Float[Array | np.ndarray, "n d"],
    event_shape: Sequence[int],
    *,
    centres: int = 64,
    reach: float = 1.0,
    zeta: float = 1e-4,
    std: float = 0.3,
    seed: int = 0,
) -> RBF:
    r"""Kernels on the codes of data, of equal weight everywhere.

    Centres are the means of k-means clusters $C_k$ of the codes, and a kernel reaches `reach` times
    as far as the codes of its cluster lie from it:

    $$\lambda_k = \frac12 \Big(\frac{a}{|C_k|} \sum_{z \in C_k} |z - c_k|\Big)^{-2}$$

    A cluster without extent takes the mean extent of the others.

    Args:
        codes: latents of data, `[n, d]`, concrete: scikit-learn finds the clusters.
        event_shape: shape of a sample of the generator; one precision a number.
        centres: number of kernels.
        reach: `a`, the reach of a kernel in mean distances within its cluster.
        zeta: precision far from data, positive and small.
        std: deviation at an isolated centre before any learning.
        seed: source of the randomness of k-means.

    Returns:
        The parameters, of which `log_weights` are to be learnt.

    Raises:
        ValueError: codes that are not a finite matrix, no more of them than centres, or a number
            that is not positive.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 4.

    >>> import jax
    >>> rbf = init_rbf(jax.random.normal(jax.random.key(0), (100, 2)), (3,), centres=8, zeta=1e-2)
    >>> near, far = (std(rbf, jnp.array([x, 0.0])) for x in (0.0, 100.0))
    >>> bool(near[0] < 0.5), far.round(3).tolist()
    (True, [10.0, 10.0, 10.0])
    """

    with extra("evaluation"):
        from sklearn.cluster import KMeans

    points = np.asarray(codes)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"codes must be finite and of shape [n, d], got shape {points.shape}")
    for name, value in {"reach": reach, "zeta": zeta, "std": std}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")
    distinct = len(np.unique(points, axis=0))
    if not 1 <= centres < distinct:
        raise ValueError(
            f"centres must be at least 1 and fewer than the {distinct} different codes, "
            f"got {centres}"
        )
    found = KMeans(centres, n_init=1, random_state=seed).fit(points)
    distance = np.linalg.norm(points - found.cluster_centers_[found.labels_], axis=1)
    extent = np.bincount(found.labels_, distance) / np.bincount(found.labels_)
    # Rounding leaves a cluster of equal codes an extent that is not quite zero.
    wide = extent > 1e-6 * np.ptp(points, axis=0).max()
    extent = np.where(wide, extent, extent[wide].mean())
    dtype = jnp.result_type(jnp.asarray(codes), float)
    return RBF(
        jnp.asarray(found.cluster_centers_, dtype),
        jnp.asarray(0.5 / (reach * extent) ** 2, dtype),
        jnp.full((centres, *event_shape), -2 * math.log(std), dtype),
        jnp.asarray(zeta, dtype),
    )


def precision(params: RBF, z: Latent) -> Float[Array, "*event"]:
    r"""The precision of a generator's noise, large on data and `zeta` far from it.

    $$\frac{1}{\sigma^2(z)} = W v(z) + \zeta, \qquad v_k(z) = \exp(-\lambda_k |z - c_k|^2)$$

    Args:
        params: the network; `W = exp(log_weights)`.
        z: one latent.

    Returns:
        One precision for each number of a sample.

    Raises:
        ValueError: a latent of another size than the centres.

    References:
        Arvanitidis, Hansen and Hauberg, *Latent Space Oddity*, 2018, section 4.
    """
    if jnp.shape(z) != params.centres.shape[1:]:
        raise ValueError(
            f"expected a latent of shape {params.centres.shape[1:]}, got {jnp.shape(z)}"
        )
    squared = jnp.sum((z - params.centres) ** 2, axis=-1)
    kernels = jnp.exp(-params.bandwidths * squared)
    return jnp.tensordot(kernels, jnp.exp(params.log_weights), 1) + params.zeta


def std(params: RBF, z: Latent) -> Float[Array, "*event"]:
    r"""The deviation $\sigma(z)$ whose precision is `precision`.

    Args:
        params: from `init_rbf`, fitted.
        z: a latent.

    Returns:
        The deviation, of the shape of a sample.

    >>> import jax.numpy as jnp
    >>> rbf = RBF(jnp.zeros((1, 2)), jnp.ones(1), jnp.zeros((1, 1)), jnp.array(0.25))
    >>> std(rbf, jnp.array([9.0, 9.0])).tolist()
    [2.0]
    """
    return jax.lax.rsqrt(precision(params, z))


class StdNetwork(nn.Module):
    """Dense layers from the latent to a positive deviation: the usual choice, as a baseline.

    >>> import jax, jax.numpy as jnp
    >>> network = StdNetwork((8, 8, 1))
    >>> params = network.init(jax.random.key(0), jnp.zeros(2))
    >>> network.apply(params, jnp.ones(2)).shape
    (8, 8, 1)
    """

    event_shape: tuple[int, ...]
    """Shape of a sample of the generator."""
    width: int = 64
    """Units of a hidden layer."""
    depth: int = 2
    """Hidden layers."""

    @nn.compact
    def __call__(self, z: Latent) -> Float[Array, "*event"]:
        for _ in range(self.depth):
            z = nn.tanh(nn.Dense(self.width)(z))
        raw = nn.Dense(math.prod(self.event_shape), bias_init=nn.initializers.constant(-1.0))(z)
        return nn.softplus(raw).reshape(self.event_shape)
