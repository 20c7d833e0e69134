"""Directions without any training: from weights, from activations, or at random."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from latent_flows._norms import safe_norm

__all__ = ["ganspace", "random_directions", "sefa"]


def sefa(weight: Float[Array, "m d"], count: int) -> Float[Array, "count d"]:
    r"""The directions that the first layer of a generator stretches most.

    $$\max_{|u| = 1} |A u|^2$$

    and the same orthogonal to those already found: the first right-singular vectors of the weight.

    Args:
        weight: `A`, with `z -> A z + b` the first layer. The transpose of the kernel of a flax
            `Dense`; several layers that all take the latent are stacked along the first axis.
        count: how many, at most the smaller side of the weight.

    Returns:
        Unit vectors as rows, orthogonal, by decreasing stretch. Their signs have no meaning.

    Raises:
        ValueError: for a weight that is not a matrix, or a `count` out of range.

    References:
        Shen and Zhou, *Closed-Form Factorization of Latent Semantics in GANs*, 2021, eq. (5).

    >>> import jax.numpy as jnp
    >>> print(abs(sefa(jnp.diag(jnp.array([1.0, 3.0, 2.0])), 2)))
    [[0. 1. 0.]
     [0. 0. 1.]]
    """
    weight = jnp.asarray(weight)
    if weight.ndim != 2:
        raise ValueError(f"weight must be a matrix [m, d], got shape {weight.shape}")
    _check_count(count, min(weight.shape))
    return jnp.linalg.svd(weight, full_matrices=False)[2][:count]


def ganspace(
    latents: Float[Array, "n d"], activations: Float[Array, "n m"] | None, count: int
) -> Float[Array, "count d"]:
    r"""The latent directions of the principal components of a generator's activations.

    $$\min_V \sum_i \bigl| z_i - \bar z - V x_i \bigr|^2$$

    with `x_i` the coordinates of sample `i` along the principal components of the activations.

    Args:
        latents: random latents.
        activations: of some layer for each of them, flattened; None for the principal components of
            the latents themselves, where these are intermediate ones such as StyleGAN's.
        count: how many, at most the rank that the data can have.

    Returns:
        Unit vectors as rows, by decreasing variance of their component. Their signs have no
        meaning, and they need not be orthogonal.

    Raises:
        ValueError: for shapes that do not fit, or a `count` out of range.

    References:
        Harkonen, Hertzmann, Lehtinen and Paris, *GANSpace: Discovering Interpretable GAN Controls*,
        2020, sections 2.1 and 2.2.

    >>> import jax
    >>> zs = jax.random.normal(jax.random.key(0), (2000, 3))
    >>> print(abs(ganspace(zs, zs * jax.numpy.array([1.0, 3.0, 2.0]), 1)).round(1))
    [[0. 1. 0.]]
    """
    latents = jnp.asarray(latents)
    activations = latents if activations is None else jnp.asarray(activations)
    if latents.ndim != 2 or activations.ndim != 2 or len(latents) != len(activations):
        raise ValueError(
            f"expected latents [n, d] and activations [n, m], got shapes {latents.shape} and "
            f"{activations.shape}"
        )
    _check_count(count, min(len(latents) - 1, activations.shape[1]))
    centred = latents - latents.mean(0)
    left, _, _ = jnp.linalg.svd(activations - activations.mean(0), full_matrices=False)
    # Coordinates along components are orthogonal: the regression is one product for each.
    return _rows_of_unit_length(left[:, :count].T @ centred)


def random_directions(key: PRNGKeyArray, count: int, dim: int) -> Float[Array, "count d"]:
    """Directions drawn uniformly from the sphere, the baseline that says what chance can do.

    Args:
        key: a random key.
        count: how many.
        dim: the length of a latent.

    Returns:
        Unit vectors as rows.

    Raises:
        ValueError: for a `count` or `dim` below 1.

    >>> import jax
    >>> print((random_directions(jax.random.key(0), 2, 3) ** 2).sum(1).round(3))
    [1. 1.]
    """
    if count < 1 or dim < 1:
        raise ValueError(f"count and dim must be at least 1, got {count} and {dim}")
    return _rows_of_unit_length(jax.random.normal(key, (count, dim)))


def _rows_of_unit_length(rows: Float[Array, "count d"]) -> Float[Array, "count d"]:
    length = safe_norm(rows, axis=1, keepdims=True)
    return rows / jnp.maximum(length, jnp.finfo(rows.dtype).tiny)


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise ValueError(f"count must lie in [1, {most}], got {count}")
