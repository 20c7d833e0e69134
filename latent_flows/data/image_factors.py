"""What can be measured on an image alone: where its light is, how large, how bright.

Moments of the light stand in for a saliency model. Data that are drawn, as sprites are, say in
their `Measures` what is measured on them otherwise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from latent_flows._norms import safe_sqrt
from latent_flows._validation import floats
from latent_flows.calculus import Number
from latent_flows.typing import Scalar

__all__ = [
    "ANY_IMAGE",
    "CONTRAST",
    "HUE",
    "LIGHT",
    "SATURATION",
    "SIZE",
    "ImageFactor",
    "Measures",
    "Moments",
    "X",
    "Y",
    "doublings",
    "hue",
    "light",
    "measure",
    "moments",
    "plane",
    "radius",
    "raw_moments",
    "shape",
    "sharpness",
    "shows_light",
    "spectrum",
    "unwrapped",
]

Image: TypeAlias = Float[Array, "h w c"]

_LEAST = 1e-6  # what a logarithm, or a division, takes for zero


class ImageFactor(NamedTuple):
    """One thing that can be measured on any image, or on samples of another kind."""

    name: str
    """What to call it."""
    unit: str
    """Of its values."""
    measure: Callable[[Array], Scalar]
    """`image -> value`, or of whatever sample a generator makes."""
    period: float = math.inf
    """After how much it begins anew, as a hue does after one turn."""


class Moments(NamedTuple):
    """What can be measured on the light of an image."""

    x: Scalar
    """Barycentre from the left border (0) to the right one (1)."""
    y: Scalar
    """Barycentre from the top (0) to the bottom (1)."""
    size: Scalar
    """Square root of the area as a share of the frame."""
    elongation: Scalar
    """Logarithm of the ratio of the principal second moments; 0 when round."""
    mass: Scalar
    """Sum of the pixels."""


def moments(image: Float[Array, "height width 1"] | Float[Array, "height width"]) -> Moments:
    r"""Position, size and elongation of what is bright in an image.

    Each pixel is a small square of constant brightness, so `Cov` includes its own second moment
    and a single bright pixel is round. With `l1 >= l2` the eigenvalues of `Cov` in pixels, the
    elongation is `log(l1 / l2)`.

    Args:
        image: Values of at least 0; the channel axis may be left out.

    Returns:
        The `Moments`. An empty image has its barycentre in the middle, size 0 and elongation 0.

    Raises:
        ValueError: The image has more than one channel or is not an image.

    References:
        The barycentre and area by which Plumerault et al. (ICLR 2020) measure position and scale on
        dSprites.

    >>> import jax.numpy as jnp
    >>> found = moments(jnp.zeros((8, 8, 1)).at[2:4, 4:8].set(1.0))
    >>> [round(float(value), 3) for value in found]
    [0.75, 0.375, 0.354, 1.386, 8.0]
    """
    image = plane(image)
    height, width = image.shape
    mass, mean_x, mean_y, var_x, var_y, cov = raw_moments(image)
    return Moments(
        x=0.5 + mean_x / width,
        y=0.5 + mean_y / height,
        size=safe_sqrt(mass / (height * width)),
        # log((1 + r) / (1 - r)) with r = (l1 - l2) / (l1 + l2).
        elongation=2 * jnp.arctanh(safe_sqrt((var_x - var_y) ** 2 + 4 * cov**2) / (var_x + var_y)),
        mass=mass,
    )


def radius(image: Image) -> Scalar:
    r"""Root mean square distance of the light from its barycentre, in image widths.

    $$\sqrt{\frac{\sum_p x_p\, |p - \bar p|^2}{\sum_p x_p}}$$

    Args:
        image: any image.

    Returns:
        The distance.

    >>> import jax.numpy as jnp
    >>> round(float(radius(jnp.zeros((9, 10, 1)).at[4, jnp.array([2, 6])].set(1.0))), 3)
    0.2
    """
    grey = image.mean(-1)
    height, width = grey.shape
    found = moments(grey)
    across = (jnp.arange(width) + 0.5) / width - found.x
    down = ((jnp.arange(height) + 0.5) / height - found.y) * height / width
    squares = across**2 + down[:, None] ** 2
    return jnp.sqrt(jnp.sum(grey * squares) / jnp.maximum(found.mass, _LEAST))


def light(image: Image) -> Scalar:
    r"""Mean brightness of what is bright, whatever its size: each pixel weighted by its light.

    $$\frac{\sum_p x_p^2}{\sum_p x_p}$$

    Args:
        image: any image.

    Returns:
        The brightness.

    >>> import jax.numpy as jnp
    >>> round(float(light(jnp.zeros((8, 8, 1)).at[2:5].set(0.5))), 3)
    0.5
    """
    return jnp.sum(image**2) / jnp.maximum(jnp.sum(image), _LEAST)


def shape(image: Image) -> Float[Array, "4"]:
    r"""What moving, and zooming, leave alone of the light: stretch, slant, spread and crispness.

    $$\log \frac{C_{xx}}{C_{yy}}, \quad \frac{2\, C_{xy}}{C_{xx} + C_{yy}}, \quad
      \frac{C_{xx} + C_{yy}}{m}, \quad \frac{\sum_p x_p (1 - x_p)}{\sqrt m}$$

    with the covariance $C$ of the light in pixels and its mass $m$. The last two are those of a
    sharp shape whatever its size; all are differentiable.

    Args:
        image: light in [0, 1] on black.

    Returns:
        The four numbers.

    >>> import jax.numpy as jnp
    >>> square = jnp.zeros((9, 9, 1)).at[2:5, 3:6].set(1.0)
    >>> [round(float(value), 3) for value in shape(square)]
    [0.0, 0.0, 0.167, 0.0]
    """
    grey = image.mean(-1)
    mass, _, _, var_x, var_y, cov = raw_moments(grey)
    mass = jnp.maximum(mass, _LEAST)
    return jnp.stack(
        [
            jnp.log(var_x / var_y),
            2 * cov / (var_x + var_y),
            (var_x + var_y) / mass,
            jnp.sum(grey * (1 - grey)) / jnp.sqrt(mass),
        ]
    )


def sharpness(image: Image) -> Scalar:
    r"""Gradient energy as a share of total variation: the steepness of edges, however long.

    $$\frac{\sum_p |\nabla x_p|_2^2}{\sum_p |\nabla x_p|_1}$$

    Args:
        image: any image.

    Returns:
        The steepness: 1 where every edge is a step from black to white.

    >>> import jax.numpy as jnp
    >>> float(sharpness(jnp.ones((4, 6, 1)).at[:, 3:].set(0.0)))
    1.0
    >>> step = jnp.array([1.0, 1.0, 0.5, 0.0, 0.0])
    >>> float(sharpness(jnp.tile(step[:, None], (4, 1, 1))))
    0.5
    """
    steps = [jnp.diff(image, axis=axis) for axis in (0, 1)]
    energy = sum(jnp.sum(step**2) for step in steps)
    return energy / jnp.maximum(sum(jnp.sum(jnp.abs(step)) for step in steps), _LEAST)


def doublings(value: Number) -> Scalar:
    """A positive quantity by how often one has to be doubled to get there, its logarithm to base 2.

    Args:
        value: the quantity; one below a millionth counts as that.

    Returns:
        The logarithm.

    >>> print(doublings(8.0))
    3.0
    """
    return jnp.log2(jnp.maximum(value, _LEAST))


def spectrum(image: Image) -> tuple[Array, Array, Array]:
    r"""The light of each pixel, and how vivid and of which colour it is.

    $$\frac13 \sum_c x_c, \qquad \frac23 \sum_c x_c \cos\frac{2 \pi c}{3}, \qquad
      \frac23 \sum_c x_c \sin\frac{2 \pi c}{3}$$

    Args:
        image: of three channels.

    Returns:
        The mean of the channels, and real and imaginary part of their first Fourier coefficient.

    Raises:
        ValueError: the image is not `[h, w, 3]`, or not of floats.

    >>> import jax.numpy as jnp
    >>> print(*(part.round(3) for part in spectrum(jnp.array([[[0.5, 1.0, 0.0]]]))))
    [[0.5]] [[0.]] [[0.577]]
    """
    floats("a measurement of an image", image=image)
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"expected one image of shape (height, width, 3), got {image.shape}")
    phase = 2 * math.pi * np.arange(3) / 3
    real, imaginary = (
        np.asarray(part, image.dtype) * (2 / 3) for part in (np.cos(phase), np.sin(phase))
    )
    return image.mean(-1), image @ real, image @ imaginary


def hue(image: Image) -> Scalar:
    """The hue of all pixels together, in turns of the colour circle.

    Args:
        image: of three channels.

    Returns:
        From 0, red, by 1/3, green, and 2/3, blue, to 1: the argument of the sum of `spectrum`; 0 of
        a grey image.

    Raises:
        ValueError: the image is not `[h, w, 3]`, or not of floats.

    >>> import jax.numpy as jnp
    >>> round(float(hue(jnp.ones((2, 2, 3)) * jnp.array([0.0, 1.0, 0.0]))), 3)
    0.333
    """
    _, real, imaginary = spectrum(image)
    real, imaginary = real.sum(), imaginary.sum()
    grey = (real == 0) & (imaginary == 0)
    return jnp.arctan2(imaginary, jnp.where(grey, 1, real)) / (2 * math.pi) % 1


def _x(image: Image) -> Scalar:
    return moments(image.mean(-1)).x


def _y(image: Image) -> Scalar:
    return moments(image.mean(-1)).y


def _size(image: Image) -> Scalar:
    return doublings(radius(image))


def _light(image: Image) -> Scalar:
    return doublings(light(image))


def _contrast(image: Image) -> Scalar:
    return doublings(jnp.std(image))


def _saturation(image: Image) -> Scalar:
    return doublings(jnp.abs(image - image.mean(-1, keepdims=True)).mean())


X = ImageFactor("x", "image widths", _x)
"""The barycentre of the light, from the left."""
Y = ImageFactor("y", "image heights", _y)
"""The barycentre of the light, from the top."""
SIZE = ImageFactor("size", "doublings", _size)
"""The `radius` of the light."""
LIGHT = ImageFactor("light", "doublings", _light)
"""The `light` of an image."""
CONTRAST = ImageFactor("contrast", "doublings", _contrast)
"""The standard deviation of the pixels."""
HUE = ImageFactor("hue", "turns", hue, period=1.0)
"""The `hue` of all pixels together."""
SATURATION = ImageFactor("saturation", "doublings", _saturation)
"""The mean distance of the channels from their mean."""


def shows_light(event_shape: Sequence[int]) -> bool:
    """Whether samples of a shape are images of light, on which position and size are measured.

    Args:
        event_shape: of a sample.

    Returns:
        True for grey and RGB images, also with alpha; False for those of other channels, vectors,
        and all else.

    >>> shows_light((28, 28, 1)), shows_light((28, 28, 5)), shows_light((12,))
    (True, False, False)
    """
    return len(event_shape) == 3 and event_shape[2] in (1, 3, 4)


def measure(factors: Sequence[ImageFactor], image: Array) -> Float[Array, "f"]:
    """Several factors of one image, or of another sample that they are of.

    Args:
        factors: which.
        image: any image, `[h, w, c]`, or sample.

    Returns:
        One number a factor.

    >>> import jax.numpy as jnp
    >>> print(measure((X, Y), jnp.zeros((4, 4, 1)).at[1, 3].set(1.0)))
    [0.875 0.375]
    """
    if not factors:
        return jnp.zeros(0, image.dtype)
    return jnp.stack([factor.measure(image) for factor in factors])


def unwrapped(
    factors: Sequence[ImageFactor], before: Float[Array, "*n f"], after: Float[Array, "*m f"]
) -> Float[Array, "*m f"]:
    """Values of factors after a change, of those that begin anew the nearest to what was before.

    Args:
        factors: which.
        before: their values, of a shape that broadcasts.
        after: their values afterwards.

    Returns:
        The values afterwards, of which differences to those before can be taken.

    >>> print(unwrapped((X, HUE), jnp.array([0.2, 0.9]), jnp.array([0.7, 0.15])))
    [0.7  1.15]
    """
    periods = np.array([factor.period for factor in factors])
    turns = np.isfinite(periods)
    whole = np.where(turns, periods, 1).astype(after.dtype)
    return after - jnp.where(turns, whole * jnp.round((after - before) / whole), 0)


def _is_finite(image: Float[Array, "*event"]) -> Bool[Array, ""]:
    return jnp.isfinite(image).all()


class Measures(NamedTuple):
    """What can be measured on the images of some data.

    >>> ANY_IMAGE.factor_names
    ('x', 'y', 'size', 'light', 'contrast')
    """

    factors: tuple[ImageFactor, ...] = (X, Y, SIZE, LIGHT, CONTRAST)
    """What `measure` gives."""
    is_valid: Callable[[Image], Bool[Array, ""]] = _is_finite
    """Whether an image is one of such data, as far as that can be seen."""
    instead: Mapping[str, ImageFactor] = MappingProxyType({})
    """By the name of a factor of any image, the one that says the same of these images better."""
    true_factors: tuple[str, ...] = ()
    """Names of the entries of "factors", where an example comes with what it was made from."""
    bounded: bool = False
    """Whether no factor leaves the range that it has in the data: those that were made so."""

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of what `measure` gives."""
        return tuple(factor.name for factor in self.factors)

    def measure(self, image: Image) -> Float[Array, "f"]:
        """The factors of one image."""
        return measure(self.factors, image)

    def best(self, factors: Sequence[ImageFactor]) -> tuple[ImageFactor, ...]:
        """Factors of any image, as they are best measured on these."""
        return tuple(self.instead.get(factor.name, factor) for factor in factors)


