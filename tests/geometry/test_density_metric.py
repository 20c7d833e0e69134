"""A metric from a density is flat among data, and far from them as long as was asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry import density_metric, geodesic, length
from latent_flows.geometry.metrics import pullback


def ring(z):
    """Codes lie on a circle of radius 2."""
    return -((jnp.linalg.norm(z) - 2) ** 2) / 0.02


ANGLES = np.linspace(0, 2 * np.pi, 64, endpoint=False)
CODES = 2 * jnp.asarray(np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1), jnp.float32)


def test_among_data_it_is_about_the_base_and_far_away_far_times_as_long():
    tight = jnp.concatenate([CODES, CODES * 1.2])  # some that are rare
    metric = density_metric(ring, tight, far=5.0, rare=0.4)
    assert_allclose(metric(CODES[3]), np.eye(2), rtol=0.02)
    assert_allclose(metric(jnp.array([9.0, 0.0])), 25 * np.eye(2), rtol=1e-4)
    scaled = density_metric(ring, tight, far=5.0, rare=0.4, base=pullback(lambda z: 3 * z))
    assert_allclose(scaled(CODES[3]), 9 * metric(CODES[3]), rtol=1e-5)


@pytest.mark.slow
def test_a_shortest_path_goes_round_a_hole_that_the_line_crosses():
    metric = density_metric(ring, jnp.concatenate([CODES, CODES * 1.1]), far=20.0, rare=0.5)
    ends = CODES[0], CODES[24]
    path = jax.jit(lambda a, b: geodesic(metric, a, b, segments=32))(*ends)
    straight = length(metric, lambda s: ends[0] + s * (ends[1] - ends[0]))
    assert path.length < straight / 2
    assert jnp.abs(jnp.linalg.norm(path.points, axis=1) - 2).max() < 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codes": CODES[0]}, r"codes must have shape \[n, d\]"),
        ({"far": 1.0}, "far must be more than 1"),
        ({"rare": 0.0}, r"rare must lie in \(0, 1\)"),
        ({"log_density": lambda z: jnp.log(z[0])}, "density of .* of 64 codes is not finite"),
    ],
)
def test_what_gives_no_metric_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        density_metric(**{"log_density": ring, "codes": CODES, **settings})
