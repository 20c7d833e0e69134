"""The loss of a VAE whose codes flow, where its parts are known in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import pde
from latent_flows.objectives import (
    JointTerms,
    encode_pairs,
    joint_sum,
    joint_terms,
    transport_codes,
)

RATES = jnp.array([[0.3, -0.5], [0.1, 0.2]])


def stretch(rates, t, z):
    """A potential whose flow stretches each axis exponentially."""
    return 0.5 * jnp.sum(rates * z**2)


def encode(x):
    return x, 0.1 * jnp.ones_like(x)


transported = jax.jit(
    partial(transport_codes, stretch), static_argnames=("equation", "flowed", "steps", "exact")
)
"""In one program, for all tests that ask for the same."""


def log_likelihood(x, z):
    return -jnp.sum((x - z) ** 2)


@pytest.fixture
def pairs(key):
    """Samples whose codes are themselves, the later ones where the flow takes the earlier."""
    before = jax.random.normal(key, (5, 2, 2))
    t = jnp.array([[1.0, 2.0]] * 5)
    return before, jnp.exp(RATES * t[..., None]) * before, t


@pytest.mark.slow
def test_the_flow_of_the_factor_takes_one_code_to_the_other_and_back(pairs):
    before, after, t = pairs
    codes = encode_pairs((jax.random.key(1), jax.random.key(2)), encode, before, after)
    np.testing.assert_array_equal(codes.mean[1], after)
    assert codes.z[0].shape == before.shape
    exact = codes._replace(z=codes.mean)
    moved = transported(RATES, exact, t, steps=20)
    np.testing.assert_allclose(moved.end, after, rtol=1e-3)
    np.testing.assert_allclose(moved.start, before, rtol=1e-3)
    # The prior of a later code is the stretched one.
    std = jnp.exp(RATES * t[..., None])
    expected = jax.scipy.stats.norm.logpdf(after, 0, std).sum(-1)
    np.testing.assert_allclose(moved.log_prior, expected, atol=5e-3)
    plain = transported(RATES, exact, t, flowed=False, steps=20)
    assert plain.log_prior is None
    np.testing.assert_allclose(plain.start, moved.start, rtol=1e-5)
    terms = joint_terms(log_likelihood, before, after, exact, moved)
    np.testing.assert_allclose(terms.transport, 0, atol=1e-3)
    assert terms.reconstruction == 0


def test_an_exact_prior_is_that_of_the_steps_themselves(pairs):
    before, after, t = pairs
    codes = encode_pairs((jax.random.key(1), jax.random.key(2)), encode, before, after)
    moved = transported(RATES, codes, t, steps=1, exact=True)
    back = -RATES * t[..., None]
    factor = 1 + back + back**2 / 2  # of one step of the midpoint rule
    np.testing.assert_allclose(moved.start, factor * codes.z[1], rtol=1e-5)
    prior = jax.scipy.stats.norm.logpdf(factor * codes.z[1]) + jnp.log(factor)
    np.testing.assert_allclose(moved.log_prior, prior.sum(-1), rtol=1e-5)


def test_the_residual_is_that_of_the_equation_at_the_end_of_each_path(pairs):
    before, after, t = pairs
    codes = encode_pairs((jax.random.key(1), jax.random.key(2)), encode, before, after)
    equation = lambda own, u: pde.heat(u, 1.0)  # noqa: E731
    moved = transported(RATES, codes, t, equation=equation)
    # u has no time, so its Laplacian is all that the equation has: the residual is the term.
    np.testing.assert_allclose(moved.residual, 1.0, rtol=1e-5)
    assert transported(RATES, codes, t, steps=20).residual == 0


@pytest.mark.slow
def test_a_flow_that_stands_still_leaves_the_bound_of_each_sample_alone(pairs):
    before, _, t = pairs
    codes = encode_pairs((jax.random.key(1), jax.random.key(1)), encode, before, before)
    plain, carried = (
        joint_terms(
            log_likelihood,
            before,
            before,
            codes,
            transported(0 * RATES, codes, t, flowed=flowed, steps=20),
        )
        for flowed in (False, True)
    )
    assert plain.transport == pytest.approx(float(plain.reconstruction), rel=1e-5)
    # The same divergence of the later codes, at their draws and in closed form.
    z, (mean, std) = codes.z[1], (codes.mean[1], codes.std[1])
    logpdf = jax.scipy.stats.norm.logpdf
    drawn = (logpdf(z, mean, std) - logpdf(z)).sum(-1).mean()
    exact = (0.5 * (mean**2 + std**2 - 1) - jnp.log(std)).sum(-1).mean()
    assert float(plain.kl) == pytest.approx(float(exact), rel=1e-4)
    assert float(carried.kl) == pytest.approx(float(0.5 * (exact + drawn)), rel=1e-4)


def test_the_loss_is_the_weighted_sum_and_divergences_are_warmed_up():
    terms = JointTerms(*jnp.arange(1.0, 7.0))
    assert joint_sum(terms, transport=0.0, matching=0.0, residual=0.0, inference=0.0) == 1 + 2
    assert joint_sum(terms, transport=1.0, matching=0.0, residual=0.0, rise=0.0) == 3
    full = joint_sum(terms, transport=0.5, matching=2.0, residual=3.0, inference=1.0, rise=0.5)
    assert full == 0.5 * 1 + 0.5 * 3 + 0.5 * (2 + 6) + 2 * 4 + 3 * 5
