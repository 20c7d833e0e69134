"""Geodesic k-means against closed forms and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster

from latent_flows.geometry import geodesic_batch, kmeans
from latent_flows.geometry.metrics import conformal, pullback


def flat(z):
    return jnp.eye(z.shape[0], dtype=z.dtype)


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


@pytest.mark.slow
def test_no_polygon_of_images_is_longer_than_the_curve_it_is_told_for(key):
    # Whether a path was found or not: so that a cluster cannot gain by what a chain jumps over.
    waves = 8 * jax.random.normal(key, (30, 2))
    metric = pullback(lambda z: jnp.sin(waves @ z))
    starts, stops = jax.random.normal(key, (2, 6, 2))
    found = geodesic_batch(metric, starts, stops, segments=8, max_iterations=10)
    images = jax.vmap(jax.vmap(metric.flat))(found.points)
    chords = jnp.linalg.norm(jnp.diff(images, axis=1), axis=2).sum(1)
    assert not found.converged.all()
    assert (chords <= found.length * 1.0001).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: kmeans(jax.random.key(0), flat, p, 4), r"k must be between 1 and .* 3, got 4"),
        (lambda p: kmeans(jax.random.key(0), flat, p, 0), r"k must be between"),
        (lambda p: kmeans(jax.random.key(0), flat, p, 2, initial=p), r"initial must have shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((3, 2)))


@pytest.mark.slow
def test_long_latents_are_put_into_clusters_by_splines(key):
    points = 0.1 * jax.random.normal(key, (6, 20)) + 5.0 * (jnp.arange(6) % 2)[:, None]
    found = kmeans(key, pullback(lambda z: 2 * z), points, 2, initial=points[:2], segments=2)
    assert found.converged
    assert found.solved == 1
    np.testing.assert_array_equal(found.labels, jnp.arange(6) % 2)
    np.testing.assert_allclose(found.centres[0], points[::2].mean(0), atol=1e-3)
