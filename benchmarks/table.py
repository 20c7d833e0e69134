"""Tables that benchmarks print."""

from rich.console import Console
from rich.table import Table


def empty(title: str, columns: str) -> Table:
    """A table without rows.

    Args:
        title: above it.
        columns: joined by commas; one whose name ends in * holds words.

    Returns:
        The table.
    """
    table = Table(title=title, title_justify="left")
    for column in columns.split(", "):
        words = column.endswith("*")
        # Headings of numbers are what gives way in a narrow terminal.
        table.add_column(
            column.rstrip("*"), justify="left" if words else "right", min_width=8 if words else 4
        )
    return table


def console() -> Console:
    """Where tables are printed: in a file they are as wide as they need."""
    found = Console()
    return found if found.is_terminal else Console(width=160)
