"""The constant direction of sequences in which one factor changes by known amounts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions
from latent_flows.directions.sequences import mean_square_step

N, T, D = 5, 4, 3


def wandering(key):
    """Sequences about a line, in a metric of their own."""
    keys = jax.random.split(key, 4)
    starts, way = jax.random.normal(keys[0], (N, D)), jnp.array([1.0, -2.0, 0.5])
    amounts = jax.random.uniform(keys[1], (N, T), minval=-1.0)
    noise = 0.3 * jax.random.normal(keys[2], (N, T, D))
    half = jax.random.normal(keys[3], (N, D, D))
    metric = half @ jnp.swapaxes(half, -1, -2) + jnp.eye(D)
    return starts, starts[:, None] + amounts[..., None] * way + noise, amounts, metric


def missed(v, starts, ends, amounts, metric):
    gap = ends - starts[:, None] - amounts[..., None] * v
    return jnp.einsum("nti,nij,ntj->", gap, metric, gap) / (N * T)


def test_no_step_along_any_axis_goes_better_with_the_sequences(key, x64):
    given = wandering(key)
    starts, ends, amounts, metric = given
    found = directions.constant_direction(starts, ends, amounts, metric=metric)
    np.testing.assert_allclose(jax.grad(missed)(found, *given), 0, atol=1e-9)
    np.testing.assert_allclose(
        missed(jnp.zeros(D), *given), mean_square_step(starts, ends, metric), rtol=1e-9
    )


def test_a_penalty_turns_the_direction_and_its_length_stays_the_best_along_it(key, x64):
    given = wandering(key)
    starts, ends, amounts, metric = given
    row = jnp.array([1.0, 0.0, 0.0])
    free = directions.constant_direction(starts, ends, amounts, metric=metric)
    held = directions.constant_direction(
        starts, ends, amounts, metric=metric, penalty=1e6 * jnp.outer(row, row)
    )
    assert abs(held @ row) < 1e-3 * abs(free @ row)
    along = jax.grad(lambda s: missed(s * held, *given))(1.0)
    assert float(along) == pytest.approx(0, abs=1e-9)


def test_amounts_may_be_the_same_for_all_sequences(key):
    starts = jax.random.normal(key, (N, D))
    amounts, way = jnp.linspace(0.5, 2.0, T), jnp.array([1.0, 2.0, 3.0])
    ends = starts[:, None] + amounts[:, None] * way
    for each in (amounts, jnp.tile(amounts, (N, 1))):
        found = directions.constant_direction(starts, ends, each)
        np.testing.assert_allclose(found, way, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z0": jnp.zeros((4, D))}, r"starts \[n, d\] and latents \[n, T, d\], got"),
        ({"amounts": jnp.zeros(T + 1)}, r"amounts must have shape \(4,\) or \(5, 4\), got \(5,\)"),
        ({"metric": jnp.eye(D)}, r"metric must have shape \(5, 3, 3\), got \(3, 3\)"),
        ({"penalty": jnp.ones(D)}, r"penalty must have shape \(3, 3\), got \(3,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    given = {"z0": jnp.zeros((N, D)), "zs": jnp.ones((N, T, D)), "amounts": jnp.ones(T), **change}
    with pytest.raises(ValueError, match=message):
        directions.constant_direction(**given)
