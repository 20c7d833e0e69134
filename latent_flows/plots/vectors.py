"""Samples that are no images: rows of numbers as lines or bars, and anything as small pictures."""

import math
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latent_flows.plots.style import (
    BLUE,
    COLOUR_MAP,
    MEDIUM,
    SMALL,
    same_length,
    write_caption,
)

__all__ = ["are_pictures", "how_drawn", "sample_pictures", "vector_traversals"]

BARS = 12
"""Numbers of a sample up to which each is a bar, and not a point of a line."""
NAMED = BARS
"""Numbers of a sample, at most, whose names are written."""
STILL = 0.01
"""Share of the greatest change up to which a number is taken to stand still."""
SIZE = 96, 144
"""Pixels of the small picture of a row of numbers: height and width."""
FINER = 4
"""Times finer that it is drawn first."""


def are_pictures(event_shape: Sequence[int]) -> bool:
    """Whether samples of a shape are looked at as pictures `[h, w, c]`, and not as rows of numbers.

    Args:
        event_shape: of a sample.

    Returns:
        True for three axes, however many channels.

    >>> are_pictures((28, 28, 1)), are_pictures((8, 9, 5)), are_pictures((2000,))
    (True, True, False)
    """
    return len(event_shape) == 3


def how_drawn(event_shape: Sequence[int]) -> str:
    """What a caption should add of samples of a shape: how they are drawn; nothing of grey or RGB.

    Args:
        event_shape: of a sample.

    Returns:
        A sentence, or nothing.

    >>> how_drawn((28, 28, 1))
    ''
    >>> how_drawn((28, 28, 5))
    'Images show the mean of their 5 channels, the lowest in black, the highest in white.'
    """
    if are_pictures(event_shape):
        if event_shape[2] in (1, 3, 4):
            return ""
        return (
            f"Images show the mean of their {event_shape[2]} channels, the lowest in black, the "
            "highest in white."
        )
    if len(event_shape) == 2:
        length, channels = event_shape
        return f"The {length} numbers of each of {channels} channels follow one another."
    if len(event_shape) > 2:
        return f"The numbers of samples of shape {tuple(event_shape)} follow one another."
    return ""


def sample_pictures(
    samples: Float[np.ndarray, "..."], event_shape: Sequence[int]
) -> Float[np.ndarray, "... h w c"]:
    """Pictures of samples of any shape, for what draws images.

    Grey and coloured images are as they are; of those with other channels the mean is taken, and
    brought to [0, 1] all together. Anything else is drawn as a line of its numbers from left to
    right, or as bars where there are few, on one scale.

    Args:
        samples: `[..., *event_shape]`.
        event_shape: of one sample.

    Returns:
        `[..., h, w, c]` in [0, 1], if images are.

    Raises:
        ValueError: they have not that shape.

    >>> sample_pictures(np.zeros((2, 8, 8, 5)), (8, 8, 5)).shape
    (2, 8, 8, 1)
    >>> sample_pictures(np.zeros((2, 3, 7)), (7,)).shape
    (2, 3, 96, 144, 3)
    """
    rank = len(event_shape)
    lead = np.shape(samples)[: np.ndim(samples) - rank]
    if np.shape(samples) != (*lead, *event_shape):
        raise ValueError(
            f"samples must have shape [..., {', '.join(map(str, event_shape))}], got "
            f"{np.shape(samples)}"
        )
    if are_pictures(event_shape):
        if event_shape[2] in (1, 3, 4):
            return samples
        means = samples.mean(-1, keepdims=True)
        low, high = _range(means)
        return (means - low) / (high - low)
    rows = _rows_of_numbers(samples, rank).reshape(-1, math.prod(event_shape))
    low, high = _range(rows)
    if rows.shape[1] <= BARS:
        low, high = min(low, 0.0), max(high, 0.0)
    drawn = np.stack([_picture(row, low, high) for row in np.nan_to_num(rows)])
    return drawn.reshape(*lead, *drawn.shape[1:])


