"""Samples as a browser draws them: pictures as addresses of data, anything else as numbers."""

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from latent_flows import plots
from latent_flows.plots.grids import rgb

SHARP = 256 * 256
"""Pixels up to which a picture is sent as it is; larger ones are compressed."""
MOST_NUMBERS = 2000
"""Numbers of a sample that are drawn."""


def pixels(
    samples: Float[np.ndarray, "..."], shape: tuple[int, ...]
) -> UInt8[np.ndarray, "n h w c"]:
    """Samples that are pictures, one after the other, in colours of 8 bits."""
    pictures = plots.sample_pictures(samples.reshape(-1, *shape), shape)
    found = rgb(np.asarray(pictures, np.float32), "samples", 4)
    return np.round(found * 255).astype(np.uint8)


def numbers(samples: Float[np.ndarray, "..."], shape: tuple[int, ...]) -> list[list[float]]:
    """Samples that are no pictures, each as a row of numbers, of a sequence channel by channel."""
    rows = samples.reshape(-1, *shape)
    rows = np.swapaxes(rows, -1, -2) if len(shape) == 2 else rows
    rows = rows.reshape(len(rows), -1)
    rows = rows[:, :: -(-rows.shape[1] // MOST_NUMBERS)]
    return [[round(float(value), 5) for value in row] for row in np.nan_to_num(rows)]


def image(colours: UInt8[np.ndarray, "h w c"]) -> str:
    """A picture as an address of data."""
    kind, content = _encoded(colours)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(colours: UInt8[np.ndarray, "h w c"]) -> bytes:
    """The content of a PNG file."""
    return _saved(colours, "PNG", compress_level=6)


def sheet(colours: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "h w2 c"]:
    """Pictures side by side, as one."""
    count, height, width, channels = colours.shape
    return colours.transpose(1, 0, 2, 3).reshape(height, count * width, channels)


def _encoded(colours: UInt8[np.ndarray, "h w c"]) -> tuple[str, bytes]:
    if colours.shape[0] * colours.shape[1] <= SHARP:
        return "png", _saved(colours, "PNG", compress_level=1)
    if max(colours.shape[:2]) < 16383:  # the most that the format has
        return "webp", _saved(colours, "WEBP", quality=92, method=0)
    return "jpeg", _saved(colours, "JPEG", quality=92)


def _saved(colours: UInt8[np.ndarray, "h w c"], kind: str, **settings: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, kind, **settings)
    return buffer.getvalue()
