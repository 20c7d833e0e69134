"""Rows and columns of images, still and moving."""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from latent_flows.plots.style import MEDIUM, VERMILION, Images, number, same_length, write_caption

__all__ = [
    "check_drawable",
    "reconstructions",
    "rgb",
    "samples_grid",
    "strips",
    "traversal_gif",
    "traversal_grid",
]


def traversal_grid(
    images: Images,  # [K, T, H, W, C]
    *,
    times: Sequence[float] | Array | np.ndarray,
    row_labels: Sequence[str],
    axis: str = "time along the flow",
    caption: str,
) -> Figure:
    """Flows as rows, time as columns, the image that each flow starts from marked.

    Args:
        images: `[K, T, H, W, C]` in [0, 1].
        times: `[T]`, increasing; negative is along the reversed flow. The column nearest 0 is
            marked.
        row_labels: K names of the flows.
        axis: what changes from left to right.
        caption: what is seen.

    Returns:
        A figure.

    Raises:
        ValueError: shapes or lengths do not agree.

    >>> import numpy as np
    >>> images = np.zeros((2, 3, 8, 8, 1))
    >>> figure = traversal_grid(images, times=[-1, 0, 1], row_labels="xy", caption="Two flows.")
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['x', 'y']
    """
    pixels = rgb(images, "images [K, T, H, W, C]", 5)
    times = np.asarray(times, dtype=float)
    same_length("times", times, "columns of images", pixels.shape[1])
    figure, axes, centres_x = _rows(pixels, row_labels, axis, cell=0.85)
    start = int(np.argmin(np.abs(times)))
    _outline_column(axes, pixels, start)
    axes.set_xticks(centres_x, [number(t) for t in times])
    axes.get_xticklabels()[start].set(color=VERMILION, fontweight="bold")
    write_caption(figure, caption)
    return figure


def samples_grid(images: Images, *, columns: int | None = None, caption: str = "") -> Figure:
    """Images in rows, about as many rows as columns.

    Args:
        images: `[N, H, W, C]` in [0, 1].
        columns: images a row.
        caption: what is seen.

    Returns:
        A figure.

    Raises:
        ValueError: the shape is wrong.

    >>> import numpy as np
    >>> figure = samples_grid(np.zeros((7, 8, 8, 3)), caption="Seven samples.")
    """
    pixels = rgb(images, "images [N, H, W, C]", 4)
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    figure, axes, _, _ = _picture(_wrap(pixels, columns), cell=0.75)
    axes.set(xticks=[], yticks=[])
    write_caption(figure, caption)
    return figure


def reconstructions(originals: Images, reconstructed: Images, caption: str) -> Figure:
    """Originals above their reconstructions, at most twelve pairs a row.

    Args:
        originals: `[N, H, W, C]` in [0, 1].
        reconstructed: the same shape.
        caption: what is seen.

    Returns:
        A figure.

    Raises:
        ValueError: the shapes are wrong or differ.

    >>> import numpy as np
    >>> figure = reconstructions(np.zeros((5, 8, 8, 1)), np.ones((5, 8, 8, 1)), "Five pairs.")
    """
    if np.shape(originals) != np.shape(reconstructed):
        raise ValueError(
            "originals and reconstructed must have one shape, "
            f"got {np.shape(originals)} and {np.shape(reconstructed)}"
        )
    columns = min(len(originals), 12)
    above, below = (
        _wrap(rgb(x, f"{name} [N, H, W, C]", 4), columns)
        for name, x in {"originals": originals, "reconstructed": reconstructed}.items()
    )
    rows = np.stack([above, below], axis=1).reshape(-1, *above.shape[1:])
    figure, axes, _, centres_y = _picture(rows, cell=0.75)
    axes.set_xticks([])
    axes.set_yticks(centres_y, ["original", "decoded"] * len(above))
    write_caption(figure, caption)
    return figure


