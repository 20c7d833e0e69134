"""Curves, dots and matrices of numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from latent_flows.plots.style import (
    BLUE,
    CLASSES,
    COLOUR_MAP,
    FORMS,
    LINES,
    MEDIUM,
    ON_WHITE,
    ORANGE,
    SMALL,
    YELLOW,
    is_number,
    same_length,
    write_caption,
)

__all__ = [
    "asked_against_measured",
    "dots",
    "factor_matrix",
    "loss_curves",
    "scatter",
    "vector_reconstructions",
]


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
    rows = [row for row in rows if is_number(row.get("step"))]
    names = list(dict.fromkeys(k for row in rows for k, v in row.items() if is_number(v)))
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
        values = np.array([v if is_number(v) else np.nan for _, v in kept], dtype=float)
        values[~np.isfinite(values)] = np.nan
        _curve(axes, steps, values)
        axes.set_title(name, fontsize=MEDIUM)
        axes.tick_params(labelsize=SMALL)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for j in range(columns):  # the last axis in use of every column carries the steps
        lowest = grid[(len(names) - 1 - j) // columns, j]
        lowest.set_xlabel("step", fontsize=SMALL)
        lowest.tick_params(labelbottom=True)
        lowest.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    write_caption(figure, caption)
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
    same_length("row_labels", row_labels, "rows of matrix", shares.shape[0])
    same_length("column_labels", column_labels, "columns of matrix", shares.shape[1])
    size = (max(0.95 * shares.shape[1] + 2.6, 5), 0.5 * shares.shape[0] + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap=COLOUR_MAP, vmin=0, vmax=1, aspect="auto")
    for (k, f), share in np.ndenumerate(shares):
        # Dark end of the map: white text; light end: black.
        colour = "black" if share > 0.5 else "white"
        axes.text(f, k, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=MEDIUM)
    axes.set_xticks(range(shares.shape[1]), column_labels, fontsize=MEDIUM)
    axes.set_yticks(range(shares.shape[0]), row_labels, fontsize=MEDIUM)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="share of the change", fraction=0.06, pad=0.02)
    write_caption(figure, caption)
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
            most three: its `"amounts"`, increasing, and at each the `"mean"` and the `"deviation"`
            of what was measured; None where there is nothing.
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
        same_length(name, given, "panels", len(panels))
    names = list(dict.fromkeys(name for panel in panels for name in panel))
    if len(names) > len(ON_WHITE):
        raise ValueError(f"at most {len(ON_WHITE)} methods fit in a panel, got {len(names)}")
    figure = Figure(figsize=(3.6 * max(len(panels), 1) + 0.4, 4.0), layout="constrained")
    grid = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for axes, panel, title, unit, limit in zip(grid, panels, titles, units, trained, strict=False):
        ends = [0.0]
        for (name, curve), style, colour in zip(panel.items(), LINES, ON_WHITE, strict=False):
            asked, mean, deviation = (
                np.array(curve[part], dtype=float) for part in ("amounts", "mean", "deviation")
            )
            axes.fill_between(asked, mean - deviation, mean + deviation, color=colour, alpha=0.15)
            axes.plot(asked, mean, **{**style, "color": colour}, label=name)
            ends += [*asked]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#9A9A9A", linewidth=0.8)
        for side in (-limit, limit):
            axes.axvline(side, color="#9A9A9A", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=MEDIUM)
        axes.set_xlabel(f"asked ({unit})", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
    grid[0].set_ylabel("measured", fontsize=SMALL)
    handles, shown = grid[0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=3, fontsize=SMALL)
    write_caption(figure, caption)
    return figure


def dots(
    panels: Mapping[str, Sequence[Sequence[float]]],
    *,
    labels: Sequence[str],
    caption: str,
    one_scale: bool = False,
) -> Figure:
    """Numbers of several rows side by side: each alone, and their mean with its deviation.

    Args:
        panels: for each measure, in its own panel, the numbers of each row, such as one a seed; of
            a row without numbers nothing is drawn.
        labels: names of the rows, from above.
        caption: what is seen.
        one_scale: whether all panels are of one measure, on one scale.

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
        same_length("labels", labels, "rows", len(rows))
    figure = Figure(figsize=(2.8 + 2.6 * len(panels), 1.0 + 0.26 * len(labels)))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=one_scale, sharey=True)[0]
    for axes, (name, rows) in zip(grid, panels.items(), strict=True):
        for place, numbers in enumerate(rows):
            if not numbers:
                continue
            deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0
            axes.plot(numbers, [place] * len(numbers), ".", color=ORANGE, markersize=4)
            axes.errorbar(
                float(np.mean(numbers)), place, xerr=deviation, fmt="o", color=BLUE, markersize=5
            )
        axes.set_title(name, fontsize=MEDIUM)
        axes.grid(axis="x", color="#E0E0E0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=SMALL)
    grid[0].set_yticks(range(len(labels)), labels=[*labels])
    grid[0].set_ylim(len(labels) - 0.5, -0.5)
    write_caption(figure, caption)
    return figure


def scatter(
    points: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    *,
    x: str,
    y: str,
    caption: str,
) -> Figure:
    """A measure of several methods against another number, such as one of what they are used on.

    Args:
        points: of each method, at most seven, the points `(x, y)` by the kind they are of, at most
            seven too, such as one a seed of a kind of generator. They are drawn small, and their
            mean large: methods by colour, kinds by form.
        x: name of what the measure may depend on.
        y: name of the measure.
        caption: what is seen.

    Returns:
        A figure.

    Raises:
        ValueError: there is nothing to draw, or more than can be told apart.

    >>> ours = {"straight": [(0.9, 0.8), (0.8, 0.9)], "folded": [(0.4, 0.7)]}
    >>> figure = scatter({"ours": ours}, x="R2", y="share", caption="One method.")
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['ours', 'straight', 'folded']
    """
    kinds = [*dict.fromkeys(kind for own in points.values() for kind, at in own.items() if at)]
    if not kinds:
        raise ValueError("there is nothing to draw: no points")
    colours = [colour for colour in CLASSES if colour != YELLOW]
    for what, named, most in (("methods", points, colours), ("kinds", kinds, FORMS)):
        if len(named) > len(most):
            raise ValueError(f"at most {len(most)} {what} can be told apart, got {len(named)}")
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for colour, (name, own) in zip(colours, points.items(), strict=False):
        axes.plot([], [], "-", color=colour, linewidth=5, label=name)
        for kind, at in own.items():
            if at:
                form, places = FORMS[kinds.index(kind)], np.asarray(at, float)
                axes.plot(*places.T, form, color=colour, markersize=2.5, alpha=0.5)
                axes.plot(*places.mean(0), form, color=colour, markersize=7)
    for form, kind in zip(FORMS, kinds, strict=False):
        axes.plot([], [], form, color="#606060", markersize=7, label=kind)
    axes.set_xlabel(x, fontsize=SMALL)
    axes.set_ylabel(y, fontsize=SMALL)
    axes.grid(color="#E0E0E0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL)
    figure.legend(loc="outside right center", fontsize=SMALL, frameon=False)
    write_caption(figure, caption)
    return figure


def vector_reconstructions(
    originals: Float[np.ndarray, "n d"], reconstructed: Float[np.ndarray, "n d"], caption: str
) -> Figure:
    """Vectors and their reconstructions, the numbers of each from left to right as two lines.

    Args:
        originals: at least one vector; the first twelve are drawn.
        reconstructed: the same shape.
        caption: what is seen.

    Returns:
        A figure.

    Raises:
        ValueError: the shapes are wrong or differ.

    >>> figure = vector_reconstructions(np.zeros((5, 8)), np.ones((5, 8)), "Five vectors.")
    >>> len(figure.axes)
    6
    """
    shapes = np.shape(originals), np.shape(reconstructed)
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or not len(originals):
        raise ValueError(
            f"originals and reconstructed must have one shape [n, d], got {shapes[0]} and "
            f"{shapes[1]}"
        )
    count, length = min(len(originals), 12), shapes[0][1]
    columns = min(count, 3)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(3.2 * columns, 1.5 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, squeeze=False)
    marker = "." if length < 40 else ""
    for i, axes in enumerate(grid.flat):
        axes.set_axis_off() if i >= count else axes.tick_params(labelsize=SMALL)
        if i < count:
            for values, color, name in (
                (originals[i], BLUE, "original"),
                (reconstructed[i], ORANGE, "decoded"),
            ):
                axes.plot(values, color=color, linewidth=1, marker=marker, label=name)
            axes.spines[["top", "right"]].set_visible(False)
    handles, shown = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, shown, loc="outside upper center", ncols=2, fontsize=SMALL)
    write_caption(figure, caption)
    return figure


def _curve(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    known = values[np.isfinite(values)]
    if len(known) and known.min() > 0 and known.max() > 5 * known.min():
        axes.set_yscale("log")
    window = len(values) // 25
    if window < 2:
        axes.plot(steps, values, color=BLUE, linewidth=1.5, marker="." if len(known) < 3 else "")
        return
    axes.plot(steps, values, color=BLUE, linewidth=0.6, alpha=0.35)
    # A mean over the numbers that are there, so that a gap does not spread.
    ones = np.ones(window)
    there = np.convolve(np.isfinite(values), ones, "same")
    total = np.convolve(np.nan_to_num(values), ones, "same")
    mean = np.where(there > 0, total / np.maximum(there, 1), np.nan)
    axes.plot(steps, mean, color=BLUE, linewidth=1.6)
