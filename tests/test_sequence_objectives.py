"""Terms of autoencoders and of latent sequences, at their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import objectives


def test_a_divergence_from_the_prior_is_one_between_gaussians(dtype):
    mean, std = jnp.array([0.5, -2.0], dtype), jnp.array([0.3, 1.5], dtype)
    zero, one = jnp.zeros(2, dtype), jnp.ones(2, dtype)
    between = objectives.gaussian_kl_between(mean, std, zero, one)
    np.testing.assert_allclose(between, objectives.gaussian_kl(mean, std), rtol=1e-5)
    # It does not change when both are moved and stretched alike.
    moved = objectives.gaussian_kl_between(3 * mean + 1, 3 * std, 3 * zero + 1, 3 * one)
    np.testing.assert_allclose(moved, between, rtol=1e-5)


def test_shuffled_codes_keep_their_marginals_and_lose_their_dependence(key):
    line = jnp.linspace(-1, 1, 2000)
    z = jnp.stack([line, line], 1)
    found = objectives.permuted(key, z)
    np.testing.assert_array_equal(jnp.sort(found, 0), z)
    assert abs(np.corrcoef(np.asarray(found).T)[0, 1]) < 0.1


def test_the_density_ratio_loss_is_least_at_the_log_ratio():
    # Three codes of four are a, one is b; of the shuffled it is the other way round.
    ratio = jnp.array([np.log(3.0), -np.log(3.0)])

    def loss(table):
        return objectives.density_ratio_loss(
            table[jnp.array([0, 0, 0, 1])], table[jnp.array([0, 1, 1, 1])]
        )

    np.testing.assert_allclose(jax.grad(loss)(ratio), 0, atol=1e-6)
    assert loss(ratio) < loss(ratio + 0.1)
    assert loss(ratio) < loss(ratio - 0.1)


def test_mismatch_averages_to_the_divergence_and_the_entropy(key):
    mean, std = jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0])
    z = 0.3 * jax.random.normal(key, (20000, 2))
    found = jax.vmap(lambda z: objectives.latent_matching(z, mean, std))(z).mean()
    entropy = 2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.3))
    divergence = objectives.gaussian_kl_between(jnp.zeros(2), jnp.full(2, 0.3), mean, std).sum()
    assert float(found) == pytest.approx(entropy + float(divergence), rel=0.01)


def test_relaxed_factors_are_drawn_as_often_as_their_probabilities_say(key):
    logits = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    keys = jax.random.split(key, 5000)
    draws = jax.vmap(lambda k: objectives.gumbel_softmax(k, logits, 0.3))(keys)
    np.testing.assert_allclose(draws.sum(1), 1, rtol=1e-5)
    shares = jnp.mean(jax.nn.one_hot(draws.argmax(1), 3), 0)
    np.testing.assert_allclose(shares, jnp.exp(logits), atol=0.02)


def test_the_divergence_of_a_factor_lies_between_0_and_log_k():
    logits = jnp.array([0.2, -1.0, 0.7, 0.0])
    p = np.asarray(jax.nn.softmax(logits))
    assert float(objectives.categorical_kl(logits)) == pytest.approx((p * np.log(4 * p)).sum())
    assert float(objectives.categorical_kl(logits + 7)) == pytest.approx((p * np.log(4 * p)).sum())
    assert float(objectives.categorical_kl(1e4 * logits)) == pytest.approx(np.log(4))


@pytest.mark.parametrize("logit", [-1.0, 0.0, 2.0])
def test_gates_are_shut_and_open_as_often_as_the_logistic_law_says(key, logit):
    temperature = 0.5
    draws = objectives.concrete_gates(key, jnp.full(20000, logit), temperature)
    assert draws.min() == 0
    assert draws.max() == 1
    # Shut where the stretched sigmoid is at most 0: a sigmoid of at most 1/12.
    edge = temperature * np.log(1 / 11)
    shut = 1 / (1 + np.exp(-(edge - logit)))
    opened = 1 / (1 + np.exp(-(logit + edge)))
    assert float((draws == 0).mean()) == pytest.approx(shut, abs=0.015)
    assert float((draws == 1).mean()) == pytest.approx(opened, abs=0.015)


def test_the_spike_and_slab_divergence_is_zero_at_the_prior_and_the_slabs_own_when_open():
    share = 0.3
    zero, one = jnp.zeros(1), jnp.ones(1)
    prior = jnp.log(jnp.array([share / (1 - share)]))
    at_prior = objectives.spike_and_slab_kl(prior, zero, one, share)
    np.testing.assert_allclose(at_prior, 0, atol=1e-6)
    away = objectives.spike_and_slab_kl(prior + 1, zero, one, share)
    assert away > 0.01
    opened = objectives.spike_and_slab_kl(30 * one, 2 * one, 0.5 * one, share)
    slab = objectives.gaussian_kl(2 * one, 0.5 * one)
    np.testing.assert_allclose(opened, slab - np.log(share), rtol=1e-5)
    # What a shut gate's slab would be costs nothing.
    shut = objectives.spike_and_slab_kl(-30 * one, 9 * one, one, share)
    np.testing.assert_allclose(shut, -np.log(1 - share), rtol=1e-4)
