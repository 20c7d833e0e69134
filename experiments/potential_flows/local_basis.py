"""The local basis as traversals to compare with: the directions that show most, wherever one is."""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

from latent_flows._transforms import in_chunks
from latent_flows.evaluation.comparison import Family
from latent_flows.geometry import principal_directions
from latent_flows.typing import Generator

NAME = "local basis"


def family(generator: Generator, starts: Float[Array, "k n m"]) -> Family:
    """Traversals along the leading singular vectors of the Jacobian, found anew at every latent.

    Those are turned among themselves to be as near as they can to the ones of the start, which a
    "latent" carries along: so a traversal keeps its direction where two of them cross.

    Args:
        generator: of one latent.
        starts: of as many traversals as there are directions.

    References:
        Choi et al., *Do Not Escape From the Manifold*, 2022, section 3.
    """
    count, _, dim = starts.shape
    found = in_chunks(lambda z: principal_directions(generator, z, count).directions)
    frames = found(starts.reshape(-1, dim)).reshape(*starts.shape[:2], -1)
    carrying = jnp.concatenate([starts, frames], axis=-1)
    return Family(
        NAME,
        lambda state: generator(state[:dim]),
        partial(_follow, generator, count, dim),
        jnp.arange(count),
        carrying,
    )


def _follow(
    generator: Generator, count: int, dim: int, place: Array, t: Array, state: Array
) -> Array:
    del t
    first = state[dim:].reshape(count, dim)
    found = principal_directions(generator, state[:dim], count).directions
    u, _, vt = jnp.linalg.svd(first @ found.T)
    return jnp.zeros_like(state).at[:dim].set((u @ vt @ found)[place])
