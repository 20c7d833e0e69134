"""Refusing a VAE that is larger than the memory."""

import jax.numpy as jnp

from experiments.runtime import memory
from latent_flows.generators.vae import VAE, VAEConfig


def check_vae(config: VAEConfig, shape: tuple[int, ...], batch_size: int) -> None:
    """Rejects a VAE that surely cannot be trained, before anything of it is made.

    Args:
        config: the architecture.
        shape: of the images.
        batch_size: images of a step, which it keeps with their reconstructions.

    Raises:
        ValueError: there is less memory than the images, or the parameters with their gradient and
            the optimiser's memory, take.
    """
    memory.check_images(2 * batch_size, shape, "a batch of images with their reconstructions")
    height, width, channels = shape
    memory.check_init(
        lambda key: VAE(config, (height, width, channels)).init(key, jnp.zeros(shape)),
        3,
        f"a VAE of {config.latent_dim} latents and width {config.width}",
        "lower --vae.latent-dim, --vae.width or --image-size",
    )
