"""Functions on a plane of a latent space, or on a line: potentials, metrics, and paths on them."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from latent_flows.plots.style import (
    BLUE,
    CLASSES,
    COLOUR_MAP,
    LINES,
    MEDIUM,
    ON_WHITE,
    SMALL,
    VERMILION,
    number,
    same_length,
    write_caption,
)
from latent_flows.typing import Latent, Potential

__all__ = ["landscape", "latent_maps"]


def landscape(
    potentials: Sequence[Potential],
    *,
    origin: Latent,
    basis: Float[Array, "2 d"] | Float[Array, "1 d"],
    extent: float,
    times: Sequence[float],
    data: Float[Array, "n d"] | None = None,
    trajectories: Sequence[Float[Array, "m s d"]] | None = None,
    labels: Sequence[str] | None = None,
    resolution: int = 61,
    caption: str,
) -> Figure:
    r"""Potentials on a plane of the latent space, with their flow lines.

    The plane is $z = o + a b_1 + b b_2$, $|a|, |b| \le$ `extent`; the lines follow
    the part of $\nabla_z u$ in the plane, in the coordinates `a` and `b`. With one time,
    every potential has a panel; with several, potentials are rows and times columns. A colour bar
    belongs to one potential, over all of its times.

    With a single direction, as a latent of one number has, the potential is a curve over it, on
    which arrows show the way of the flow.

    Args:
        potentials: callables `(t, z) -> u`.
        origin: `[d]`, the centre of the plane.
        basis: `[2, d]`, independent directions that span it, or `[1, d]`.
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
    same_length("labels", labels, "potentials", count)
    if trajectories is not None:
        same_length("trajectories", trajectories, "potentials", count)

    is_line = len(basis) == 1
    ticks = np.linspace(-extent, extent, resolution)
    values, fields = _evaluate(potentials, origin, basis, jnp.asarray(ticks), jnp.asarray(times))
    for k in range(count):
        if not np.isfinite(values[k]).all():
            where = "line" if is_line else "plane"
            raise ValueError(f"{labels[k]} is not finite everywhere on the {where}")
    inverse = np.linalg.pinv(np.asarray(basis))

    def coordinates(z: Array | np.ndarray) -> np.ndarray:
        return (np.asarray(z) - np.asarray(origin)) @ inverse

    columns = moments if moments > 1 else min(count, math.ceil(math.sqrt(count + 1)))
    rows = math.ceil(count * moments / columns)
    figure = Figure(figsize=(3.3 * columns, 2.8 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=not is_line, squeeze=False)
    for axes in grid.flat[count * moments :]:
        axes.set_axis_off()
    for k in range(count):
        panels = [*grid.flat[k * moments : (k + 1) * moments]]
        points = None if data is None else coordinates(data)
        paths = () if trajectories is None else coordinates(trajectories[k])
        draw = _over_line if is_line else partial(_over_plane, figure)
        draw(panels, ticks, values[k], fields[k], points, paths)
        for axes, time in zip(panels, times, strict=True):
            axes.set_xlim(-extent, extent)
            axes.set_title(f"{labels[k]}, t = {number(time)}", fontsize=MEDIUM)
            axes.tick_params(labelsize=SMALL)
    for axes in grid[:, 0]:
        axes.set_ylabel("u" if is_line else "second direction", fontsize=SMALL)
    for j in range(columns):
        lowest = grid[(count * moments - 1 - j) // columns, j]
        lowest.set_xlabel("first direction", fontsize=SMALL)
        lowest.tick_params(labelbottom=True)
    ground = "black" if is_line else "white"
    _write_legend(figure, _landscape_lines(data is not None, trajectories is not None, ground))
    write_caption(figure, caption)
    return figure


def latent_maps(
    functions: Sequence[Callable[[Latent], Any]],
    *,
    low: Sequence[float] | Array | np.ndarray,
    high: Sequence[float] | Array | np.ndarray,
    titles: Sequence[str],
    value: str,
    data: Float[Array, "n d"] | np.ndarray | None = None,
    labels: Sequence[int] | Array | np.ndarray | None = None,
    curves: Sequence[Mapping[str, Float[Array, "m s d"] | np.ndarray]] | None = None,
    resolution: int = 101,
    caption: str,
) -> Figure:
    """Functions on a latent space of two dimensions side by side, with data and curves.

    Each has a colour bar of its own, from the 1% to the 99% quantile of its finite values: what
    lies beyond has the colour of the end. On a latent space of one dimension functions are curves,
    on which the paths lie.

    Args:
        functions: `z -> scalar`, such as a log volume; NaN and infinities are left white.
        low: lower left corner, two numbers, or one.
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
    shapes = {c.shape for c in corners}
    if shapes not in ({(1,)}, {(2,)}) or not (corners[0] < corners[1]).all():
        raise ValueError(
            f"low must lie below and left of high, two numbers each, or one, got {corners}"
        )
    same_length("titles", titles, "functions", len(functions))
    curves = [{} for _ in functions] if curves is None else curves
    same_length("curves", curves, "functions", len(functions))
    ticks = [np.linspace(a, b, resolution) for a, b in zip(*corners, strict=True)]
    dim = len(ticks)
    plane = jnp.asarray(np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, dim), jnp.float32)
    values = [
        np.asarray(jax.jit(lambda z, f=f: jax.lax.map(f, z, batch_size=256))(plane), dtype=float)
        for f in functions
    ]
    if dim == 1:
        return _latent_curves(ticks[0], values, titles, value, data, labels, curves, caption)
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
            cmap=COLOUR_MAP,
            interpolation="bilinear",
        )
        if data is not None:
            _points(axes, np.asarray(data), labels)
        for (_, family), style in reversed([*zip(families.items(), LINES, strict=False)]):
            for path in np.asarray(family):
                axes.plot(*path.T, color="black", linewidth=2.6, alpha=0.6)
                axes.plot(*path.T, **style)
        axes.set(xlim=(corners[0][0], corners[1][0]), ylim=(corners[0][1], corners[1][1]))
        axes.set_title(title, fontsize=MEDIUM)
        axes.tick_params(labelsize=SMALL)
        bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02, extend="both")
        bar.set_label(value, fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL - 1)
    _write_families(figure, curves, LINES)
    write_caption(figure, caption)
    return figure


def _latent_curves(
    ticks: np.ndarray,
    values: Sequence[np.ndarray],
    titles: Sequence[str],
    value: str,
    data: Any | None,
    labels: Any | None,
    curves: Sequence[Mapping[str, Any]],
    caption: str,
) -> Figure:
    """Functions on a latent space of one dimension."""
    figure = Figure(figsize=(4.4 * len(values), 3.6), layout="constrained")
    grid = figure.subplots(1, len(values), sharex=True, squeeze=False)[0]
    styles = [{**style, "color": c} for style, c in zip(LINES, ON_WHITE, strict=True)]
    for axes, title, raw, families in zip(grid, titles, values, curves, strict=True):
        found = np.where(np.isfinite(raw), raw, np.nan)
        axes.plot(ticks, found, color=BLUE, linewidth=1.2)
        for (_, family), style in reversed([*zip(families.items(), styles, strict=False)]):
            for path in np.asarray(family)[..., 0]:
                axes.plot(path, np.interp(path, ticks, found), **style)
        if data is not None:
            _rug(axes, np.asarray(data)[:, 0], labels)
        axes.set_xlim(ticks[0], ticks[-1])
        axes.set_title(title, fontsize=MEDIUM)
        axes.set_xlabel("latent", fontsize=SMALL)
        axes.set_ylabel(value, fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
    _write_families(figure, curves, styles)
    write_caption(figure, caption)
    return figure


def _check_plane(origin: Array, basis: Array, extent: float) -> None:
    if origin.ndim != 1 or basis.shape not in ((1, *origin.shape), (2, *origin.shape)):
        raise ValueError(
            f"origin must be [d] and basis [2, d] or [1, d], got {origin.shape} and {basis.shape}"
        )
    if np.linalg.matrix_rank(np.asarray(basis)) < len(basis):
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
    """Values `[K, T, R, R]` and in-plane gradients `[K, T, R, R, 2]`, in one compiled call.

    Of a line `[K, T, R]` and `[K, T, R, 1]`.
    """
    # As contourf has it: the second coordinate goes down rows.
    plane = jnp.stack(jnp.meshgrid(*[ticks] * len(basis)), axis=-1).astype(origin.dtype)
    points = (origin + plane @ basis).reshape(-1, len(origin))
    project = jnp.linalg.pinv(basis)

    def everywhere(potential: Callable) -> tuple[Array, Array]:
        at_points = jax.vmap(jax.value_and_grad(potential, argnums=1), in_axes=(None, 0))
        value, slope = jax.vmap(at_points, in_axes=(0, None))(times.astype(origin.dtype), points)
        shape = (len(times), *plane.shape[:-1])
        return value.reshape(shape), (slope @ project).reshape(*shape, len(basis))

    values, fields = zip(*jax.jit(lambda: [everywhere(u) for u in potentials])(), strict=True)
    return np.stack(values), np.stack(fields)


def _over_plane(
    figure: Figure,
    panels: Sequence[Axes],
    ticks: np.ndarray,
    values: np.ndarray,
    fields: np.ndarray,
    data: np.ndarray | None,
    paths: Any,
) -> None:
    """A potential at several times over a plane: levels and flow lines, with one colour bar."""
    low, high = float(values.min()), float(values.max())
    flat = not high - low > 1e-6 * max(abs(low), abs(high))
    levels = np.linspace(low - 1e-3, high + 1e-3, 2) if flat else np.linspace(low, high, 16)
    for axes, height, field in zip(panels, values, fields, strict=True):
        filled = axes.contourf(ticks, ticks, height, levels=levels, cmap=COLOUR_MAP)
        if data is not None:
            axes.plot(*data.T, ".", color="black", markersize=2, alpha=0.35)
        _flow_lines(axes, ticks, field)
        for path in paths:
            _path(axes, path)
        axes.set(ylim=(ticks[0], ticks[-1]), aspect="equal")
    bar = figure.colorbar(filled, ax=list(panels), fraction=0.06, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL - 1)
    bar.set_label("u", fontsize=SMALL, rotation=0)
    bar.locator = MaxNLocator(5)
    bar.update_ticks()


def _over_line(
    panels: Sequence[Axes],
    ticks: np.ndarray,
    values: np.ndarray,
    fields: np.ndarray,
    data: np.ndarray | None,
    paths: Any,
) -> None:
    """A potential at several times over a line: curves, with trajectories on them."""
    for axes, height, field in zip(panels, values, fields, strict=True):
        axes.plot(ticks, height, color=BLUE, linewidth=1.2)
        for path in paths:
            _path(axes, np.stack([path[:, 0], np.interp(path[:, 0], ticks, height)], axis=-1))
        at = np.linspace(0, len(ticks) - 1, 14).round().astype(int)[1:-1]
        for sign, marker in ((1.0, ">"), (-1.0, "<")):  # neither, for a potential at rest
            there = at[np.sign(field[at, 0]) == sign]
            axes.plot(ticks[there], height[there], marker, color="black", markersize=4)
        if data is not None:
            _rug(axes, data[:, 0], None)


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


def _rug(axes: Axes, points: np.ndarray, labels: Any | None) -> None:
    """Points along the lower edge, those of each class at a height of their own."""
    given = np.zeros(len(points), int) if labels is None else np.asarray(labels)
    classes = np.searchsorted(np.unique(given), given)
    colours = ["black" if labels is None else CLASSES[i % len(CLASSES)] for i in classes]
    at_edge: dict[str, Any] = {
        "transform": axes.get_xaxis_transform(),
        "alpha": 0.5,
        "linewidths": 0,
    }
    axes.scatter(points, 0.02 + 0.02 * classes, c=colours, s=5, **at_edge)


def _path(axes: Axes, path: np.ndarray) -> None:
    axes.plot(*path.T, color="white", linewidth=3.2)  # a rim that shows on every colour
    axes.plot(*path.T, color=VERMILION, linewidth=1.8)
    axes.plot(*path[0], "o", color=VERMILION, markersize=5, mec="white")


def _points(axes: Axes, points: np.ndarray, labels: Any | None) -> None:
    if labels is None:
        axes.plot(*points.T, ".", color="white", markersize=2, alpha=0.5)
        return
    classes = np.unique(np.asarray(labels))
    colours = [CLASSES[i % len(CLASSES)] for i in np.searchsorted(classes, labels)]
    axes.scatter(points[:, 0], points[:, 1], c=colours, s=6, alpha=0.8, linewidths=0)


def _write_families(
    figure: Figure, curves: Sequence[Mapping[str, Any]], styles: Sequence[dict[str, Any]]
) -> None:
    names = list(dict.fromkeys(name for families in curves for name in families))
    if names:
        handles = [
            Line2D([], [], label=name, **style) for name, style in zip(names, styles, strict=False)
        ]
        _write_legend(figure, handles)


def _landscape_lines(has_data: bool, has_trajectories: bool, ground: str) -> list[Line2D]:
    def line(**style: Any) -> Line2D:
        return Line2D([], [], **style)

    handles = [line(color="white", linewidth=1.5, label="flow lines")]
    if ground != "white":
        handles = [line(color=ground, marker=">", linestyle="", label="way of the flow")]
    if has_data:
        handles.append(line(color="black", marker=".", linestyle="", label="data"))
    if has_trajectories:
        handles.append(
            line(color=VERMILION, marker="o", linewidth=1.8, label="trajectories, from the dot")
        )
    return handles


def _write_legend(figure: Figure, handles: list[Line2D]) -> None:
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=3,
        fontsize=SMALL,
        facecolor="#9A9A9A",  # white lines show on it as black ones do
    )
