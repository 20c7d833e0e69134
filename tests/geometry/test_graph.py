"""A path over neighbouring data goes round holes, and a geodesic from there does too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry.curves import evaluate, length
from latent_flows.geometry.geodesics import geodesic
from latent_flows.geometry.graph import graph_path, graph_paths, knn_graph
from latent_flows.geometry.metrics import conformal


def ring(count=60):
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def flat(z):
    return jnp.eye(z.shape[0])


def hole(z):
    return 1 + 30 * jnp.exp(-(z @ z) / 0.1)


def test_edges_are_as_long_as_the_metric_says():
    data = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [5.0, 5.0]])
    graph = knn_graph(lambda z: 4 * jnp.eye(2), data, neighbours=1)
    wanted = np.zeros((4, 4))
    wanted[0, 1] = wanted[1, 0] = 2
    wanted[1, 2] = wanted[2, 1] = 4
    wanted[2, 3] = wanted[3, 2] = 10
    np.testing.assert_allclose(graph.edges.toarray(), wanted, rtol=1e-5)


def test_the_path_follows_the_data_at_even_pace():
    data = ring()
    points = graph_path(knn_graph(flat, data, neighbours=2), data[0], data[20], segments=16)
    assert points.shape == (17, 2)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=0.02)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    np.testing.assert_allclose(steps, 2 * np.pi / 3 / 16, rtol=0.05)
    np.testing.assert_allclose(points[0], data[0], atol=1e-6)
    np.testing.assert_allclose(points[-1], data[20], atol=1e-6)


def test_ends_need_not_be_data():
    points = graph_path(knn_graph(flat, ring(), neighbours=4), [1.2, 0.01], [0.0, 1.3])
    np.testing.assert_allclose(points[0], [1.2, 0.01], atol=1e-6)
    np.testing.assert_allclose(points[-1], [0.0, 1.3], atol=1e-6)
    assert np.linalg.norm(points, axis=1).min() > 0.9


def test_a_geodesic_that_starts_on_the_graph_goes_round_the_hole():
    metric, data = conformal(hole), ring()
    start = graph_path(knn_graph(metric, data, neighbours=4), data[0], data[30])
    run = jax.jit(lambda initial: geodesic(metric, data[0], data[30], initial=initial))
    round_it = run(start)
    assert round_it.converged
    assert jnp.linalg.norm(round_it.points, axis=1).min() > 0.3
    across = length(metric, lambda s: jnp.array([1 - 2 * s, 0.0]), segments=200)
    assert round_it.length < 0.9 * across
    assert round_it.length <= length(metric, lambda s: evaluate(start, s)) * (1 + 1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": np.zeros(3)}, "data must be"),
        ({"data": np.full((5, 2), np.nan)}, "data must be finite"),
        ({"data": ring(), "neighbours": 0}, "neighbours must be at least 1"),
        ({"data": ring(8)}, "data must have more points than neighbours = 8, got 8"),
    ],
)
def test_bad_data_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        knn_graph(flat, **arguments)


def test_what_the_graph_does_not_connect_is_named():
    islands = np.concatenate([ring(8), ring(8) + 50])
    graph = knn_graph(flat, islands, neighbours=2)
    with pytest.raises(ValueError, match="does not connect z0"):
        graph_path(graph, islands[0], islands[-1])
    with pytest.raises(ValueError, match="z1 must be a latent of shape"):
        graph_path(graph, islands[0], np.zeros(3))
    with pytest.raises(ValueError, match="segments must be at least 1"):
        graph_path(graph, islands[0], islands[1], segments=0)


def test_pairs_that_the_graph_does_not_connect_are_joined_by_straight_lines():
    islands = np.concatenate([ring(8), ring(8) + 50])
    graph = knn_graph(flat, islands, neighbours=2)
    pairs = jnp.asarray(np.stack([islands[[0, 4]], islands[[0, -1]]]), jnp.float32)
    near, far = graph_paths(graph, pairs, segments=4)
    np.testing.assert_allclose(near, graph_path(graph, islands[0], islands[4], segments=4))
    np.testing.assert_allclose(far, np.linspace(*pairs[1], 5), rtol=1e-5)
    with pytest.raises(ValueError, match="z0 must be a latent of shape"):
        graph_paths(graph, jnp.zeros((1, 2, 3)), segments=4)
