"""A picture of somebody's own, brought into the latent space while they look on."""

import base64
import binascii
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.explore import drawn
from experiments.explore.explored import Explored
from latent_flows.data.picture import Picture, read_picture
from latent_flows.generators import FrozenGenerator
from latent_flows.inversion import (
    InversionSettings,
    init_inversion,
    inversion_result,
    inversion_step,
)

LARGEST = 12 * 2**20
"""Bytes of a file, at most."""
STEPS = 200
"""Of each descent."""
TOLD = 10
"""Steps between two looks at how far it is."""
MANY, FEW = 8, 3
"""Descents for small pictures, and for those of more than `SMALL` pixels."""
SMALL = 128 * 128


class Found(NamedTuple):
    """What was found so far."""

    share: float
    """Of the steps that are made."""
    latent: Float[np.ndarray, "d"]
    sample: Float[np.ndarray, "h w c"]
    error: float
    """Mean squared error."""
    words: str
    """What may be wrong with it; nothing where it was found."""


def takes_pictures(explored: Explored) -> bool:
    """Whether samples are pictures that a file can hold."""
    shape = explored.generator.event_shape
    return len(shape) == 3 and shape[2] in (1, 3)


def opened(explored: Explored, content: str) -> Picture:
    """A picture in the size and the colours of the generator's.

    Args:
        explored: the generator, and what is known of it.
        content: of the file, in base 64.

    Raises:
        ValueError: it is no picture, damaged or too large, or the generator makes none.
    """
    if not takes_pictures(explored):
        raise ValueError(f"{explored.generator.name} makes no pictures that could be compared")
    if len(content) * 3 // 4 > LARGEST:
        raise ValueError(f"the file is larger than {LARGEST // 2**20} MB; make it smaller")
    try:
        content_bytes = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the file did not arrive whole; drop it once more") from None
    try:
        return read_picture(content_bytes, explored.generator.event_shape)
    except ValueError as error:
        raise ValueError(f"this file cannot be taken: {error}") from None


def settings_for(explored: Explored) -> InversionSettings:
    """How a generator is inverted: from fewer starts where pictures are large."""
    size = math.prod(explored.generator.event_shape[:2])
    return InversionSettings(starts=MANY if size <= SMALL else FEW, steps=STEPS)


def inverted(
    explored: Explored,
    generator: FrozenGenerator,
    picture: Picture,
    is_stopped: Callable[[], bool],
) -> Iterator[Found]:
    """Looks for the latent of a picture, and tells every few steps how far it is.

    Args:
        explored: the generator, and what is known of it.
        generator: its generator, of whatever class.
        picture: of `opened`.
        is_stopped: asked before every few steps: then the best so far is the last.
    """
    settings = settings_for(explored)
    image = jnp.asarray(picture.pixels)
    state: Any = init_inversion(jax.random.key(explored.seed), generator, image, settings)
    done = 0
    while done < settings.steps and not is_stopped():
        state = inversion_step(generator, image, state, settings, count=TOLD)
        done = int(state.step)
        found = inversion_result(generator, image, state, settings)
        words = str(found.message) if done == settings.steps else ""
        yield Found(
            done / settings.steps,
            np.asarray(found.z),
            np.asarray(found.image),
            float(found.error),
            words,
        )


def shown(picture: Picture, found: Found | None, name: str) -> dict[str, Any]:
    """What the page is told of it."""
    shape = picture.pixels.shape
    answer: dict[str, Any] = {
        "kind": "picture",
        "target": drawn.image(drawn.pixels(picture.pixels, shape)[0]),
        "changed": bool(picture.notes),
        "share": 0.0,
        "done": False,
    }
    notes = f" ({'; '.join(picture.notes)})" if picture.notes else ""
    if found is None:
        return answer | {"words": f"{name}{notes}: looking for it ..."}
    root = math.sqrt(found.error)
    words = f"{name}{notes}: root mean square error {root:.3g} of white."
    if found.words:
        words += f" {found.words[:1].upper()}{found.words[1:].rstrip('.')}."
    image = drawn.image(drawn.pixels(found.sample, shape)[0])
    return answer | {"image": image, "share": found.share, "words": words}
