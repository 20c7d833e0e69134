"""Frechet means and geodesic k-means against closed forms and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster

from latent_flows.geometry.means import frechet_mean, kmeans
from latent_flows.geometry.metrics import conformal, pullback


def flat(z):
    return jnp.eye(z.shape[0], dtype=z.dtype)


half_plane = conformal(lambda z: 1 / z[1] ** 2)


def on_sphere(z):
    """Inverse stereographic projection, from the north pole; the south pole is at the origin."""
    square = z @ z
    return jnp.append(2 * z, square - 1) / (1 + square)


def to_plane(x):
    return x[..., :2] / (1 - x[..., 2:])


def tolerance(dtype):
    return 1e-3 if dtype == jnp.float64 else 1e-2


def test_on_a_vertical_line_of_the_half_plane_the_mean_is_geometric(dtype):
    heights = jnp.array([0.5, 1.0, 3.0, 8.0], dtype)
    weights = jnp.array([1.0, 2.0, 3.0, 2.0], dtype)
    points = jnp.stack([jnp.full_like(heights, 0.7), heights], -1)
    found = jax.jit(lambda p, w: frechet_mean(half_plane, p, w))(points, weights)
    assert found.point.dtype == dtype
    assert found.converged
    share = weights / weights.sum()
    logs = jnp.log(heights)
    expected = jnp.array([0.7, jnp.exp(share @ logs)], dtype)
    np.testing.assert_allclose(found.point, expected, rtol=tolerance(dtype))
    spread = share @ (logs - share @ logs) ** 2
    np.testing.assert_allclose(found.variance, spread, rtol=tolerance(dtype))


def test_on_the_sphere_the_mean_of_a_circle_is_its_pole():
    dtype = jnp.dtype("float32")
    angle, radius = jnp.linspace(0, 2 * jnp.pi, 6)[:-1].astype(dtype), 0.6
    tilt = 0.8
    turn = jnp.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    circle = jnp.stack(
        [
            jnp.sin(radius) * jnp.cos(angle),
            jnp.sin(radius) * jnp.sin(angle),
            jnp.full_like(angle, -jnp.cos(radius)),
        ],
        -1,
    )
    points = to_plane(circle @ turn.T.astype(dtype))
    pole = to_plane(jnp.array([0.0, 0.0, -1.0]) @ turn.T)
    found = jax.vmap(lambda p: frechet_mean(pullback(on_sphere), p))(points[None])
    assert found.converged.all()
    np.testing.assert_allclose(found.point[0], pole, atol=tolerance(dtype))
    np.testing.assert_allclose(found.variance[0], radius**2, rtol=tolerance(dtype))


def test_in_flat_space_the_mean_is_the_weighted_average(key):
    points = jax.random.normal(key, (20, 3))
    weights = jnp.arange(20.0)
    found = frechet_mean(flat, points, weights, initial=jnp.full(3, 9.0))
    assert found.converged
    np.testing.assert_allclose(found.point, jnp.average(points, 0, weights), atol=1e-4)


def test_one_point_is_its_own_mean():
    found = frechet_mean(half_plane, jnp.array([[0.3, 2.0]]))
    np.testing.assert_allclose(found.point, [0.3, 2.0], rtol=1e-5)
    assert found.converged
    assert found.variance < 1e-10


def test_a_metric_that_is_nowhere_finite_leaves_finite_numbers_and_a_flag():
    found = frechet_mean(lambda z: jnp.nan * jnp.eye(2), jnp.array([[0.0, 0.0], [1.0, 1.0]]))
    assert not found.converged
    assert jnp.isfinite(found.point).all()
    assert found.solved == 0


def test_in_flat_space_k_means_is_that_of_scikit_learn(key):
    points = jax.random.normal(key, (60, 2)) + jnp.repeat(jnp.eye(3, 2) * 3, 20, 0)
    start = points[jnp.array([0, 1, 2])]
    found = jax.jit(lambda p: kmeans(key, flat, p, 3, initial=start, batch_size=64))(points)
    theirs = cluster.KMeans(3, init=np.asarray(start), n_init=1, algorithm="lloyd").fit(points)
    assert found.converged
    np.testing.assert_array_equal(found.labels, theirs.labels_)
    np.testing.assert_allclose(found.centres, theirs.cluster_centers_, atol=1e-3)
    np.testing.assert_allclose(found.inertia, theirs.inertia_, rtol=1e-3)


@pytest.mark.slow
def test_k_means_does_not_cross_a_wall_of_long_distances(key):
    along, above = jnp.linspace(-2, 2, 15), jnp.full(15, 0.5)
    points = jnp.concatenate([jnp.stack([along, y], -1) for y in (above, -above)])
    wall = conformal(lambda z: 1 + 50 * jnp.exp(-((z[1] / 0.2) ** 2)))
    truth = jnp.arange(30) < 15

    def agreement(labels):
        return max(np.mean(labels == truth), np.mean(labels != truth))

    runs = jax.vmap(lambda key: kmeans(key, wall, points, 2, segments=12))(jax.random.split(key, 4))
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(runs.inertia)], runs)
    assert best.converged
    assert agreement(best.labels) == 1
    np.testing.assert_allclose(best.centres[:, 0], 0, atol=0.02)
    assert agreement(cluster.KMeans(2, n_init=10, random_state=0).fit_predict(points)) < 0.6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: frechet_mean(flat, p[0]), r"points .* \[n, d\]"),
        (lambda p: frechet_mean(flat, p[:0]), r"points .* at least 1"),
        (lambda p: frechet_mean(flat, p, jnp.ones(2)), r"weights must have shape \(3,\)"),
        (lambda p: frechet_mean(flat, p, initial=jnp.ones(3)), r"initial must have shape \(2,\)"),
        (lambda p: kmeans(jax.random.key(0), flat, p, 4), r"k must be between 1 and .* 3, got 4"),
        (lambda p: kmeans(jax.random.key(0), flat, p, 0), r"k must be between"),
        (lambda p: kmeans(jax.random.key(0), flat, p, 2, initial=p), r"initial must have shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((3, 2)))
