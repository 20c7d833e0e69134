"""Tables that benchmarks print."""

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
        table.add_column(
            column.rstrip("*"), justify="left" if words else "right", no_wrap=not words
        )
    return table