ANY_IMAGE = Measures()
"""Of images of which nothing else is known."""


def raw_moments(image: Float[Array, "height width"]) -> tuple[Array, ...]:
    """Mass, mean from the middle, and covariance, in pixels; a pixel is a square, not a point.

    Args:
        image: a plane of light.

    Returns:
        `(mass, mean_x, mean_y, var_x, var_y, cov)`.
    """
    height, width = image.shape
    mass = image.sum()
    safe = jnp.where(mass > 0, mass, 1)
    along_x = jnp.arange(width, dtype=image.dtype) + (1 - width) / 2
    along_y = jnp.arange(height, dtype=image.dtype) + (1 - height) / 2
    columns, rows = image.sum(0), image.sum(1)
    mean_x, mean_y = (columns * along_x).sum() / safe, (rows * along_y).sum() / safe
    along_x, along_y = along_x - mean_x, along_y - mean_y
    var_x = (columns * along_x**2).sum() / safe + 1 / 12
    var_y = (rows * along_y**2).sum() / safe + 1 / 12
    cov = (image * along_x * along_y[:, None]).sum() / safe
    return mass, mean_x, mean_y, var_x, var_y, cov


def plane(image: Array) -> Float[Array, "height width"]:
    """One image without its channel axis.

    Args:
        image: `[h, w, 1]` or `[h, w]`.

    Returns:
        `[h, w]`.

    Raises:
        ValueError: the image has more than one channel, is not an image, or not of floats.
    """
    floats("a measurement of an image", image=image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim != 2:
        raise ValueError(f"expected one image of shape (height, width, 1), got {image.shape}")
    return image
