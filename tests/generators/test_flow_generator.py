"""A velocity field as a generator: its map is the flow, however it is stepped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import geometry
from latent_flows.generators.flow_generator import denoiser_velocity, flow_generator

TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])


def turning(t, x):
    """A quarter of a turn from time 0 to 1, in the plane of the two rows of a sample."""
    return jnp.pi / 2 * TURN @ x


@pytest.mark.parametrize("steps", [8, None])
def test_the_generator_is_the_flow_of_its_velocity(steps):
    generator = flow_generator(turning, (2, 3), steps=steps)
    z = jax.random.normal(jax.random.key(0), (6,))
    assert (generator.latent_dim, generator.event_shape) == (6, (2, 3))
    np.testing.assert_allclose(generator(z), TURN @ z.reshape(2, 3), atol=1e-4)
    assert generator.log_prior(jnp.zeros(6)) == pytest.approx(-3 * np.log(2 * np.pi), abs=1e-5)


def test_so_many_steps_of_so_simple_a_solver_are_taken():
    generator = flow_generator(lambda t, x: x, (1,), steps=4, solver="euler")
    np.testing.assert_allclose(generator(jnp.ones(1)), 1.25**4, rtol=1e-6)


def test_derivatives_go_through_in_both_modes():
    generator = flow_generator(turning, (2, 1), steps=8)
    z = jnp.array([0.3, 0.7])
    forward, backward = (mode(generator)(z)[:, 0] for mode in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, TURN, atol=1e-4)
    np.testing.assert_allclose(backward, TURN, atol=1e-4)


def test_geometry_sees_the_metric_of_the_flow():
    generator = flow_generator(lambda t, x: jnp.array([1.0, 0.0]) * x, (2,), steps=16)
    metric = geometry.pullback(generator)
    expected = np.diag([np.e**2, 1.0])
    np.testing.assert_allclose(metric(jnp.array([0.5, 0.2])), expected, atol=1e-3)


def test_the_flow_of_a_denoiser_of_normal_data_scales_the_noise():
    def denoise(y, sigma):
        return y * 9 / (9 + sigma**2)

    generator = flow_generator(denoiser_velocity(denoise), (2, 1), steps=32)
    z = jnp.array([1.0, -0.5])
    np.testing.assert_allclose(generator(z)[:, 0], 3 * z, rtol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"event_shape": (2, 0)}, "at least one number"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": None, "solver": "euler"}, "euler cannot choose its steps"),
        ({"solver": "heum"}, "did you mean 'heun'"),
        ({"velocity": lambda t, x: x.sum()}, r"a sample of shape \(2, 1\) has shape \(\)"),
    ],
)
def test_what_is_no_flow_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        flow_generator(**{"velocity": turning, "event_shape": (2, 1), **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (1.0, np.inf)])
def test_levels_of_noise_that_make_no_sense_are_refused(low, high):
    with pytest.raises(ValueError, match="must be positive, the second larger"):
        denoiser_velocity(lambda y, sigma: y, sigma_min=low, sigma_max=high)
