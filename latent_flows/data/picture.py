"""One picture from anywhere, safely brought to what a generator makes."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from latent_flows._extras import extra
from latent_flows.data.image_file import Crop, Header, Unreadable, decode, read_header

__all__ = ["MOST_PIXELS", "Picture", "read_picture"]

MOST_PIXELS = 64_000_000
"""Of a picture that is decoded."""


class Picture(NamedTuple):
    """A picture as a generator makes them."""

    pixels: Float[np.ndarray, "h w c"]
    """In [0, 1], float32."""
    notes: tuple[str, ...]
    """What was done to it, each in a few words."""


def read_picture(
    source: str | Path | bytes,
    shape: Sequence[int],
    *,
    crop: Crop = "centre",
    most_pixels: int = MOST_PIXELS,
) -> Picture:
    """A picture in the size and the colours of a generator.

    Its size is looked at before anything is decoded. Only formats of pictures are tried, none of
    which runs anything that the file holds.

    Args:
        source: path of the file, or its content.
        shape: height, width and channels that are wanted, of these 1 or 3.
        crop: how a picture of other proportions is brought to this size: the "centre" as large as
            it can be, "pad" all of it with black on two sides, "stretch" it.
        most_pixels: a larger one is refused.

    Returns:
        The picture, and what was done to it.

    Raises:
        ValueError: it is no picture, empty, truncated, damaged or too large, or the shape is not
            that of a picture.

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (30, 20), (255, 0, 0, 255)).save(file, "png")
    >>> found = read_picture(file.getvalue(), (8, 8, 1))
    >>> print(found.pixels.shape, found.pixels.mean().round(2))
    (8, 8, 1) 0.3
    >>> for note in found.notes:
    ...     print(note)
    the middle 20 x 20 of 30 x 20 pixels, brought to 8 x 8
    black where it is transparent
    its colours made grey
    """
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ValueError(
            f"pictures are for a generator of images [h, w, 1] or [h, w, 3], not of shape "
            f"{tuple(shape)}"
        )
    source = Path(source) if isinstance(source, str) else source
    with extra("data"):
        from PIL import Image

    height, width, channels = (int(side) for side in shape)
    try:
        with warnings.catch_warnings():
            # The limit is our own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            header = read_header(source)
            count = header.size[0] * header.size[1]
            if count > most_pixels:
                raise Unreadable(
                    f"it has {count / 1e6:.0f} megapixels, more than {most_pixels / 1e6:.0f}; make "
                    "it smaller"
                )
            found = decode(source, (height, width, channels), crop)
    except Unreadable as error:
        raise ValueError(str(error)) from None
    return Picture(np.asarray(found, np.float32) / 255, _notes(header, found.shape, crop))


def _notes(header: Header, shape: Sequence[int], crop: Crop) -> tuple[str, ...]:
    notes = []
    if header.frames > 1:
        notes.append(f"the first of {header.frames} frames")
    (tall, wide), (height, width, channels) = header.size, shape
    if (tall, wide) != (height, width):
        scale = min(tall / height, wide / width)
        kept = f"{max(1, round(width * scale))} x {max(1, round(height * scale))}"
        same = kept == f"{wide} x {tall}"
        whole = f"{wide} x {tall} pixels"
        how = {
            "centre": whole if same else f"the middle {kept} of {whole}",
            "pad": whole if same else f"{whole}, with black beside them",
            "stretch": whole if same else f"{whole}, stretched",
        }
        notes.append(f"{how[crop]}, brought to {width} x {height}")
    if header.is_transparent:
        notes.append("black where it is transparent")
    if header.is_coloured and channels == 1:
        notes.append("its colours made grey")
    if not header.is_coloured and channels == 3:
        notes.append("grey, for a generator of colours")
    return tuple(notes)
