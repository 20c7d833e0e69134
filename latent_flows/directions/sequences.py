"""The direction that goes best with sequences in which one factor changes by known amounts."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.typing import Latent

__all__ = ["constant_direction", "mean_square_step"]


def mean_square_step(
    z0: Float[Array, "n d"],
    zs: Float[Array, "n T d"],
    metric: Float[Array, "n d d"] | None = None,
) -> Float[Array, ""]:
    r"""What a direction that stands still misses sequences by.

    $$E_0 = \mathbb{E}_{nt}\, |z_{nt} - z_{n0}|_{M_n}^2$$

    Args:
        z0: the starts.
        zs: the latents after each of some changes.
        metric: in which lengths are measured, one for each sequence; Euclidean by default.

    Returns:
        The mean square.

    Raises:
        ValueError: for shapes that do not fit.

    >>> import jax.numpy as jnp
    >>> print(mean_square_step(jnp.zeros((1, 2)), jnp.array([[[1.0, 0.0], [3.0, 0.0]]])))
    5.0
    """
    away = _away(z0, zs)
    metric = _metric(away, metric)
    return jnp.einsum("nti,nij,ntj->", away, metric, away) / (away.shape[0] * away.shape[1])


def constant_direction(
    z0: Float[Array, "n d"],
    zs: Float[Array, "n T d"],
    amounts: Float[Array, "n T"] | Float[Array, "T"],
    *,
    metric: Float[Array, "n d d"] | None = None,
    penalty: Float[Array, "d d"] | None = None,
) -> Latent:
    r"""The step along which sequences go, by least squares.

    $$\min_v \frac{\mathbb{E}_{nt}\, |z_{nt} - z_{n0} - a_{nt} v|_{M_n}^2}{E_0}
      + v^\top P v$$

    with `E_0` the `mean_square_step`. The second term only says where to go: how far is then what
    the first makes best along that line.

    Args:
        z0: the starts.
        zs: the latents after each change.
        amounts: the changes of the factor, one for each latent or the same for all sequences.
        metric: in which lengths are measured, one for each sequence, such as the generator's
            pull-back metric; Euclidean by default.
        penalty: `P`, symmetric and positive semidefinite, such as `E l l^T` of derivatives `l` of
            factors that should not change; none by default.

    Returns:
        `v`, the step for an amount of one: no unit vector.

    Raises:
        ValueError: for shapes that do not fit.

    References:
        Plumerault, Le Borgne and Hudelot, *Controlling generative models with continuous factors
        of variations*, 2020, section 2.2, whose model this is where the amounts are even.

    >>> import jax.numpy as jnp
    >>> starts, way = jnp.array([[0.0, 0.0], [1.0, 2.0]]), jnp.array([3.0, -1.0])
    >>> amounts = jnp.array([0.5, 1.0])
    >>> ends = starts[:, None] + amounts[:, None] * way
    >>> print(jnp.allclose(constant_direction(starts, ends, amounts), way, rtol=1e-4))
    True
    """
    away = _away(z0, zs)
    metric = _metric(away, metric)
    n, count, dim = away.shape
    amounts = jnp.asarray(amounts)
    if amounts.shape not in ((count,), (n, count)):
        raise ValueError(f"amounts must have shape {(count,)} or {(n, count)}, got {amounts.shape}")
    amounts = jnp.broadcast_to(amounts, (n, count))
    number, scale = n * count, mean_square_step(z0, zs, metric)
    matrix = jnp.einsum("nt,nij->ij", amounts**2, metric) / number / scale
    vector = jnp.einsum("nt,nij,ntj->i", amounts, metric, away) / number / scale
    if penalty is None:
        return jnp.linalg.solve(matrix, vector)
    if penalty.shape != (dim, dim):
        raise ValueError(f"penalty must have shape {(dim, dim)}, got {penalty.shape}")
    found = jnp.linalg.solve(matrix + penalty, vector)
    return found * (jnp.sum(found * vector) / jnp.einsum("i,ij,j->", found, matrix, found))


def _away(z0: Array, zs: Array) -> Float[Array, "n T d"]:
    z0, zs = jnp.asarray(z0), jnp.asarray(zs)
    if z0.ndim != 2 or zs.ndim != 3 or zs.shape[::2] != z0.shape or 0 in zs.shape:
        raise ValueError(
            f"expected starts [n, d] and latents [n, T, d], got shapes {z0.shape} and {zs.shape}"
        )
    return zs - z0[:, None]


def _metric(away: Array, metric: Array | None) -> Float[Array, "n d d"]:
    n, _, dim = away.shape
    if metric is None:
        return jnp.broadcast_to(jnp.eye(dim, dtype=away.dtype), (n, dim, dim))
    if metric.shape != (n, dim, dim):
        raise ValueError(f"metric must have shape {(n, dim, dim)}, got {metric.shape}")
    return metric