def strips(
    images: Images,  # [K, T, H, W, C]
    *,
    row_labels: Sequence[str],
    axis: str = "",
    caption: str,
) -> Figure:
    """Sequences of images, one a row, without any marked.

    Args:
        images: `[K, T, H, W, C]` in [0, 1].
        row_labels: K names of the sequences.
        axis: what changes from left to right.
        caption: what is seen.

    Returns:
        A figure.

    Raises:
        ValueError: shapes or lengths do not agree.

    >>> import numpy as np
    >>> figure = strips(np.zeros((1, 3, 8, 8, 1)), row_labels=["a"], caption="One row.")
    """
    pixels = rgb(images, "images [K, T, H, W, C]", 5)
    figure, axes, _ = _rows(pixels, row_labels, axis, cell=0.75)
    axes.set_xticks([])
    write_caption(figure, caption)
    return figure


def traversal_gif(
    images: Images,  # [K, T, H, W, C]
    *,
    row_labels: Sequence[str] | None = None,
    fps: float = 12,
) -> bytes:
    """All flows side by side, moving to the end and back for ever.

    A bar under the images shows where in time they are. Small images are enlarged: below 16
    pixels a side with visible pixels, else smoothly.

    Args:
        images: `[K, T, H, W, C]` in [0, 1].
        row_labels: K names of the flows, written under each.
        fps: images a second.

    Returns:
        The contents of a GIF file.

    Raises:
        ValueError: the shape is wrong, the labels are not K, or `fps` is not positive.

    >>> import numpy as np
    >>> traversal_gif(np.zeros((2, 3, 8, 8, 1)))[:6]
    b'GIF89a'
    """

    from PIL import Image, ImageDraw, ImageFont

    pixels = rgb(images, "images [K, T, H, W, C]", 5)
    count, length, height, width, _ = pixels.shape
    labels = [""] * count if row_labels is None else list(row_labels)
    same_length("row_labels", labels, "rows of images", count)
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    scale = max(1, round(144 / max(height, width)))
    size = (width * scale, height * scale)
    sampling = Image.Resampling.NEAREST if min(height, width) < 16 else Image.Resampling.BICUBIC
    colours = np.round(pixels * 255).astype(np.uint8)
    big = [[Image.fromarray(frame).resize(size, sampling) for frame in row] for row in colours]

    font = ImageFont.load_default(size=15)
    lines = [_fit_text(label, font, size[0]) for label in labels]
    text_height = 20 * max(len(words) for words in lines)
    columns, gap, bar = min(count, 6), 8, 6
    rows = math.ceil(count / columns)
    cell = (size[0] + gap, size[1] + text_height + gap)
    canvas = (columns * cell[0] + gap, rows * cell[1] + 2 * gap + bar)

    def draw(t: int) -> Image.Image:
        frame = Image.new("RGB", canvas, "white")
        pen = ImageDraw.Draw(frame)
        for k in range(count):
            x, y = gap + k % columns * cell[0], gap + k // columns * cell[1]
            frame.paste(big[k][t], (x, y))
            for i, line in enumerate(lines[k]):
                middle = (x + size[0] / 2, y + size[1] + 3 + 20 * i)
                pen.text(middle, line, fill="black", font=font, anchor="ma")
        left, right, top = gap, canvas[0] - gap, canvas[1] - gap - bar
        pen.rectangle((left, top, right, top + bar), fill="#DDDDDD")
        middle = left + (right - left) * t / max(length - 1, 1)
        low, high = max(left, middle - 12), min(right, middle + 12)
        pen.rectangle((low, top, high, top + bar), fill=VERMILION)
        return frame

    there = [draw(t) for t in range(length)]
    frames = there + there[-2:0:-1]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        # GIF counts hundredths of a second, and viewers slow down anything below two.
        duration=max(20, round(100 / fps) * 10),
        loop=0,
    )
    return buffer.getvalue()


