"""What a run has learnt, as sliders, and what any generator has without."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.explore import plane
from experiments.explore.control import Control, Part
from experiments.explore.moves import (
    attribute_part,
    axis_part,
    direction_part,
    flow_part,
    steered_part,
)
from experiments.generators.limits import SMALLEST
from experiments.learnt import reader
from experiments.learnt.factors import Fitted, Steered
from experiments.learnt.flows import Followed
from experiments.steer.config import HOLDS
from latent_flows import coordinates, data
from latent_flows._named_function import label
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data.image_factors import ImageFactor
from latent_flows.directions import sefa
from latent_flows.directions.model import DirectionModel
from latent_flows.directions.transformations import ENTRIES, entry
from latent_flows.generators import FrozenGenerator
from latent_flows.typing import Generator, Latent, Potential, Scalar

FLOWS, STRAIGHT, CURVED = "Learnt flows", "Directions, straight", "Directions, curved"
STEERED, AXES = "Steered", "Straight axes"
MOST_AXES = 6
"""Straight axes that have a slider."""
LONGEST = 96
"""Latents up to which the image is steered: a Jacobian is formed at every step."""
AFFORDED = 2e8
"""Numbers of the Jacobians there, at most."""
COMPUTED = 5e10
"""Operations of as many samples as these have columns, at most."""
TYPICAL = ("translate_x", "translate_y", "zoom_object", "brightness", "saturation")
"""What images are steered by where the run does not say."""
UNITS = {
    "translate_x": "image widths",
    "translate_y": "image heights",
    "zoom": "doublings",
    "zoom_object": "doublings",
    "rotate": "radians",
    "rotate_object": "radians",
    "brightness": "stops",
    "contrast": "doublings",
    "hue": "turns",
    "saturation": "doublings",
}


class Learnt(NamedTuple):
    """What a run has learnt, besides what any generator has."""

    parts: tuple[Part, ...] = ()
    potentials: Mapping[str, Potential] = {}
    """By name, each `(t, z) -> u` of the generator's own latents."""
    horizon: float = 1.0
    """The time that they were trained for."""
    frames: Mapping[str, AffineCoordinates] = {}
    """Axes that are known already, by their kind."""


def read(run: str, generator: FrozenGenerator) -> Learnt:
    """What there is in a finished run.

    Raises:
        UsageError: it is not finished, or no run.
    """
    found = reader.read(run, generator)
    if isinstance(found, Steered):
        attributes = _attributes(generator) if found.config.attributes else ()
        return Learnt((*_steered(found), *attributes))
    usual = usual_steering(generator)
    if isinstance(found, Followed):
        climbed = {}
        if (known := found.climbed) is not None:
            climbed = {f"potential {name}": known(k) for k, name in enumerate(found.names)}
        frames = {"independent": found.frame} if found.has_components else {}
        return Learnt((_flows(found), *usual), climbed, found.horizon, frames)
    if isinstance(found, Fitted):
        return Learnt((*_directions(found), *usual))
    return Learnt(usual)


def _flows(found: Followed) -> Part:
    horizon = found.horizon
    controls = [
        Control(
            f"{found.one} {name}",
            FLOWS,
            "time",
            2 * horizon,
            (-horizon, horizon),
            "the time it was trained for",
        )
        for name in found.names
    ]
    return flow_part(controls, found.field, found.members, found.frame)


def _directions(found: Fitted) -> Iterator[Part]:
    learnt = found.learnt
    for group, is_straight in ((STRAIGHT, True), (CURVED, False)):
        models = [
            (name, model)
            for name, model in zip(learnt.names, learnt.models, strict=True)
            if isinstance(model, DirectionModel) == is_straight
        ]
        controls = [
            Control(
                f"{label(name)}{'' if is_straight else ', curved'}",
                group,
                _unit(name),
                float(model.limits[1] - model.limits[0]),
                (float(model.limits[0]), float(model.limits[1])),
                f"the range it was fitted to, held-out R2 {float(model.r2):.2f}",
                model,
            )
            for name, model in models
        ]
        if models:
            yield direction_part(controls, [model for _, model in models])


def _steered(found: Steered) -> Iterator[Part]:
    config, hold = found.config, found.config.hold[-1]
    for kind in config.transformations:
        words = "the range it was measured over"
        if (share := found.reached.get((kind, hold))) is not None:
            words += f", of which {share:.0%} was reached"
        limit = float(found.limits[kind])
        name = label(kind).replace("_", " ")
        control = Control(name, STEERED, _unit(kind), 2 * limit, (-limit, limit), words)
        kept = HOLDS[hold]._asdict()
        yield steered_part(control, kind, **kept, blur=config.blur, damping=config.damping)


def _unit(kind: str) -> str:
    """Of the amount of a transformation: of one's own, that of what it is known to raise."""
    if kind in UNITS:
        return UNITS[kind]
    factor = entry(kind).factor
    return "" if factor is None else factor.unit


