"""The directions along which a generator changes most at one latent, and traversals along them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from latent_flows._norms import safe_sqrt
from latent_flows.geometry._krylov import leading
from latent_flows.geometry.metrics import FORMED, check_tangent
from latent_flows.typing import Generator, Latent

__all__ = ["LocalTraversals", "PrincipalDirections", "local_traversals", "principal_directions"]


class PrincipalDirections(NamedTuple):
    """Where a generator changes most, at one latent."""

    directions: Float[Array, "k d"]
    """Orthonormal directions of the latent, the one that shows most first. Each points the way in
    which its largest entry is positive."""
    gains: Float[Array, "k"]
    """How far the sample goes for a small step along each, over the step's length: the singular
    values of the Jacobian."""


class LocalTraversals(NamedTuple):
    """Paths along principal directions that keep their identity from point to point."""

    zs: Float[Array, "k t d"]
    """The latents of each path; the first is the start."""
    gains: Float[Array, "k t"]
    """How far the sample goes for a small step along the path, over the step's length."""


def principal_directions(generator: Generator, z: Latent, count: int) -> PrincipalDirections:
    r"""The leading right singular vectors of a generator's Jacobian at one latent.

    $$J(z)^\top J(z)\, v_i = \sigma_i^2\, v_i$$

    Of short latents the Jacobian is formed. Of longer ones it is known by products alone, $J v$ in
    forward and $J^\top x$ in reverse mode, and the Krylov space of a block of vectors holds the
    leading ones: some ten products a direction, in memory of a few images a direction. It can be
    mapped by `jax.vmap`, and has no derivative.

    Args:
        generator: `z -> x`, of any event shape. Composed with a map of features it tells what
            changes these most.
        z: one latent, of any coordinates that the generator takes: Z or W of a GAN, say.
        count: how many directions, at most as many as the latent is long.

    Returns:
        The directions, with their gains.

    Raises:
        ValueError: no latent, or more directions than it has numbers.

    References:
        Choi, Lee, Yoon, Park, Hwang and Kang, *Do Not Escape From the Manifold: Discovering the
        Local Coordinates on the Latent Space of GANs*, 2022, for the local basis.
        Musco and Musco, *Randomized Block Krylov Methods for Stronger and Faster Approximate
        Singular Value Decomposition*, 2015.

    >>> found = principal_directions(lambda z: z * jnp.array([1.0, 3.0, 2.0]), jnp.zeros(3), 2)
    >>> jnp.allclose(found.gains, jnp.array([3.0, 2.0])), found.directions[0].round(3).tolist()
    (Array(True, dtype=bool), [0.0, 1.0, 0.0])
    """
    check_tangent("a latent", z, z)
    dim = z.shape[0]
    if not 1 <= count <= dim:
        raise ValueError(f"count must be from 1 to the latent's length, {dim}, got {count}")
    _, push = jax.linearize(lambda z: jnp.ravel(generator(z)), z)
    # A block takes nearly as many products as there are then.
    if dim <= FORMED or 5 * count >= dim:
        rows = jax.vmap(push)(jnp.eye(dim, dtype=z.dtype))
        squares, vectors = jnp.linalg.eigh(rows @ rows.T)
        squares, vectors = squares[::-1][:count], vectors[:, ::-1][:, :count]
    else:
        pull = jax.linear_transpose(push, z)

        def times(block: Float[Array, "d k"]) -> Float[Array, "d k"]:
            return jax.vmap(lambda v: pull(push(v))[0], in_axes=1, out_axes=1)(block)

        # The same at every latent, so that the result is a function of it.
        first = jax.random.normal(jax.random.key(0), (dim, count), z.dtype)
        squares, vectors = leading(times, first)
    signed = vectors.T
    largest = jnp.take_along_axis(signed, jnp.abs(signed).argmax(1, keepdims=True), axis=1)
    return PrincipalDirections(
        signed * jnp.where(largest < 0, -1, 1).astype(z.dtype), safe_sqrt(squares)
    )


def local_traversals(
    generator: Generator, z: Latent, count: int, *, steps: int = 10, length: float = 1.0
) -> LocalTraversals:
    r"""Paths that set out along each principal direction and go on along what it becomes.

    At every point the principal directions are found anew, and turned among themselves so that they
    are as near as they can be to where they pointed before: the frame $V$ after the frame $F$ is
    the orthogonal factor of $V^\top V F$. So a path keeps its direction where two gains cross, and
    does not jump.

    Args:
        generator: `z -> x`, of any event shape.
        z: where all of them start.
        count: how many paths, and directions in the frame.
        steps: midpoint steps of each.
        length: of each path in the latent; negative goes the other way.

    Returns:
        The paths.

    Raises:
        ValueError: as `principal_directions` does; no step.

    References:
        Choi et al., *Do Not Escape From the Manifold*, 2022, section 3.3: their iterative traversal
        takes the vector most alike at each step.

    >>> polar = lambda z: jnp.exp(z[0]) * jnp.stack([jnp.cos(z[1]), jnp.sin(z[1]), 0.3 * z[2]])
    >>> paths = local_traversals(polar, jnp.zeros(3), 2, steps=4)
    >>> paths.zs.shape, paths.gains.shape
    ((2, 5, 3), (2, 5))
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    start = principal_directions(generator, z, count)
    size = length / steps

    def frame_at(z: Latent, before: Float[Array, "k d"]) -> Float[Array, "k d"]:
        found = principal_directions(generator, z, count).directions
        u, _, vt = jnp.linalg.svd(before @ found.T)
        return u @ vt @ found

    def follow(k: Int[Array, ""]) -> tuple[Array, Array]:
        def step(
            state: tuple[Latent, Float[Array, "k d"]], _: None
        ) -> tuple[tuple[Latent, Float[Array, "k d"]], tuple[Latent, Latent]]:
            z, frame = state
            middle = frame_at(z + size / 2 * frame[k], frame)
            there = z + size * middle[k]
            frame = frame_at(there, middle)
            return (there, frame), (there, frame[k])

        _, (zs, ways) = jax.lax.scan(step, (z, start.directions), None, length=steps)
        return jnp.concatenate([z[None], zs]), jnp.concatenate([start.directions[k][None], ways])

    # One after the other: a frame takes many products already.
    zs, ways = jax.lax.map(follow, jnp.arange(count))

    def gain(z: Latent, way: Latent) -> Array:
        moved = jax.jvp(lambda z: jnp.ravel(generator(z)), (z,), (way,))[1]
        return safe_sqrt(moved @ moved)

    return LocalTraversals(zs, jax.vmap(jax.vmap(gain))(zs, ways))
