"""Every figure that the experiments save.

Functions take plain arrays and return a `matplotlib.figure.Figure` that no global state knows of,
so they can be called from any thread and without a display; `png_bytes` turns one into a file's
contents. Colours can be told apart by colour-blind readers.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from latent_flows.typing import Latent, Potential

Images: TypeAlias = Array | np.ndarray
"""Pixels in [0, 1], channels last: one (grey) or three (RGB)."""

_BLUE, _ORANGE, _VERMILION = "#0072B2", "#E69F00", "#D55E00"
_COLOUR_MAP = "cividis"
_LINES: tuple[dict[str, Any], ...] = (
    {"color": _VERMILION, "linewidth": 1.8},
    {"color": "white", "linewidth": 1.2, "linestyle": "--"},
    {"color": _ORANGE, "linewidth": 1.4, "linestyle": ":"},
)
"""Families of curves, in their order."""
_ON_WHITE = (_VERMILION, "black", _BLUE)
"""Their colours on a white ground."""
_CLASSES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Classes of points, in their order, and round again."""
_SMALL, _MEDIUM = 9, 11  # points


def png_bytes(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as the contents of a PNG file, the same bytes for the same figure.

    Args:
      figure: any figure.
      dpi: pixels an inch.

    Returns:
      The bytes to write.

    >>> png_bytes(Figure())[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    # A tight box grows with what is drawn: long labels and captions are never cut off.
    figure.savefig(
        buffer,
        format="png",
        dpi=dpi,
        bbox_inches="tight",
        facecolor="white",
        metadata={"Software": None},
    )
    return buffer.getvalue()


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
      times: `[T]`, increasing; negative is along the reversed flow. The column nearest 0 is marked.
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
    pixels = _rgb(images, "images [K, T, H, W, C]", 5)
    times = np.asarray(times, dtype=float)
    _same_length("times", times, "columns of images", pixels.shape[1])
    _same_length("row_labels", row_labels, "rows of images", pixels.shape[0])
    figure, axes, centres_x, centres_y = _picture(pixels, cell=0.85)
    start = int(np.argmin(np.abs(times)))
    _outline_column(axes, pixels, start)
    axes.set_xticks(centres_x, [_number(t) for t in times])
    axes.get_xticklabels()[start].set(color=_VERMILION, fontweight="bold")
    axes.set_yticks(centres_y, [textwrap.fill(label, 24) for label in row_labels])
    axes.set_xlabel(axis, fontsize=_MEDIUM)
    _caption(figure, caption)
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
    pixels = _rgb(images, "images [N, H, W, C]", 4)
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    figure, axes, _, _ = _picture(_wrap(pixels, columns), cell=0.75)
    axes.set(xticks=[], yticks=[])
    _caption(figure, caption)
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
        _wrap(_rgb(x, f"{name} [N, H, W, C]", 4), columns)
        for name, x in {"originals": originals, "reconstructed": reconstructed}.items()
    )
    rows = np.stack([above, below], axis=1).reshape(-1, *above.shape[1:])
    figure, axes, _, centres_y = _picture(rows, cell=0.75)
    axes.set_xticks([])
    axes.set_yticks(centres_y, ["original", "decoded"] * len(above))
    _caption(figure, caption)
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
    pixels = _rgb(images, "images [K, T, H, W, C]", 5)
    count, length, height, width, _ = pixels.shape
    labels = [""] * count if row_labels is None else list(row_labels)
    _same_length("row_labels", labels, "rows of images", count)
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
        pen.rectangle((low, top, high, top + bar), fill=_VERMILION)
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


def loss_curves(rows: Sequence[Mapping[str, Any]], *, caption: str) -> Figure:
    """Every term of a loss against the step, each on an axis of its own.

    An axis is logarithmic when its values are positive and span more than a factor of five.
    Long curves are drawn faintly, with their running mean on top.

    Args:
      rows: dicts with `step` and numbers by name; other values are left out, and missing,
        `None` and non-finite numbers are gaps.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: no row holds a step and a number.

    >>> figure = loss_curves([{"step": i, "loss": 1 / (i + 1)} for i in range(9)], caption="Loss.")
    >>> figure.axes[0].get_title()
    'loss'
    """
    rows = [row for row in rows if _is_number(row.get("step"))]
    names = list(dict.fromkeys(k for row in rows for k, v in row.items() if _is_number(v)))
    names = [name for name in names if name != "step"]
    if not names:
        raise ValueError("no row holds a 'step' and a number to draw")
    columns = min(len(names), 3)
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(3.2 * columns, 5), 2.1 * lines + 0.3), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        kept = [(row["step"], row.get(name)) for row in rows if name in row]
        steps = np.array([step for step, _ in kept], dtype=float)
        values = np.array([v if _is_number(v) else np.nan for _, v in kept], dtype=float)
        values[~np.isfinite(values)] = np.nan
        _curve(axes, steps, values)
        axes.set_title(name, fontsize=_MEDIUM)
        axes.tick_params(labelsize=_SMALL)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for j in range(columns):  # the last axis in use of every column carries the steps
        lowest = grid[(len(names) - 1 - j) // columns, j]
        lowest.set_xlabel("step", fontsize=_SMALL)
        lowest.tick_params(labelbottom=True)
        lowest.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _caption(figure, caption)
    return figure


def landscape(
    potentials: Sequence[Potential],
    *,
    origin: Latent,
    basis: Float[Array, "2 d"],
    extent: float,
    times: Sequence[float],
    data: Float[Array, "n d"] | None = None,
    trajectories: Sequence[Float[Array, "m s d"]] | None = None,
    labels: Sequence[str] | None = None,
    resolution: int = 61,
    caption: str,
) -> Figure:
    r"""Potentials on a plane of the latent space, with their flow lines.

    The plane is :math:`z = o + a b_1 + b b_2`, :math:`|a|, |b| \le` `extent`; the lines follow
    the part of :math:`\nabla_z u` in the plane, in the coordinates `a` and `b`. With one time,
    every potential has a panel; with several, potentials are rows and times columns. A colour bar
    belongs to one potential, over all of its times.

    Args:
      potentials: callables `(t, z) -> u`.
      origin: `[d]`, the centre of the plane.
      basis: `[2, d]`, independent directions that span it.
      extent: half the side of the square that is drawn, in units of the directions.
      times: at which the potentials are drawn.
      data: points to show, projected to the plane.
      trajectories: for every potential, curves `[m, s, d]` to show, projected to the plane.
      labels: names of the potentials.
      resolution: points a side at which the potentials are evaluated.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: shapes or lengths do not agree, `basis` does not span a plane, or a potential
        is not finite on it.

    >>> import jax.numpy as jnp
    >>> bowl = lambda t, z: t * jnp.sum(z**2)
    >>> figure = landscape([bowl], origin=jnp.zeros(3), basis=jnp.eye(3)[:2], extent=2.0,
    ...                    times=[1.0], resolution=11, caption="A bowl.")
    """
    origin, basis = jnp.asarray(origin), jnp.asarray(basis)
    count, moments = len(potentials), len(times)
    labels = [f"potential {k}" for k in range(count)] if labels is None else labels
    _check_plane(origin, basis, extent)
    if not count or not moments:
        raise ValueError(f"need a potential and a time, got {count} and {moments}")
    _same_length("labels", labels, "potentials", count)
    if trajectories is not None:
        _same_length("trajectories", trajectories, "potentials", count)

    ticks = np.linspace(-extent, extent, resolution)
    values, fields = _evaluate(potentials, origin, basis, jnp.asarray(ticks), jnp.asarray(times))
    for k in range(count):
        if not np.isfinite(values[k]).all():
            raise ValueError(f"{labels[k]} is not finite everywhere on the plane")
    inverse = np.linalg.pinv(np.asarray(basis))

    def coordinates(z: Array | np.ndarray) -> np.ndarray:
        return (np.asarray(z) - np.asarray(origin)) @ inverse

    columns = moments if moments > 1 else min(count, math.ceil(math.sqrt(count + 1)))
    rows = math.ceil(count * moments / columns)
    figure = Figure(figsize=(3.3 * columns, 2.8 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[count * moments :]:
        axes.set_axis_off()
    for k in range(count):
        panels = grid.flat[k * moments : (k + 1) * moments]
        low, high = float(values[k].min()), float(values[k].max())
        flat = not high - low > 1e-6 * max(abs(low), abs(high))
        levels = np.linspace(low - 1e-3, high + 1e-3, 2) if flat else np.linspace(low, high, 16)
        for i, axes in enumerate(panels):
            filled = axes.contourf(ticks, ticks, values[k, i], levels=levels, cmap=_COLOUR_MAP)
            if data is not None:
                axes.plot(*coordinates(data).T, ".", color="black", markersize=2, alpha=0.35)
            _flow_lines(axes, ticks, fields[k, i])
            for path in () if trajectories is None else coordinates(trajectories[k]):
                _path(axes, path)
            axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
            axes.set_title(f"{labels[k]}, t = {_number(times[i])}", fontsize=_MEDIUM)
            axes.tick_params(labelsize=_SMALL)
        bar = figure.colorbar(filled, ax=list(panels), fraction=0.06, pad=0.02)
        bar.ax.tick_params(labelsize=_SMALL - 1)
        bar.set_label("u", fontsize=_SMALL, rotation=0)
        bar.locator = MaxNLocator(5)
        bar.update_ticks()
    for axes in grid[:, 0]:
        axes.set_ylabel("second direction", fontsize=_SMALL)
    for j in range(columns):
        lowest = grid[(count * moments - 1 - j) // columns, j]
        lowest.set_xlabel("first direction", fontsize=_SMALL)
        lowest.tick_params(labelbottom=True)
    _legend(figure, data is not None, trajectories is not None)
    _caption(figure, caption)
    return figure


def factor_matrix(
    matrix: Float[Array, "k f"] | np.ndarray,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    caption: str,
) -> Figure:
    """How the change along each flow is shared out over the factors.

    Args:
      matrix: `[K, F]`, a row for each flow, shares in [0, 1].
      row_labels: K names of the flows.
      column_labels: F names of the factors.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: shapes or lengths do not agree.

    >>> import numpy as np
    >>> figure = factor_matrix(np.eye(2), ["flow 0", "flow 1"], ["x", "y"], "Perfect.")
    """
    shares = np.asarray(matrix, dtype=float)
    if shares.ndim != 2:
        raise ValueError(f"matrix must be [K, F], got {shares.shape}")
    _same_length("row_labels", row_labels, "rows of matrix", shares.shape[0])
    _same_length("column_labels", column_labels, "columns of matrix", shares.shape[1])
    size = (max(0.95 * shares.shape[1] + 2.6, 5), 0.5 * shares.shape[0] + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap=_COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for (k, f), share in np.ndenumerate(shares):
        # Dark end of the map: white text; light end: black.
        colour = "black" if share > 0.5 else "white"
        axes.text(f, k, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=_MEDIUM)
    axes.set_xticks(range(shares.shape[1]), column_labels, fontsize=_MEDIUM)
    axes.set_yticks(range(shares.shape[0]), row_labels, fontsize=_MEDIUM)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="share of the change", fraction=0.06, pad=0.02)
    _caption(figure, caption)
    return figure


def latent_maps(
    functions: Sequence[Callable[[Latent], Any]],
    *,
    low: Sequence[float] | Array | np.ndarray,
    high: Sequence[float] | Array | np.ndarray,
    titles: Sequence[str],
    value: str,
    data: Float[Array, "n 2"] | np.ndarray | None = None,
    labels: Sequence[int] | Array | np.ndarray | None = None,
    curves: Sequence[Mapping[str, Float[Array, "m s 2"] | np.ndarray]] | None = None,
    resolution: int = 101,
    caption: str,
) -> Figure:
    """Functions on a latent space of two dimensions side by side, with data and curves.

    Each has a colour bar of its own, from the 1% to the 99% quantile of its finite values: what
    lies beyond has the colour of the end.

    Args:
      functions: `z -> scalar`, such as a log volume; NaN and infinities are left white.
      low: lower left corner, two numbers.
      high: upper right corner.
      titles: names of the functions.
      value: what the colours stand for.
      data: points to show on each.
      labels: classes of the points, a colour each.
      curves: for each function, families of curves by name. The first family is drawn in front
        with a solid line, the second with a dashed one, others dotted.
      resolution: points a side at which the functions are evaluated.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: shapes or lengths do not agree, or the corners are no corners.

    >>> import jax.numpy as jnp
    >>> figure = latent_maps([lambda z: z @ z], low=[-1, -1], high=[1, 1], titles=["bowl"],
    ...                      value="height", resolution=11, caption="A bowl.")
    """
    corners = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    if any(c.shape != (2,) for c in corners) or not (corners[0] < corners[1]).all():
        raise ValueError(f"low must lie below and left of high, two numbers each, got {corners}")
    _same_length("titles", titles, "functions", len(functions))
    curves = [{} for _ in functions] if curves is None else curves
    _same_length("curves", curves, "functions", len(functions))
    ticks = [np.linspace(a, b, resolution) for a, b in zip(*corners, strict=True)]
    plane = jnp.asarray(np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, 2), jnp.float32)
    values = [
        np.asarray(jax.jit(lambda z, f=f: jax.lax.map(f, z, batch_size=256))(plane), dtype=float)
        for f in functions
    ]
    width, height = corners[1] - corners[0]
    panel = 3.6 * min(max(height / width, 0.6), 1.6)
    figure = Figure(figsize=(4.4 * len(functions), panel + 0.6), layout="constrained")
    grid = figure.subplots(1, len(functions), sharex=True, sharey=True, squeeze=False)[0]
    for axes, title, raw, families in zip(grid, titles, values, curves, strict=True):
        found = np.where(np.isfinite(raw), raw, np.nan).reshape(resolution, resolution)
        known = found[np.isfinite(found)]
        ends = np.quantile(known, [0.01, 0.99]) if len(known) else (0, 1)
        drawn = axes.imshow(
            found,
            origin="lower",
            extent=(corners[0][0], corners[1][0], corners[0][1], corners[1][1]),
            vmin=ends[0],
            vmax=ends[1],
            cmap=_COLOUR_MAP,
            interpolation="bilinear",
        )
        if data is not None:
            _points(axes, np.asarray(data), labels)
        for (_, family), style in reversed([*zip(families.items(), _LINES, strict=False)]):
            for path in np.asarray(family):
                axes.plot(*path.T, color="black", linewidth=2.6, alpha=0.6)
                axes.plot(*path.T, **style)
        axes.set(xlim=(corners[0][0], corners[1][0]), ylim=(corners[0][1], corners[1][1]))
        axes.set_title(title, fontsize=_MEDIUM)
        axes.tick_params(labelsize=_SMALL)
        bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02, extend="both")
        bar.set_label(value, fontsize=_SMALL)
        bar.ax.tick_params(labelsize=_SMALL - 1)
    names = list(dict.fromkeys(name for families in curves for name in families))
    if names:
        handles = [
            Line2D([], [], label=name, **style) for name, style in zip(names, _LINES, strict=False)
        ]
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=3,
            fontsize=_SMALL,
            facecolor="#9A9A9A",
        )
    _caption(figure, caption)
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
    pixels = _rgb(images, "images [K, T, H, W, C]", 5)
    _same_length("row_labels", row_labels, "rows of images", pixels.shape[0])
    figure, axes, _, centres_y = _picture(pixels, cell=0.75)
    axes.set_xticks([])
    axes.set_yticks(centres_y, [textwrap.fill(label, 24) for label in row_labels])
    axes.set_xlabel(axis, fontsize=_MEDIUM)
    _caption(figure, caption)
    return figure


def space_curves(
    data: Float[Array, "n 3"] | np.ndarray,
    curves: Mapping[str, Float[Array, "m s 3"] | np.ndarray],
    *,
    caption: str,
) -> Figure:
    """Points and curves in space, from two sides.

    Args:
      data: the points.
      curves: families of curves by name; the first is drawn solid, the second dashed, others
        dotted.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: the points are not in three dimensions.

    >>> import numpy as np
    >>> line = np.linspace(0, 1, 5)[None, :, None] * np.ones(3)
    >>> figure = space_curves(np.eye(3), {"line": line}, caption="A line.")
    """
    points = np.asarray(data)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"data must be [n, 3], got {points.shape}")
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    styles = [{**style, "color": c} for style, c in zip(_LINES, _ON_WHITE, strict=True)]
    for place, (elevation, azimuth) in enumerate([(25, -60), (60, 30)], start=1):
        axes: Any = figure.add_subplot(1, 2, place, projection="3d")
        axes.plot(*points.T, ".", color="#9A9A9A", markersize=1.5, alpha=0.5)
        for family, style in zip(curves.values(), styles, strict=False):
            for path in np.asarray(family):
                axes.plot(*path.T, **style, zorder=10)
        axes.view_init(elevation, azimuth)
        axes.set_box_aspect(np.ptp(points, axis=0), zoom=1.15)
        axes.grid(False)
        axes.tick_params(labelsize=_SMALL - 2)
    handles = [
        Line2D([], [], label=name, **style) for name, style in zip(curves, styles, strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=_SMALL)
    _caption(figure, caption)
    return figure


def asked_against_measured(
    panels: Sequence[Mapping[str, Mapping[str, Sequence[float | None]]]],
    *,
    titles: Sequence[str],
    units: Sequence[str],
    trained: Sequence[float],
    caption: str,
) -> Figure:
    """What was asked of a factor and what it became, one panel a factor, a band a method.

    Args:
      panels: for each factor and each method of control, which must be the same for all and at
        most three: its `"amounts"`, increasing, and at each the `"mean"` and the `"deviation"` of
        what was measured; None where there is nothing.
      titles: names of the factors.
      units: in which each is measured.
      trained: the largest amount that each was trained on.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: lengths do not agree, or there are too many methods.

    >>> curve = {"amounts": [-1, 0, 1], "mean": [-0.9, 0, None], "deviation": [0.1, 0, None]}
    >>> figure = asked_against_measured([{"linear": curve}], titles=["x"], units=["widths"],
    ...                                 trained=[0.5], caption="One factor.")
    >>> figure.axes[0].get_xlabel()
    'asked (widths)'
    """
    for name, given in (("titles", titles), ("units", units), ("trained", trained)):
        _same_length(name, given, "panels", len(panels))
    names = list(dict.fromkeys(name for panel in panels for name in panel))
    if len(names) > len(_ON_WHITE):
        raise ValueError(f"at most {len(_ON_WHITE)} methods fit in a panel, got {len(names)}")
    figure = Figure(figsize=(3.6 * max(len(panels), 1) + 0.4, 4.0), layout="constrained")
    grid = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for axes, panel, title, unit, limit in zip(grid, panels, titles, units, trained, strict=False):
        ends = [0.0]
        for (name, curve), style, colour in zip(panel.items(), _LINES, _ON_WHITE, strict=False):
            asked, mean, deviation = (
                np.array(curve[part], dtype=float) for part in ("amounts", "mean", "deviation")
            )
            axes.fill_between(asked, mean - deviation, mean + deviation, color=colour, alpha=0.15)
            axes.plot(asked, mean, **{**style, "color": colour}, label=name)
            ends += [*asked]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#9A9A9A", linewidth=0.8)
        for side in (-limit, limit):
            axes.axvline(side, color="#9A9A9A", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=_MEDIUM)
        axes.set_xlabel(f"asked ({unit})", fontsize=_SMALL)
        axes.tick_params(labelsize=_SMALL)
    grid[0].set_ylabel("measured", fontsize=_SMALL)
    handles, shown = grid[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=3, fontsize=_SMALL)
    _caption(figure, caption)
    return figure


def dots(
    panels: Mapping[str, Sequence[Sequence[float]]], *, labels: Sequence[str], caption: str
) -> Figure:
    """Numbers of several rows side by side: each alone, and their mean with its deviation.

    Args:
      panels: for each measure, in its own panel, the numbers of each row, such as one a seed; of a
        row without numbers nothing is drawn.
      labels: names of the rows, from above.
      caption: what is seen.

    Returns:
      A figure.

    Raises:
      ValueError: not as many rows as labels, or no panel.

    >>> figure = dots({"share": [[0.5, 0.7], []]}, labels=["ours", "theirs"], caption="A measure.")
    >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
    ['ours', 'theirs']
    """
    if not panels:
        raise ValueError("there is nothing to draw: no panels")
    for rows in panels.values():
        _same_length("labels", labels, "rows", len(rows))
    figure = Figure(figsize=(2.8 + 2.6 * len(panels), 1.0 + 0.26 * len(labels)))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (name, rows) in zip(grid, panels.items(), strict=True):
        for place, numbers in enumerate(rows):
            if not numbers:
                continue
            deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0
            axes.plot(numbers, [place] * len(numbers), ".", color=_ORANGE, markersize=4)
            axes.errorbar(
                float(np.mean(numbers)), place, xerr=deviation, fmt="o", color=_BLUE, markersize=5
            )
        axes.set_title(name, fontsize=_MEDIUM)
        axes.grid(axis="x", color="#E0E0E0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=_SMALL)
    grid[0].set_yticks(range(len(labels)), labels=[*labels])
    grid[0].set_ylim(len(labels) - 0.5, -0.5)
    _caption(figure, caption)
    return figure


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _number(value: float) -> str:
    """A short number with a true minus sign and no negative zero."""
    return f"{float(value) + 0.0:.3g}".replace("-", "\N{MINUS SIGN}")


def _same_length(name: str, given: Any, what: str, count: int) -> None:
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} entries for {count} {what}")


def _rgb(images: Images, what: str, ndim: int) -> np.ndarray:
    """Images as NumPy in [0, 1] with three channels."""
    pixels = np.asarray(images)
    if pixels.ndim != ndim or pixels.shape[-1] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"{what} must have 1 or 3 channels, last, got shape {pixels.shape}")
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{what} must be floating-point in [0, 1], got {pixels.dtype}")
    pixels = np.clip(np.nan_to_num(pixels), 0, 1)
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
    axes.tick_params(length=0, labelsize=_MEDIUM)
    centres_x = np.arange(columns) * (width + gap) + (width - 1) / 2
    centres_y = np.arange(rows) * (height + gap) + (height - 1) / 2
    return figure, axes, centres_x, centres_y


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
            edgecolor=_VERMILION,
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


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    known = values[np.isfinite(values)]
    if len(known) and known.min() > 0 and known.max() > 5 * known.min():
        axes.set_yscale("log")
    window = len(values) // 25
    if window < 2:
        axes.plot(steps, values, color=_BLUE, linewidth=1.5, marker="." if len(known) < 3 else "")
        return
    axes.plot(steps, values, color=_BLUE, linewidth=0.6, alpha=0.35)
    # A mean over the numbers that are there, so that a gap does not spread.
    ones = np.ones(window)
    there = np.convolve(np.isfinite(values), ones, "same")
    total = np.convolve(np.nan_to_num(values), ones, "same")
    mean = np.where(there > 0, total / np.maximum(there, 1), np.nan)
    axes.plot(steps, mean, color=_BLUE, linewidth=1.6)


