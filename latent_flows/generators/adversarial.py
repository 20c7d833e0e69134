"""Adversarial training: hinge losses, spectral normalisation of any network, averaged weights."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from latent_flows._norms import safe_norm
from latent_flows.typing import Scalar

__all__ = ["average", "discriminator_hinge", "generator_hinge", "normalise", "singular_vectors"]


def discriminator_hinge(real: Float[Array, "n"], fake: Float[Array, "m"]) -> Scalar:
    r"""What a discriminator minimises: $E[\max(0, 1 - D(x))] + E[\max(0, 1 + D(g(z)))]$.

    Args:
        real: its scores of data.
        fake: its scores of a generator's images.

    Returns:
        The loss, at least 0.

    References:
        Lim and Ye, *Geometric GAN*, 2017; Miyato et al., 2018, equation 16.

    >>> float(discriminator_hinge(jnp.array([2.0, 0.5]), jnp.array([-3.0])))
    0.25
    """
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


def generator_hinge(fake: Float[Array, "n"]) -> Scalar:
    r"""What its generator minimises: $-E[D(g(z))]$, of which only the scores are cut off above.

    Args:
        fake: scores of samples.

    Returns:
        The loss.

    >>> float(generator_hinge(jnp.array([1.0, 3.0])))
    -2.0
    """
    return -jnp.mean(fake)


def singular_vectors(key: PRNGKeyArray, params: PyTree) -> PyTree:
    """Random directions for `normalise` to start from: one for each matrix, `[features]`.

    Biases and other vectors have none: their place holds an array without elements.

    Args:
        key: a random key.
        params: of a network; matrices are its leaves of more than one axis.

    Returns:
        Vectors, not yet of unit length, in the structure of `params`.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    vectors = [
        jax.random.normal(k, w.shape[-1:] if w.ndim > 1 else (0,), w.dtype)
        for k, w in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(structure, vectors)


def normalise(params: PyTree, vectors: PyTree) -> tuple[PyTree, PyTree]:
    r"""Weights divided by an estimate of their spectral norm, by one step of power iteration.

    $$v = W u / |W u|, \quad u = W^\top v / |W^\top v|, \quad W \mapsto W / (v^\top W u)$$

    A kernel is a matrix from all its axes but the last to the last. No gradient flows through `u`
    and `v`, so that of the estimate is right to first order.

    Args:
        params: parameters of any network; biases stay as they are.
        vectors: the directions `u` of the step before, at first from `singular_vectors`.

    Returns:
        The normalised parameters, and the directions for the next step.

    References:
        Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, 2018.

    >>> params = {"kernel": jnp.diag(jnp.array([3.0, 1.0])), "bias": jnp.ones(2)}
    >>> vectors = singular_vectors(jax.random.key(0), params)
    >>> for _ in range(20):
    ...     normalised, vectors = normalise(params, vectors)
    >>> normalised["kernel"].round(3).tolist(), normalised["bias"].tolist()
    ([[1.0, 0.0], [0.0, 0.3330000042915344]], [1.0, 1.0])
    """
    pairs = jax.tree.map(_normalise, params, vectors)
    return jax.tree.transpose(jax.tree.structure(params), jax.tree.structure((0, 0)), pairs)


def _normalise(weight: Array, u: Array) -> tuple[Array, Array]:
    if weight.ndim < 2:
        return weight, u
    matrix = weight.reshape(-1, weight.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)
    v = _unit(fixed @ u)
    u = _unit(fixed.T @ v)
    largest = v @ matrix @ u
    # A layer of zeros has no direction, and stays one of zeros.
    return weight / jnp.where(largest == 0, 1, largest), u


def _unit(x: Array) -> Array:
    return x / jnp.maximum(safe_norm(x), 1e-12)


def average(mean: PyTree, value: PyTree, step: ArrayLike, decay: float) -> Any:
    r"""An exponential moving average, which forgets its start faster: $m + (1 - d_s)(x - m)$.

    The decay at step `s`, counted from 0, is `min(decay, (1 + s) / (10 + s))`.

    Args:
        mean: the average so far, a pytree.
        value: what is averaged, of the same structure.
        step: how many steps it has been averaged for.
        decay: the share of the average that is kept, once its start is forgotten.

    Returns:
        The average, a pytree.

    >>> round(float(average(jnp.array(0.0), jnp.array(1.0), step=0, decay=0.99)), 3)
    0.9
    """
    kept = jnp.minimum(decay, (1 + jnp.asarray(step)) / (10 + jnp.asarray(step)))
    return jax.tree.map(lambda m, x: m + (1 - kept) * (x - m), mean, value)
