"""A blended metric is one, and is what was known where it was known."""

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry.interpolation import blend, median_gap


def known(key, count=6, dim=3):
    points, roots = (
        jax.random.normal(k, shape)
        for k, shape in zip(jax.random.split(key), [(count, dim), (count, dim, dim)], strict=True)
    )
    return 3 * points, roots @ roots.swapaxes(1, 2)


def test_a_blend_is_positive_definite_and_smooth_everywhere(key):
    points, matrices = known(key)
    metric = blend(points, matrices)
    zs = jnp.concatenate([points + 0.3, 1e3 * points])
    values = jax.jit(jax.vmap(metric))(zs)
    assert jnp.linalg.eigvalsh(values).min() > 0
    assert jnp.isfinite(jax.vmap(jax.jacfwd(metric))(zs)).all()


def test_a_narrow_blend_is_what_is_known_at_each_point_and_of_the_nearest_far_away(key):
    points, matrices = known(key)
    metric = blend(points, matrices, 0.05)
    assert_allclose(jax.vmap(metric)(points), matrices, rtol=1e-4, atol=1e-5)
    far = 50 * points[2]
    nearest = jnp.argmin(jnp.linalg.norm(points - far, axis=1))
    assert_allclose(metric(far), matrices[nearest], rtol=1e-5)


def test_equal_metrics_blend_to_the_same(key):
    points, _ = known(key)
    same = jnp.broadcast_to(jnp.diag(jnp.array([1.0, 2.0, 3.0])), (6, 3, 3))
    assert_allclose(blend(points, same)(points[0] + 0.7), same[0], rtol=1e-5)


def test_the_gap_is_to_the_nearest_other():
    # Distances to the nearest other: 1, 1, 2, 3, 3 (the last two are each other's nearest).
    line = jnp.array([0.0, 1.0, 3.0, 10.0, 13.0])[:, None]
    assert_allclose(median_gap(line), 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "shape", "width", "message"),
    [
        (1, (1, 2, 2), None, "at least two"),
        (3, (3, 2, 3), None, "matrices"),
        (3, (3, 2, 2), 0.0, "width must be positive, got 0.0"),
    ],
)
def test_what_makes_no_metric_is_refused(count, shape, width, message):
    with pytest.raises(ValueError, match=message):
        blend(jnp.zeros((count, 2)), jnp.ones(shape), width)
