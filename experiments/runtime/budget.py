"""What a training takes at least, and refusing it where there is less memory than that."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from experiments.runtime import memory as programs
from latent_flows import _memory
from latent_flows.generators.vae import VAE, VAEConfig


def checked_state(state: Any, phase: str) -> Any:
    """A state of training, or its shapes, if it fits beside a gradient of its `params`.

    Args:
        state: all that a step changes.
        phase: what is trained.

    Raises:
        ValueError: there is less memory than that.
    """
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    _memory.require(
        _memory.size_of(state) + _memory.size_of(state.params),
        f"{phase}: training {count:,} numbers",
        "lower the latent dimensions, the widths or --image-size",
    )
    return state


def checked_needs(step: Any, phase: str) -> dict[str, float]:
    """What a compiled step needs, in GiB, if its features fit into what is left.

    Raises:
        ValueError: there is less memory than that.
    """
    found = programs.needs(step)
    if found:
        _memory.require(
            found["temp"] * 2**30,
            f"{phase}: a step",
            "lower --training.batch-size, --image-size or the widths",
        )
    return found


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
    height, width, channels = shape
    check_init(
        lambda key: VAE(config, (height, width, channels)).init(key, jnp.zeros(shape)),
        3,
        f"a VAE of {config.latent_dim} latents and width {config.width}",
        "lower --vae.latent-dim, --vae.width or --image-size",
    )


def check_init(init: Callable[[Any], PyTree], copies: int, what: str, remedy: str) -> None:
    """Rejects parameters of which so many more copies do not fit; nothing is computed.

    Raises:
        ValueError: there is less memory than that.
    """
    shapes = jax.eval_shape(init, jax.random.key(0))
    _memory.require((1 + copies) * _memory.size_of(shapes), f"training {what}", remedy)
