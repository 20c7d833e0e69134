"""One tab: what it sees, what it asks for, what it is told. Knows no browser.

A message is a dictionary with a verb, `do`; an answer is one with a noun, `kind`. Quick messages
are answered at once, slow ones in steps, from a copy of what the tab saw when it asked.
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.explore import drawn, own_picture, plane, route, shading
from experiments.explore.control import bounds
from experiments.explore.explored import Explored, Seen
from experiments.explore.link import BadLink, from_link, to_link
from experiments.explore.plane import Plane
from experiments.explore.route import Ways
from experiments.explore.view import History, Looks, Place, View, arrived, at_rest, slid
from latent_flows import plots
from latent_flows.generators import FrozenGenerator
from latent_flows.plots.style import number

Answer = dict[str, Any]
Message = Mapping[str, Any]

LINE, GEODESIC = "straight line", "geodesic"
"""Ways that the strip can show, besides what sliders do."""
MOST_TRUNCATION = 2.0
PINS = 3
"""Latents that a plane goes through."""


class Strip(NamedTuple):
    """Latents along the way that the strip shows, with their samples."""

    title: str
    places: Float[np.ndarray, "t"]
    """Amounts of a slider, or shares of a way."""
    latents: Float[np.ndarray, "t d"]
    samples: Float[np.ndarray, "t ..."]
    unit: str
    amounts: Float[np.ndarray, "t k"] | None = None
    """Of all sliders; None of a way."""


class Session:
    """What one tab sees."""

    def __init__(self, explored: Explored) -> None:
        self.explored = explored
        start = Place(explored.codes.latents[0], (0.0,) * len(explored.controls), "")
        self.history = History(start._replace(origin=self._first_origin()))
        self.looks = Looks(
            axes=self._usual_axes(), track=self._usual_track(), shade=shading.DENSITY
        )
        if explored.codes.colours:
            self.looks = self.looks._replace(colour=next(iter(explored.codes.colours)))
        self.pins: list[np.ndarray] = []
        self.found: Ways | None = None
        self.strip: Strip | None = None
        self.cursor = (0.0, 0.0)
        self.tap_measures = False
        self.is_stopped = False
        self.arrivals = 0
        self.number = 0
        self.seen = self._look()
        self.box = (0.0, 1.0, 0.0, 1.0)
        self.plane: Plane | None = None
        self._lay()

    # --- what is asked ---

    QUICK = (
        *("slide", "release", "random", "code", "reset", "undo", "redo", "use", "cursor"),
        *("pin", "unpin", "truncation", "layers", "label", "take", "stop"),
    )
    """What is answered at once."""

    def quick(self, message: Message) -> list[Answer]:
        """Answers a message that takes a moment.

        Raises:
            ValueError: it asks for what is not there.
        """
        return getattr(self, f"_on_{message['do']}")(message)

    def _on_slide(self, message: Message) -> list[Answer]:
        index = int(message["index"])
        if int(message.get("arrivals", self.arrivals)) != self.arrivals:
            # It was moved before the page knew that one has gone elsewhere.
            return [self.place() | {"seq": message.get("seq", 0)}]
        had_way = self.history.now.target is not None
        place = slid(self.history.now, index, float(message["amount"]))
        self._check_amounts(place.amounts)
        control = self.explored.controls[index]
        self.history = self.history.moved(place, control.name)
        self.found = None
        self.seen = self._look()
        told = {"seq": message.get("seq", 0), "changed": index}
        if had_way and self.plane is not None:
            if self.looks.track in (LINE, GEODESIC):
                self.looks = self.looks._replace(track=control.name)
            return [self.place() | told, self.way()]
        return [self.image() | told]

    def _on_release(self, _: Message) -> list[Answer]:
        self.history = self.history.released()
        return []

    def _on_random(self, message: Message) -> list[Answer]:
        number = int(message["number"])
        if not 0 <= number < 2**31:
            raise ValueError(f"draws are numbered from 0, got {number}")
        self.number = number
        return self._draw()

    def _on_code(self, message: Message) -> list[Answer]:
        number = int(message["number"])
        return self._go(self.explored.code(number), self._code_words(number))

    def _on_reset(self, _: Message) -> list[Answer]:
        self.history = self.history.moved(at_rest(self.history.now))
        return self._there()

    def _on_undo(self, _: Message) -> list[Answer]:
        self.history = self.history.undone()
        return self._there()

    def _on_redo(self, _: Message) -> list[Answer]:
        self.history = self.history.redone()
        return self._there()

    def _on_use(self, message: Message) -> list[Answer]:
        """Goes to a frame of the strip."""
        if self.strip is None:
            return []
        frame = int(np.clip(int(message["frame"]), 0, len(self.strip.places) - 1))
        if self.strip.amounts is None:
            share = self.strip.places[frame]
            words = f"{share:.0%} of the way along the {self.strip.title}"
            return self._go(self.strip.latents[frame], words)
        amounts = tuple(float(amount) for amount in self.strip.amounts[frame])
        self.history = self.history.moved(self.history.now._replace(amounts=amounts))
        return self._there()

    def _on_cursor(self, message: Message) -> list[Answer]:
        """Moves the map's cursor by shares of its width, or to where one is."""
        left, right, bottom, top = self.box
        if message.get("home"):
            self.cursor = self.mark()
        else:
            x = self.cursor[0] + float(message.get("dx", 0)) * (right - left)
            y = self.cursor[1] + float(message.get("dy", 0)) * (top - bottom)
            self.cursor = (float(np.clip(x, left, right)), float(np.clip(y, bottom, top)))
        return [{"kind": "cursor", "x": self.cursor[0], "y": self.cursor[1]}]

    def _on_pin(self, _: Message) -> list[Answer]:
        self.pins = [*self.pins, self.seen.latent][-PINS:]
        return [self._pins()]

    def _on_unpin(self, _: Message) -> list[Answer]:
        self.pins = []
        return [self._pins()]

    def _on_truncation(self, message: Message) -> list[Answer]:
        value = float(message["value"])
        if not 0 <= value <= MOST_TRUNCATION:
            raise ValueError(f"truncation must lie in [0, {MOST_TRUNCATION}], got {value}")
        self.looks = self.looks._replace(truncation=value)
        self.seen = self._look()
        return [self.image() | {"seq": message.get("seq", 0)}]

    def _on_label(self, message: Message) -> list[Answer]:
        label = int(message["label"])
        self.explored.of_class(label)
        self.looks = self.looks._replace(label=label)
        self.found = None
        return self._draw() if self.explored.classes_are_drawn else self._there()

    def _on_layers(self, message: Message) -> list[Answer]:
        first, last = int(message["first"]), int(message["last"])
        count = self.explored.layers
        if not 0 <= first <= last < count:
            raise ValueError(f"layers go from 0 to {count - 1}, got {first} to {last}")
        layers = None if (first, last) == (0, count - 1) else (first, last)
        self.history = self.history.moved(self.history.now._replace(layers=layers), "layers")
        return self._there()

    def _on_take(self, message: Message) -> list[Answer]:
        """A file to keep."""
        name = f"{self.explored.name}-{_file_name(self.history.now.origin)}"
        what = message["what"]
        if what == "npy":
            buffer = io.BytesIO()
            np.save(buffer, self.seen.latent)
            return [_file(f"{name}.npy", "application/octet-stream", buffer.getvalue())]
        if what == "png":
            colours = drawn.pixels(self.seen.sample, self.explored.generator.event_shape)
            return [_file(f"{name}.png", "image/png", drawn.png(colours[0]))]
        if what == "gif":
            return [_file(f"{name}.gif", "image/gif", self.gif())]
        raise ValueError(f"there is no file of the kind {what!r}; expected png, gif or npy")

    def _on_stop(self, _: Message) -> list[Answer]:
        """Takes what was found of a picture so far."""
        self.is_stopped = True
        return []

    # --- what takes longer ---

    def inverted(self, message: Message) -> Iterator[Answer]:
        """Looks for the latent of a picture, and tells how far it is; at last it is kept.

        Raises:
            ValueError: the file is no picture that can be taken.
        """
        self.is_stopped = False
        name = str(message.get("name", ""))[:60] or "your picture"
        picture = own_picture.opened(self.explored, str(message["content"]))
        yield own_picture.shown(picture, None, name)
        found = None
        for found in own_picture.inverted(
            self.explored, self.generator, picture, lambda: self.is_stopped
        ):
            yield own_picture.shown(picture, found, name)
        if found is None:
            yield note("stopped before anything was found") | {"done": True}
            return
        yield own_picture.shown(picture, found, name) | {"done": True, "share": 1.0}
        yield {"kind": "found", "latent": found.latent, "origin": name}

    def keep_picture(self, latent: Float[np.ndarray, "d"], name: str) -> list[Answer]:
        """Goes to the latent of a picture."""
        return self._go(latent, f"your picture, {name}")

    def tapped(self, x: float, y: float) -> list[Answer] | None:
        """Goes to a place of the map, or says that the way there is to be measured.

        Returns:
            Answers; None where `measured` is to be asked for them.
        """
        assert self.plane is not None
        if not np.isfinite([x, y]).all():
            return []
        there = self.plane.latents(np.array([x, y]))
        self.cursor = (float(x), float(y))
        if not self.tap_measures:
            self.tap_measures = True
            return self._go(there, f"the map at ({number(x)}, {number(y)})", lay=False)
        self.tap_measures = False
        self.history = self.history.moved(self.history.now._replace(target=there))
        return None

    def measured(self, start: np.ndarray, end: np.ndarray) -> Ways:
        """Both ways between two latents."""
        return route.ways(self.generator, start, end)

    def keep_ways(self, found: Ways) -> list[Answer]:
        """Shows both ways, and lets the strip go along the shortest."""
        self.found = found
        self.looks = self.looks._replace(track=GEODESIC)
        return [self.place(), self.way()]

    def follow(self) -> Callable[[], Strip]:
        """The strip of what is followed now, to be computed elsewhere."""
        now, looks, found = self.history.now, self.looks, self.found
        explored, generator = self.explored, self.generator
        count = self.frames
        if looks.track in (LINE, GEODESIC) and found is not None:
            points = found.line if looks.track == LINE else found.geodesic

            def along() -> Strip:
                latents = route.between(points, count)
                shares = np.linspace(0, 1, count)
                samples = explored.decode(latents, generator)
                return Strip(looks.track, shares, latents, samples, "of the way")

            return along
        names = [control.name for control in explored.controls]
        index = names.index(looks.track) if looks.track in names else 0
        control = explored.controls[index]
        low, high = bounds(control, now.base)
        low, high = max(low, -control.reach), min(high, control.reach)
        if not low < high:
            low, high = -control.reach, control.reach
        places = np.linspace(low, high, count)
        amounts = np.tile(np.asarray(now.amounts, np.float32), (count, 1))
        amounts[:, index] = places
        mask, truncation = self._mask(now), looks.truncation

        def moved() -> Strip:
            seen = [
                explored.at(now.base, own, mask=mask, truncation=truncation, generator=generator)
                for own in amounts
            ]
            latents, samples = (np.stack(rows) for rows in list(zip(*seen, strict=True))[:2])
            return Strip(control.name, places, latents, samples, control.unit, amounts)

        return moved

    def keep_strip(self, strip: Strip) -> list[Answer]:
        """Shows a strip."""
        self.strip = strip
        shape = self.explored.generator.event_shape
        middle = int(np.argmin(np.abs(strip.places)))
        answer: Answer = {
            "kind": "strip",
            "title": strip.title,
            "unit": strip.unit,
            "places": [round(float(place), 5) for place in strip.places],
            "start": middle,
            "is_way": strip.amounts is None,
        }
        if self.explored.is_picture:
            colours = drawn.pixels(strip.samples, shape)
            answer |= {"sheet": drawn.image(drawn.sheet(colours)), "count": len(colours)}
        else:
            answer |= {"rows": drawn.numbers(strip.samples, shape), "count": len(strip.places)}
        return [answer]

    def look_differently(self, message: Message) -> list[Answer]:
        """Changes what the map shows, or what the strip does.

        Raises:
            ValueError: there is no such plane, shade, colour or track.
        """
        given = {k: v for k, v in message.items() if k in Looks._fields}
        looks = self.looks._replace(**given)
        if not self._has(looks.axes):
            raise ValueError(f"there are no axes of the kind {looks.axes!r} here")
        names = [control.name for control in self.explored.controls]
        if looks.shade not in shading.names(self.explored):
            raise ValueError(f"a map cannot be shaded by {looks.shade!r}")
        if looks.colour != "nothing" and looks.colour not in self.explored.codes.colours:
            raise ValueError(f"codes cannot be coloured by {looks.colour!r}")
        if looks.track not in (*names, LINE, GEODESIC, ""):
            raise ValueError(f"there is nothing called {looks.track!r} to follow")
        self._lay(looks)
        self.looks = looks
        return [self.map()]

    def shades(self) -> Iterator[Answer]:
        """Shades the map, in steps."""
        assert self.plane is not None
        looks, box, laid = self.looks, self.box, self.plane
        for step in shading.shaded(
            self.explored, looks.shade, laid, box, looks.time, self.generator
        ):
            if isinstance(step, float):
                yield {"kind": "progress", "of": "shade", "share": step}
            else:
                yield {"kind": "shade", "shade": step, "box": box}

    # --- what is told ---

    def hello(self) -> Answer:
        """What a page needs to know of the run."""
        explored = self.explored
        generator = explored.generator
        controls = [
            {
                "name": control.name,
                "group": control.group,
                "unit": control.unit,
                "reach": control.reach,
                "basis": control.basis,
            }
            for control in explored.controls
        ]
        low, high = (0.0, 1.0) if explored.is_picture else explored.range
        return {
            "kind": "hello",
            "run": explored.name,
            "generator": generator.name,
            "latent_dim": generator.latent_dim,
            "shape": list(generator.event_shape),
            "is_picture": explored.is_picture,
            "range": [low, high],
            "how_drawn": plots.how_drawn(generator.event_shape),
            "controls": controls,
            "axes": {kind: words for kind, words in plane.KINDS.items() if self._has(kind)},
            "shades": list(shading.names(explored)),
            "timed": list(explored.learnt.potentials),
            "horizon": explored.learnt.horizon,
            "colours": ["nothing", *explored.codes.colours],
            "codes": explored.dataset.length if explored.codes.are_data and explored.dataset else 0,
            "points": "codes of data" if explored.codes.are_data else "draws of the prior",
            "factors": [factor.name for factor in explored.factors],
            "truncates": generator.encode is None,
            "layers": explored.layers,
            "classes": explored.classes,
            "takes_pictures": own_picture.takes_pictures(explored),
        }

    def image(self) -> Answer:
        """What is seen, and how far that is known to be good."""
        place, seen = self.history.now, self.seen
        shape = self.explored.generator.event_shape
        answer: Answer = {
            "kind": "image",
            "amounts": list(place.amounts),
            "missing": [round(float(share), 4) for share in seen.missing],
            "factors": [round(float(value), 3) for value in seen.factors],
            "mark": self.mark(),
            "off": self.plane.distance(seen.latent) if self.plane else 0.0,
            "link": self.link(),
            "undo": bool(self.history.past),
            "redo": bool(self.history.future),
            "truncation": self.looks.truncation,
        }
        if self.explored.is_picture:
            return answer | {"image": drawn.image(drawn.pixels(seen.sample, shape)[0])}
        return answer | {"row": drawn.numbers(seen.sample, shape)[0]}

    def place(self) -> Answer:
        """All of where one is: after more than a slider has moved."""
        now = self.history.now
        controls = self.explored.controls
        good = [bounds(control, now.base) for control in controls]
        return self.image() | {
            "kind": "place",
            "arrivals": self.arrivals,
            "origin": now.origin,
            "good": [[round(low, 5), round(high, 5)] for low, high in good],
            "label": self.looks.label,
            "layers": now.layers or [0, max(self.explored.layers - 1, 0)],
            "target": None if now.target is None or self.plane is None else self._seen(now.target),
            "measures": self.tap_measures,
            "track": self.looks.track,
            "ways": self.found is not None,
        }

    def way(self) -> Answer:
        """Both ways, as the map shows them, with their lengths."""
        assert self.plane is not None
        if self.found is None:
            return {"kind": "ways", "line": [], "geodesic": []}
        found = self.found
        return {
            "kind": "ways",
            "line": self.plane.seen(found.line).tolist(),
            "geodesic": self.plane.seen(found.geodesic).tolist(),
            "line_length": found.line_length,
            "geodesic_length": found.geodesic_length,
            "converged": found.converged,
        }

    def map(self) -> Answer:
        """The plane, with the codes on it."""
        assert self.plane is not None
        looks, codes = self.looks, self.explored.codes
        values = codes.colours.get(looks.colour)
        return {
            "kind": "map",
            "looks": looks._asdict(),
            "box": self.box,
            "points": self.plane.seen(codes.latents),
            "values": values,
            "names": codes.names if looks.colour == "label" else (),
            "numbers": codes.numbers,
            "count": int(self.plane.frame.basis.shape[1]),
            "mark": self.mark(),
            "link": self.link(),
        }

    def link(self) -> str:
        """The view as a word."""
        view = View(self.history.now, self.looks, tuple(self.pins))
        return to_link(view, self.explored.name, self.explored.identity)

    def mark(self) -> tuple[float, float]:
        """Where on the map one is."""
        return self._seen(self.seen.latent)

    def gif(self) -> bytes:
        """The strip, moving to its end and back for ever.

        Raises:
            ValueError: there is none yet.
        """
        if self.strip is None:
            raise ValueError("there is no strip yet; move a slider first")
        shape = self.explored.generator.event_shape
        pictures = plots.sample_pictures(self.strip.samples, shape)[None]
        return plots.traversal_gif(np.asarray(pictures), row_labels=[self.strip.title], fps=12)

    def open(self, link: str) -> list[Answer]:
        """Goes to what a link says.

        Returns:
            A note, if it says nothing that can be followed here.
        """
        explored = self.explored
        try:
            view = from_link(
                link, explored.identity, explored.generator.latent_dim, len(explored.controls)
            )
            self._check(view)
            before = self.history, self.pins
            self.history, self.pins = History(view.place), list(view.pins)
            try:
                self.seen = self._look(view)
                self.look_differently(view.looks._asdict())
            except ValueError as error:
                self.history, self.pins = before
                self.seen = self._look()
                raise ValueError(str(error)) from None
        except BadLink as error:
            return [note(str(error), wrong=True)]
        except ValueError as error:
            return [note(f"the link asks for what is not here: {error}", wrong=True)]
        return []

    @property
    def frames(self) -> int:
        """Frames of a strip: fewer of large pictures."""
        size = np.prod(self.explored.generator.event_shape[:2])
        if not self.explored.is_picture or size <= 128**2:
            return 33
        return 17 if size <= 256**2 else 9

    @property
    def generator(self) -> FrozenGenerator:
        """Of the class that is looked at."""
        return self.explored.of_class(self.looks.label)

    # --- within ---

    def _draw(self) -> list[Answer]:
        """Goes to the draw of the prior that was asked for last."""
        label = self.looks.label if self.explored.classes_are_drawn else None
        words = f"draw {self.number} of " + ("the prior" if label is None else f"class {label}")
        return self._go(self.explored.drawn(self.number, label), words)

    def _go(self, base: np.ndarray, origin: str, lay: bool = True) -> list[Answer]:
        self.history = self.history.moved(arrived(self.history.now, base, origin))
        self.tap_measures = self.tap_measures if not lay else False
        return self._there(lay)

    def _there(self, lay: bool = True) -> list[Answer]:
        """After one has gone somewhere else: the plane goes along."""
        self.arrivals += 1
        if self.history.now.target is None:
            self.found = None
        if self.looks.track in (LINE, GEODESIC) and self.found is None:
            self.looks = self.looks._replace(track=self._usual_track())
        self.seen = self._look()
        if lay:
            self._lay()
            return [self.map(), self.place(), self.way()]
        return [self.place(), self.way()]

    def _look(self, view: View | None = None) -> Seen:
        now = self.history.now if view is None else view.place
        looks = self.looks if view is None else view.looks
        return self.explored.at(
            now.base,
            now.amounts,
            mask=self._mask(now),
            truncation=looks.truncation,
            generator=self.explored.of_class(looks.label),
        )

    def _mask(self, now: Place) -> Float[np.ndarray, "d"]:
        """One where sliders move a latent, and zero where they do not."""
        mask = np.ones_like(now.base)
        if now.layers is not None and self.explored.layers:
            rows = mask.reshape(self.explored.layers, -1)
            rows[: now.layers[0]] = 0
            rows[now.layers[1] + 1 :] = 0
        return mask

    def _lay(self, looks: Looks | None = None) -> None:
        """Lays the plane of the map through where one is."""
        looks = looks or self.looks
        pins = np.stack(self.pins) if self.pins else None
        found = self.explored.plane(
            looks.axes, looks.first, looks.second, self.history.now.base, pins
        )
        shown = [found.seen(self.explored.codes.latents), found.seen(self.history.now.base)[None]]
        if looks.axes == "pinned" and pins is not None:
            shown = [found.seen(pins), found.seen(self.history.now.base)[None]]
        self.plane, self.box = found, plane.extent(np.concatenate(shown))
        self.cursor = self._seen(self.history.now.base)

    def _check(self, view: View) -> None:
        """Whether a view is one of this run.

        Raises:
            ValueError: it is none.
        """
        self._check_amounts(view.place.amounts)
        if not 0 <= view.looks.truncation <= MOST_TRUNCATION:
            raise ValueError(f"truncation must lie in [0, {MOST_TRUNCATION}]")
        self.explored.of_class(view.looks.label)
        first, last = view.place.layers or (0, 0)
        if not 0 <= first <= last < max(self.explored.layers, 1):
            raise ValueError(f"there are {self.explored.layers} layers, not {first} to {last}")

    def _check_amounts(self, amounts: Sequence[float]) -> None:
        for control, amount in zip(self.explored.controls, amounts, strict=True):
            if not abs(amount) <= 1.001 * control.reach:
                raise ValueError(f"{control.name} goes up to {control.reach:g}, not to {amount:g}")

    def _seen(self, latent: np.ndarray) -> tuple[float, float]:
        assert self.plane is not None
        x, y = self.plane.seen(latent)
        return float(x), float(y)

    def _pins(self) -> Answer:
        assert self.plane is not None
        seen = [self._seen(pin) for pin in self.pins]
        return {"kind": "pins", "count": len(self.pins), "pins": seen}

    def _has(self, kind: str) -> bool:
        if kind == "principal":
            return self.explored.generator.latent_dim > 1
        if kind == "visible":
            return self.explored.shows_axes
        return kind != "independent" or self.explored.codes.are_data

    def _usual_axes(self) -> str:
        if self.explored.generator.latent_dim <= 2:
            return "coordinates"
        usual = ("independent", "visible", "principal", "coordinates")
        is_normal = self.explored.generator.log_prior is not None
        return next(k for k in usual if self._has(k) and not (k == "principal" and is_normal))

    def _usual_track(self) -> str:
        return self.explored.controls[0].name if self.explored.controls else ""

    def _first_origin(self) -> str:
        numbers = self.explored.codes.numbers
        if self.explored.codes.are_data and numbers is not None:
            return self._code_words(int(numbers[0]))
        return "draw of the prior"

    def _code_words(self, index: int) -> str:
        return f"code of example {index}"


def note(text: str, *, wrong: bool = False) -> Answer:
    """Words for whoever looks at the page."""
    return {"kind": "note", "text": " ".join(text.split()), "wrong": wrong}


def _file(name: str, mime: str, content: bytes) -> Answer:
    encoded = base64.b64encode(content).decode()
    return {"kind": "file", "name": name, "mime": mime, "content": encoded}


def _file_name(words: str) -> str:
    """Words as part of a file's name.

    >>> _file_name("the map at (0.5, 2)")
    'the-map-at-0.5-2'
    """
    kept = "".join(c if c.isalnum() or c in ".-" else " " for c in words)
    return "-".join(kept.split()) or "latent"