def check_drawable(shape: Sequence[int], what: str = "images") -> None:
    """Checks that images can be drawn: grey, or colour with an alpha channel or without.

    Args:
        shape: of one image, or of several; channels last.
        what: how to call them in the message.

    Raises:
        ValueError: for another number of channels, or none.

    >>> check_drawable((32, 28, 4))
    >>> check_drawable((32, 28, 5))
    Traceback (most recent call last):
    ...
    ValueError: images must have 1 or 3 channels, last, or 4 with alpha, got shape (32, 28, 5)
    """
    if shape[-1] not in (1, 3, 4) or 0 in shape:
        raise ValueError(
            f"{what} must have 1 or 3 channels, last, or 4 with alpha, got shape {tuple(shape)}"
        )


def rgb(images: Images, what: str, ndim: int) -> np.ndarray:
    """Images as NumPy in [0, 1] with three channels, on white where they are transparent.

    Args:
        images: grey, in colour, or in colour with alpha.
        what: what they are called in an error.
        ndim: how many axes they must have.

    Returns:
        The images, their last axis of length 3.
    """
    pixels = np.asarray(images)
    if pixels.ndim != ndim:
        raise ValueError(f"{what} must have {ndim} axes, got shape {pixels.shape}")
    check_drawable(pixels.shape, what)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{what} must be floating-point in [0, 1], got {pixels.dtype}")
    pixels = np.clip(np.nan_to_num(pixels), 0, 1)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., -1:]
        pixels = alpha * pixels[..., :-1] + (1 - alpha)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def _wrap(images: np.ndarray, columns: int) -> np.ndarray:
    """`[N, ...]` as `[rows, columns, ...]`, filled up with white."""
    missing = -len(images) % columns
    white = np.ones((missing, *images.shape[1:]))
    return np.concatenate([images, white]).reshape(-1, columns, *images.shape[1:])


def _gap(height: int, width: int) -> int:
    return max(1, round(max(height, width) / 16))


def _picture(images: np.ndarray, *, cell: float) -> tuple[Figure, Axes, np.ndarray, np.ndarray]:
    """`[R, C, H, W, 3]` as one picture of cells of `cell` inches, and the cells' centres.

    One axis for all of the images: fifty axes take seconds to lay out.
    """
    rows, columns, height, width, _ = images.shape
    gap = _gap(height, width)
    padded = np.pad(images, [(0, 0)] * 2 + [(0, gap)] * 2 + [(0, 0)], constant_values=1)
    mosaic = padded.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), 3)
    mosaic = mosaic[:-gap, :-gap]
    inches = max(columns * cell, 4.0), rows * cell * height / width
    figure = Figure(figsize=(inches[0] + 1.2, inches[1] + 0.7), layout="constrained")
    axes = figure.subplots()
    axes.imshow(mosaic, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=MEDIUM)
    centres_x = np.arange(columns) * (width + gap) + (width - 1) / 2
    centres_y = np.arange(rows) * (height + gap) + (height - 1) / 2
    return figure, axes, centres_x, centres_y


def _rows(
    images: np.ndarray, row_labels: Sequence[str], axis: str, *, cell: float
) -> tuple[Figure, Axes, np.ndarray]:
    """A picture of rows with a name each, and the centres of its columns."""
    same_length("row_labels", row_labels, "rows of images", images.shape[0])
    figure, axes, centres_x, centres_y = _picture(images, cell=cell)
    axes.set_yticks(centres_y, [textwrap.fill(label, 24) for label in row_labels])
    axes.set_xlabel(axis, fontsize=MEDIUM)
    return figure, axes, centres_x


def _outline_column(axes: Axes, images: np.ndarray, column: int) -> None:
    rows, _, height, width, _ = images.shape
    gap = _gap(height, width)
    corner = (column * (width + gap) - 0.5 - gap / 2, -0.5 - gap / 2)
    axes.add_patch(
        Rectangle(
            corner,
            width + gap,
            rows * (height + gap),
            fill=False,
            edgecolor=VERMILION,
            linewidth=2.5,
            clip_on=False,
        )
    )


def _fit_text(text: str, font: Any, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a word that is too long is shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        short = word
        while font.getlength(short) > width:
            short = short.removesuffix("…")[:-1] + "…"
        lines.append(short)
    return lines
