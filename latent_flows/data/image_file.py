"""One file with an image: what it holds, and its pixels in the size and the colours asked for."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from latent_flows._extras import extra

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "Crop", "Header", "Unreadable", "decode", "fit", "read_header"]

Crop = Literal["centre", "pad", "stretch"]
"""centre: the middle, as large as it can be; pad: all of it, with black on two sides; stretch: all
of it, of other proportions."""
SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""Of the files that are taken for images, in any case."""
# What else Pillow opens is no picture, or runs other programs.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that exchange height and width
_GREY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I")


class Unreadable(Exception):
    """A file that cannot be read as an image; the message says why."""


class Header(NamedTuple):
    """What is known of an image before it is decoded."""

    size: tuple[int, int]
    """Height and width, as it is shown."""
    is_coloured: bool
    """Whether it can hold colours."""
    is_transparent: bool
    """Whether some of it may be transparent."""
    frames: int
    """Pictures in the file, of which the first is taken."""


def read_header(source: Path | bytes) -> Header:
    """What is known of an image before it is decoded.

    Args:
        source: path of the file, or its content.

    Returns:
        The header.

    Raises:
        Unreadable: it is no image, damaged at its beginning, or of a kind with an unknown white.
    """
    with _opened(source) as image:
        found = Header(
            (image.height, image.width),
            _is_coloured(image),
            image.has_transparency_data,
            getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1,
        )
        # Of a TIFF it is the size as it is shown. To look into a PNG that does not say at its
        # beginning how it lies would decode all of it.
        may_be_turned = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        if may_be_turned and image.getexif().get(_ORIENTATION) in _TURNED:
            return found._replace(size=found.size[::-1])
        return found


def decode(
    source: Path | bytes, shape: tuple[int, int, int], crop: Crop = "centre"
) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image: upright, of 8 bits, what is transparent over black.

    Args:
        source: path of the file, or its content.
        shape: height, width, and one channel (grey) or three.
        crop: how an image of other proportions is brought to this size.

    Returns:
        The pixels.

    Raises:
        Unreadable: it is no image, truncated or damaged, or of a kind with an unknown white.
    """
    with extra("data"):
        from PIL import Image, ImageOps

    with _opened(source) as opened:
        is_small = opened.mode in ("L", "RGB", "CMYK") and crop != "pad"
        if is_small and getattr(opened, "draft", None):
            # A JPEG is decoded at a fraction of its size where that is still twice what is needed.
            scale = 2 * max(shape[0] / opened.height, shape[1] / opened.width)
            if scale < 1:
                width, height = opened.size
                opened.draft(None, (math.ceil(scale * width), math.ceil(scale * height)))
        image = ImageOps.exif_transpose(_eight_bits(opened))
        mode = "L" if shape[2] == 1 else "RGB"
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return np.asarray(_fitted(image.convert(mode), shape[:2], crop)).reshape(shape)


def fit(
    pixels: Shaped[np.ndarray, "h w c"], size: tuple[int, int], crop: Crop = "centre"
) -> Shaped[np.ndarray, "a b c"]:
    """An array of pixels in another size, by the same means as a file.

    Args:
        pixels: of dtype uint8 or float32, of any number of channels.
        size: height and width.
        crop: as in `decode`.

    Returns:
        The pixels, of the same dtype.

    >>> fit(np.ones((8, 4, 2), np.float32), (2, 2)).shape
    (2, 2, 2)
    """
    with extra("data"):
        from PIL import Image

    channels = [
        np.asarray(_fitted(Image.fromarray(np.ascontiguousarray(channel)), size, crop))
        for channel in np.moveaxis(pixels, -1, 0)
    ]
    return np.stack(channels, -1)


@contextmanager
def _opened(source: Path | bytes) -> "Iterator[Image.Image]":
    """An image, closed at the end of the block; all that goes wrong with it says one thing."""
    with extra("data"):
        from PIL import Image

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=_formats()) as image:
            _check_kind(image)
            yield image
    except (Unreadable, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable("it is empty" if _is_empty(source) else "it is no image") from None
    except Image.DecompressionBombError:
        raise Unreadable("it has far too many pixels; make it smaller") from None
    except Exception as error:  # whatever readers of damaged files may raise
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unreadable(" ".join(words.split()) or type(error).__name__) from None


def _is_empty(source: Path | bytes) -> bool:
    if isinstance(source, Path):
        return source.is_file() and not source.stat().st_size
    return not source


def _check_kind(image: Any) -> None:
    """Whether Pillow reads what is meant.

    Raises:
        Unreadable: it does not.
    """
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise Unreadable(
            "it holds numbers of 32 bits, whose white nobody knows; save it with 8 or 16"
        )
    is_raw_tiff = image.format == "TIFF" and image.info.get("compression") == "raw"
    if is_raw_tiff and image.tag_v2.get(_ORIENTATION) in _TURNED:
        # Pillow 13.0 mixes up its rows.
        raise Unreadable("it is an uncompressed TIFF that is to be turned; save it upright")


@cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that this build of Pillow can read."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _is_coloured(image: "Image.Image") -> bool:
    if image.mode not in ("P", "PA"):
        return image.mode not in _GREY
    palette = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
    return bool(np.ptp(palette, axis=1).any())


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """The image, with its 16 bits rounded to 8: Pillow would cut them off at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    exif = image.getexif()
    values = np.asarray(image).astype(np.int64)
    found = Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))
    found.info["exif"] = exif.tobytes()
    return found


def _fitted(image: "Image.Image", size: tuple[int, int], crop: Crop) -> "Image.Image":
    from PIL import Image, ImageOps

    height, width = size
    if image.size == (width, height):
        return image
    how = Image.Resampling.BILINEAR
    if crop == "stretch":
        return image.resize((width, height), how)
    if crop == "pad":
        return ImageOps.pad(image, (width, height), how)
    return ImageOps.fit(image, (width, height), how)