def vector_traversals(
    samples: Float[Array | np.ndarray, "k t ..."],
    *,
    places: Float[Array | np.ndarray, "t"] | Sequence[float],
    row_labels: Sequence[str],
    axis: str = "time",
    caption: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """One row a path: its samples as lines of their numbers, or bars, and their change.

    The change is from the sample whose place is nearest to 0, which is drawn in black; colours say
    where along the path each of the others is.

    Args:
        samples: `[K, T, ...]`, of any event shape.
        places: `[T]`, along the paths, increasing.
        row_labels: K names of the paths.
        axis: what the places are.
        caption: what is seen.
        names: of the numbers of a sample; of many, those that change most are named.

    Returns:
        A figure.

    Raises:
        ValueError: lengths do not agree, or there are no numbers to draw.

    >>> steps = np.linspace(0, 1, 5)[None, :, None] * np.ones((2, 1, 30))
    >>> figure = vector_traversals(steps, places=range(5), row_labels="ab", caption="Two paths.")
    >>> [axes.get_title() for axes in figure.axes[:2]]
    ['samples', 'change']
    """
    values = np.asarray(samples, dtype=float)
    if values.ndim < 2 or not values.size:
        raise ValueError(f"samples must be [K, T, ...], got shape {values.shape}")
    count, length = values.shape[:2]
    same_length("row_labels", row_labels, "rows of samples", count)
    same_length("places", places, "columns of samples", length)
    where = np.asarray(places, dtype=float)
    rows = _rows_of_numbers(values, values.ndim - 2).reshape(count, length, -1)
    start = int(np.argmin(np.abs(where)))
    if names:
        same_length("names", names, "numbers of a sample", rows.shape[2])
    shown = {"samples": rows, "change": rows - rows[:, start : start + 1]}
    norm = Normalize(where.min(), where.max() if length > 1 else where.min() + 1)
    colours = matplotlib.colormaps[COLOUR_MAP](norm(where))
    figure = Figure(figsize=(10, 1.6 * count + 0.6), layout="constrained")
    grid = figure.subplots(count, 2, squeeze=False, sharex=True, sharey="col")
    for k, (line, label) in enumerate(zip(grid, row_labels, strict=True)):
        for axes, (title, of) in zip(line, shown.items(), strict=True):
            draw = _bars if rows.shape[2] <= BARS else _lines
            draw(axes, of[k], colours, start)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=SMALL)
            if k == 0:
                axes.set_title(title, fontsize=MEDIUM)
            if k == count - 1:
                _name_numbers(axes, names, shown["change"])
        line[0].set_ylabel(textwrap.fill(label, 18), fontsize=SMALL)
    bar = figure.colorbar(
        ScalarMappable(norm, COLOUR_MAP), ax=list(grid.flat), label=axis, fraction=0.03, pad=0.01
    )
    bar.ax.tick_params(labelsize=SMALL)
    write_caption(figure, caption)
    return figure


def _name_numbers(axes: Axes, names: Sequence[str], change: Float[np.ndarray, "k t n"]) -> None:
    """Ticks of the numbers of a sample, or the names of those that change most."""
    if not names:
        axes.set_xlabel("number of the sample", fontsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        return
    most = np.nan_to_num(np.abs(change)).max((0, 1))
    # So far from one another that they can be read.
    apart = len(names) / 16
    chosen: list[int] = []
    for i in np.argsort(-most, kind="stable"):
        seen = len(names) <= NAMED or most[i] > STILL * most.max()
        if seen and len(chosen) < NAMED and all(abs(i - j) >= apart for j in chosen):
            chosen.append(int(i))
    labels = [textwrap.shorten(names[i], 16, placeholder="…") or names[i][:16] for i in chosen]
    axes.set_xticks(chosen, labels, rotation=35, ha="right", fontsize=SMALL)
    if len(chosen) < len(names):
        axes.set_xlabel("numbers of the sample, named where they change most", fontsize=SMALL)


def _lines(
    axes: Axes, rows: Float[np.ndarray, "t n"], colours: Float[np.ndarray, "t 4"], start: int
) -> None:
    # Thinner the more numbers there are, so that each is seen.
    width = 1.0 if rows.shape[1] < 200 else 0.5
    for i in [*(i for i in range(len(rows)) if i != start), start]:
        own = {"color": "black", "zorder": 3} if i == start else {"color": colours[i]}
        axes.plot(rows[i], linewidth=width, **own)
    axes.margins(x=0.01)


def _bars(
    axes: Axes, rows: Float[np.ndarray, "t n"], colours: Float[np.ndarray, "t 4"], start: int
) -> None:
    steps, count = rows.shape
    width = 0.8 / steps
    for i, row in enumerate(rows):
        offset = (i - (steps - 1) / 2) * width
        colour = "black" if i == start else colours[i]
        axes.bar(np.arange(count) + offset, row, width, color=colour)
    axes.axhline(0.0, color="#9A9A9A", linewidth=0.6)


def _rows_of_numbers(samples: Float[np.ndarray, "..."], rank: int) -> Float[np.ndarray, "..."]:
    """Samples as rows; of a sequence `[t, c]` one channel after the other."""
    if rank == 2:
        samples = np.swapaxes(samples, -1, -2)
    return samples.reshape(*samples.shape[: samples.ndim - rank], -1)


def _range(values: Float[np.ndarray, "..."]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return low, high if high > low else low + 1.0


def _picture(row: Float[np.ndarray, "n"], low: float, high: float) -> Float[np.ndarray, "h w 3"]:
    """A row of numbers between two levels, as pixels."""
    from PIL import Image, ImageColor, ImageDraw

    height, width = (FINER * side for side in SIZE)
    image = Image.new("RGB", (width, height), "#F4F4F4")
    pen = ImageDraw.Draw(image)
    margin = 3 * FINER

    def level(value: float) -> float:
        share = (value - low) / (high - low)
        return height - margin - share * (height - 2 * margin)

    inner = width - 2 * margin
    if low <= 0 <= high:
        pen.line((0, level(0.0), width, level(0.0)), fill="#B0B0B0", width=FINER // 2)
    colour = ImageColor.getrgb(BLUE)
    if len(row) <= BARS:
        step = inner / len(row)
        for i, value in enumerate(row):
            left = margin + (i + 0.15) * step
            ends = sorted((level(float(value)), level(0.0)))
            pen.rectangle((left, ends[0], left + 0.7 * step, ends[1]), fill=colour)
    else:
        xs = margin + inner * np.linspace(0, 1, len(row))
        points = [(float(x), level(float(value))) for x, value in zip(xs, row, strict=True)]
        pen.line(points, fill=colour, width=FINER if len(row) < 200 else 3 * FINER // 4)
    small = image.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255
