"""Transformations of samples by a continuous amount, with masks of where the result is known.

Those here are `(image, t) -> (image, mask)`, for one image `[h, w, c]` with values in [0, 1] and
one number `t`; `t = 0` gives the image back, exactly. The mask `[h, w]` is 1 where the result
follows from the source image and 0 where it would need what lies outside the frame. All are
differentiable in `t`.

The last of four channels is alpha: it moves with the image, and no light changes it.

Any callable of this form is a transformation, also of vectors, sequences or anything else that a
generator makes: its mask has the shape of the sample, or one that broadcasts against it, or that of
its first axes. One that is `registered` with what commands need to know of it can be named there:
that decorator and a test are all that it takes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from latent_flows._named_function import import_function, is_named
from latent_flows._validation import choose
from latent_flows.data import image_factors
from latent_flows.data.image_factors import ImageFactor
from latent_flows.typing import Scalar

__all__ = [
    "ENTRIES",
    "TRANSFORMATIONS",
    "Entry",
    "Image",
    "Mask",
    "Sample",
    "Transformation",
    "Weights",
    "alike",
    "brightness",
    "contrast",
    "entry",
    "hue",
    "registered",
    "rotate",
    "rotate_object",
    "saturation",
    "spread",
    "transformation",
    "transformed",
    "translate_x",
    "translate_y",
    "zoom",
    "zoom_object",
]

Sample: TypeAlias = Float[Array, "*event"]
"""One sample of a generator: an image `[h, w, c]`, a vector, a sequence `[t, c]`, anything."""
Weights: TypeAlias = Shaped[ArrayLike, "..."]
"""Of the numbers of a sample, booleans or in [0, 1]: of its shape, or one that broadcasts against
it, or of its first axes, as the pixels `[h, w]` of an image are."""
Image: TypeAlias = Float[Array, "h w c"]
Mask: TypeAlias = Float[Array, "h w"]

Transformation: TypeAlias = Callable[[Sample, Scalar], tuple[Sample, Shaped[Array, "..."]]]
"""`(sample, t) -> (sample, mask)`, the identity at `t = 0`; the mask is as `Weights` says."""


class Entry(NamedTuple):
    """A transformation, and what commands need to know of it."""

    apply: Transformation
    """The transformation itself."""
    reach: float
    """The usual largest `|t|`, about which images stay near those that a generator makes."""
    extent: float
    """Its `t` at the end of a sequence of images that starts at 0."""
    factor: ImageFactor | None
    """What it raises by `t`; None where no measure is known."""
    coloured: bool
    """Whether it says nothing of a grey image."""


_entries: dict[str, Entry] = {}
_apply: dict[str, Transformation] = {}
ENTRIES: Mapping[str, Entry] = MappingProxyType(_entries)
"""Every registered transformation with what is known of it, by its name."""
TRANSFORMATIONS: Mapping[str, Transformation] = MappingProxyType(_apply)
"""Every registered transformation by its name."""


def registered(
    *,
    reach: float,
    extent: float | None = None,
    factor: ImageFactor | None = None,
    coloured: bool = False,
) -> Callable[[Transformation], Transformation]:
    """A decorator that makes a transformation known by the name of its function.

    Args:
        reach: the usual largest `|t|`.
        extent: its `t` at the end of a sequence; by default the reach.
        factor: what it raises by `t`, where that can be measured on any sample.
        coloured: whether it needs colours.

    Returns:
        The decorator, which gives the function back.

    Raises:
        ValueError: for a reach that is not positive, or a name that is taken, be it of the
            transformation or of a factor that is measured in another way.

    >>> ENTRIES["zoom"].apply is zoom, ENTRIES["zoom"].reach, ENTRIES["zoom"].factor.name
    (True, 0.4, 'size')
    >>> registered(reach=0.3)(zoom)
    Traceback (most recent call last):
    ...
    ValueError: there is a transformation 'zoom' already; name this one otherwise
    """
    if not reach > 0:
        raise ValueError(f"the reach of a transformation must be positive, got {reach}")

    def keep(apply: Transformation) -> Transformation:
        name = getattr(apply, "__name__", "")
        _forget_earlier(apply)
        if name in _entries:
            raise ValueError(f"there is a transformation {name!r} already; name this one otherwise")
        known = {other.factor.name: other.factor for other in _entries.values() if other.factor}
        if factor is not None and known.get(factor.name, factor) != factor:
            raise ValueError(f"the factor {factor.name!r} is measured in another way already")
        entry = Entry(apply, reach, reach if extent is None else extent, factor, coloured)
        _entries[name], _apply[name] = entry, apply
        return apply

    return keep


def _forget_earlier(apply: Transformation) -> None:
    """Takes out what the file of a function registered when it was executed before."""

    def written(function: Transformation) -> tuple[str | None, int]:
        code, globals_ = (getattr(function, name, None) for name in ("__code__", "__globals__"))
        return getattr(code, "co_filename", None), id(globals_)

    file, execution = written(apply)
    for name, entry in [*_entries.items()]:
        other, earlier = written(entry.apply)
        if file is not None and other == file and earlier != execution:
            del _entries[name], _apply[name]


_TOLERANCE = 1e-3  # of a pixel: how far outside the frame rounding may bring a point of its border


@registered(reach=0.2, extent=0.25, factor=image_factors.X)
def translate_x(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Moves the content to the right by `t` image widths; to the left if `t` is negative.

    Between pixels the image is interpolated linearly.

    Args:
        image: one image.
        t: how far, in image widths.

    Returns:
        The moved image, black where it is not known, and the mask of where it is.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> image, mask = translate_x(jnp.array([[[1.0], [2.0], [3.0], [4.0]]]), 0.25)
    >>> print(image[0, :, 0], mask[0])
    [0. 1. 2. 3.] [0. 1. 1. 1.]
    """
    image, t = _check("translate_x", image, t)
    return _scale_and_shift(image, jnp.ones_like(t), jnp.stack([jnp.zeros_like(t), t]))


