"""Flow matching: paths lead from noise to data, and the batch's mean target has the right mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.objectives.flow_matching import (
    flow_matching_loss,
    straight_bridge,
    trigonometric_bridge,
)

BRIDGES = [straight_bridge, trigonometric_bridge]


def field(t, x):
    return jnp.sin(3 * x) + t


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_path_starts_at_the_noise_and_ends_at_the_sample(bridge):
    np.testing.assert_allclose(bridge(0.0), (1, 0), atol=1e-6)
    np.testing.assert_allclose(bridge(1.0), (0, 1), atol=1e-6)


def test_the_trigonometric_path_keeps_the_variance():
    a, b = jax.vmap(trigonometric_bridge)(jnp.linspace(0, 1, 9))
    np.testing.assert_allclose(a**2 + b**2, 1, atol=1e-6)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_of_a_single_sample_the_target_is_the_velocity_of_its_own_path(bridge):
    key, x = jax.random.key(0), jnp.array([[0.7, -1.2]])
    time_key, noise_key = jax.random.split(key)
    t, noise = jax.random.uniform(time_key, (1,))[0], jax.random.normal(noise_key, (1, 2))
    place, speed = jax.jvp(
        lambda t: bridge(t)[0] * noise[0] + bridge(t)[1] * x[0], (t,), (jnp.ones(()),)
    )
    expected = jnp.mean((field(t, place) - speed) ** 2)
    np.testing.assert_allclose(
        flow_matching_loss(field, key, x, bridge=bridge), expected, rtol=1e-4
    )


@pytest.mark.parametrize("bridge", BRIDGES)
def test_the_target_of_a_batch_prefers_the_same_fields_with_less_variance(bridge):
    """Differences of losses are those of single samples, whose targets are the usual ones."""
    xs = jnp.sign(jax.random.normal(jax.random.key(0), (400, 16, 1))) + 0.1

    def losses(batch):
        keys = jax.random.split(jax.random.key(1), len(batch))
        other = jax.vmap(lambda k, x: flow_matching_loss(lambda t, x: 0 * x, k, x, bridge=bridge))
        one = jax.vmap(lambda k, x: flow_matching_loss(field, k, x, bridge=bridge))
        return one(keys, batch), other(keys, batch)

    (batch, batch_other), (single, single_other) = losses(xs), losses(xs.reshape(-1, 1, 1))
    error = (single - single_other).std() / np.sqrt(len(single))
    gain = (batch - batch_other).mean() - (single - single_other).mean()
    assert abs(gain) < 4 * error
    assert batch.mean() < 0.9 * single.mean()


def test_samples_of_any_shape_are_matched():
    images = jax.random.normal(jax.random.key(0), (5, 4, 4, 1))
    flat = images.reshape(5, 16)
    key = jax.random.key(1)
    noise_of_images = flow_matching_loss(lambda t, x: x, key, images)
    assert noise_of_images.shape == ()
    assert jnp.isfinite(flow_matching_loss(lambda t, x: x, key, flat))