def _check_plane(origin: Array, basis: Array, extent: float) -> None:
    if origin.ndim != 1 or basis.shape != (2, *origin.shape):
        raise ValueError(
            f"origin must be [d] and basis [2, d], got {origin.shape} and {basis.shape}"
        )
    if np.linalg.matrix_rank(np.asarray(basis)) < 2:
        raise ValueError("the two directions of basis must be independent")
    if not extent > 0:
        raise ValueError(f"extent must be positive, got {extent}")


def _evaluate(
    potentials: Sequence[Callable],
    origin: Array,
    basis: Array,
    ticks: Array,
    times: Array,
) -> tuple[np.ndarray, np.ndarray]:
    """Values `[K, T, R, R]` and in-plane gradients `[K, T, R, R, 2]`, in one compiled call."""
    a, b = jnp.meshgrid(ticks, ticks)  # as contourf has it: the second coordinate goes down rows
    plane = jnp.stack([a, b], axis=-1).astype(origin.dtype)
    points = (origin + plane @ basis).reshape(-1, len(origin))
    project = jnp.linalg.pinv(basis)

    def everywhere(potential: Callable) -> tuple[Array, Array]:
        at_points = jax.vmap(jax.value_and_grad(potential, argnums=1), in_axes=(None, 0))
        value, slope = jax.vmap(at_points, in_axes=(0, None))(times.astype(origin.dtype), points)
        shape = (len(times), *a.shape)
        return value.reshape(shape), (slope @ project).reshape(*shape, 2)

    values, fields = zip(*jax.jit(lambda: [everywhere(u) for u in potentials])(), strict=True)
    return np.stack(values), np.stack(fields)


