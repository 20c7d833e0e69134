"""The perceptual path length against closed forms on the circle and in flat space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.evaluation import perceptual_path_length


def on_circle(key):
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def same(z):
    return z


def test_on_the_circle_it_is_the_mean_square_of_the_angle_between_draws(key):
    found = perceptual_path_length(key, same, on_circle, count=4000)
    assert abs(found.mean - np.pi**2 / 3) < 4 * found.standard_error
    assert found.standard_error == pytest.approx(np.sqrt(np.pi**4 * 4 / 45 / 4000), rel=0.05)
    # A uniform angle has a deviation over its mean of one over the root of three.
    assert found.spread == pytest.approx(3**-0.5, rel=0.05)
    assert found.trimmed < found.mean


def test_features_are_what_is_measured(key):
    plain = perceptual_path_length(key, same, on_circle, count=50, along="line")
    seen = perceptual_path_length(
        key, same, on_circle, features=lambda x: 3 * x[None], count=50, along="line"
    )
    np.testing.assert_allclose(seen.mean, 9 * plain.mean, rtol=1e-5)
    np.testing.assert_allclose(seen.spread, plain.spread, rtol=1e-4)


def test_a_generator_of_one_image_has_none(key):
    found = perceptual_path_length(key, jnp.zeros_like, on_circle, count=10)
    assert [float(value) for value in found] == [0, 0, 0, 0]


def test_it_goes_under_jit_and_keeps_precision(key, x64):
    def score(key):
        return perceptual_path_length(key, same, on_circle, count=20).mean

    found = jax.jit(score)(key)
    assert found.dtype == x64
    np.testing.assert_allclose(found, score(key), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1}, "count must be at least 2, got 1"),
        ({"along": "lines"}, "did you mean 'line'"),
    ],
)
def test_what_is_wrong_is_said(key, change, message):
    with pytest.raises(ValueError, match=message):
        perceptual_path_length(key, same, on_circle, **change)
