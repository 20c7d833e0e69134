"""A page of HTML that needs nothing but itself."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from experiments.page.contents import Contents, Tables
from experiments.page.sheets import Sheets, sheets
from experiments.runtime.json_values import is_number
from experiments.runtime.tables import text
from latent_flows import plots
from latent_flows.plots.grids import rgb

MOST_BYTES = 4 * 2**20
"""Of the pictures, about."""
SMALL = 16
"""Pixels a side below which they are seen."""
TEMPLATE = Path(__file__).with_name("template.html")
_TOLERANCE = 0.2


def document(contents: Contents, footer: str) -> tuple[bytes, Sheets]:
    """The page, and the sheets that it holds.

    Args:
        contents: what is on it.
        footer: a line at its end.
    """
    shape = contents.frozen.event_shape
    pictures = plots.sample_pictures(contents.samples, shape)
    found = sheets(rgb(pictures, "samples", pictures.ndim), MOST_BYTES)
    said = "" if contents.missing is None else "What it cannot make is said."
    caption = " ".join(f"{contents.about} {said} {plots.how_drawn(shape)}".split())
    data = {
        "starts": contents.starts,
        "moves": [
            {"name": m.name, "unit": m.unit, "places": np.round(m.places, 6).tolist()}
            for m in contents.moves
        ],
        "size": found.size,
        "pixels": plots.are_pictures(shape) and min(shape[:2]) < SMALL,
        "sheets": found.uris,
        "missing": None if contents.missing is None else np.round(contents.missing, 3).tolist(),
        "tolerance": _TOLERANCE,
    }
    fields = {
        "title": html.escape(contents.title),
        "about": html.escape(caption),
        "still": still(contents, found),
        "tables": tables_html(contents.tables),
        "footer": html.escape(footer),
        # Nothing in a name may end the script.
        "data": json.dumps(data).replace("<", "\\u003c"),
    }
    # All at once: what is put in may look like a field itself.
    page = re.sub(r"\{\{(\w+)\}\}", lambda field: fields[field[1]], TEMPLATE.read_text("utf-8"))
    return page.encode(), found


def still(contents: Contents, found: Sheets) -> str:
    """The frames of the first start, for a browser without scripts."""
    return "".join(
        f"<figure><figcaption>{html.escape(move.name)}</figcaption>"
        f'<img alt="" src="{uri}"></figure>'
        for move, uri in zip(contents.moves, found.uris[0], strict=True)
    )


def tables_html(tables: Tables) -> str:
    """Tables, each in a box of its own that can be moved sideways.

    >>> print(tables_html({"A < B": [{"k": "0", "share": 0.5}]})[:44])
    <figure><figcaption>A &lt; B</figcaption><di
    """
    if not tables:
        return "<p>Nothing was measured in this run.</p>"
    return "".join(_table(title, rows) for title, rows in tables.items())


def _table(title: str, rows: Any) -> str:
    names = [*dict.fromkeys(name for row in rows for name in row)]
    words = {
        name: any(not is_number(row.get(name)) and row.get(name) is not None for row in rows)
        for name in names
    }
    kind = {name: ' class="words"' if words[name] else "" for name in names}
    head = "".join(f'<th scope="col"{kind[name]}>{html.escape(name)}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind[name]}>{html.escape(text(row.get(name)))}</td>" for name in names)
        + "</tr>"
        for row in rows
    )
    shown = html.escape(title)
    return (
        f'<figure><figcaption>{shown}</figcaption><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{shown}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div></figure>"
    )
