"""Classifiers of pairs: which flow changed the first image, or vector, into the second?"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._validation import floats

__all__ = [
    "CLASSIFIERS",
    "MAX_SIDE",
    "SIDES",
    "LeNet",
    "Network",
    "PairClassifier",
    "ResNet18",
    "VectorPairClassifier",
    "number_scales",
    "pair_features",
    "shrink",
    "space_to_depth",
    "vector_features",
]

MAX_SIDE = 32
"""Images are brought to at most this many pixels a side before they are classified."""


def pair_features(
    before: Float[Array, "*n h w c"],
    after: Float[Array, "*n h w c"],
    *,
    gain: float = 5.0,
    side: int = MAX_SIDE,
) -> Float[Array, "*n h2 w2 two_c"]:
    """What a pair classifier sees: the first image, and the change times `gain`.

    Images with sides longer than `side` are mean-pooled by 2 until they fit.

    Args:
        before: images at the start of the traversals.
        after: images at their ends.
        gain: brings the small changes of one step to the scale of the images.
        side: the most pixels a side.

    Returns:
        The features: the channels of the images, then those of the changes.

    Raises:
        ValueError: for images that are not of floats.
    """
    floats("pair_features", before=before, after=after)
    start = shrink(before, side)
    return jnp.concatenate([start, gain * (shrink(after, side) - start)], axis=-1)


def vector_features(
    before: Float[Array, "*n d"],
    after: Float[Array, "*n d"],
    mean: Float[Array, "d"],
    scale: Float[Array, "d"],
    *,
    gain: float = 5.0,
) -> Float[Array, "*n two_d"]:
    r"""What a pair classifier sees of vectors: the first and `gain` times the change, standardised.

    $$\left[\frac{x - m}{s},\ \gamma\, \frac{x' - x}{s}\right]$$

    Args:
        before: vectors at the start of the traversals.
        after: vectors at their ends.
        mean: of each number, see `number_scales`.
        scale: of each number.
        gain: brings the small changes of one step to the scale of the vectors.

    Returns:
        The features.

    Raises:
        ValueError: for vectors that are not of floats.

    >>> ones = jnp.ones(2)
    >>> print(vector_features(3 * ones, 5 * ones, ones, 2 * ones))
    [1. 1. 5. 5.]
    """
    floats("vector_features", before=before, after=after)
    return jnp.concatenate([(before - mean) / scale, gain * (after - before) / scale], axis=-1)


def number_scales(samples: Float[Array, "n d"]) -> tuple[Float[Array, "d"], Float[Array, "d"]]:
    """Mean and deviation of each number over samples, by which vectors are standardised.

    Args:
        samples: of any unit.

    Returns:
        The means, and the deviations: of a number that hardly varies, a thousandth of the largest
        one, and 1 where none does.

    >>> mean, scale = number_scales(jnp.array([[0.0, 7.0], [2.0, 7.0]]))
    >>> print(mean, bool(jnp.allclose(scale, jnp.array([1.0, 0.001]))))
    [1. 7.] True
    """
    deviation = jnp.std(samples, axis=0)
    largest = jnp.max(deviation)
    floor = jnp.where(largest > 0, 1e-3 * largest, 1.0)
    return jnp.mean(samples, axis=0), jnp.maximum(deviation, floor)


def shrink(images: Float[Array, "*n h w c"], side: int = MAX_SIDE) -> Float[Array, "*n h2 w2 c"]:
    """Mean-pool by 2 until no side is longer than `side`.

    Args:
        images: `[*n, h, w, c]`.
        side: the longest side that is kept.

    Returns:
        The images, smaller by a power of two.

    Raises:
        ValueError: for images that are not of floats.
    """
    floats("shrink", images=images)
    while max(images.shape[-3:-1]) > side:
        images = space_to_depth(images, 2)
        images = images.reshape(*images.shape[:-1], 4, images.shape[-1] // 4).mean(axis=-2)
    return images


def space_to_depth(x: Float[Array, "*n h w c"], block: int) -> Float[Array, "*n h2 w2 c2"]:
    """Blocks of pixels into channels; a side that the block does not divide is padded by zeros.

    Args:
        x: images, `[*n, h, w, c]`.
        block: pixels along each side of a block.

    Returns:
        The images with `block^2` times as many channels.
    """
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
        floats("PairClassifier", x=x)
        x = nn.relu(nn.Dense(self.width)(space_to_depth(x, 4)))
        x = nn.relu(nn.Dense(self.width)(_neighbours(x)))
        x = nn.relu(nn.Dense(2 * self.width)(space_to_depth(x, 2)))
        x = x.reshape(*x.shape[:-3], -1)
        return nn.Dense(self.classes)(nn.relu(nn.Dense(2 * self.width)(x)))


class VectorPairClassifier(nn.Module):
    """Dense layers on `vector_features`.

    Args:
        width: units of the two hidden layers.
        classes: number of flows.

    >>> import jax
    >>> net = VectorPairClassifier(width=8, classes=5)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(6))
    >>> jax.eval_shape(net.apply, params, jnp.zeros((4, 6))).shape
    (4, 5)
    """

    width: int
    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n classes"]:
        floats("VectorPairClassifier", x=x)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)


_HE = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Each image by itself, however many leading axes there are.
_norm = partial(nn.GroupNorm, reduction_axes=(-3, -2, -1))


class LeNet(nn.Module):
    """The classifier that is published for SNGAN: three convolutions of 5 x 5, then two layers.

    Features are normalised in groups instead of over the batch, so that a pair is classified the
    same alone. Of large images the mean over places is taken.

    Args:
        classes: number of flows.

    References:
        Song et al., *Latent Traversals in Generative Models as Potential Flows*, 2023, after
        Voynov and Babenko, *Unsupervised Discovery of Interpretable Directions in the GAN Latent
        Space*, 2020.

    >>> import jax
    >>> net = LeNet(classes=5)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((32, 32, 2)))
    >>> jax.eval_shape(net.apply, params, jnp.zeros((4, 64, 64, 2))).shape
    (4, 5)
    """

    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n classes"]:
        floats("lenet", x=x)
        if min(x.shape[-3:-1]) < 8:
            raise ValueError(f"lenet needs images of at least 8 pixels a side, got {x.shape[-3:]}")
        for i, features in enumerate((6, 16, 120)):
            # A margin only where the image would not do without.
            margin = "VALID" if min(x.shape[-3:-1]) >= 5 else "SAME"
            x = nn.relu(_norm(2)(nn.Conv(features, (5, 5), padding=margin)(x)))
            if i < 2 and min(x.shape[-3:-1]) >= 2:
                x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.LayerNorm()(nn.Dense(84)(x.mean((-3, -2)))))
        return nn.Dense(self.classes)(x)


class ResNet18(nn.Module):
    """ResNet-18 on image pairs, the classifier that is published for large generators.

    Features are normalised in groups instead of over the batch, so that a pair is classified the
    same alone.

    Args:
        classes: number of flows.
        width: features of the first stage; the others double them.

    References:
        He et al., *Deep Residual Learning for Image Recognition*, 2016, table 1.

    >>> import jax
    >>> net = ResNet18(classes=5, width=8)
    >>> params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((64, 64, 6)))
    >>> jax.eval_shape(net.apply, params, jnp.zeros((4, 64, 64, 6))).shape
    (4, 5)
    """

    classes: int
    width: int = 64

    @nn.compact
    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n classes"]:
        floats("resnet18", x=x)
        x = nn.Conv(self.width, (7, 7), (2, 2), use_bias=False, kernel_init=_HE)(x)
        x = nn.relu(_norm(min(32, max(1, self.width // 2)))(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding="SAME")
        for stage in range(4):
            for block in range(2):
                x = _Residual(self.width * 2**stage, 2 if stage and not block else 1)(x)
        return nn.Dense(self.classes)(x.mean((-3, -2)))


class _Residual(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "*n h w c"]) -> Float[Array, "*n h2 w2 features"]:
        stride = (self.stride, self.stride)
        # A channel alone in its group is nothing but its mean, where one place is left of it.
        groups = min(32, max(1, self.features // 2))
        conv = partial(nn.Conv, self.features, use_bias=False, kernel_init=_HE)
        y = nn.relu(_norm(groups)(conv((3, 3), stride)(x)))
        y = _norm(groups)(conv((3, 3))(y))
        if x.shape != y.shape:
            x = _norm(groups)(conv((1, 1), stride)(x))
        return nn.relu(x + y)


Network = PairClassifier | LeNet | ResNet18 | VectorPairClassifier

CLASSIFIERS: dict[str, Callable[[int], Network]] = {
    "small": lambda classes: PairClassifier(width=16, classes=classes),
    "lenet": LeNet,
    "resnet18": ResNet18,
    "vector": lambda classes: VectorPairClassifier(width=64, classes=classes),
}
"""The classifiers of pairs by name, as functions of the number of flows; "vector" of vectors."""

SIDES = {"small": MAX_SIDE, "lenet": 2 * MAX_SIDE, "resnet18": 8 * MAX_SIDE}
"""The most pixels a side that each of those of images is given."""
