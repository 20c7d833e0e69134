"""Images too small to see anything in, and what is larger than the memory, are refused at once."""

import math

import jax.numpy as jnp

from experiments.runtime import memory
from latent_flows import _memory, plots
from latent_flows.data import Dataset
from latent_flows.generators.vae import VAE, VAEConfig

SMALLEST = 4
"""Pixels a side below which images are not told apart."""


def check_image_size(size: int | None) -> None:
    """Rejects images of which nothing can be learnt.

    Raises:
        ValueError: `size` is too small; one that is not positive is left to the data set.

    >>> check_image_size(1)
    Traceback (most recent call last):
    ...
    ValueError: image_size must be at least 4 pixels, to see anything, got 1
    """
    if size is not None and 0 < size < SMALLEST:
        raise ValueError(
            f"image_size must be at least {SMALLEST} pixels, to see anything, got {size}"
        )


def check_images_are_drawn(dataset: Dataset) -> None:
    """Rejects data that are no images, or images that nobody draws.

    Raises:
        ValueError: their shape is none of an image.
    """
    if len(dataset.image_shape) != 3:
        raise ValueError(
            f"{dataset.name} holds examples of shape {dataset.image_shape}, and images [h, w, c] "
            "are needed here"
        )
    plots.check_drawable(dataset.image_shape, f"images of {dataset.name}")


def check_images(
    count: int,
    shape: tuple[int, ...],
    what: str,
    remedy: str = "lower --image-size or the batch size",
) -> None:
    """Rejects so many images at once, in float32.

    Raises:
        ValueError: there is less memory than that.
    """
    sides = " x ".join(map(str, shape))
    _memory.require(
        4 * count * math.prod(shape),
        f"{what} ({count} of {sides})",
        remedy,
    )


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
    check_images(2 * batch_size, shape, "a batch of images with their reconstructions")
    memory.check_init(
        lambda key: VAE(config, shape).init(key, jnp.zeros(shape)),
        3,
        f"a VAE of {config.latent_dim} latents and width {config.width}",
        "lower --vae.latent-dim, --vae.width or --image-size",
    )
