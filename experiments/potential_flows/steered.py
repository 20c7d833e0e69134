"""Steered fields as traversals to compare with: what is exact, where potentials are learnt."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.steer.config import HOLDS, Config, method_of
from latent_flows import directions, flows, steering
from latent_flows.data.image_factors import Measures
from latent_flows.evaluation.comparison import Family
from latent_flows.typing import Generator, VectorField

MOVERS = {"x": ("translate_x", 0.2), "y": ("translate_y", 0.2), "size": ("zoom_object", 0.5)}
"""By the factor that it changes, a transformation of light on black, and how far it goes."""
SHARE = 0.2
"""Of its range, how far a measured factor goes."""
BY_ATTRIBUTES = "steered by attributes"
"""Each measured factor grows while the others stand still: these are told what is measured."""
NAMES = (*map(method_of, HOLDS), BY_ATTRIBUTES)


def families(
    generator: Generator,
    starts: Float[Array, "k n m"],
    measures: Measures,
    ranges: Float[Array, "f"],
    horizon: float,
) -> list[Family]:
    """The fields of transformations, by what is held, and those of the measured factors.

    Args:
        generator: of images.
        starts: of as many traversals as there are at most.
        measures: which factors are measured on the images.
        ranges: of these in the data.
        horizon: in which a field goes as far as is worth looking at.

    Returns:
        A family for each way in which there is a field.
    """
    found: dict[str, list[VectorField]] = {}
    movers = [mover for factor, mover in MOVERS.items() if factor in measures.factor_names]
    for hold, kept in HOLDS.items():
        fields = [
            steering.transformation_field(
                generator,
                directions.transformation(kind),
                **kept._asdict(),
                blur=Config.blur,
                damping=Config.damping,
            )
            for kind, _ in movers
        ]
        found[method_of(hold)] = [
            flows.combine([field], [far / horizon])
            for field, (_, far) in zip(fields, movers, strict=True)
        ]
    found[BY_ATTRIBUTES] = [
        steering.attribute_field(
            generator, measures.measure, place, rates=[SHARE * float(far) / horizon]
        )
        for place, far in enumerate(ranges)
    ]
    return [
        Family(name, generator, partial(_one_of, tuple(fields)), places, starts[: len(places)])
        for name, fields in found.items()
        if len(places := jnp.arange(min(len(fields), len(starts))))
    ]


def _one_of(fields: tuple[VectorField, ...], place: Array, t: Array, z: Array) -> Array:
    return jax.lax.switch(place, fields, t, z)
