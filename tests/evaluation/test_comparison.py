"""Families of traversals at equal length, on a generator that shows its latent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.data.image_factors import Measures, X, Y
from latent_flows.evaluation.comparison import Family, compare_at_length, factor_ranges
from latent_flows.traversals import constant

PLACES = Measures((X, Y))


def spot(z):
    """A bright blob whose centre is the latent."""
    ticks = (jnp.arange(16) + 0.5) / 16 - 0.5
    square = (ticks[None, :] - z[0]) ** 2 + (ticks[:, None] - z[1]) ** 2
    return jnp.exp(-square / 0.02)[..., None]


@pytest.fixture(scope="module")
def axes():
    """Straight lines along both axes, of which one is followed slowly."""
    starts = 0.1 * jax.random.normal(jax.random.key(0), (2, 8, 2))
    return Family("axes", spot, constant, jnp.diag(jnp.array([0.02, 0.001])), starts)


def test_each_axis_changes_its_own_factor_however_fast_it_is_followed(axes):
    ranges = jnp.ones(2)
    row = compare_at_length(
        jax.random.key(1), axes, 1.0, 2.0, starts=8, pairs=0, measures=PLACES, ranges=ranges
    )
    assert (row["method"], row["traversals"], row["winners"]) == ("axes", 2, ["x", "y"])
    assert row["shares"] == pytest.approx([1.0, 1.0], abs=0.05)
    assert row["worst share"] == min(row["shares"]) <= row["share"]
    assert row["worst valid"] == min(row["valid_each"])
    assert (row["factors"], row["sign"], row["valid"]) == (2, 1.0, 1.0)
    assert row["length"] == pytest.approx(1.0, rel=0.05)
    assert row["shortest"] == pytest.approx(1.0, rel=0.05)
    assert not any(name.startswith("vp@") for name in row)


@pytest.mark.slow
def test_a_field_that_leads_to_no_end_is_followed_as_far_as_it_leads(axes):
    def steep(direction, t, z):
        """Straight on, but ever faster: in finite time it is infinitely far."""
        return direction * (1 + 400 * jnp.square(z).sum())

    row = compare_at_length(
        jax.random.key(1),
        axes._replace(field=steep, params=0.05 * jnp.eye(2)),
        1e3,
        2.0,
        starts=8,
        pairs=8,
        measures=PLACES,
        ranges=jnp.ones(2),
        steps=5,
        seeds=1,
        fractions=(0.5,),
    )
    assert 0 < row["shortest"] <= row["length"] < 1e3
    assert np.isfinite([*row["shares"], row["share"], row["valid"], row["vp@50%"]]).all()
    assert row["winners"] == ["x", "y"]


def test_ranges_are_those_of_nearly_all_data():
    places = jnp.linspace(-0.2, 0.2, 101)
    images = jax.vmap(lambda x: spot(jnp.array([x, 0.0])))(places)
    np.testing.assert_allclose(factor_ranges(PLACES, images), [0.392, 0.0], atol=0.01)
