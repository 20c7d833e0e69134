"""Steered fields as traversals to compare with: what is exact, where potentials are learnt."""

from collections.abc import Sequence
from functools import partial

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


def moved(measures: Measures, most: int) -> tuple[ImageFactor, ...]:
    """The factors of which each field changes one, in their order.

    Args:
        measures: what is measured on the images.
        most: how many at most.
    """
    named = {factor.name: factor for factor in measures.factors}
    shown = tuple(named[name] for name in MOVERS if name in named)
    return (shown or measures.factors)[:most]


def paces(
    factors: Sequence[ImageFactor],
    measures: Measures,
    ranges: Float[Array, "f"],
    horizon: float,
) -> Float[Array, "k"]:
    """How fast each of some factors goes as far as is worth looking at, within the horizon."""
    places = [measures.factor_names.index(factor.name) for factor in factors]
    return FAR * ranges[jnp.array(places)] / horizon


def families(
    generator: Generator,
    starts: Float[Array, "k n m"],
    measures: Measures,
    ranges: Float[Array, "f"],
    horizon: float,
) -> list[Family]:
    """The fields of transformations, where they change what is measured; else those of what is.

    Args:
        generator: of images.
        starts: of as many traversals as there are at most.
        measures: which factors are measured on the images.
        ranges: of these factors in the data.
        horizon: in which a field goes as far as is worth looking at.

    Returns:
        One family, or none where nothing is measured.
    """
    factors = moved(measures, len(starts))
    starts = starts[: len(factors)]
    if not factors:
        return []
    if factors[0].name not in MOVERS:
        rates = jnp.diag(paces(measures.factors, measures, ranges, horizon))[: len(factors)]
        return [Family(NAME, generator, partial(_grown, generator, measures), rates, starts, DEAR)]
    fields = tuple(_field(generator, *MOVERS[factor.name], horizon) for factor in factors)
    how = "" if starts.shape[-1] <= FEW else DEAR
    led = partial(_one_of, fields)
    return [Family(NAME, generator, led, jnp.arange(len(fields)), starts, how)]


def _grown(
    generator: Generator, measures: Measures, rates: Float[Array, "f"], t: Array, z: Array
) -> Array:
    """What is measured grows at these rates; all of it is named, so that one program serves all."""
    every = range(len(rates))
    return steering.attribute_field(generator, measures.measure, every, rates=rates)(t, z)


def _field(generator: Generator, kind: str, far: float, horizon: float) -> VectorField:
    field = steering.transformation_field(
        generator, directions.transformation(kind), blur=Config.blur, damping=Config.damping
    )
    return flows.combine([field], [far / horizon])


def _one_of(fields: tuple[VectorField, ...], place: Array, t: Array, z: Array) -> Array:
    return jax.lax.switch(place, fields, t, z)
