"""A view as a word of letters for the address of a page, and back."""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.explore.view import Looks, Place, View

VERSION = 1
LONGEST = 1 << 20
"""Bytes of a view, at most."""


class BadLink(ValueError):
    """A link that cannot be followed here; the message says why."""


def to_link(view: View, run: str, identity: str) -> str:
    """A view as a word that a web address may hold.

    Args:
        view: what shall be seen again.
        run: what the run is called.
        identity: that no other run has.
    """
    place = view.place
    content = {
        "version": VERSION,
        "run": run,
        "of": identity,
        "base": _written(place.base),
        "amounts": place.amounts,
        "origin": place.origin,
        "target": None if place.target is None else _written(place.target),
        "layers": place.layers,
        "looks": view.looks._asdict(),
        "pins": [_written(pin) for pin in view.pins],
    }
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def from_link(link: str, identity: str, latent_dim: int, sliders: int) -> View:
    """The view that a link was made of.

    Args:
        link: of `to_link`, or what somebody made of it.
        identity: of the run that is seen here.
        latent_dim: of its latents.
        sliders: how many it has.

    Raises:
        BadLink: it is damaged, of another version, or was made for another run.
    """
    content = _unpacked(link)
    if content.get("version") != VERSION:
        raise BadLink("the link was made by another version of the explorer")
    if content.get("of") != identity:
        name = str(content.get("run", "another run"))[:80]
        raise BadLink(
            f"the link was made for another run ({name}), or for this one before it was changed; "
            "open it where that run is explored"
        )
    try:
        return _view(content, latent_dim, sliders)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise BadLink("the link is damaged; copy it once more, whole") from None


def _view(content: Mapping[str, Any], latent_dim: int, sliders: int) -> View:
    amounts = tuple(float(amount) for amount in content["amounts"])
    if len(amounts) != sliders or not all(map(math.isfinite, amounts)):
        raise ValueError(amounts)
    target = content["target"]
    layers = content["layers"]
    place = Place(
        _read(content["base"], latent_dim),
        amounts,
        str(content["origin"])[:80],
        None if target is None else _read(target, latent_dim),
        None if layers is None else (int(layers[0]), int(layers[1])),
    )
    pins = tuple(_read(pin, latent_dim) for pin in content["pins"][:3])
    return View(place, _looks(content["looks"]), pins)


def _looks(found: Mapping[str, Any]) -> Looks:
    usual = Looks()
    kept: dict[str, Any] = {}
    for name, value in usual._asdict().items():
        given = found.get(name, value)
        kept[name] = given if value is None or given is None else type(value)(given)
    looks = Looks(**kept)
    label = None if looks.label is None else int(looks.label)
    if not (math.isfinite(looks.time) and math.isfinite(looks.truncation)):
        raise ValueError(looks)
    return looks._replace(label=label)


def _written(latent: Float[np.ndarray, "d"]) -> str:
    return base64.b64encode(np.asarray(latent, "<f4").tobytes()).decode()


def _read(text: str, latent_dim: int) -> Float[np.ndarray, "d"]:
    found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    if found.shape != (latent_dim,) or not np.isfinite(found).all():
        raise ValueError(found.shape)
    return found


def _unpacked(link: str) -> Mapping[str, Any]:
    try:
        packed = base64.urlsafe_b64decode(link + "=" * (-len(link) % 4))
        opened = zlib.decompressobj()
        content = json.loads(opened.decompress(packed, LONGEST))
        if not isinstance(content, dict) or opened.unconsumed_tail:
            raise ValueError(link)
    except (ValueError, binascii.Error, zlib.error, RecursionError):
        raise BadLink("the link is damaged; copy it once more, whole") from None
    return content
