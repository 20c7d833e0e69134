"""Bounds on log p(x), against a linear-Gaussian model in which it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm

from latent_flows.evaluation import elbo, iwae_bound

NOISE = 0.5


def linear_gaussian(dtype=jnp.float32):
    """x = W z + noise with orthogonal columns, so that the exact posterior is diagonal."""
    scales = jnp.array([1.5, 0.7, 0.2], dtype)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0]
    weight = jnp.asarray(basis, dtype) * scales
    x = jnp.array([0.3, -1.0, 0.8, 0.1, -0.4], dtype)

    def posterior(x):
        variance = 1 / (1 + scales**2 / NOISE**2)
        return variance * (weight.T @ x) / NOISE**2, jnp.sqrt(variance)

    def log_likelihood(x, z):
        return norm.logpdf(x, weight @ z, NOISE).sum()

    covariance = weight @ weight.T + NOISE**2 * jnp.eye(5, dtype=dtype)
    evidence = multivariate_normal.logpdf(x, jnp.zeros(5, dtype), covariance)
    return x, posterior, log_likelihood, evidence


def worse(posterior):
    """An approximate posterior that is off in mean and too wide."""

    def encode(x):
        mean, std = posterior(x)
        return mean + 0.3, 1.5 * std

    return encode


def gaussian_divergence(mean_q, std_q, mean_p, std_p):
    ratio = (std_q / std_p) ** 2
    return 0.5 * jnp.sum(ratio + ((mean_q - mean_p) / std_p) ** 2 - 1 - jnp.log(ratio))


@pytest.mark.parametrize("samples", [1, 7, 130])
def test_importance_weighted_bound_is_tight_at_the_exact_posterior(samples):
    x, posterior, log_likelihood, evidence = linear_gaussian()
    bound = jax.jit(lambda key: iwae_bound(key, posterior, log_likelihood, x, samples=samples))
    bounds = jax.vmap(bound)(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_allclose(bounds, evidence, rtol=1e-5)


def test_importance_weighted_bound_is_tight_in_float64():
    with jax.enable_x64(True):
        x, posterior, log_likelihood, evidence = linear_gaussian(jnp.float64)
        bound = iwae_bound(jax.random.key(0), posterior, log_likelihood, x, samples=3)
        assert bound.dtype == jnp.float64
        np.testing.assert_allclose(bound, evidence, rtol=1e-12)


def test_elbo_falls_short_of_the_evidence_by_the_divergence_to_the_posterior():
    x, posterior, log_likelihood, evidence = linear_gaussian()
    encode = worse(posterior)
    value = elbo(jax.random.key(0), encode, log_likelihood, x, samples=20_000)
    gap = gaussian_divergence(*encode(x), *posterior(x))
    assert gap > 0.5
    np.testing.assert_allclose(value, evidence - gap, atol=0.05)


def test_elbo_is_one_sample_of_importance_weighting_in_expectation():
    x, posterior, log_likelihood, _ = linear_gaussian()
    encode = worse(posterior)
    keys = jax.random.split(jax.random.key(0), 20_000)
    single = jax.vmap(lambda key: iwae_bound(key, encode, log_likelihood, x, samples=1))(keys)
    value = elbo(jax.random.key(1), encode, log_likelihood, x, samples=20_000)
    np.testing.assert_allclose(single.mean(), value, atol=0.05)


def test_bounds_rise_to_the_evidence_with_more_samples():
    x, posterior, log_likelihood, evidence = linear_gaussian()
    encode = worse(posterior)
    keys = jax.random.split(jax.random.key(0), 500)

    def expected(samples):
        bound = lambda key: iwae_bound(key, encode, log_likelihood, x, samples=samples)  # noqa: E731
        return jax.vmap(bound)(keys).mean()

    lower = jax.vmap(lambda key: elbo(key, encode, log_likelihood, x))(keys).mean()
    few, some = expected(4), expected(32)
    many = iwae_bound(jax.random.key(1), encode, log_likelihood, x, samples=20_000)
    assert lower + 0.1 < few
    assert few + 0.02 < some
    assert some < evidence + 0.02
    np.testing.assert_allclose(many, evidence, atol=0.02)


@pytest.mark.parametrize("bound", [elbo, iwae_bound])
def test_bounds_are_those_of_any_prior(bound):
    """The same model with latents of another mean and scale has the same bounds."""
    x, posterior, log_likelihood, _ = linear_gaussian()
    encode, key = worse(posterior), jax.random.key(0)

    def moved_encode(x):
        mean, std = encode(x)
        return 2 * mean + 1, 2 * std

    def moved_likelihood(x, z):
        return log_likelihood(x, (z - 1) / 2)

    found = bound(
        key,
        moved_encode,
        moved_likelihood,
        x,
        samples=2000,
        log_prior=lambda z: norm.logpdf(z, 1, 2).sum(),
    )
    # The divergence is a mean over draws here.
    np.testing.assert_allclose(found, bound(key, encode, log_likelihood, x, samples=2000), atol=0.1)


def test_elbo_gradient_vanishes_at_the_exact_posterior():
    x, posterior, log_likelihood, _ = linear_gaussian()
    mean, std = posterior(x)

    def value(shift, log_stretch):
        encode = lambda _: (mean + shift, std * jnp.exp(log_stretch))  # noqa: E731
        return elbo(jax.random.key(0), encode, log_likelihood, x, samples=20_000)

    gradients = jax.grad(value, argnums=(0, 1))(jnp.zeros(3), jnp.zeros(3))
    elsewhere = jax.grad(value)(jnp.full(3, 0.3), jnp.zeros(3))
    np.testing.assert_allclose(jnp.stack(gradients), 0, atol=0.08)
    assert jnp.abs(elsewhere).max() > 1


@pytest.mark.parametrize("bound", [elbo, iwae_bound])
def test_wrong_shapes_and_counts_are_refused(bound):
    x, posterior, log_likelihood, _ = linear_gaussian()
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        bound(key, posterior, log_likelihood, x, samples=0)
    with pytest.raises(ValueError, match=r"one shape \[d\].* returned \(3,\) and \(2,\)"):
        bound(key, lambda x: (jnp.zeros(3), jnp.ones(2)), log_likelihood, x)
    with pytest.raises(ValueError, match=r"one number.* returned shape \(5,\)"):
        bound(key, posterior, lambda x, z: norm.logpdf(x), x)
