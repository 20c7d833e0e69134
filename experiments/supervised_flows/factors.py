"""What is known of data that are drawn: the factors that sequences change, and what shows them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows import data
from latent_flows._validation import choose
from latent_flows.data import Measures, scenes, sprites
from latent_flows.data.drawn import Drawn


class Factor(NamedTuple):
    """A factor of a data set that sequences change, and what shows it in an image."""

    field: str
    """Of what an image is drawn from."""
    low: float
    """The least value it starts from or gets to."""
    width: float
    """How far from there the greatest value is."""
    seen: str
    """Of what is measured on such images."""


class Known(NamedTuple):
    """A data set whose images are drawn from known factors."""

    drawn: Drawn
    measures: Measures
    factors: Mapping[str, Factor]
    """By name."""

    def named(self, names: Sequence[str]) -> list[Factor]:
        """Factors by their names."""
        return [self.factors[name] for name in names]

    def own(self, names: Sequence[str]) -> list[int]:
        """For each factor, which of the measured attributes shows it."""
        return [self.measures.factor_names.index(factor.seen) for factor in self.named(names)]

    def others(self, names: Sequence[str]) -> Float[np.ndarray, "k f"]:
        """For each factor, 1 for every attribute that it should not change."""
        return 1.0 - np.eye(len(self.measures.factors))[self.own(names)]

    def changes(self, values: Float[Array, "*n t f"]) -> Float[Array, "*n t f"]:
        """How far measured attributes have come along sequences.

        What begins anew, as a hue does after one turn, has come as far as its steps add up to.

        Args:
            values: of every attribute of every image.

        Returns:
            Their differences to those of the first image.

        >>> hues = jnp.array([0.8, 0.95, 0.1])
        >>> values = jnp.stack([hues] + 5 * [jnp.zeros(3)], axis=-1)
        >>> print(KNOWN["scenes"].changes(values)[:, 0].round(3))
        [0.   0.15 0.3 ]
        """
        periods = np.array([factor.period for factor in self.measures.factors])
        turns = np.isfinite(periods)
        whole = np.where(turns, periods, 1.0).astype(values.dtype)
        passed = jnp.where(turns, jnp.round(jnp.diff(values, axis=-2) / whole), 0)
        along = jnp.cumsum(passed, axis=-2)
        first = jnp.zeros_like(values[..., :1, :])
        return values - whole * jnp.concatenate([first, along], axis=-2) - values[..., :1, :]


_OF_SPRITES = {
    "x": Factor("x", 0.0, 1.0, "x"),
    "y": Factor("y", 0.0, 1.0, "y"),
    "scale": Factor("scale", 0.5, 0.5, "size"),
    # From a square to an ellipse, through shapes that no image of dSprites has.
    "elongation": Factor("shape", 0.0, 1.0, "elongation"),
}


def _of_scenes() -> dict[str, Factor]:
    # A hue goes from red to red and not past it: no potential grows all the way round a circle.
    ranges = dict.fromkeys(scenes.DRAWN.shown, (0.0, 1.0)) | scenes.RANGES
    return {
        name: Factor(name, ranges[name][0], ranges[name][1] - ranges[name][0], name)
        for name in scenes.DRAWN.shown
    }


KNOWN: Mapping[str, Known] = MappingProxyType(
    {
        name: Known(data.DRAWN[name], data.measures(name), MappingProxyType(factors))
        for name, factors in ((sprites.NAME, _OF_SPRITES), (scenes.NAME, _of_scenes()))
    }
)
"""Data sets whose factors sequences can change, by name."""

NAMES = {name: f"of {of}" for of, known in KNOWN.items() for name in known.factors}
"""Factors of any of them."""


def check_factors(dataset: str, names: Sequence[str]) -> Known:
    """What is known of a data set, all of whose factors with some names there are.

    Raises:
        ValueError: there is no such factor; the nearest is named.
    """
    for name in names:
        choose(f"factor of {dataset}", name, KNOWN[dataset].factors)
    return KNOWN[dataset]
