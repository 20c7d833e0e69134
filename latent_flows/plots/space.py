"""Curves among points in space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from latent_flows.plots.style import LINES, ON_WHITE, SMALL, write_caption

__all__ = ["space_curves"]


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
    styles = [{**style, "color": c} for style, c in zip(LINES, ON_WHITE, strict=True)]
    for place, (elevation, azimuth) in enumerate([(25, -60), (60, 30)], start=1):
        axes: Any = figure.add_subplot(1, 2, place, projection="3d")
        axes.plot(*points.T, ".", color="#9A9A9A", markersize=1.5, alpha=0.5)
        for family, style in zip(curves.values(), styles, strict=False):
            for path in np.asarray(family):
                axes.plot(*path.T, **style, zorder=10)
        axes.view_init(elevation, azimuth)
        axes.set_box_aspect(np.ptp(points, axis=0), zoom=1.15)
        axes.grid(False)
        axes.tick_params(labelsize=SMALL - 2)
    handles = [
        Line2D([], [], label=name, **style) for name, style in zip(curves, styles, strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=SMALL)
    write_caption(figure, caption)
    return figure
