"""Steered fields as traversals to compare with: what is exact, where potentials are learnt."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.steer.config import Config
from latent_flows import directions, flows, steering
from latent_flows.data.image_factors import Measures
from latent_flows.evaluation.comparison import Family
from latent_flows.typing import Generator, VectorField

NAME = "steered"
MOVERS = {"x": ("translate_x", 0.2), "y": ("translate_y", 0.2), "size": ("zoom_object", 0.5)}
"""By the factor that it changes, a transformation of light on black, and how far it goes."""


def families(
    generator: Generator, starts: Float[Array, "k n m"], measures: Measures, horizon: float
) -> list[Family]:
    """The fields of transformations, where they change what is measured: one family, or none.

    Args:
        generator: of images.
        starts: of as many traversals as there are at most.
        measures: which factors are measured on the images.
        horizon: in which a field goes as far as is worth looking at.
    """
    movers = [mover for factor, mover in MOVERS.items() if factor in measures.factor_names]
    fields = tuple(_field(generator, kind, far / horizon) for kind, far in movers[: len(starts)])
    if not fields:
        return []
    places = jnp.arange(len(fields))
    return [Family(NAME, generator, partial(_one_of, fields), places, starts[: len(fields)])]


def _field(generator: Generator, kind: str, pace: float) -> VectorField:
    field = steering.transformation_field(
        generator, directions.transformation(kind), blur=Config.blur, damping=Config.damping
    )
    return flows.combine([field], [pace])


def _one_of(fields: tuple[VectorField, ...], place: Array, t: Array, z: Array) -> Array:
    return jax.lax.switch(place, fields, t, z)
