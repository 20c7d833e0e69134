"""Hinge losses, spectral normalisation, averaged weights, and layers of both players."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_flows.generators import adversarial, layers


def network(key):
    keys = jax.random.split(key, 3)
    return {
        "conv": {"kernel": jax.random.normal(keys[0], (3, 3, 4, 6)), "bias": jnp.ones(6)},
        "dense": {"kernel": jax.random.normal(keys[1], (5, 2))},
        "gamma": jax.random.normal(keys[2], ()),
    }


def settled(params, key, steps=200):
    vectors = adversarial.singular_vectors(key, params)
    step = jax.jit(lambda v: adversarial.normalise(params, v)[1])
    for _ in range(steps):
        vectors = step(vectors)
    return vectors


def largest(kernel):
    return np.linalg.svd(np.reshape(kernel, (-1, kernel.shape[-1])), compute_uv=False)[0]


def test_power_iteration_brings_every_matrix_to_spectral_norm_one(key):
    params = network(key)
    normalised, _ = jax.jit(adversarial.normalise)(params, settled(params, key))
    assert largest(normalised["conv"]["kernel"]) == pytest.approx(1, rel=1e-4)
    assert largest(normalised["dense"]["kernel"]) == pytest.approx(1, rel=1e-4)
    np.testing.assert_array_equal(normalised["conv"]["bias"], params["conv"]["bias"])
    np.testing.assert_array_equal(normalised["gamma"], params["gamma"])


def test_the_scale_of_a_weight_is_forgotten_and_gets_no_gradient(key):
    params = network(key)
    vectors = settled(params, key)

    def loss(params):
        kernel = adversarial.normalise(params, vectors)[0]["dense"]["kernel"]
        return jnp.sum(jnp.sin(kernel))

    double = jax.tree.map(lambda w: 2 * w, params)
    assert float(loss(double)) == pytest.approx(float(loss(params)), rel=1e-5)
    gradient = jax.grad(loss)(params)["dense"]["kernel"]
    assert float(jnp.linalg.norm(gradient)) > 1e-2
    assert float(jnp.vdot(gradient, params["dense"]["kernel"])) == pytest.approx(0, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=5), st.floats(1, 5))
def test_the_discriminator_gains_nothing_beyond_the_margin(scores, more):
    fake = jnp.array(scores)
    sure = adversarial.discriminator_hinge(jnp.ones(2), fake)
    surer = adversarial.discriminator_hinge(jnp.full(2, more), fake)
    assert float(sure) == float(surer) >= 0
    worse = adversarial.discriminator_hinge(jnp.zeros(2), fake)
    assert float(worse) == pytest.approx(float(sure) + 1, rel=1e-5)


def test_the_generator_is_pulled_however_large_the_scores(key):
    scores = 10 * jax.random.normal(key, (7,))
    gradient = jax.grad(adversarial.generator_hinge)(scores)
    np.testing.assert_allclose(gradient, np.full(7, -1 / 7), rtol=1e-6)


def test_an_average_of_equal_values_is_that_value_and_forgets_where_it_began():
    value = {"w": jnp.array([2.0, -1.0])}
    mean = jax.tree.map(jnp.zeros_like, value)
    for step in range(300):
        mean = adversarial.average(mean, value, step, 0.9)
    np.testing.assert_allclose(mean["w"], value["w"], rtol=1e-5)
    np.testing.assert_array_equal(adversarial.average(value, value, 5, 0.99)["w"], value["w"])


@pytest.mark.parametrize("lead", [(), (2, 3)])
@pytest.mark.parametrize(
    ("fused", "direct"),
    [
        (layers.UpConv, lambda conv, x: conv(layers.upsample(x))),
        (layers.DownConv, lambda conv, x: layers.pool(conv(x))),
    ],
)
def test_fused_resampling_is_resampling_and_a_convolution(fused, direct, lead, key):
    x = jax.random.normal(key, (*lead, 4, 6, 2))
    layer, conv = fused(3), layers.Conv(3)
    params = jax.jit(conv.init)(key, x)
    params["params"]["bias"] = jnp.arange(3.0)
    expected = jax.jit(lambda x: direct(lambda y: conv.apply(params, y), x))(x)
    found = jax.jit(layer.apply)(params, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    own = jax.eval_shape(layer.init, key, x)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, params)
