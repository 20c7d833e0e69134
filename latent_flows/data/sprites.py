"""dSprites as a function: one image from any real-valued factors, and the factors back from it.

The factors are those of dSprites (Matthey, Higgins, Hassabis and Lerchner, 2017): three shapes,
six scales, 40 orientations, 32 by 32 positions. Sizes and positions are relative to the frame,
chosen so that no sprite leaves it and that the mean pixel, 0.042, is close to that of dSprites.
Positions are fractions of the range that the sprite's centre may take, so that `x = 0` is a sprite
near the left border and `centre(0)` says where: a quarter into the frame.
"""

import math
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from latent_flows.data.dataset import Dataset
from latent_flows.data.drawn import Drawn, Span, drawn_dataset, split_rows
from latent_flows.data.image_factors import (
    ImageFactor,
    Measures,
    Moments,
    X,
    Y,
    doublings,
    moments,
    plane,
    raw_moments,
)
from latent_flows.typing import Scalar

__all__ = [
    "AREAS",
    "COUNT",
    "DRAWN",
    "ELLIPSE",
    "GRID",
    "LOBE",
    "MARGIN",
    "MEASURES",
    "NAME",
    "SHAPES",
    "SQUARE",
    "Factors",
    "Moments",
    "centre",
    "dataset",
    "grid_factors",
    "is_valid",
    "moments",
    "random_factors",
    "render",
    "split_indices",
]

NAME = "sprites"
"""Of the data set."""

SHAPES = ("square", "ellipse", "heart")

MARGIN = 0.25  # of the frame, between its border and the first and last centre of a sprite
SQUARE = 0.14  # half the side, at scale 1, of the frame
ELLIPSE = (0.2, 0.1)  # half axes
LOBE = 0.1  # radius of a heart's two lobes; its square has twice that as its side

# A heart is a square on its tip with a half disc on each upper side; this is how far, in lobe
# radii, its barycentre lies above the middle of the square.
_HEART_RISE = (math.pi + 4 / 3) / (math.sqrt(2) * (4 + math.pi))

AREAS = (4 * SQUARE**2, math.pi * ELLIPSE[0] * ELLIPSE[1], (4 + math.pi) * LOBE**2)
"""Area of each shape at scale 1, as a share of the frame."""

GRID = (3, 6, 40, 32, 32)
"""How many values each factor takes in dSprites, in the order of `Factors`."""

COUNT = math.prod(GRID)


class Factors(NamedTuple):
    """What a sprite is made from."""

    shape: Float[Array, ""] | float
    """0 a square, 1 an ellipse, 2 a heart; values between morph one into the next."""
    scale: Float[Array, ""] | float
    """Size relative to the largest sprite of dSprites, 0.5 to 1 there."""
    orientation: Float[Array, ""] | float
    """Angle in radians, anticlockwise as seen; at 0 the square stands upright, the
    ellipse lies flat and the heart points down."""
    x: Float[Array, ""] | float
    """Position of the barycentre, from 0 (left) to 1 (right); see `centre`."""
    y: Float[Array, ""] | float
    """Position of the barycentre, from 0 (top) to 1 (bottom)."""


def centre(position: Float[Array, "..."] | float) -> Float[Array, "..."] | float:
    """Where in the frame, from 0 to 1, a sprite with the factor `position` (x or y) is centred.

    Args:
        position: the factor, from 0 to 1.

    Returns:
        The place, a share of the frame's side.

    >>> centre(0.0), centre(0.5), centre(1.0)
    (0.25, 0.5, 0.75)
    """
    return MARGIN + (1 - 2 * MARGIN) * position


def grid_factors(index: Int[Array, ""] | int) -> Factors:
    """The factors of one of the 737,280 images of dSprites, in its order (`y` varies fastest).

    Args:
        index: From 0 to `COUNT - 1`.

    Returns:
        The `Factors`; orientations are the 40 multiples of 9 degrees, all different.

    Raises:
        ValueError: `index` is a Python integer outside that range.

    >>> sprite = grid_factors(COUNT - 1)
    >>> [round(float(value), 3) for value in sprite]
    [2.0, 1.0, 6.126, 1.0, 1.0]
    """
    if isinstance(index, int) and not 0 <= index < COUNT:
        raise ValueError(f"index must lie in [0, {COUNT}), got {index}")
    shape, scale, orientation, x, y = jnp.unravel_index(jnp.asarray(index), GRID)
    return Factors(
        shape=shape * 1.0,
        scale=0.5 + scale / 10,
        orientation=orientation * (2 * math.pi / GRID[2]),
        x=x / (GRID[3] - 1),
        y=y / (GRID[4] - 1),
    )


