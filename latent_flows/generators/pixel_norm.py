"""Pixel normalisation: features of unit mean square."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["pixel_norm"]


def pixel_norm(x: Float[Array, "*axes channels"]) -> Float[Array, "*axes channels"]:
    r"""Divides the features of each pixel, or a latent, by their root mean square.

    $$ x / \sqrt{\textstyle\frac1n \sum_c x_c^2 + 10^{-8}} $$

    Args:
        x: features along the last axis.

    Returns:
        The same shape, of root mean square 1 along the last axis.

    References:
        Karras et al., Progressive Growing of GANs (ICLR 2018), section 4.2.

    >>> import jax.numpy as jnp
    >>> from latent_flows.generators.pixel_norm import pixel_norm
    >>> print(jnp.mean(pixel_norm(jnp.array([3.0, 4.0])) ** 2).round(3))
    1.0
    """
    # In single precision at least: the squares of bfloat16 or float16 lose too much.
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (x * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + 1e-8)).astype(x.dtype)
