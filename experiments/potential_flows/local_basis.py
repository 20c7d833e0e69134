"""The local basis as traversals to compare with: the directions that show most at each start."""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._transforms import in_chunks
from latent_flows.evaluation.comparison import Family
from latent_flows.geometry import principal_directions
from latent_flows.typing import Generator

NAME = "local basis"


def family(generator: Generator, starts: Float[Array, "k n m"]) -> Family:
    """Straight lines along the leading singular vectors of the Jacobian where each begins.

    A start goes its own way, which its "latent" carries along. Vectors that are found anew on the
    way change places where their gains cross, which no adaptive solver follows.

    Args:
        generator: of one latent.
        starts: of as many traversals as there are directions: the k-th shows k-th most.

    References:
        Choi et al., *Do Not Escape From the Manifold*, 2022, section 3.
    """
    count, _, dim = starts.shape
    found = in_chunks(lambda z: principal_directions(generator, z, count).directions)
    ways = jnp.stack([found(points)[:, place] for place, points in enumerate(starts)])
    return Family(
        NAME,
        lambda state: generator(state[:dim]),
        partial(_onwards, dim),
        jnp.arange(count),
        jnp.concatenate([starts, ways], axis=-1),
    )


def _onwards(dim: int, place: Array, t: Array, state: Array) -> Array:
    del place, t
    return jnp.concatenate([state[dim:], jnp.zeros(dim, state.dtype)])
