"""Guidance climbs the score, at the pace asked for, and stands still where there is no way up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import flows
from latent_flows.guidance import guidance


@pytest.fixture
def linear(key):
    return jax.random.normal(key, (5, 3))


def test_it_is_the_gradient_of_the_composed_score(linear):
    z = jnp.array([0.3, -1.0, 2.0])
    found = guidance(lambda z: jnp.tanh(linear @ z), jnp.sum)(0.0, z)
    np.testing.assert_allclose(
        found, linear.T @ (1 - jnp.tanh(linear @ z) ** 2), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_a_step_has_the_length_asked_for_whatever_the_units_of_the_score(linear, scale):
    z = jnp.array([0.3, -1.0, 2.0])

    def generator(z):
        return linear @ z

    def score(x):
        return scale * x[0]

    inside = guidance(generator, score, step=0.7)(0.0, z)
    outside = guidance(generator, score, step=0.7, space="data")(0.0, z)
    assert float(jnp.linalg.norm(inside)) == pytest.approx(0.7, rel=1e-5)
    assert float(jnp.linalg.norm(linear @ outside)) == pytest.approx(0.7, rel=1e-5)
    np.testing.assert_allclose(
        inside / jnp.linalg.norm(inside), outside / jnp.linalg.norm(outside), rtol=1e-5
    )


def test_its_flow_raises_the_score_at_that_pace():
    # Along a straight score of unit slope, a unit of time is a unit of score.
    field = guidance(lambda z: z, lambda x: x[0], step=1.0)
    path = flows.integrate(field, jnp.zeros(2), jnp.array([0.0, 3.0]))
    np.testing.assert_allclose(path.zs[-1], [3.0, 0.0], rtol=1e-4)


@pytest.mark.parametrize("space", ["latent", "data"])
def test_it_is_zero_where_nothing_changes_and_so_is_its_derivative_finite(space):
    field = guidance(lambda z: 0.0 * z, jnp.sum, step=1.0, space=space)
    np.testing.assert_array_equal(field(0.0, jnp.ones(2)), 0)
    assert np.isfinite(jax.jacobian(lambda z: field(0.0, z))(jnp.ones(2))).all()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="step must be positive"):
        guidance(lambda z: z, jnp.sum, step=0.0)
    with pytest.raises(ValueError, match="did you mean 'latent'"):
        guidance(lambda z: z, jnp.sum, space="latnt")
    with pytest.raises(ValueError, match=r"one number, got shape \(3,\)"):
        guidance(lambda z: z, lambda x: x)(0.0, jnp.ones(3))
