"""An attribute as a factor: the model that `shift`, `place` and `sample` move latents with."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows.directions import control
from latent_flows.steering._equations import Attributes, check_damping, choice
from latent_flows.steering.follow import steer_attribute
from latent_flows.typing import Generator, Latent, Scalar

__all__ = ["SteeredModel", "steered_model"]

BATCH = 64
"""Latents whose attributes are measured at once."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SteeredModel:
    """An attribute of a generator's sample as a factor, in the attribute's own unit.

    A third kind of direction beside the straight and the curved one: a latent moves along the field
    along which the attribute grows while others stand still, exactly, without training. Its `t` is
    the attribute itself and needs no calibration.
    """

    generator: Generator
    """`z -> x`."""
    attributes: Attributes
    """`x -> [k]`."""
    limits: Float[Array, "2"]
    """The least and the greatest value of the attribute over latents that were looked at."""
    index: int = field(metadata={"static": True})
    """Which attribute."""
    hold: tuple[int, ...] = field(metadata={"static": True})
    """Which stand still meanwhile."""
    latent_dim: int = field(metadata={"static": True})
    """Length of the latents."""
    damping: float = field(metadata={"static": True})
    """Of the least squares, see `attribute_field`."""
    steps: int = field(metadata={"static": True})
    """Of the midpoint rule."""

    def __call__(self, z: Latent) -> Scalar:
        return self.attributes(self.generator(z))[self.index]


def steered_model(
    generator: Generator,
    attributes: Attributes,
    index: int,
    latents: Float[Array, "n d"],
    *,
    hold: Sequence[int] | None = None,
    damping: float = 0.01,
    steps: int = 4,
) -> SteeredModel:
    """An attribute as a factor for `directions.shift`, `place`, `sample`, `shift_many`.

    Args:
        generator: `z -> x`, of any event shape.
        attributes: `x -> [k]`, differentiable.
        index: which of them is the factor.
        latents: typical ones, whose attributes say within which limits the factor is known.
        hold: which stand still meanwhile; by default all others.
        damping: see `attribute_field`.
        steps: of the midpoint rule, to any value; what it misses is corrected.

    Returns:
        The model.

    Raises:
        ValueError: latents that are no rows, an index out of range or held as well, a damping that
            is not positive.

    >>> from latent_flows import directions
    >>> turn = lambda z: jnp.array([z[0] * jnp.cos(z[1]), z[0] * jnp.sin(z[1])])
    >>> seen = jnp.array([[3.0, 0.1], [3.0, 3.0]])
    >>> model = steered_model(turn, lambda x: x, 0, seen)
    >>> z = jnp.array([2.0, 0.5])
    >>> moved = turn(directions.place(model, z, -1.0))
    >>> print(jnp.allclose(moved, jnp.array([-1.0, turn(z)[1]]), atol=0.01))
    True
    """
    check_damping(damping)
    latents = jnp.asarray(latents)
    if latents.ndim != 2 or not len(latents):
        raise ValueError(f"latents must be rows [n, d], got shape {latents.shape}")
    chosen = choice(generator, attributes, index, hold, None, latents[0])

    @jax.jit
    def seen(generator: Generator, latents: Float[Array, "n d"]) -> Float[Array, "2"]:
        values = jax.lax.map(lambda z: attributes(generator(z))[index], latents, batch_size=BATCH)
        return jnp.stack([values.min(), values.max()])

    # Functions as leaves of a tree, whose own leaves, if they have any, are arguments of programs.
    generator, attributes = map(_as_tree, (generator, attributes))
    limits = seen(generator, latents)
    return SteeredModel(
        generator, attributes, limits, index, chosen.held, latents.shape[1], damping, steps
    )


def _as_tree(function: Generator) -> Generator:
    is_leaf = any(callable(leaf) for leaf in jax.tree.leaves(function))
    return jax.tree_util.Partial(function) if is_leaf else function


@control.move.register
def _(model: SteeredModel, z: Latent, dt: Scalar) -> Latent:
    return steer_attribute(
        model.generator,
        model.attributes,
        model.index,
        z,
        dt[None],
        hold=model.hold,
        damping=model.damping,
        steps=model.steps,
    ).zs[0]
