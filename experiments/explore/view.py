"""Where one is in a latent space and how one looks at it, as values without a page or a network."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

MOST = 200
"""Steps that undo goes back."""


class Place(NamedTuple):
    """Where one is: what undo takes back."""

    base: Float[np.ndarray, "d"]
    """The latent that the sliders start from."""
    amounts: tuple[float, ...]
    """Of each slider."""
    origin: str
    """Where the base comes from, in words."""
    target: Float[np.ndarray, "d"] | None = None
    """Where a way leads from here."""
    layers: tuple[int, int] | None = None
    """The first and the last layer whose part of a latent the sliders move; None: all."""


class Looks(NamedTuple):
    """How one looks: what undo leaves as it is."""

    axes: str = "coordinates"
    """What kind of plane the map shows."""
    first: int = 0
    """Its horizontal axis."""
    second: int = 1
    """Its vertical axis."""
    shade: str = "nothing"
    """What the plane is shaded by."""
    time: float = 0.0
    """At which a potential is shown."""
    colour: str = "nothing"
    """What codes are coloured by."""
    track: str = ""
    """What the strip shows: a slider's name, or a kind of way."""
    truncation: float = 1.0
    """How far from the middle latents are: 1 leaves them where they are."""
    label: int | None = None
    """The class, where a generator has some."""


class View(NamedTuple):
    """Both, and what a link reopens."""

    place: Place
    looks: Looks
    pins: tuple[Float[np.ndarray, "d"], ...] = ()
    """Latents that a plane may go through."""


def slid(place: Place, index: int, amount: float) -> Place:
    """The place after one slider was moved; a way that led from there leads from here no more.

    Args:
        place: where one was.
        index: of the slider.
        amount: where it is now.

    Raises:
        ValueError: there is no such slider, or the amount is not finite.
    """
    if not 0 <= index < len(place.amounts):
        raise ValueError(f"there is no slider {index}: there are {len(place.amounts)}")
    if not np.isfinite(amount):
        raise ValueError(f"a slider cannot be at {amount}")
    before, after = place.amounts[:index], place.amounts[index + 1 :]
    return place._replace(amounts=(*before, float(amount), *after), target=None)


def arrived(place: Place, base: Float[np.ndarray, "d"], origin: str) -> Place:
    """The place at another latent, with all sliders at rest and no way to anywhere."""
    still = (0.0,) * len(place.amounts)
    return place._replace(base=base, amounts=still, origin=origin, target=None)


def at_rest(place: Place) -> Place:
    """The same base with all sliders at rest and no way to anywhere."""
    return arrived(place, place.base, place.origin)


class History(NamedTuple):
    """Places one after the other."""

    now: Place
    past: tuple[Place, ...] = ()
    future: tuple[Place, ...] = ()
    grip: str = ""
    """What moves on and on: its steps are one."""

    def moved(self, place: Place, grip: str = "") -> "History":
        """One step further; what was undone before is forgotten.

        Args:
            place: where one is now.
            grip: what is held. While it stays the same, and is not empty, all is one step.
        """
        if grip and grip == self.grip:
            return History(place, self.past, (), grip)
        return History(place, (*self.past, self.now)[-MOST:], (), grip)

    def released(self) -> "History":
        """Nothing is held any more: the next step is one of its own."""
        return self._replace(grip="")

    def undone(self) -> "History":
        """One step back, if there is one."""
        if not self.past:
            return self.released()
        return History(self.past[-1], self.past[:-1], (self.now, *self.future))

    def redone(self) -> "History":
        """One step forward again, if one was undone."""
        if not self.future:
            return self.released()
        return History(self.future[0], (*self.past, self.now), self.future[1:])
