"""The map as a Bokeh figure: shade, codes, ways, and where one is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh import models as bokeh_models
from bokeh import plotting as bokeh_plotting
from bokeh.events import Tap
from bokeh.palettes import Cividis256, Viridis256

from experiments.explore.session import Answer
from latent_flows.plots.style import BLUE, CLASSES, VERMILION

# Bokeh's annotations know fewer names and arguments than Bokeh does.
models: Any = bokeh_models
plotting: Any = bokeh_plotting

INK, PAPER = "#1d2733", "#ffffff"
MARKERS = ("circle", "triangle", "square", "diamond")
"""Of classes beyond those that colours tell apart."""
MOST_CLASSES = 32
PALE = 0.45
"""Of the shade's colours: points in strong ones are seen on them."""


def pale(palette: Sequence[str]) -> list[str]:
    """Colours mixed with white."""
    found = []
    for colour in palette:
        parts = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        mixed = (round(255 - (255 - part) * (1 - PALE)) for part in parts)
        found.append("#" + "".join(f"{part:02x}" for part in mixed))
    return found


class MapFigure:
    """Draws the answers that are about the map."""

    KINDS = frozenset(("map", "shade", "ways", "cursor", "pins", "image", "place"))
    """Answers that change something on it."""

    def __init__(self) -> None:
        self.figure = plotting.figure(
            sizing_mode="stretch_width",
            aspect_ratio=1,
            min_width=240,
            tools="pan,wheel_zoom,box_zoom,reset",
            active_drag=None,
            active_scroll=None,
            toolbar_location="above",
            background_fill_color="#f3f5f7",
            border_fill_color=PAPER,
            outline_line_color="#c8d0d8",
            x_range=models.Range1d(-1, 1),
            y_range=models.Range1d(-1, 1),
            output_backend="canvas",
        )
        f = self.figure
        f.toolbar.logo = None
        f.grid.visible = False
        f.axis.axis_line_color = None
        f.axis.major_tick_line_color = "#c8d0d8"
        f.axis.minor_tick_line_color = None
        f.axis.major_label_text_font_size = "11px"
        f.axis.major_label_text_color = "#5b6875"
        f.axis.axis_label_text_font_size = "12px"
        f.axis.axis_label_text_font_style = "normal"
        f.axis.axis_label_text_color = "#3c4854"
        f.min_border = 0
        self.mapper = models.LinearColorMapper(palette=pale(Cividis256), nan_color="rgba(0,0,0,0)")
        self.shade = _source(image=[], x=[], y=[], dw=[], dh=[])
        f.image(
            image="image", x="x", y="y", dw="dw", dh="dh", color_mapper=self.mapper,
            source=self.shade,
        )  # fmt: skip
        self.bar = models.ColorBar(
            color_mapper=self.mapper, width=8, height="auto", location=(0, 0), padding=4,
            title_text_font_size="11px", title_text_font_style="normal",
            major_label_text_font_size="10px", major_label_text_color="#5b6875",
            title_text_color="#3c4854", bar_line_color=None, visible=False,
        )  # fmt: skip
        f.add_layout(self.bar, "right")
        self.points = _source(x=[], y=[], colour=[], marker=[], what=[])
        drawn = f.scatter(
            "x", "y", source=self.points, size=5, marker="marker", fill_color="colour",
            line_color="white", line_width=0.4, fill_alpha=0.85,
        )  # fmt: skip
        f.add_tools(
            models.HoverTool(
                renderers=[drawn], tooltips=[("", "@what")], point_policy="snap_to_data"
            )
        )
        self.line, self.geodesic = _source(x=[], y=[]), _source(x=[], y=[])
        for source, colour, dash in (
            (self.line, INK, "dashed"),
            (self.geodesic, VERMILION, "solid"),
        ):
            f.line("x", "y", source=source, line_color="white", line_width=6, line_alpha=0.9)
            f.line("x", "y", source=source, line_color=colour, line_width=2.6, line_dash=dash)
        self.pins = _source(x=[], y=[], number=[])
        f.scatter(
            "x", "y", source=self.pins, size=13, marker="square_pin", fill_color="#F0E442",
            line_color=INK, line_width=1.5,
        )  # fmt: skip
        self.target = _source(x=[], y=[])
        f.scatter(
            "x", "y", source=self.target, size=15, marker="diamond", fill_color=VERMILION,
            line_color="white", line_width=2,
        )  # fmt: skip
        self.mark = _source(x=[], y=[])
        f.scatter(
            "x", "y", source=self.mark, size=15, marker="circle", fill_color=BLUE,
            line_color="white", line_width=2.5, name="mark",
        )  # fmt: skip
        self.cursor = _source(x=[], y=[])
        for colour, width in (("white", 4), (INK, 1.6)):
            f.scatter(
                "x", "y", source=self.cursor, size=26, marker="cross", line_color=colour,
                line_width=width, fill_alpha=0,
            )  # fmt: skip

    def on_tap(self, react: Any) -> None:
        """Calls with the place of every tap."""
        self.figure.on_event(Tap, lambda event: react(event.x, event.y))

    def draw(self, answer: Answer) -> None:
        """What an answer changes."""
        kind = answer["kind"]
        if kind in ("image", "place"):
            self._move(answer)
        else:
            getattr(self, f"_draw_{kind}")(answer)

    def _move(self, answer: Answer) -> None:
        x, y = answer["mark"]
        self.mark.data = {"x": [x], "y": [y]}
        if "target" in answer:
            target = answer["target"]
            self.target.data = _one(target) if target else {"x": [], "y": []}

    def _draw_map(self, answer: Answer) -> None:
        left, right, bottom, top = answer["box"]
        ranges = ((self.figure.x_range, left, right), (self.figure.y_range, bottom, top))
        for axis, start, end in ranges:
            axis.update(start=start, end=end, reset_start=start, reset_end=end)
        looks = answer["looks"]
        names = _axis_names(looks)
        self.figure.xaxis.axis_label, self.figure.yaxis.axis_label = names
        points = np.asarray(answer["points"])
        colours, markers, words = coloured(
            len(points), answer["values"], looks["colour"], answer["names"], answer["numbers"]
        )
        self.points.data = {
            "x": points[:, 0], "y": points[:, 1], "colour": colours, "marker": markers,
            "what": words,
        }  # fmt: skip
        self.mark.data = _one(answer["mark"])
        self.cursor.data = {"x": [], "y": []}

    def _draw_shade(self, answer: Answer) -> None:
        shade, (left, right, bottom, top) = answer["shade"], answer["box"]
        known = bool(np.isfinite(shade.values).any())
        self.mapper.update(low=shade.low, high=shade.high)
        self.shade.data = {
            "image": [shade.values] if known else [],
            "x": [left] if known else [],
            "y": [bottom] if known else [],
            "dw": [right - left] if known else [],
            "dh": [top - bottom] if known else [],
        }
        self.bar.visible = known
        self.bar.title = ""

    def _draw_ways(self, answer: Answer) -> None:
        for source, name in ((self.line, "line"), (self.geodesic, "geodesic")):
            points = np.asarray(answer[name]).reshape(-1, 2)
            source.data = {"x": points[:, 0], "y": points[:, 1]}

    def _draw_cursor(self, answer: Answer) -> None:
        self.cursor.data = {"x": [answer["x"]], "y": [answer["y"]]}

    def _draw_pins(self, answer: Answer) -> None:
        points = np.asarray(answer["pins"]).reshape(-1, 2)
        numbers = [str(k + 1) for k in range(len(points))]
        self.pins.data = {"x": points[:, 0], "y": points[:, 1], "number": numbers}


