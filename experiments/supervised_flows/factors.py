"""What is known of data that are drawn: the factors that sequences change, and what shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.supervised_flows.known import Known
from latent_flows import data
from latent_flows.data import Dataset, scenes, sprites
from latent_flows.data.drawn import Drawn
from latent_flows.evaluation.comparison import factor_ranges

SURVEYED = 2000
"""Images whose attributes say what their ranges are."""


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


@dataclass(frozen=True)
class DrawnFactors(Known):
    """A data set whose images are drawn from known factors."""

    drawn: Drawn
    factors: Mapping[str, Factor]
    """By name."""
    size: int = 64
    """Pixels a side of what is rendered."""

    def named(self, names: Sequence[str]) -> list[Factor]:
        """Factors by their names."""
        return [self.factors[name] for name in names]

    def own(self, names: Sequence[str]) -> list[int]:
        """For each factor, which of the measured attributes shows it."""
        return [self.measures.factor_names.index(factor.seen) for factor in self.named(names)]

    def frames(
        self, names: Sequence[str], key: Array, k: Int[Array, ""], share: Float[Array, "t"]
    ) -> Any:
        """The factors of the frames of one sequence in which factor `k` changes."""
        values = {}
        for name, value in self.drawn.random_factors(key)._asdict().items():
            values[name] = jnp.full(len(share), value, jnp.float32)
        for index, factor in enumerate(self.named(names)):
            changed = factor.low + factor.width * share
            values[factor.field] = jnp.where(k == index, changed, values[factor.field])
        return self.drawn.factors(**values)

    def render(self, frame: Any) -> tuple[Float[Array, "h w c"], Float[Array, ""]]:
        """The true image of some factors, all of which is known."""
        return self.drawn.render(frame, size=self.size), jnp.ones(())

    def ranges(self, dataset: Dataset, seed: int) -> Float[Array, "f"]:
        """Width of the central 98% of each attribute over the data."""
        chosen = np.random.default_rng(seed).permutation(dataset.length)[:SURVEYED]
        return factor_ranges(self.measures, jnp.asarray(dataset.examples(chosen)["image"]))


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


KNOWN: Mapping[str, DrawnFactors] = MappingProxyType(
    {
        name: DrawnFactors(data.measures(name), data.DRAWN[name], MappingProxyType(factors))
        for name, factors in ((sprites.NAME, _OF_SPRITES), (scenes.NAME, _of_scenes()))
    }
)
"""Data sets whose factors sequences can change, by name."""

NAMES = {name: f"of {of}" for of, known in KNOWN.items() for name in known.factors}
"""Factors of any of them."""
