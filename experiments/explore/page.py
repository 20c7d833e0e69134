"""The page: one component of Panel, which hands messages to a tab and answers to the browser."""

from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import panel as pn
import param
from panel.custom import Child, JSComponent

from experiments.explore.explored import Explored
from experiments.explore.map_figure import MapFigure, legend
from experiments.explore.session import Answer, Session
from experiments.explore.tab import Tab

WEB = Path(__file__).parent / "web"
SCRIPTS = ("dom", "draw", "image", "controls", "map", "picture", "take", "connection", "main")
"""Parts of the page's program, in the order in which they are put together."""
LARGEST = 16 * 2**20
"""Bytes of a message of a browser, at most: a picture of 12 megabytes."""


@cache
def program() -> str:
    """The page's program as one module, which needs nothing from elsewhere."""
    return "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)


class Explorer(JSComponent):
    """A tab in the browser."""

    plane = Child()
    view = param.String(default="")
    command = param.String(default="")
    largest = param.Integer(default=LARGEST)

    _esm = program()
    _stylesheets: ClassVar = [(WEB / "style.css").read_text(encoding="utf-8")]

    def __init__(self, explored: Explored, **params: Any) -> None:
        self.map = MapFigure()
        super().__init__(
            plane=pn.pane.Bokeh(self.map.figure, sizing_mode="stretch_width"), **params
        )
        self.session = Session(explored)
        self.tab = Tab(self.session, self._deliver)
        self._document = pn.state.curdoc
        self.map.on_tap(lambda x, y: self._hear({"do": "tap", "x": x, "y": y}))
        if self._document is not None:
            self._document.on_session_destroyed(lambda _: self.tab.close())

    def _handle_msg(self, data: Any) -> None:
        self._hear(data)

    def _hear(self, message: Any) -> None:
        pn.state.execute(partial(self.tab.hear, message))

    def _deliver(self, answers: list[Answer]) -> None:
        if self._document is None:
            self._send(answers)
        else:
            self._document.add_next_tick_callback(partial(self._send, answers))

    def _send(self, answers: list[Answer]) -> None:
        for answer in answers:
            told = self._told(answer)
            if told is not None:
                self._send_msg(told)
        for answer in answers:
            if answer["kind"] in MapFigure.KINDS:
                self.map.draw(answer)

    def _told(self, answer: Answer) -> Answer | None:
        """What of an answer the page's program needs: the figure has the rest."""
        if answer["kind"] == "map":
            classes = legend(answer["values"], answer["names"])
            kept = ("kind", "looks", "count", "link")
            return {k: answer[k] for k in kept} | {"legend": classes}
        if answer["kind"] == "shade":
            shade = answer["shade"]
            return {"kind": "shade", "name": shade.name, "low": shade.low, "high": shade.high}
        if answer["kind"] == "ways":
            return {k: v for k, v in answer.items() if k not in ("line", "geodesic")}
        return answer


def page(explored: Explored, command: str) -> pn.Template:
    """A page for a new tab.

    Args:
        explored: the generator, and what is known of it.
        command: that starts the server again.
    """
    given = pn.state.session_args.get("view", [b""]) if pn.state.session_args else [b""]
    template = pn.Template((WEB / "page.html").read_text(encoding="utf-8"))
    template.add_variable("title", f"{explored.name} · latent_flows")
    view = given[0].decode("ascii", "replace")
    explorer = Explorer(explored, view=view, command=command, sizing_mode="stretch_width")
    template.add_panel("explorer", explorer)
    return template
