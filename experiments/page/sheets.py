"""Frames as sprite sheets that a page holds itself."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

MOST_SIDE = 256
"""Pixels of a frame's longer side; larger ones are made smaller."""
SETTINGS = ((MOST_SIDE, 90), (MOST_SIDE, 70), (192, 70), (128, 70), (128, 40), (64, 40), (32, 40))
"""Longer side and quality, from the best on."""


class Sheets(NamedTuple):
    """Pictures of all frames, for each start and way to move one."""

    uris: list[list[str]]
    """`data:` addresses, by start and by way: the frames side by side."""
    size: tuple[int, int]
    """Width and height of a frame in pixels."""
    bytes: int
    """Of all of them."""


def sheets(pictures: Float[np.ndarray, "s m f h w 3"], most: int) -> Sheets:
    """Sprite sheets as good as fit into so many bytes.

    Args:
        pictures: in [0, 1].
        most: bytes of all.

    Returns:
        The sheets; of the last settings, the smallest, where none fit.

    >>> found = sheets(np.zeros((1, 2, 3, 8, 6, 3)), 10_000)
    >>> found.size, len(found.uris[0]), found.uris[0][0][:11]
    ((6, 8), 2, 'data:image/')
    """
    colours = np.round(255 * pictures).astype(np.uint8)
    encode = _encoder()
    for side, quality in SETTINGS:
        rows, size = [], (0, 0)
        for start in colours:
            made = [_sheet(frames, side) for frames in start]
            size = made[0][1]
            rows.append([_uri(encode(sheet, quality)) for sheet, _ in made])
        total = sum(len(uri) for row in rows for uri in row)
        found = Sheets(rows, size, total)
        if total <= most:
            break
    return found


def _sheet(
    frames: UInt8[np.ndarray, "f h w 3"], side: int
) -> tuple[UInt8[np.ndarray, "a b 3"], tuple[int, int]]:
    from PIL import Image

    height, width = frames.shape[1:3]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size != (width, height):
        how = Image.Resampling.LANCZOS
        frames = np.stack([np.asarray(Image.fromarray(f).resize(size, how)) for f in frames])
    return np.concatenate([*frames], axis=1), size


def _encoder() -> Callable[[np.ndarray, int], tuple[str, bytes]]:
    """WebP, which is many times smaller, where this build of Pillow writes it, or PNG."""
    from PIL import Image, features

    def encode(sheet: np.ndarray, quality: int) -> tuple[str, bytes]:
        file = io.BytesIO()
        image = Image.fromarray(sheet)
        # The format has a longest side.
        if features.check("webp") and max(image.size) <= 16383:
            image.save(file, "webp", quality=quality, method=4)
            return "webp", file.getvalue()
        image.save(file, "png", optimize=True)
        return "png", file.getvalue()

    return encode


def _uri(encoded: tuple[str, bytes]) -> str:
    kind, content = encoded
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
