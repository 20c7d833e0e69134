"""Control measured on images, of a generator whose latent is what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows._transforms import closure_convert
from latent_flows.data.image_factors import ANY_IMAGE, SIZE, X, Y
from latent_flows.directions.model import DirectionModel
from latent_flows.evaluation.image_control import (
    Subject,
    even_direction,
    image_control,
    joint_control,
    survey,
)


def blob(z):
    """A generator whose latent is the centre and the size of a Gaussian."""
    ticks = (jnp.arange(32) + 0.5) / 32 - 0.5
    square = (ticks[None, :] - z[0]) ** 2 + (ticks[:, None] - z[1]) ** 2
    return jnp.exp(-square / (2 * (0.06 * jnp.exp2(z[2])) ** 2))[..., None]


@pytest.fixture
def blobs(key):
    held_out = 0.05 * jax.random.normal(key, (6, 3))
    generator = closure_convert(blob, 3)
    return Subject(
        generator,
        None,
        held_out,
        held_out,
        radius=1.0,
        name="blobs",
        factors=(X, Y, SIZE),
        is_valid=ANY_IMAGE.is_valid,
        low=np.full(3, -0.2),
        high=np.full(3, 0.2),
        faintest=0.0,
        bounded=False,
    )


def straight(direction, slope=1.0):
    knots = jnp.linspace(-1.0, 1.0, 3)
    return DirectionModel(jnp.array(direction), knots, slope * knots, knots[:2], *jnp.ones(2))


X_AT, Y_AT, SIZE_AT = range(3)
"""Places of the factors, each of which one axis changes."""


def control(blobs, own, model, largest=0.1):
    return image_control(blobs, own, model, largest, blobs.high - blobs.low, sides=4).row


@pytest.mark.slow
def test_a_true_direction_has_perfect_control(blobs):
    for own, axis in enumerate(np.eye(3)):
        largest = 0.2 if own == SIZE_AT else 0.1
        row = control(blobs, own, straight(axis), largest)
        assert row["r2"] > 0.999
        assert row["placed_r2"] > 0.999
        assert row["leakage"] < 0.01
        assert row["reach"] == pytest.approx(2 * largest)


def test_a_direction_that_goes_too_far_has_a_short_reach(blobs):
    # Twice as far as asked: the error is the amount itself, which may be a tenth of the range.
    row = control(blobs, X_AT, straight([1.0, 0, 0], 0.5))
    assert row["reach"] == pytest.approx(0.04, abs=0.001)
    assert row["r2"] == pytest.approx(0.75, abs=0.01)


def test_what_else_a_direction_changes_is_leakage(blobs):
    model = straight([0.6, 0.8, 0.0], 0.6)
    row = control(blobs, X_AT, model)
    assert row["r2"] > 0.999
    # y moves by 4/3 of what x is asked for; its range is 0.4.
    asked = np.linspace(-0.1, 0.1, 5)
    assert row["leakage_y"] == pytest.approx(4 / 3 * asked.std() / 0.4, rel=0.02)
    assert row["leakage_size"] < 0.01


def test_two_factors_at_once(blobs):
    models = straight([1.0, 0.0, 0.0]), straight([0.6, 0.8, 0.0], 1.0)
    # The second model moves x as well: together they still do what each is asked as it sees it.
    row = joint_control(blobs, (X_AT, Y_AT), models, (0.1, 0.1))
    assert row["first_r2"] > 0.999
    assert row["second_r2"] < 0.9


def test_a_direction_is_told_its_slope(blobs):
    model = even_direction([0.0, 1.0], 0.5)
    assert model(jnp.array([3.0, 8.0])) == pytest.approx(4.0)
    assert model.inverse(2.0) == pytest.approx(4.0)


def test_what_is_usual_is_the_same_of_images_and_of_what_makes_them(blobs):
    made = survey(blobs.factors, blobs.starts, blobs.generator)
    seen = survey(blobs.factors, jax.vmap(blob)(blobs.starts))
    for ours, theirs in zip(made, seen, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert (made[0] < made[1]).all()
