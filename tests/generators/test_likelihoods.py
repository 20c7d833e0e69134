"""Likelihoods that are what they are called: densities, and probabilities that add up to 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import bernoulli as coin
from scipy.stats import logistic, norm

from latent_flows.generators.likelihoods import bernoulli, discretised_logistic, gaussian


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 5.0])
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.37, 1.0])
def test_the_chances_of_all_grey_values_add_up_to_1(mean, scale, levels):
    grey = jnp.arange(levels) / (levels - 1)
    found = jax.vmap(lambda x: discretised_logistic(x, jnp.array(mean), scale, levels=levels))(grey)
    assert jnp.isfinite(found).all()
    assert float(jnp.exp(found).sum()) == pytest.approx(1, abs=1e-4)


def test_they_are_those_of_scipy(x64):
    rng = np.random.default_rng(0)
    x, mean = rng.integers(0, 256, (4, 3)) / 255, rng.uniform(0.2, 0.8, (4, 3))
    assert float(gaussian(x, mean, 0.3)) == pytest.approx(norm.logpdf(x, mean, 0.3).sum())
    bits = (x > 0.5).astype(float)
    logits = np.log(mean / (1 - mean))
    assert float(bernoulli(bits, logits)) == pytest.approx(coin.logpmf(bits, mean).sum())
    upper = np.where(x == 1, 1, logistic.cdf(x + 0.5 / 255, mean, 0.1))
    lower = np.where(x == 0, 0, logistic.cdf(x - 0.5 / 255, mean, 0.1))
    found = discretised_logistic(jnp.asarray(x), jnp.asarray(mean), 0.1)
    assert float(found) == pytest.approx(np.log(upper - lower).sum(), rel=1e-10)


def test_many_levels_approach_the_density(x64):
    x, mean, levels = jnp.array([0.25, 0.5]), jnp.array([0.4, 0.45]), 40_001
    found = discretised_logistic(x, mean, 0.2, levels=levels) + 2 * np.log(levels - 1)
    expected = logistic.logpdf(x, mean, 0.2).sum()
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_values_between_levels_are_rounded():
    mean = jnp.array([0.3, 0.6])
    exact = discretised_logistic(jnp.array([1.0, 128.0]) / 255, mean, 0.05)
    near = discretised_logistic(jnp.array([1.3, 127.6]) / 255, mean, 0.05)
    assert float(exact) == pytest.approx(float(near))


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 10.0])
def test_gradients_stay_finite_far_from_the_data(scale):
    x = jnp.array([0.0, 0.5, 1.0])
    for mean in (-5.0, 0.5, 6.0):
        gradients = jax.grad(discretised_logistic, argnums=(1, 2))(
            x, jnp.full(3, mean), jnp.array(scale)
        )
        assert all(jnp.isfinite(leaf).all() for leaf in gradients)
        # A mean that is too low is drawn up, one that is too high down.
        if mean != 0.5:
            assert np.sign(gradients[0].sum()) == np.sign(0.5 - mean)


@pytest.mark.parametrize("likelihood", [bernoulli, gaussian, discretised_logistic])
def test_parameters_of_another_shape_are_refused(likelihood):
    rest = () if likelihood is bernoulli else (1.0,)
    with pytest.raises(ValueError, match=r"the image's shape \(2, 2, 1\), got \(2, 2\)"):
        likelihood(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2)), *rest)


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        discretised_logistic(jnp.zeros(1), jnp.zeros(1), 1.0, levels=1)
