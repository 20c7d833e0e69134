"""Sequences of samples in which one known factor changes, as a frozen VAE sees them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from experiments.supervised_flows.config import (
    STRETCH,
    Config,
    per_factor,
    progress,
    random_keys,
)
from experiments.supervised_flows.framed_vae import AT_ONCE, FramedVAE
from experiments.supervised_flows.known import Known, check_finite
from latent_flows import directions
from latent_flows._transforms import in_chunks
from latent_flows.typing import Latent, Scalar


class Taught(NamedTuple):
    """`n` sequences of each of the K factors; they come first, to be split over devices."""

    factors: Any
    """What every frame is rendered from, a named tuple of `[n, K, T + 1]`."""
    start: Float[Array, "n k"]
    """The time at which each begins."""
    sign: Float[Array, "n k"]
    """1 where the factor grows, -1 where it falls."""
    codes: Float[Array, "n k t m"]
    """Of every frame, in the frame's coordinates."""


def teach(config: Config, framed: FramedVAE) -> Taught:
    """The sequences to learn from, some of each factor."""
    draw = partial(
        frame_factors, config, framed.known, config.sequences.horizon, config.sequences.offset
    )
    return _encoded(config, framed, draw, random_keys(config, 0, per_factor(config)))


def held_out(config: Config, framed: FramedVAE) -> Taught:
    """Other sequences, which start at time 0 and go on for twice the trained time."""
    known = framed.known.held_out()
    draw = partial(frame_factors, config, known, STRETCH * config.sequences.horizon, 0.0)
    return _encoded(config, framed, draw, random_keys(config, 1, config.starts))


def frame_factors(
    config: Config, known: Known, steps: int, offset: float, key: Array, k: Array
) -> tuple[Any, Scalar, Scalar]:
    """The frames of one sequence in which factor `k` changes, when it starts, and which way."""
    factor_key, sign_key, start_key, time_key = jax.random.split(key, 4)
    sign = jax.random.rademacher(sign_key, (), jnp.float32)
    time = jax.random.uniform(time_key) * offset * config.sequences.horizon
    moved = progress(config, time + jnp.arange(steps + 1.0)) - progress(config, time)
    moved = config.sequences.reach * moved
    # Between the border and where the whole sequence still stays within the range.
    low, high = -jnp.minimum(moved.min(), 0), 1 - jnp.maximum(moved.max(), 0)
    first = jax.random.uniform(start_key, minval=low, maxval=high)
    share = jnp.where(sign > 0, first + moved, 1 - first - moved)
    return known.frames(config.sequences.factors, factor_key, k, share), time, sign


def _encoded(config: Config, framed: FramedVAE, draw, keys: Array) -> Taught:  # type: ignore[no-untyped-def]
    ks = jnp.arange(len(config.sequences.factors))
    keys = jax.vmap(partial(jax.random.split, num=len(ks)))(keys)
    factors, start, sign = jax.jit(jax.vmap(jax.vmap(draw), in_axes=(0, None)))(keys, ks)

    known = framed.known
    damping = known.damping

    def code(frame: Any) -> Latent:
        sample, weights = known.render(frame)
        found = framed.encode(sample)
        if not config.sequences.refine:
            return found
        # An encoder's codes tremble: of two images that differ by a shift, they differ by more.
        root = jnp.sqrt(weights)
        return directions.gauss_newton(
            lambda z: root * framed.decode(z),
            root * sample,
            found,
            steps=config.sequences.refine,
            damping=damping,
        ).z

    codes = in_chunks(code, AT_ONCE)(jax.tree.map(jnp.ravel, factors))
    return Taught(factors, start, sign, codes.reshape(*jnp.shape(factors[0]), -1))


class Seen(NamedTuple):
    """What the generator makes of small steps at some frames of sequences."""

    metric: Float[Array, "n k m m"]
    """Pull-back metric, averaged over these frames."""
    slopes: Float[Array, "n k p f m"]
    """Derivatives of the measured attributes, in units of their ranges."""


def probed(horizon: int) -> list[int]:
    """The frames at which the generator is differentiated: first, middle and last."""
    return [0, horizon // 2, horizon]


def see(config: Config, framed: FramedVAE, taught: Taught, ranges: Float[Array, "f"]) -> Seen:
    """The generator's metric along each sequence, and how attributes of its samples change.

    Raises:
        Failure: an attribute has no derivative there.
    """
    known = framed.known

    def slopes(z: Latent) -> tuple[Array, Array]:
        sample, push = jax.linearize(framed.decode, z)
        columns = jax.vmap(push)(jnp.eye(len(z)))
        change = jax.vmap(lambda tangent: jax.jvp(known.measure, (sample,), (tangent,))[1])(columns)
        rows = columns.reshape(len(z), -1)
        return rows @ rows.T, (change / ranges).T

    points = taught.codes[:, :, jnp.array(probed(config.sequences.horizon))]
    flat = points.reshape(-1, points.shape[-1])
    metric, slope = in_chunks(slopes, AT_ONCE)(flat)
    check_finite(known, jnp.swapaxes(slope, -1, -2), "the derivative of what is measured,")
    shape = points.shape[:3]
    return Seen(
        metric.reshape(*shape, *metric.shape[1:]).mean(2), slope.reshape(*shape, *slope.shape[1:])
    )