def random_factors(key: Array) -> Factors:
    """Factors drawn uniformly from the continuous ranges of dSprites; the shape is one of three.

    Args:
        key: From `jax.random.key`.

    Returns:
        The `Factors`.

    >>> import jax
    >>> bool(0.5 <= random_factors(jax.random.key(0)).scale <= 1)
    True
    """
    shape, scale, orientation, x, y = jax.random.split(key, 5)
    return Factors(
        shape=jax.random.randint(shape, (), 0, len(SHAPES)) * 1.0,
        scale=jax.random.uniform(scale, minval=0.5, maxval=1.0),
        orientation=jax.random.uniform(orientation, maxval=2 * math.pi),
        x=jax.random.uniform(x),
        y=jax.random.uniform(y),
    )


def render(factors: Factors, *, size: int = 64) -> Float[Array, "size size 1"]:
    r"""One sprite as an antialiased image with values in [0, 1].

    With `d` the distance to the outline in pixels, negative inside, a pixel is
    `1 - (1 + d)^2 / 2` for `-1 < d <= 0` and `(1 - d)^2 / 2` for `0 < d < 1`: a straight edge seen
    through a triangle filter, so that the sum over pixels does not depend on where between pixels
    the edge lies. The image is differentiable in every factor.

    Args:
        factors: Scalars; any real values. `shape` is clipped to [0, 2], and the distances of its
            two neighbours are mixed.
        size: Pixels along each side.

    Returns:
        The image, white on black.

    Raises:
        ValueError: A factor is not a scalar, or `size` is not positive.

    References:
        The factors of dSprites (Matthey et al., 2017).

    >>> image = render(Factors(shape=0, scale=1.0, orientation=0.0, x=0.5, y=0.5))
    >>> image.shape, round(float(image.mean()), 3)
    ((64, 64, 1), 0.079)
    """
    if size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
    for name, value in zip(Factors._fields, factors, strict=True):
        if jnp.shape(value) != ():
            raise ValueError(
                f"{name} must be a scalar, got shape {jnp.shape(value)}; use jax.vmap for a batch"
            )
    dtype = jnp.result_type(float, *(jnp.asarray(value).dtype for value in factors))
    shape, scale, orientation, x, y = (jnp.asarray(value, dtype) for value in factors)

    # Coordinates in pixels along the sprite's own axes: u to its right, v to its bottom.
    pixels = jnp.arange(size, dtype=dtype) + 0.5
    right = (pixels - size * centre(x))[None, :]
    down = (pixels - size * centre(y))[:, None]
    cos, sin = jnp.cos(orientation), jnp.sin(orientation)
    u, v = right * cos - down * sin, right * sin + down * cos

    unit = size * scale
    shape = jnp.clip(shape, 0, len(SHAPES) - 1)
    outlines = (_square, _ellipse, _heart)
    distance = sum(
        jnp.maximum(1 - jnp.abs(shape - k), 0) * outline(u, v, unit)
        for k, outline in enumerate(outlines)
    )
    tail = jnp.square(jnp.maximum(1 - jnp.abs(distance), 0)) / 2
    return jnp.where(distance > 0, tail, 1 - tail)[..., None]


def _square(u: Array, v: Array, unit: Array) -> Array:
    return jnp.maximum(jnp.abs(u), jnp.abs(v)) - SQUARE * unit


def _ellipse(u: Array, v: Array, unit: Array) -> Array:
    # First-order distance to the level set |p| = 1 of p = (u / a, v / b).
    a, b = ELLIPSE[0] * unit, ELLIPSE[1] * unit
    p, q = u / a, v / b
    square = p**2 + q**2
    slope = (p / a) ** 2 + (q / b) ** 2
    tiny = 1e-6  # keeps the centre differentiable
    return (square - jnp.sqrt(square + tiny)) * jax.lax.rsqrt(slope + tiny / a**2)


def _heart(u: Array, v: Array, unit: Array) -> Array:
    lobe = LOBE * unit
    u, v = jnp.abs(u), v - _HEART_RISE * lobe
    square = (u + jnp.abs(v)) * math.sqrt(0.5) - lobe
    side = lobe * math.sqrt(0.5)
    disc = jnp.sqrt((u - side) ** 2 + (v + side) ** 2 + 1e-6) - lobe
    return jnp.minimum(square, disc)


