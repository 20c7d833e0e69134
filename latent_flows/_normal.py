"""The standard normal distribution of latents."""

import jax
import jax.numpy as jnp

from latent_flows.typing import Latent, Scalar

__all__ = ["log_normal"]


def log_normal(z: Latent) -> Scalar:
    """The log-density of N(0, I).

    Args:
        z: a latent.

    Returns:
        The log-density.

    >>> round(float(log_normal(jnp.zeros(2))), 4)
    -1.8379
    """
    return jnp.sum(jax.scipy.stats.norm.logpdf(z))