@registered(reach=0.2, extent=0.25, factor=image_factors.Y)
def translate_y(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Moves the content down by `t` image heights; up if `t` is negative.

    As `translate_x` does.

    Args:
        image: one image.
        t: how far, in image heights.

    Returns:
        The moved image and its mask.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> image, mask = translate_y(jnp.array([[[1.0]], [[2.0]]]), -0.5)
    >>> print(image[:, 0, 0], mask[:, 0])
    [2. 0.] [1. 0.]
    """
    image, t = _check("translate_y", image, t)
    return _scale_and_shift(image, jnp.ones_like(t), jnp.stack([t, jnp.zeros_like(t)]))


@registered(reach=0.4, extent=math.log2(1.8), factor=image_factors.SIZE)
def zoom(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Enlarges the content about the centre of the image by the factor `2^t`.

    Where it shrinks (`t < 0`) the interpolation kernel widens as much, against aliasing.

    Args:
        image: one image.
        t: doublings of the size; -1 halves it.

    Returns:
        The enlarged image and its mask.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> print(zoom(jnp.ones((4, 4, 1)), -1.0)[1])
    [[0. 0. 0. 0.]
     [0. 1. 1. 0.]
     [0. 1. 1. 0.]
     [0. 0. 0. 0.]]
    """
    image, t = _check("zoom", image, t)
    return _scale_and_shift(image, jnp.exp2(t), jnp.zeros(2, t.dtype))


@registered(reach=0.4, extent=math.log2(1.8), factor=image_factors.SIZE)
def zoom_object(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Enlarges the content about the barycentre of its light, which stays, by the factor `2^t`.

    Args:
        image: one image, of light on black.
        t: doublings of the size; -1 halves it.

    Returns:
        The enlarged image and its mask.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> dot = jnp.zeros((9, 9, 1)).at[2, 3].set(1.0)
    >>> print(zoom_object(dot, 1.0)[0][2, 1:6, 0].round(3))
    [0.   0.5  1.   0.5  0.  ]
    """
    image, t = _check("zoom_object", image, t)
    scale = jnp.exp2(t)
    return _scale_and_shift(image, scale, (1 - scale) * (_barycentre(image) - 0.5))


@registered(reach=0.5, extent=math.radians(80))
def rotate(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Turns the content about the centre of the image by `t` radians, anticlockwise as seen.

    Between pixels the image is interpolated linearly.

    Args:
        image: one image.
        t: the angle in radians.

    Returns:
        The turned image, with the nearest known value where it is not known, and its mask.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> image, mask = rotate(jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]]), jnp.pi / 2)
    >>> bool(jnp.allclose(image[..., 0], jnp.array([[2.0, 4.0], [1.0, 3.0]]), atol=1e-5))
    True
    """
    image, t = _check("rotate", image, t)
    return _turn(image, t, jnp.full(2, 0.5, t.dtype))


@registered(reach=0.5, extent=math.radians(80))
def rotate_object(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Turns the content about the barycentre of its light by `t` radians, anticlockwise as seen.

    Args:
        image: one image, of light on black.
        t: the angle in radians.

    Returns:
        The turned image and its mask.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> bar = jnp.zeros((9, 9, 1)).at[1:4, 2].set(1.0)
    >>> print(rotate_object(bar, jnp.pi / 2)[0][2, :5, 0].round(3))
    [0. 1. 1. 1. 0.]
    """
    image, t = _check("rotate_object", image, t)
    return _turn(image, t, _barycentre(image))


@registered(reach=0.5, extent=-2.0, factor=image_factors.LIGHT)
def brightness(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Multiplies the light by `2^t`; black stays black, and what exceeds white is white.

    Args:
        image: one image.
        t: doublings of the light ("stops").

    Returns:
        The image and a mask of ones.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> print(brightness(jnp.array([[[0.0], [0.25], [0.75]]]), 1.0)[0][0, :, 0])
    [0.  0.5 1. ]
    """
    image, t = _check("brightness", image, t)
    return _everywhere(image, jnp.exp2(t) * _colours(image))


@registered(reach=0.5, extent=-2.0, factor=image_factors.CONTRAST)
def contrast(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Multiplies the difference from the image's mean by `2^t`, clipped to [0, 1].

    Args:
        image: one image.
        t: doublings of the contrast.

    Returns:
        The image and a mask of ones.

    Raises:
        ValueError: for an image that is not `[h, w, c]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> print(contrast(jnp.array([[[0.25], [0.75]]]), -1.0)[0][0, :, 0])
    [0.375 0.625]
    """
    image, t = _check("contrast", image, t)
    colours = _colours(image)
    return _everywhere(image, colours + (jnp.exp2(t) - 1) * (colours - colours.mean()))


@registered(reach=0.2, extent=2 / 3, factor=image_factors.HUE, coloured=True)
def hue(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Turns the colours about the grey axis by `t` full turns, from red towards green.

    The mean of the three channels is kept; what leaves [0, 1] is clipped.

    Args:
        image: one image of three channels.
        t: turns; a third takes red to green, green to blue and blue to red.

    Returns:
        The image and a mask of ones.

    Raises:
        ValueError: for an image that is not `[h, w, 3]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> green, _ = hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3)
    >>> bool(jnp.allclose(green, jnp.array([0.0, 1.0, 0.0]), atol=1e-6))
    True
    """
    image, t = _check("hue", image, t, channels=3)
    angle = 2 * jnp.pi * t
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Rodrigues' formula about (1, 1, 1); a matrix product might round at t = 0 on some machines.
    across = (jnp.roll(image, 1, -1) - jnp.roll(image, -1, -1)) / jnp.sqrt(3.0).astype(t.dtype)
    turned = cos * image + (1 - cos) * image.mean(-1, keepdims=True) + sin * across
    return _everywhere(image, turned)


@registered(reach=0.5, extent=-2.0, factor=image_factors.SATURATION, coloured=True)
def saturation(image: Image, t: Scalar | float) -> tuple[Image, Mask]:
    """Multiplies the difference of the channels from their mean by `2^t`, clipped to [0, 1].

    Args:
        image: one image of three channels.
        t: doublings of the saturation.

    Returns:
        The image and a mask of ones.

    Raises:
        ValueError: for an image that is not `[h, w, 3]`, or a `t` that is not one number.

    >>> import jax.numpy as jnp
    >>> paler, _ = saturation(jnp.array([[[0.9, 0.3, 0.3]]]), -1.0)
    >>> bool(jnp.allclose(paler, jnp.array([0.7, 0.4, 0.4])))
    True
    """
    image, t = _check("saturation", image, t, channels=3)
    return _everywhere(image, image + (jnp.exp2(t) - 1) * (image - image.mean(-1, keepdims=True)))


def entry(name: str) -> Entry:
    """A transformation with what is known of it, by its name.

    Args:
        name: one of `ENTRIES`, or `package.module:function` or `file.py:function` for one of your
            own, of samples of any shape. What such a function is `registered` with is known of it;
            otherwise its reach is 1, and nothing is known that shows it.

    Returns:
        The entry.

    Raises:
        ValueError: for an unknown name, with the nearest valid one, or a file or module without
            such a function.

    >>> entry("zoom").reach
    0.4
    """
    if not is_named(name):
        return choose("transformation", name, ENTRIES)
    apply = import_function(name, "transformation")
    known = (entry for entry in ENTRIES.values() if entry.apply is apply)
    return next(known, Entry(apply, 1.0, 1.0, None, coloured=False))


def transformation(name: str) -> Transformation:
    """A transformation by its name, for flags and configurations.

    Args:
        name: one of `TRANSFORMATIONS`, or of your own, as `entry` takes it.

    Returns:
        The transformation.

    Raises:
        ValueError: for an unknown name, with the nearest valid one.

    >>> transformation("zoom").__name__
    'zoom'
    """
    return entry(name).apply


def spread(mask: Weights, sample: Sample) -> Shaped[Array, "..."]:
    """A mask with as many axes as a sample, so that both can be multiplied.

    Args:
        mask: of the shape of the sample or one that broadcasts against it; or weights of its first
            axes, which goes first where both could be meant.
        sample: whose shape is looked at.

    Returns:
        The mask, with axes of length 1 where it does not vary.

    Raises:
        ValueError: for a mask that does not fit.

    >>> spread(jnp.ones((5, 4)), jnp.ones((5, 4, 3))).shape, spread(1.0, jnp.ones(7)).shape
    ((5, 4, 1), (1,))
    """
    given, event = jnp.shape(mask), jnp.shape(sample)
    missing = (1,) * (len(event) - len(given))
    shape = given + missing if given == event[: len(given)] else missing + given
    fits = len(shape) == len(event) and all(
        own in (1, side) for own, side in zip(shape, event, strict=True)
    )
    if not fits:
        raise ValueError(
            f"mask must have shape {event[:2]}, got {given}: of the first axes of a sample of "
            f"shape {event}, or one that broadcasts against it"
        )
    return jnp.reshape(mask, shape)


def transformed(
    transformation: Transformation, sample: Sample, t: Scalar
) -> tuple[Sample, Float[Array, "..."]]:
    """A sample after a transformation, once that is known to return what it should.

    Args:
        transformation: `(sample, t) -> (sample, mask)`.
        sample: of any shape.
        t: by how much.

    Returns:
        What the transformation returns, as floats of the sample's dtype.

    Raises:
        ValueError: it is no pair, or of another shape than the sample, or not of floats, or the
            mask does not fit.

    >>> louder = lambda x, t: (jnp.exp2(t) * x, jnp.ones_like(x))
    >>> print(transformed(louder, jnp.array([1.0, 3.0]), jnp.array(1.0))[0])
    [2. 6.]
    """
    result = transformation(sample, t)
    if not isinstance(result, tuple) or len(result) != 2:
        given = f"{len(result)} values" if isinstance(result, tuple) else "one value"
        raise ValueError(f"a transformation must return a pair (sample, mask), got {given}")
    after, mask = map(jnp.asarray, result)
    if after.shape != sample.shape:
        raise ValueError(
            f"a transformation must keep the shape {sample.shape} of the generator's sample, got "
            f"{after.shape}"
        )
    if not jnp.issubdtype(after.dtype, jnp.floating):
        raise ValueError(f"a transformation must return floats, got {after.dtype}")
    spread(mask, sample)
    return after.astype(sample.dtype), mask.astype(sample.dtype)


def alike(
    transformations: Sequence[Transformation], sample: Sample | jax.ShapeDtypeStruct
) -> list[Transformation]:
    """Transformations whose results have one structure, so that `jax.lax.switch` can choose.

    Args:
        transformations: any.
        sample: what they are of, or its shape and dtype.

    Returns:
        The same, as `transformed` does them. Where their masks differ in shape, all have that of
        the sample.

    Raises:
        ValueError: as `transformed`.

    >>> ways = [lambda x, t: (x + t, 1.0), lambda x, t: (x - t, jnp.ones_like(x))]
    >>> [way(jnp.zeros(3), jnp.array(1.0))[1].shape for way in alike(ways, jnp.zeros(3))]
    [(3,), (3,)]
    """
    ways = [partial(transformed, each) for each in transformations]
    like = jax.ShapeDtypeStruct(sample.shape, sample.dtype)
    amount = jax.ShapeDtypeStruct((), sample.dtype)
    if len({jax.eval_shape(way, like, amount)[1].shape for way in ways}) == 1:
        return [*ways]

    def whole(way: Transformation, sample: Sample, t: Scalar) -> tuple[Sample, Array]:
        after, mask = way(sample, t)
        return after, jnp.broadcast_to(spread(mask, sample), sample.shape)

    return [partial(whole, way) for way in ways]


def _scale_and_shift(image: Image, scale: Scalar, shift: Float[Array, "2"]) -> tuple[Image, Mask]:
    """The image scaled about its centre, then moved by shares of its height and width."""
    sides = jnp.array(image.shape[:2], scale.dtype)
    translation = sides / 2 * (1 - scale) + sides * shift
    moved = jax.image.scale_and_translate(
        image, image.shape, (0, 1), jnp.stack([scale, scale]), translation, "linear"
    )

    def known(side: int, offset: Scalar) -> Array:
        source = (jnp.arange(side, dtype=scale.dtype) + 0.5 - offset) / scale - 0.5
        return _inside(source, side)

    rows, columns = map(known, image.shape[:2], translation)
    mask = (rows[:, None] & columns[None, :]).astype(image.dtype)
    # The resampler also extends the image by half a pixel, which the mask counts as not known.
    return moved * mask[..., None], mask


def _turn(image: Image, t: Scalar, centre: Float[Array, "2"]) -> tuple[Image, Mask]:
    """The image turned about a point, given in shares of its height and width."""
    height, width, _ = image.shape
    centre_y, centre_x = centre[0] * height - 0.5, centre[1] * width - 0.5
    y = jnp.arange(height, dtype=t.dtype)[:, None] - centre_y
    x = jnp.arange(width, dtype=t.dtype)[None, :] - centre_x
    cos, sin = jnp.cos(t), jnp.sin(t)
    # Where each pixel of the result comes from: rows point down, hence the signs.
    rows, columns = sin * x + cos * y + centre_y, cos * x - sin * y + centre_x
    turned = jax.vmap(
        lambda channel: jax.scipy.ndimage.map_coordinates(
            channel, [rows, columns], order=1, mode="nearest"
        ),
        in_axes=-1,
        out_axes=-1,
    )(image)
    known = _inside(rows, height) & _inside(columns, width)
    return turned, known.astype(image.dtype)


def _barycentre(image: Image) -> Float[Array, "2"]:
    """Where the light is, in shares of the height and the width; no part of any derivative."""
    found = image_factors.moments(jax.lax.stop_gradient(_colours(image)).mean(-1))
    return jnp.stack([found.y, found.x])


def _inside(source: Array, side: int) -> Array:
    """Whether coordinates lie between the centres of the first and the last pixel."""
    return (source >= -_TOLERANCE) & (source <= side - 1 + _TOLERANCE)


def _colours(image: Image) -> Float[Array, "h w light"]:
    """The channels of light: all, but for the last of four, which is alpha."""
    return image[..., :3] if image.shape[-1] == 4 else image


def _everywhere(image: Image, after: Float[Array, "h w light"]) -> tuple[Image, Mask]:
    """Colours known at every pixel, clipped to [0, 1] where the source was in that range."""
    before, alpha = jnp.split(image, [after.shape[-1]], -1)
    clipped = jnp.clip(after, jnp.minimum(before, 0), jnp.maximum(before, 1))
    return jnp.concatenate([clipped, alpha], -1), jnp.ones(image.shape[:2], image.dtype)


def _check(
    name: str, image: Image, t: Scalar | float, channels: int | None = None
) -> tuple[Image, Scalar]:
    """The image and the amount as floats of one dtype, once they are known to make sense."""
    image, t = jnp.asarray(image), jnp.asarray(t)
    if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"{name} expected one image of floats, [h, w, c], got shape {image.shape} and dtype "
            f"{image.dtype}; use jax.vmap for a batch"
        )
    if channels is not None and image.shape[-1] != channels:
        raise ValueError(f"{name} needs {channels} channels (colour), got {image.shape[-1]}")
    if t.ndim != 0:
        raise ValueError(f"{name} expected one number t, got shape {t.shape}")
    return image, t.astype(image.dtype)