def is_valid(
    image: Float[Array, "height width 1"] | Float[Array, "height width"], *, tolerance: float = 0.25
) -> Bool[Array, ""]:
    r"""Whether an image looks like one sprite of dSprites: a white blob of the right size.

    Four tests, all on the image alone: the area lies between that of the smallest and the largest
    sprite, up to the tolerance; few pixels are grey, `sum p (1 - p) <= 0.3 sum p`; the pixels
    lie together, the trace of their covariance being at most 0.25 of the area (a disc has 0.16,
    an ellipse of dSprites 0.2); and the pixels above 1/2 form one piece without holes, that is,
    their Euler number is 1.

    Args:
        image: Values in [0, 1]; the channel axis may be left out.
        tolerance: How far, relatively, the area may lie outside the range of true sprites.

    Returns:
        A boolean.

    Raises:
        ValueError: The image has more than one channel or is not an image.

    References:
        The Euler number from counts of 2 by 2 windows is that of Gray, Local Properties of Binary
        Images in Two Dimensions (1971).

    >>> image = render(Factors(shape=2, scale=0.7, orientation=1.0, x=0.2, y=0.9))
    >>> bool(is_valid(image)), bool(is_valid(0.5 * image)), bool(is_valid(1 - image))
    (True, False, False)
    """
    image = plane(image)
    mass, _, _, var_x, var_y, _ = raw_moments(image)
    area = mass / image.size
    sized = (area >= 0.25 * min(AREAS) * (1 - tolerance)) & (area <= max(AREAS) * (1 + tolerance))
    crisp = (image * (1 - image)).sum() <= 0.3 * mass
    compact = var_x + var_y <= 0.25 * mass
    return sized & crisp & compact & (_euler_number(image > 0.5) == 1)


def _euler_number(mask: Bool[Array, "height width"]) -> Int[Array, ""]:
    """Pieces minus holes, with pixels that touch at a corner counted as one piece."""
    mask = jnp.pad(mask, 1).astype(jnp.int32)
    a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    count = a + b + c + d
    diagonal = (count == 2) & (a == d)
    return ((count == 1).sum() - (count == 3).sum() - 2 * diagonal.sum()) // 4


def _size(image: Array) -> Scalar:
    return moments(image).size


def _elongation(image: Array) -> Scalar:
    return moments(image).elongation


def _doublings_of_size(image: Array) -> Scalar:
    return doublings(moments(image.mean(-1)).size)


MEASURES = Measures(
    factors=(
        X,
        Y,
        ImageFactor("size", "square root of the share of the frame", _size),
        ImageFactor("elongation", "logarithm", _elongation),
    ),
    is_valid=is_valid,
    # The area is the ground truth, whatever the shape.
    instead=MappingProxyType({"size": ImageFactor("size", "doublings", _doublings_of_size)}),
    true_factors=Factors._fields,
    # They are drawn inside a certain square only.
    bounded=True,
)
"""What can be measured on sprites: the `moments` of an image, and whether it shows one."""


def split_indices(split: str, count: int = COUNT) -> Int[np.ndarray, "N"]:
    """Which of the 737,280 images of dSprites belong to a split; one in ten is for testing.

    A fixed hash of the index decides, so a split never changes and nothing is stored.

    Args:
        split: "train" or "test".
        count: How many images there are, in another set that is split in the same way.

    Returns:
        Indices for `grid_factors`, in increasing order.

    Raises:
        ValueError: There is no such split.

    >>> len(split_indices("train")) + len(split_indices("test")) == COUNT
    True
    """
    return split_rows(NAME, split, count)


def dataset(split: str = "train", size: int | None = None) -> Dataset:
    """The images of dSprites, rendered batch by batch on the default device.

    Args:
        split: "train" or "test"; see `split_indices`.
        size: Pixels along each side; 64 when left out.

    Returns:
        A `Dataset` with "image", "label" (the shape) and "factors" (a `Factors` of arrays).

    Raises:
        ValueError: There is no such split, or the size is not positive.

    >>> import numpy as np
    >>> batch = dataset("test", size=32).examples(np.arange(5))
    >>> batch["image"].shape, batch["factors"].scale.shape
    ((5, 32, 32, 1), (5,))
    """
    return drawn_dataset(DRAWN, NAME, split, size)


DRAWN = Drawn(
    factors=Factors,
    render=render,
    grid=GRID,
    grid_factors=grid_factors,
    random_factors=random_factors,
    spans=(
        Span(0.0, len(SHAPES) - 1.0),
        Span(0.5, 1.0),
        Span(0.0, math.radians(160), anywhere=True),
        Span(0.0, 1.0),
        Span(0.0, 1.0),
    ),
    shown=("x", "y", "scale"),
    label="shape",
    channels=1,
)
"""How a sprite is made from its factors."""
