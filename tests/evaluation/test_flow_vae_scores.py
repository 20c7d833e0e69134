"""Scores of a VAE trained with flows, where they are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.data.sequences import load_sequences
from latent_flows.evaluation.flow_vae import (
    follow_frames,
    frame_bounds,
    held_out_sequences,
    sample_bounds,
)
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives.flow_vae import flow_vae


@pytest.fixture(scope="module")
def digits():
    return load_sequences("digits", ("rotation", "brightness"), split="test", frames=3)


def test_times_of_frames_are_hit_however_fine_the_steps():
    zs = follow_frames(lambda t, z: 2 * t + 0 * z, jnp.zeros(1), jnp.arange(4.0), 7)
    np.testing.assert_allclose(zs[:, 0], [0, 1, 4, 9], atol=1e-5)


@pytest.mark.slow
def test_frames_of_flows_that_stand_still_have_the_standard_density(digits, key):
    model = flow_vae(
        *("flow", VAEConfig(2, "mlp", "mlp", 1, 1), (8, 8, 1)), factors=2, frames=3, family="line"
    )
    params = model.init(key)
    found = held_out_sequences(digits, 2)
    params["potentials"] = jax.tree.map(lambda leaf: 50 * leaf, params["potentials"])
    moved = frame_bounds(model, params, found, samples=2, steps=1)
    params["potentials"] = jax.tree.map(jnp.zeros_like, params["potentials"])
    still = frame_bounds(model, params, found, samples=2, steps=1)
    assert still["iwae_frame_marginal"] == pytest.approx(still["iwae_frame_standard"], abs=1e-3)
    assert moved["iwae_frame_standard"] == still["iwae_frame_standard"]
    assert moved["iwae_frame_marginal"] != pytest.approx(still["iwae_frame_marginal"], abs=1e-6)


@pytest.mark.slow
def test_flows_that_stand_still_pay_only_for_the_time_that_must_be_guessed(digits, key):
    model = flow_vae(
        "flow", VAEConfig(2, "mlp", "mlp", 1, 1), (8, 8, 1), factors=2, frames=3, width=4, depth=1
    )
    params = model.init(key)
    params["potentials"] = jax.tree.map(jnp.zeros_like, params["potentials"])
    found = held_out_sequences(digits, 4)
    result = sample_bounds(model, params, found, samples=2, steps=1)
    standard = result["iwae_as_standard"]
    assert result["iwae_transformed_given"] == pytest.approx(standard, abs=1e-2)
    # Both factors are alike, so which it was costs nothing; of the 2 times each is as likely.
    assert result["iwae_transformed"] == pytest.approx(standard - np.log(4), abs=1e-2)
    assert result["iwae_plain"] == pytest.approx(result["iwae_plain_given"] - np.log(2), abs=1e-3)
