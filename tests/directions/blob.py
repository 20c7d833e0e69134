"""A generator whose factors are known: a Gaussian blob, and measurements of it."""

import jax.numpy as jnp

SIZE = 20
WIDTH = 2.0  # of the blob, in pixels
REACH = 0.12  # image widths by which one unit of latent moves it


def generator(z):
    """A blob at `z[0]` across and `z[1]` down, of brightness `z[2]`."""
    pixels = jnp.arange(SIZE, dtype=z.dtype) - (SIZE - 1) / 2
    across = jnp.exp(-((pixels - SIZE * REACH * z[0]) ** 2) / (2 * WIDTH**2))
    down = jnp.exp(-((pixels - SIZE * REACH * z[1]) ** 2) / (2 * WIDTH**2))
    return (0.6 * jnp.exp2(0.2 * z[2]) * down[:, None] * across[None, :])[..., None]


def barycentre(image):
    """The middle of the blob across and down, in image widths from the centre."""
    pixels = (jnp.arange(SIZE, dtype=image.dtype) - (SIZE - 1) / 2) / SIZE
    mass = image[..., 0] / image.sum()
    return jnp.stack([mass.sum(0) @ pixels, mass.sum(1) @ pixels])
