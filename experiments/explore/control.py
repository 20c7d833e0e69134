"""One slider: what it moves, in which unit, and how far that is known to be good."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows.typing import Generator, Latent, Scalar

Move = Callable[[Generator, Float[Array, "k"], Latent], tuple[Latent, Float[Array, "k"]]]
"""`(generator, amounts, z)` to the latent there, and the share of each amount that is missing."""


class Control(NamedTuple):
    """A slider."""

    name: str
    """What is written beside it, and by what links know it."""
    group: str
    """Under which heading."""
    unit: str
    """Of its amounts."""
    reach: float
    """The largest amount either way that it can be set to."""
    good: tuple[float, float]
    """Amounts, or values, between which it is known to be good."""
    basis: str
    """What that is known from, in a few words."""
    value: Callable[[Latent], Scalar] | None = None
    """`z -> t`, where `good` is about the value that the slider changes; None: about the amount."""


class Part(NamedTuple):
    """Some sliders that move a latent together."""

    controls: tuple[Control, ...]
    move: Move


def bounds(control: Control, base: Float[np.ndarray, "d"]) -> tuple[float, float]:
    """Amounts between which a slider is known to be good, from a latent."""
    low, high = control.good
    if control.value is None:
        return low, high
    now = float(control.value(jnp.asarray(base)))
    return low - now, high - now