def _flow_lines(axes: Axes, ticks: np.ndarray, field: np.ndarray) -> None:
    if np.abs(field).max() > 0:  # a potential at rest has no lines
        axes.streamplot(
            ticks,
            ticks,
            field[..., 0],
            field[..., 1],
            color=(1, 1, 1, 0.75),
            density=0.8,
            linewidth=0.8,
            arrowsize=0.8,
        )


def _path(axes: Axes, path: np.ndarray) -> None:
    axes.plot(*path.T, color="white", linewidth=3.2)  # a rim that shows on every colour
    axes.plot(*path.T, color=_VERMILION, linewidth=1.8)
    axes.plot(*path[0], "o", color=_VERMILION, markersize=5, mec="white")


def _points(axes: Axes, points: np.ndarray, labels: Any | None) -> None:
    if labels is None:
        axes.plot(*points.T, ".", color="white", markersize=2, alpha=0.5)
        return
    classes = np.unique(np.asarray(labels))
    colours = [_CLASSES[i % len(_CLASSES)] for i in np.searchsorted(classes, labels)]
    axes.scatter(points[:, 0], points[:, 1], c=colours, s=6, alpha=0.8, linewidths=0)


def _legend(figure: Figure, has_data: bool, has_trajectories: bool) -> None:
    def line(**style: Any) -> Line2D:
        return Line2D([], [], **style)

    handles = [line(color="white", linewidth=1.5, label="flow lines")]
    if has_data:
        handles.append(line(color="black", marker=".", linestyle="", label="data"))
    if has_trajectories:
        handles.append(
            line(color=_VERMILION, marker="o", linewidth=1.8, label="trajectories, from the dot")
        )
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=3,
        fontsize=_SMALL,
        facecolor="#9A9A9A",
        labelcolor="black",
    )


def _caption(figure: Figure, text: str) -> None:
    """Text under the figure, wrapped to its width; the figure grows to hold it."""
    if not text:
        return
    lines = textwrap.wrap(text, width=int(13.5 * figure.get_figwidth()))
    size = _MEDIUM - 1
    spacing = 1.3
    figure.supxlabel("\n".join(lines), fontsize=size, x=0.02, ha="left", linespacing=spacing)
    points_per_inch = 72
    figure.set_figheight(figure.get_figheight() + len(lines) * size * spacing / points_per_inch)
