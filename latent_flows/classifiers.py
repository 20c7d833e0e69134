"""Classifiers of image pairs: which flow changed the first image into the second?"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_SIDE = 32
"""Images are brought to at most this many pixels a side before they are classified."""


def pair_features(
    before: Float[Array, "*n h w c"], after: Float[Array, "*n h w c"], *, gain: float = 5.0
) -> Float[Array, "*n h2 w2 two_c"]:
    """What a pair classifier sees: the first image, and the change times `gain`.

    Images larger than `MAX_SIDE` are mean-pooled by 2 until they fit.

    Args:
        before: images at the start of the traversals.
        after: images at their ends.
        gain: brings the small changes of one step to the scale of the images.
    """
    start = shrink(before)
    return jnp.concatenate([start, gain * (shrink(after) - start)], axis=-1)


def shrink(images: Float[Array, "*n h w c"]) -> Float[Array, "*n h2 w2 c"]:
    """Mean-pool by 2 until no side is longer than `MAX_SIDE`."""
    while max(images.shape[-3:-1]) > MAX_SIDE:
        images = space_to_depth(images, 2)
        images = images.reshape(*images.shape[:-1], 4, images.shape[-1] // 4).mean(axis=-2)
    return images


def space_to_depth(x: Float[Array, "*n h w c"], block: int) -> Float[Array, "*n h2 w2 c2"]:
    """Blocks of pixels into channels; a side that the block does not divide is padded by zeros."""
    *_, h, w, _ = x.shape
    pad = [(0, 0)] * (x.ndim - 3) + [(0, -h % block), (0, -w % block), (0, 0)]
    x = jnp.pad(x, pad)
    *lead, h, w, c = x.shape
    x = x.reshape(*lead, h // block, block, w // block, block, c)
    return jnp.swapaxes(x, -4, -3).reshape(*lead, h // block, w // block, block * block * c)


def _neighbours(x: Float[Array, "*n h w c"]) -> Float[Array, "*n h w nine_c"]:
    """Each pixel with its eight neighbours as channels: a 3 x 3 convolution less the product."""
    *_, h, w, _ = x.shape
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    return jnp.concatenate(
        [padded[..., i : i + h, j : j + w, :] for i in range(3) for j in range(3)], axis=-1
    )


class PairClassifier(nn.Module):
    """A small convolutional network on `pair_features`, written as matrix products.

    Under `vmap` over seeds a product stays a batched product, where a convolution would become a
    grouped one, which XLA runs slowly on CPU.

    Args:
        width: channels of the first layers.
        classes: number of flows.
    """

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n classes"]:
        x = nn.relu(nn.Dense(self.width)(space_to_depth(x, 4)))
        x = nn.relu(nn.Dense(self.width)(_neighbours(x)))
        x = nn.relu(nn.Dense(2 * self.width)(space_to_depth(x, 2)))
        x = x.reshape(*x.shape[:-3], -1)
        return nn.Dense(self.classes)(nn.relu(nn.Dense(2 * self.width)(x)))
