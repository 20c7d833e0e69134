"""Lengths of nothing: their gradients are zeros, and never NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions, evaluation, objectives
from latent_flows._norms import safe_norm, safe_sqrt
from latent_flows.data import sprites
from latent_flows.evaluation import control_score, correlation, path_length
from latent_flows.generators import adversarial
from latent_flows.geometry.interpolation import median_gap
from latent_flows.guidance import guidance
from tests.rest_slow import rest_slow


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_a_square_root_has_no_slope_at_zero_and_its_own_elsewhere(dtype):
    x = jnp.array([0.0, 4.0, -1e-9], dtype)
    np.testing.assert_allclose(safe_sqrt(x), [0, 2, 0])
    np.testing.assert_allclose(jax.vmap(jax.grad(safe_sqrt))(x), [0, 0.25, 0])
    assert jnp.isnan(safe_sqrt(jnp.array(jnp.nan, dtype)))


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_lengths_along_axes_are_those_of_numpy(dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), dtype)
    for axis in (0, 1, (1, 2), None):
        for keepdims in (False, True):
            expected = np.sqrt((np.asarray(x) ** 2).sum(axis=axis, keepdims=keepdims))
            got = safe_norm(x, axis, keepdims=keepdims)
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_path_that_rests_has_the_gradient_of_the_rest_of_it():
    slope = jax.grad(lambda a: path_length(a * jnp.array([[0.0], [0.0], [1.0]])))(1.0)
    assert slope == 1.0


@pytest.mark.parametrize("radius", [None, 2.0])
def test_a_ball_leaves_its_centre_alone_and_pulls_in_what_is_outside(dtype, radius):
    to_ball = lambda z: directions.to_ball(z, radius)  # noqa: E731
    at_centre = jnp.zeros(3, dtype)
    np.testing.assert_array_equal(jax.jacrev(to_ball)(at_centre), np.eye(3))
    assert not jax.grad(lambda z: jnp.sum(to_ball(z) ** 2))(at_centre).any()
    z = jnp.array([3.0, 0.0, 0.0], dtype)
    size = np.sqrt(3) if radius is None else radius
    np.testing.assert_allclose(to_ball(z), [size, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(to_ball)(z), np.diag([0, size, size]) / 3, atol=1e-6)


def squared(z):
    return jnp.sum(z**2)


TIMES = jnp.arange(3.0)

AT_ZERO = {
    "guidance where the score is flat": lambda z: guidance(lambda z: z, squared, step=1.0)(0.0, z),
    "guidance that moves nothing": (
        lambda z: guidance(lambda z: z**2, jnp.sum, step=1.0, space="data")(0.0, z)
    ),
    "shares of axes that are ignored": (
        lambda z: objectives.unit_contributions(jnp.ones(3) + z, jnp.diag(z**2))
    ),
    "shares of no step": lambda z: objectives.unit_contributions(z, jnp.eye(3)),
    "direction of no steps": lambda z: objectives.direction_consistency(z[None, None]),
    "correlation with what stays": lambda z: correlation(TIMES, z[None, None, :, None]),
    "control of what stays": lambda z: control_score(TIMES, jnp.zeros((2, 3)) + z),
    "control of constants": (
        lambda z: control_score(0 * TIMES, jnp.zeros((2, 3)) + z, jnp.zeros((2, 3, 1)) + z[0])
    ),
    "a layer of zeros, normalised": (
        lambda z: adversarial.normalise({"w": z[:, None] * jnp.ones(2)}, {"w": jnp.ones(2)})
    ),
    "moments of an empty image": lambda z: sprites.moments(jnp.zeros((4, 4)) + z[0]),
    "gaps of points that coincide": lambda z: median_gap(jnp.stack([z, z, z])),
    "length of a path of one point": lambda z: evaluation.path_length(z[:, None]),
}


@pytest.mark.parametrize("name", rest_slow(AT_ZERO, every=3))
def test_gradients_are_finite_where_a_length_is_zero(name):
    for derivative in (jax.jacrev, jax.jacfwd):
        slopes = jax.jit(derivative(AT_ZERO[name]))(jnp.zeros(3))
        assert all(jnp.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
