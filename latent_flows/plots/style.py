"""What figures have in common: colours, sizes, captions and numbers."""

import io
import textwrap
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

__all__ = [
    "CLASSES",
    "COLOUR_MAP",
    "LINES",
    "ON_WHITE",
    "Images",
    "is_number",
    "number",
    "png_bytes",
    "same_length",
    "write_caption",
]

Images: TypeAlias = Array | np.ndarray
"""Pixels in [0, 1], channels last: one (grey) or three (RGB)."""

BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"
COLOUR_MAP = "cividis"
LINES: tuple[dict[str, Any], ...] = (
    {"color": VERMILION, "linewidth": 1.8},
    {"color": "white", "linewidth": 1.2, "linestyle": "--"},
    {"color": ORANGE, "linewidth": 1.4, "linestyle": ":"},
)
"""Families of curves, in their order."""
ON_WHITE = (VERMILION, "black", BLUE)
"""Their colours on a white ground."""
YELLOW = "#F0E442"
"""Of points with an edge; as a line on white it is hardly seen."""
CLASSES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", YELLOW, "#000000")
"""Classes of points, in their order, and round again."""
FORMS = "os^DvP*"
"""Of markers, for kinds of points that have the colours of something else."""
SMALL, MEDIUM = 9, 11  # points


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


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be drawn.

    Args:
        value: anything.

    Returns:
        False for booleans too.
    """
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def number(value: float) -> str:
    """A short number with a true minus sign and no negative zero.

    Args:
        value: any number.

    Returns:
        Three significant digits.
    """
    return f"{float(value) + 0.0:.3g}".replace("-", "\N{MINUS SIGN}")


def same_length(name: str, given: Any, what: str, count: int) -> None:
    """Raise a `ValueError` if there are not as many of one thing as of another.

    Args:
        name: of what is given.
        given: a sequence.
        what: what it has to be as many as.
        count: how many these are.
    """
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} entries for {count} {what}")


def write_caption(figure: Figure, text: str) -> None:
    """Text under the figure, wrapped to its width; the figure grows to hold it.

    Args:
        figure: which grows.
        text: what is seen; nothing is written if it is empty.
    """
    if not text:
        return
    lines = textwrap.wrap(text, width=int(13.5 * figure.get_figwidth()))
    size = MEDIUM - 1
    spacing = 1.3
    figure.supxlabel("\n".join(lines), fontsize=size, x=0.02, ha="left", linespacing=spacing)
    points_per_inch = 72
    figure.set_figheight(figure.get_figheight() + len(lines) * size * spacing / points_per_inch)