def usual_steering(generator: FrozenGenerator) -> tuple[Part, ...]:
    """Steering of any generator of images: of grey or coloured ones, and latents that are short.

    Where the factors of its data are none that transformations change, each of those by itself.
    """
    shape = generator.event_shape
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape[:2]) < SMALLEST:
        return ()
    if generator.latent_dim > LONGEST:
        return ()
    if own := _attributes(generator):
        return own
    blur = 3.0 * min(shape[:2]) / 64
    found = []
    for kind in TYPICAL:
        known = ENTRIES[kind]
        if known.coloured and shape[2] == 1:
            continue
        control = Control(
            kind.replace("_", " "),
            STEERED,
            UNITS[kind],
            2 * known.reach,
            (-known.reach, known.reach),
            "the usual range, not measured on this generator",
        )
        found.append(steered_part(control, kind, blur=blur, damping=0.01))
    return tuple(found)


def _attributes(generator: FrozenGenerator) -> tuple[Part, ...]:
    """What is measured on images of the data and was varied in them, each by itself.

    Nothing where the usual transformations change some of it, or it is not known.
    """
    drawn, measures = data.DRAWN.get(str(generator.dataset)), data.measures(generator.dataset)
    moved = {factor.name for kind in TYPICAL if (factor := ENTRIES[kind].factor)}
    if drawn is None or moved & {*measures.factor_names}:
        return ()
    controls, places = [], []
    for place, factor in enumerate(measures.factors):
        if factor.name not in drawn.names:
            continue
        places.append(place)
        if math.isfinite(factor.period):
            half = factor.period / 2
            reach, good, value = half, (-half, half), None
        else:
            span = drawn.spans[drawn.names.index(factor.name)]
            reach, good = span.high - span.low, (span.low, span.high)
            value = partial(_measured, factor, generator.decode)
        controls.append(
            Control(
                factor.name.replace("_", " "),
                STEERED,
                factor.unit,
                reach,
                good,
                "the range of the data",
                value,
            )
        )
    return (attribute_part(controls, places, measures),)


@partial(jax.jit, static_argnums=0)
def _measured(factor: ImageFactor, decode: Generator, z: Latent) -> Scalar:
    return factor.measure(decode(z))


def visible_axes(
    generator: FrozenGenerator, latents: Float[np.ndarray, "n d"]
) -> AffineCoordinates | None:
    """The axes along which samples change most; None where they cannot be afforded."""
    if not shows_axes(generator):
        return None
    return coordinates.visible_axes(generator.decode, jnp.asarray(latents[: plane.LOOKED]))


def axes(
    generator: FrozenGenerator,
    latents: Float[np.ndarray, "n d"],
    visible: AffineCoordinates | None,
) -> Part:
    """Straight axes with a slider each: those of `visible_axes`, or what costs nothing."""
    layer = generator.first_layer
    if visible is not None:
        vectors, name = visible.basis.T[:MOST_AXES], "axis"
    elif layer is not None and layer.shape[1] == generator.latent_dim:
        vectors, name = sefa(layer, min(MOST_AXES, *layer.shape)), "SeFa"
    elif generator.log_prior is None and generator.latent_dim > MOST_AXES:
        # Where latents come from is no normal distribution, whose axes would say nothing.
        basis = plane.principal_axes(latents).basis
        vectors = (basis / jnp.linalg.norm(basis, axis=0)).T[:MOST_AXES]
        name = "principal axis"
    else:
        vectors, name = jnp.eye(MOST_AXES, generator.latent_dim), "coordinate"
    seen = np.asarray(latents @ np.asarray(vectors).T)
    controls = []
    for k, column in enumerate(seen.T):
        low, high = (float(value) for value in np.quantile(column, [0.01, 0.99]))
        direction = vectors[k]
        controls.append(
            Control(
                f"{name} {k + 1}",
                AXES,
                "latent length",
                max(high - low, 1e-3),
                (low, high),
                "98% of the latents of data or the prior",
                partial(_along, direction),
            )
        )
    return axis_part(controls, vectors)


def shows_axes(generator: FrozenGenerator) -> bool:
    """Whether Jacobians at some latents, of which axes are made, take no more than moments."""
    numbers = generator.latent_dim * (math.prod(generator.event_shape) + generator.latent_dim)
    if plane.LOOKED * numbers > AFFORDED:
        return False
    latent = jax.ShapeDtypeStruct((generator.latent_dim,), jnp.float32)
    # The weights are an argument: as constants they would be folded, which takes seconds.
    lowered = jax.jit(lambda decode, z: decode(z)).lower(generator.decode, latent)
    costs: Any = lowered.cost_analysis() or {}
    return plane.LOOKED * generator.latent_dim * costs.get("flops", 0.0) <= COMPUTED


def _along(direction: Array, z: Latent) -> Scalar:
    return jnp.asarray(z) @ direction
