"""All that moves one latent at once: flows, directions, steering of the image, straight axes.

Flows are followed together, as one field; then factors are changed, then the image is steered, then
axes are gone along. A slider at rest moves nothing, and costs nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from experiments.explore.control import Control, Part
from latent_flows import directions, flows, steering, traversals
from latent_flows.coordinates import AffineCoordinates
from latent_flows.data.image_factors import Measures, unwrapped
from latent_flows.directions.model import FittedDirection
from latent_flows.steering import Attributes
from latent_flows.typing import Field, Generator, Latent, Scalar, VectorField

Combined = Callable[
    [Generator, Float[np.ndarray, "k"], Float[np.ndarray, "d"]],
    tuple[Any, Float[np.ndarray, "k"]],
]
"""`(generator, amounts, z)` to the latent there, and the share of each amount that is missing."""

STEPS = 32
"""Of a flow, over whatever time it is followed."""
STEER_STEPS = 3
"""Of the midpoint rule to a steered amount; what it misses is corrected."""


def flow_part(
    controls: Sequence[Control], field: Field, params: PyTree, frame: AffineCoordinates | None
) -> Part:
    """Flows that are followed together, each for its own time: alone, each is the flow itself.

    Args:
        controls: one a flow.
        field: `(parameters, t, s) -> ds/dt`.
        params: parameters of the flows, stacked.
        frame: coordinates that the field is a function of.
    """

    def together(times: Float[Array, "k"], share: Scalar, s: Latent) -> Latent:
        def one(member: PyTree, t: Scalar) -> Latent:
            return t * field(member, share * jnp.abs(t), s)

        return jax.vmap(one)(params, times).sum(0)

    def move(_: Generator, amounts: Float[Array, "k"], z: Latent) -> tuple[Latent, Array]:
        follow = traversals.motion(together, amounts[None], frame, solve=_in_steps)
        return follow(0, 1.0, z), jnp.zeros_like(amounts)

    return Part(tuple(controls), move)


def _in_steps(field: VectorField, z: Latent) -> Latent:
    times = jnp.linspace(0.0, 1.0, STEPS + 1, dtype=z.dtype)
    return flows.integrate(field, z, times, solver=diffrax.Midpoint()).zs[-1]


def direction_part(controls: Sequence[Control], models: Sequence[FittedDirection]) -> Part:
    """Directions that change one factor each, by the least step that does all of it."""

    def move(_: Generator, amounts: Float[Array, "k"], z: Latent) -> tuple[Latent, Array]:
        return directions.shift_many(models, z, amounts), jnp.zeros_like(amounts)

    return Part(tuple(controls), move)


def steered_part(
    control: Control,
    kind: str,
    *,
    blur: float,
    damping: float,
    hold: Attributes | None = None,
    match: Attributes | None = None,
) -> Part:
    """A transformation of the image, by the generator's own Jacobian."""

    def move(generator: Generator, amounts: Float[Array, "1"], z: Latent) -> tuple[Latent, Array]:
        found = steering.steer(
            generator,
            directions.transformation(kind),
            z,
            amounts,
            hold=hold,
            match=match,
            blur=blur,
            damping=damping,
            steps=STEER_STEPS,
            corrections=1,
        )
        return found.zs[0], found.residual

    return Part((control,), move)


def attribute_part(controls: Sequence[Control], places: Sequence[int], measures: Measures) -> Part:
    """What is measured on the image, one attribute a slider; all others that are measured stay.

    Args:
        controls: one an attribute.
        places: which of the measured factors each changes.
        measures: what is measured.
    """

    def move(generator: Generator, amounts: Float[Array, "k"], z: Latent) -> tuple[Latent, Array]:
        # In two legs: what goes round is at its farthest after half a turn, where both ways meet.
        half, first = leg(generator, amounts / 2, z)
        there, second = leg(generator, amounts / 2, half)
        return there, jnp.where(amounts == 0, 0.0, jnp.maximum(first, second))

    def leg(generator: Generator, amounts: Float[Array, "k"], z: Latent) -> tuple[Latent, Array]:
        before = measures.measure(generator(z))
        found = steering.steer_attribute(
            generator,
            lambda image: unwrapped(measures.factors, before, measures.measure(image)),
            places,
            z,
            [1.0],
            rates=amounts,
            steps=STEER_STEPS,
            corrections=2,
        )
        return found.zs[0], found.residual[0]

    return Part(tuple(controls), move)


def axis_part(controls: Sequence[Control], axes: Float[Array, "k d"]) -> Part:
    """Straight lines."""

    def move(_: Generator, amounts: Float[Array, "k"], z: Latent) -> tuple[Latent, Array]:
        return z + amounts @ axes, jnp.zeros_like(amounts)

    return Part(tuple(controls), move)


def combined(parts: Sequence[Part]) -> Combined:
    """All parts one after the other, as one function of the amounts of all sliders.

    Each is a program of its own, compiled when it is first used.
    """
    programs = [(len(part.controls), jax.jit(part.move)) for part in parts]

    def move(
        generator: Generator, amounts: Float[np.ndarray, "k"], z: Float[np.ndarray, "d"]
    ) -> tuple[Any, Float[np.ndarray, "k"]]:
        amounts = np.asarray(amounts, np.float32)
        missing, start, there = np.zeros_like(amounts), 0, jnp.asarray(z)
        for count, program in programs:
            own = slice(start, start + count)
            start += count
            if amounts[own].any():
                there, lost = program(generator, amounts[own], there)
                missing[own] = lost
        return there, missing

    return move