def coloured(
    count: int,
    values: np.ndarray | None,
    colour: str,
    names: tuple[str, ...],
    numbers: np.ndarray | None,
) -> tuple[list[str], list[str], list[str]]:
    """Colour, marker and words of each code: classes by Okabe and Ito, numbers by viridis."""
    words = [""] * count if numbers is None else [f"example {n}" for n in numbers]
    if values is None:
        return ["#5b6875"] * count, [MARKERS[0]] * count, [w or "draw of the prior" for w in words]
    known = np.unique(values)
    if np.issubdtype(values.dtype, np.integer) and len(known) <= MOST_CLASSES:
        places = np.searchsorted(known, values)
        colours = [CLASSES[i % len(CLASSES)] for i in places]
        markers = [MARKERS[i // len(CLASSES) % len(MARKERS)] for i in places]
        told = [names[v] if 0 <= v < len(names) else str(v) for v in values]
    else:
        low, high = np.quantile(values, [0.01, 0.99])
        shares = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
        colours = [Viridis256[int(share * 255)] for share in shares]
        markers = [MARKERS[0]] * count
        told = [f"{value:.3g}" for value in values]
    return colours, markers, [f"{w}: {colour} {t}" for w, t in zip(words, told, strict=True)]


def legend(values: np.ndarray | None, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Colour, marker and name of each class; nothing where there are none."""
    if values is None or not np.issubdtype(values.dtype, np.integer):
        return []
    known = np.unique(values)
    if len(known) > MOST_CLASSES:
        return []
    return [
        (
            CLASSES[i % len(CLASSES)],
            MARKERS[i // len(CLASSES) % len(MARKERS)],
            names[value] if 0 <= value < len(names) else str(value),
        )
        for i, value in enumerate(known)
    ]


def _axis_names(looks: dict[str, Any]) -> tuple[str, str]:
    first, second = looks["first"], looks["second"]
    name = {
        "coordinates": "latent coordinate",
        "principal": "principal axis",
        "independent": "component",
        "visible": "visible axis",
        "pinned": "direction",
    }[looks["axes"]]
    start = 0 if looks["axes"] == "coordinates" else 1
    return f"{name} {first + start}", f"{name} {second + start}"


def _source(**columns: Any) -> Any:
    return models.ColumnDataSource(data=columns)


def _one(place: tuple[float, float]) -> dict[str, list[float]]:
    return {"x": [place[0]], "y": [place[1]]}
