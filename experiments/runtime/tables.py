"""What an experiment prints and saves at its end: tables and pictures."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from experiments.runtime import interrupts
from experiments.runtime.announcements import announced
from experiments.runtime.errors import disk_trouble
from experiments.runtime.run_dir import Folder
from latent_flows import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table with one column a key; a single row is printed as two columns."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table(title, rows))


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows as a rich table."""
    drawn = Table(title=title, title_justify="left")
    if len(rows) == 1:
        drawn.add_column("measure")
        drawn.add_column("value", justify="right")
        for name, value in rows[0].items():
            drawn.add_row(name, text(value))
        return drawn
    for name in rows[0]:
        drawn.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        drawn.add_row(*(text(row.get(name)) for name in rows[0]))
    return drawn


def text(value: Any) -> str:
    """A value as a cell: four significant digits, lists joined, `-` for what is missing.

    Example:
        >>> text(0.123456), text([1.0, 2.0]), text(None)
        ('0.1235', '1 2', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(text(v) for v in value)
    return str(value)


def with_times(
    rows: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Rows with the seconds that each took: they are shown, and are no part of the metrics.

    >>> with_times([{"method": "a"}, {"method": "b"}], [{"seconds": 2.0}, {}])
    [{'method': 'a', 'seconds': 2.0}, {'method': 'b', 'seconds': None}]
    """
    pairs = zip(rows, times, strict=True)
    return [{**row, "seconds": taken.get("seconds")} for row, taken in pairs]


def save_figures(folder: Folder, figures: Mapping[str, Callable[[], "Figure"]]) -> list[str]:
    """Draw each figure, and write it as NAME.png before the next one is drawn.

    Returns:
        The files of those that could not be drawn, of which each is reported in a line.
    """
    return save_pictures(
        folder,
        {
            f"{name}.png": lambda draw=draw: plots.png_bytes(draw())  # type: ignore[misc]
            for name, draw in figures.items()
        },
    )


def save_pictures(folder: Folder, pictures: Mapping[str, Callable[[], bytes]]) -> list[str]:
    """Make the content of each file, and write it, whole or not at all, before the next is made.

    Returns:
        The files of those that could not be made, of which each is reported in a line.
    """
    failed = []
    for name, make in pictures.items():
        try:
            with announced(f"drawing {name}"):
                content = make()
        except Exception as error:
            # Where what fails is not the picture.
            if disk_trouble(error) or interrupts.is_asked():
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"error: {name} could not be drawn ({reason})", file=sys.stderr, flush=True)
            failed.append(name)
        else:
            folder.write_bytes(name, content)
    return failed


def where(folder: Folder, failed: Iterable[str] = ()) -> int | None:
    """Print the pictures of a run folder.

    Args:
        folder: of the run.
        failed: files of pictures that could not be drawn.

    Returns:
        The exit code of the run: 1 where a picture is missing.
    """
    pictures = sorted([*folder.path.glob("*.png"), *folder.path.glob("*.gif")])
    print(f"results: {folder.path}")
    for picture in pictures:
        print(f"  {picture}")
    return 1 if [*failed] else None
