"""How straight generators are, and steered fields on them as traversals to compare with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generators.straightness import straightness, turning
from experiments.potential_flows import local_basis, steered
from latent_flows.data.image_factors import ImageFactor, Measures, X, Y
from latent_flows.evaluation.comparison import dominated_factors, follow_family

PLACES = jnp.arange(16) + 0.5
MEASURES = Measures((X, Y))


def bump(x, y):
    """A spot of light at a place of a picture of 16 by 16."""
    across, down = (jnp.exp(-((PLACES - 16 * place) ** 2) / 8) for place in (x, y))
    return (down[:, None] * across)[:, :, None]


def straight(z):
    return bump(0.5 + 0.05 * z[0], 0.5 + 0.05 * z[1])


def folded(z):
    """The place, turned by an angle that depends on a third latent."""
    angle = 2.0 * z[2]
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    return straight(turn @ z[:2])


@pytest.fixture(scope="module")
def latents():
    return jax.random.normal(jax.random.key(0), (256, 3))


def test_where_latents_are_places_a_linear_map_knows_them_and_where_they_turn_it_does_not(latents):
    known = straightness(straight, latents, MEASURES)
    turned = straightness(folded, latents, MEASURES)
    assert min(known["x"], known["y"]) > 0.99
    assert max(turned["x"], turned["y"]) < 0.2
    assert known["mean"] == pytest.approx(np.mean([known[name] for name in ("x", "y")]))


def test_straight_lines_turn_away_from_geodesics_where_latents_are_folded(latents, key):
    found = turning(folded, latents[:40], key)
    assert 0 < found["turning"] < found["turning@90%"]
    # Samples that are linear in the latent; and a line of them, at whatever pace it is passed.
    linear = turning(lambda z: jnp.arange(6.0).reshape(2, 3) @ z, latents[:40], key)
    line = turning(jnp.exp, latents[:40, :1], key)
    assert max(linear["turning@90%"], line["turning@90%"]) < 1e-3


def test_of_too_few_valid_images_nothing_is_said(latents):
    none = MEASURES._replace(is_valid=lambda image: image.sum() < 0)
    assert straightness(straight, latents, none) == {}


def steered_family(starts, measures, ranges):
    found = steered.exact(folded, measures, ranges, 10.0, most=len(starts))
    return steered.family(found, folded, measures, starts)


def test_a_steered_family_moves_its_own_factor_where_no_line_does(latents):
    starts = jnp.tile(latents[None, :2], (4, 1, 1))
    family = steered_family(starts, MEASURES, jnp.ones(2))
    assert len(family.starts) == len(family.params) == 2
    z = jnp.array([0.5, -0.3, 0.4])
    for place in (0, 1):
        velocity = family.field(family.params[place], jnp.zeros(()), z)
        rate = jax.jvp(lambda z: MEASURES.measure(folded(z)), (z,), (velocity,))[1]
        # A fifth of the width in ten units of time.
        np.testing.assert_allclose(rate / 0.02, jnp.eye(2)[place], atol=0.1)
    assert steered.exact(folded, Measures(()), jnp.ones(0), 10.0, most=4).fields == ()


def test_what_no_transformation_moves_is_led_by_itself_at_a_rate_of_its_range(latents):
    across = ImageFactor("place", "image widths", X.measure)
    doubled = ImageFactor("twice down", "image heights", lambda image: 2 * Y.measure(image))
    measures, ranges = Measures((across, doubled)), jnp.array([0.8, 1.6])
    starts = jnp.tile(latents[None, :2], (4, 1, 1))
    family = steered_family(starts, measures, ranges)
    assert family.starts.shape == (2, 2, 3)
    z = jnp.array([0.5, -0.3, 0.4])
    for place in (0, 1):
        velocity = family.field(family.params[place], jnp.zeros(()), z)
        rate = jax.jvp(lambda z: measures.measure(folded(z)), (z,), (velocity,))[1]
        np.testing.assert_allclose(rate * 10, jnp.eye(2)[place] * ranges / 4, atol=1e-3)
    ends = follow_family(family, 10.0, jnp.ones(2), 2)
    found = dominated_factors(ends, measures, ranges)
    assert found["winners"] == ["place", "twice down"]
    assert found["worst share"] > 0.98
    assert (ends.num_steps == 10).all()


def test_the_local_basis_is_what_shows_most_where_each_traversal_begins():
    """Of a polar map that is outwards within the unit circle, and round it beyond."""
    polar = lambda z: z[0] * jnp.stack([jnp.cos(z[1]), jnp.sin(z[1])])  # noqa: E731
    starts = jnp.tile(jnp.array([[0.5, 0.3], [2.0, 0.3]]), (2, 1, 1))
    family = local_basis.family(polar, starts)
    for place, outwards in ((0, [1.0, 0.0]), (1, [0.0, 1.0])):
        for start, share in zip(family.starts[place], outwards, strict=True):
            rate = family.field(place, jnp.zeros(()), start)
            np.testing.assert_allclose(rate, [share, 1 - share, 0, 0], atol=1e-5)
    assert (family.generator(family.starts[0, 0]) == polar(starts[0, 0])).all()
