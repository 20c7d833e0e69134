"""Sequences of sprites in which one known factor changes, as a frozen VAE sees them."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.potential_flows.scores import attributes
from experiments.supervised_flows.config import (
    FACTORS,
    STRETCH,
    Config,
    Subject,
    per_factor,
    progress,
    random_keys,
)
from latent_flows._transforms import in_chunks
from latent_flows.data import sprites
from latent_flows.typing import Generator, Latent, Scalar

AT_ONCE = 50
"""Jacobians of the generator that are made at once."""
DAMPING = 1.0
"""Of a Gauss-Newton step, in squared pixels; a unit of the frame is worth some hundred."""


class Taught(NamedTuple):
    """`n` sequences of each of the K factors; they come first, to be split over devices."""

    factors: sprites.Factors
    """Of every frame, `[n, K, T + 1]`."""
    start: Float[Array, "n k"]
    """The time at which each begins."""
    sign: Float[Array, "n k"]
    """1 where the factor grows, -1 where it falls."""
    codes: Float[Array, "n k t m"]
    """Of every frame, in the frame's coordinates."""


def teach(config: Config, subject: Subject) -> Taught:
    """The sequences to learn from, some of each factor."""
    draw = partial(_draw, config, config.sequences.horizon, config.sequences.offset)
    return _encoded(config, subject, draw, random_keys(config, 0, per_factor(config)))


def held_out(config: Config, subject: Subject) -> Taught:
    """Other sequences, which start at time 0 and go on for twice the trained time."""
    draw = partial(_draw, config, STRETCH * config.sequences.horizon, 0.0)
    return _encoded(config, subject, draw, random_keys(config, 1, config.starts))


def _draw(
    config: Config, steps: int, offset: float, key: Array, k: Array
) -> tuple[sprites.Factors, Scalar, Scalar]:
    """The factors of the frames of one sequence in which factor `k` changes."""
    factor_key, sign_key, start_key, time_key = jax.random.split(key, 4)
    given = sprites.random_factors(factor_key)
    sign = jax.random.rademacher(sign_key, (), jnp.float32)
    time = jax.random.uniform(time_key) * offset * config.sequences.horizon
    moved = progress(config, time + jnp.arange(steps + 1.0)) - progress(config, time)
    moved = config.sequences.reach * moved
    # Between the border and where the whole sequence still stays within the range.
    low, high = -jnp.minimum(moved.min(), 0), 1 - jnp.maximum(moved.max(), 0)
    first = jax.random.uniform(start_key, minval=low, maxval=high)
    share = jnp.where(sign > 0, first + moved, 1 - first - moved)
    known = [FACTORS[name] for name in config.sequences.factors]
    values = {}
    for name, value in given._asdict().items():
        values[name] = jnp.full(steps + 1, value, jnp.float32)
    for index, factor in enumerate(known):
        changed = factor.low + factor.width * share
        values[factor.field] = jnp.where(k == index, changed, values[factor.field])
    return sprites.Factors(**values), time, sign


def _encoded(config: Config, subject: Subject, draw, keys: Array) -> Taught:  # type: ignore[no-untyped-def]
    ks = jnp.arange(len(config.sequences.factors))
    keys = jax.vmap(partial(jax.random.split, num=len(ks)))(keys)
    factors, start, sign = jax.jit(jax.vmap(jax.vmap(draw), in_axes=(0, None)))(keys, ks)
    size = subject.vae.image_shape[0]

    def code(factors: sprites.Factors) -> Latent:
        image = sprites.render(factors, size=size)
        found = subject.encode(image)
        return refined(subject.generator, image, found, config.sequences.refine)

    flat = jax.tree.map(jnp.ravel, factors)
    codes = jax.jit(partial(jax.lax.map, code, batch_size=AT_ONCE))(flat)
    return Taught(factors, start, sign, codes.reshape(*jnp.shape(factors.x), -1))


def refined(generator: Generator, image: Array, code: Latent, steps: int) -> Latent:
    r"""A code whose generated image is closer to a given one.

    $$z \leftarrow z + (J^\top J + \lambda I)^{-1} J^\top (x - g(z))$$

    An encoder's codes tremble: of two images that differ by a shift, they differ by more.

    Args:
        generator: `z -> image`.
        image: `x`.
        code: `z`, where to begin.
        steps: how many of these steps (Gauss-Newton, damped).

    >>> matrix = jnp.array([[100.0, 0.0], [0.0, 100.0], [50.0, 50.0]])
    >>> refined(lambda z: matrix @ z, matrix @ jnp.ones(2), jnp.zeros(2), 3).round(3).tolist()
    [1.0, 1.0]
    """
    step = lambda z, _: (  # noqa: E731
        z + _gauss_newton(jax.jacfwd(generator)(z), image - generator(z)),
        None,
    )
    return jax.lax.scan(step, code, length=steps)[0] if steps else code


def _gauss_newton(jacobian: Array, missing: Array) -> Latent:
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    damped = rows.T @ rows + DAMPING * jnp.eye(rows.shape[1], dtype=rows.dtype)
    return jnp.linalg.solve(damped, rows.T @ missing.reshape(-1))


class Seen(NamedTuple):
    """What the generator makes of small steps at some frames of sequences."""

    metric: Float[Array, "n k m m"]
    """Pull-back metric, averaged over these frames."""
    slopes: Float[Array, "n k p f m"]
    """Derivatives of the measured attributes, in units of their ranges."""


def probed(horizon: int) -> list[int]:
    """The frames at which the generator is differentiated: first, middle and last."""
    return [0, horizon // 2, horizon]


def see(config: Config, subject: Subject, taught: Taught, ranges: Float[Array, "f"]) -> Seen:
    """The generator's metric along each sequence, and how attributes of its images change."""
    generator = subject.generator

    def slopes(z: Latent) -> tuple[Array, Array]:
        image, push = jax.linearize(generator, z)
        columns = jax.vmap(push)(jnp.eye(len(z)))
        change = jax.vmap(lambda tangent: jax.jvp(attributes, (image,), (tangent,))[1])(columns)
        rows = columns.reshape(len(z), -1)
        return rows @ rows.T, (change / ranges).T

    points = taught.codes[:, :, jnp.array(probed(config.sequences.horizon))]
    flat = points.reshape(-1, points.shape[-1])
    metric, slope = jax.jit(partial(jax.lax.map, slopes, batch_size=AT_ONCE))(flat)
    shape = points.shape[:3]
    return Seen(
        metric.reshape(*shape, *metric.shape[1:]).mean(2), slope.reshape(*shape, *slope.shape[1:])
    )


def measured(subject: Subject, codes: Float[Array, "*n m"]) -> tuple[Array, Array]:
    """Attributes of the images of codes, and which of these images are valid."""
    look = lambda z: _attributes_and_validity(subject.generator(z))  # noqa: E731
    return _over(look, codes)


def true_attributes(subject: Subject, factors: sprites.Factors) -> Array:
    """Attributes of rendered sprites."""
    size = subject.vae.image_shape[0]
    flat = jax.tree.map(jnp.ravel, factors)
    found = in_chunks(lambda one: attributes(sprites.render(one, size=size)))(flat)
    return found.reshape(*jnp.shape(factors.x), -1)


def _attributes_and_validity(image: Array) -> tuple[Array, Array]:
    return attributes(image), sprites.is_valid(image)


def _over(function, points: Array) -> tuple[Array, Array]:  # type: ignore[no-untyped-def]
    found = in_chunks(function)(points.reshape(-1, points.shape[-1]))
    return jax.tree.map(lambda leaf: leaf.reshape(*points.shape[:-1], *leaf.shape[1:]), found)
