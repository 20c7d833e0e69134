"""Steered fields as traversals to compare with: what is exact, where potentials are learnt."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.steer.config import Config
from latent_flows import directions, flows, steering
from latent_flows.data.image_factors import ImageFactor, Measures
from latent_flows.evaluation.comparison import Family
from latent_flows.typing import Generator, VectorField

NAME = "steered"
MOVERS = {"x": ("translate_x", 0.2), "y": ("translate_y", 0.2), "size": ("zoom_object", 0.5)}
"""By the factor that it changes, a transformation of light on black, and how far it goes."""
FAR = 0.25
"""How far a factor that is led by itself goes, in units of its range."""
FEW = 32
"""Latents up to which an adaptive solver follows transformations."""
DEAR = "midpoint"
"""Of `flows.solver`, what follows all else, a step a segment. On a plain VAE of sprites it took a
seventh of the time, and shares differed by 0.012."""


class Steered(NamedTuple):
    """Exact fields, each of which changes one factor."""

    factors: tuple[ImageFactor, ...]
    """These."""
    fields: tuple[VectorField, ...]
    """One for each; within the horizon it goes as far as is worth looking at."""
    paces: Float[Array, "k"]
    """How fast each factor would go at such a pace, by its range in the data."""
    rates: Float[Array, "k f"] | None
    """Of all that is measured, where all but the one factor is held."""


def exact(
    generator: Generator,
    measures: Measures,
    ranges: Float[Array, "f"],
    horizon: float,
    most: int,
) -> Steered:
    """The fields of transformations, where they change what is measured; else those of what is.

    Args:
        generator: of images.
        measures: which factors are measured on the images.
        ranges: of these factors in the data.
        horizon: of traversals.
        most: how many at most.
    """
    named = {factor.name: factor for factor in measures.factors}
    movers = [name for name in MOVERS if name in named]
    factors = tuple(named[name] for name in movers or named)[:most]
    paces = FAR * ranges / horizon
    chosen = jnp.array([measures.factor_names.index(factor.name) for factor in factors], int)
    if movers:
        moves = (MOVERS[factor.name] for factor in factors)
        fields = tuple(_field(generator, kind, far / horizon) for kind, far in moves)
        return Steered(factors, fields, paces[chosen], None)
    rates = jnp.diag(paces)[chosen]
    grown = tuple(partial(_grown, generator, measures, rate) for rate in rates)
    return Steered(factors, grown, paces[chosen], rates)


def family(
    found: Steered, generator: Generator, measures: Measures, starts: Float[Array, "k n m"]
) -> Family:
    """Exact fields as traversals, from starts of as many as there are at most."""
    starts = starts[: len(found.factors)]
    if found.rates is not None:
        led = partial(_grown, generator, measures)
        return Family(NAME, generator, led, found.rates, starts, DEAR)
    how = "" if starts.shape[-1] <= FEW else DEAR
    led = partial(_one_of, found.fields)
    return Family(NAME, generator, led, jnp.arange(len(found.fields)), starts, how)


def _grown(
    generator: Generator, measures: Measures, rates: Float[Array, "f"], t: Array, z: Array
) -> Array:
    """What is measured grows at these rates; all of it is named, so that one program serves all."""
    every = range(len(rates))
    return steering.attribute_field(generator, measures.measure, every, rates=rates)(t, z)


def _field(generator: Generator, kind: str, pace: float) -> VectorField:
    field = steering.transformation_field(
        generator, directions.transformation(kind), blur=Config.blur, damping=Config.damping
    )
    return flows.combine([field], [pace])


def _one_of(fields: tuple[VectorField, ...], place: Array, t: Array, z: Array) -> Array:
    return jax.lax.switch(place, fields, t, z)
