"""Plausibility: a density of codes, places off the data, and what paths and walks cross."""

import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.evaluation.plausibility import (
    code_density,
    off_data,
    path_plausibility,
    volume_contrast,
    walk_plausibility,
)


def nearness(zs):
    """A log-density that is highest at the origin."""
    return -np.linalg.norm(np.asarray(zs), axis=-1)


def test_the_density_is_high_where_codes_are():
    random = np.random.default_rng(0)
    ring = random.uniform(0, 2 * np.pi, 600)
    codes = np.stack([np.cos(ring), np.sin(ring)], 1) + 0.05 * random.standard_normal((600, 2))
    log_density = code_density(codes[:300], codes[300:])
    on, middle, far = log_density(np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 0.0]]))
    assert on > middle + 2
    assert middle > far
    # A density integrates to one.
    ticks = np.linspace(-2, 2, 121)
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    total = np.exp(log_density(grid)).sum() * (ticks[1] - ticks[0]) ** 2
    assert total == pytest.approx(1, abs=0.01)


def test_points_off_the_data_lie_in_holes_and_outside():
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, 800)
    radius = 3 + 0.1 * random.standard_normal(800)
    codes = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)
    found = off_data(codes, code_density(codes[:400], codes[400:]), count=200)
    border, far = (np.abs(np.linalg.norm(found[name], axis=1) - 3) for name in ("border", "far"))
    assert len(border) == len(far) == 200
    assert 0.1 < border.min() < border.max() < 0.5 * codes.std() + 0.5
    assert far.min() > 0.5 * codes.std() - 0.5
    # In the hole as well as outside of the ring.
    assert (np.linalg.norm(found["far"], axis=1) < 3).any()


def test_a_volume_that_grows_away_from_data_is_larger_there():
    metrics = {
        "flat": lambda z: jnp.eye(2),
        "growing": lambda z: (1 + z @ z) * jnp.eye(2),
    }
    codes = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    flat, growing = volume_contrast(metrics, codes, {"far": codes + 9})
    assert (flat["deviation"], flat["far_above"]) == ("flat", 0.5)
    assert growing["far_above"] == 1.0
    assert growing["far"] > growing["on_data"]


def test_the_gap_of_a_path_is_where_it_is_farthest_from_data():
    line = np.linspace([-1.0, 0.0], [1.0, 0.0], 5, dtype=np.float32)[None]
    points = {"through": line, "away": line + np.float32([0.0, 3.0])}
    lengths = {"length": lambda path: jnp.abs(jnp.diff(path[:, 0])).sum()}
    data = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    through, away = path_plausibility(
        lambda z: z, points, lengths, data, nearness, lambda images: nearness(images) / 2
    )
    assert [through["path"], away["path"]] == ["through", "away"]
    assert through["gap"] == pytest.approx(1.0)
    assert away["gap"] == pytest.approx(np.sqrt(10))
    assert through["length"] == pytest.approx(2.0)
    assert through["lowest_log_density"] == pytest.approx(-1.0)
    assert through["confidence"] == pytest.approx(through["log_density"] / 2)


def test_a_walk_is_plausible_as_long_as_it_stays():
    walk = jnp.stack([jnp.arange(5.0), jnp.zeros(5)], -1)[None]
    found = walk_plausibility(lambda z: z, walk, nearness, -2.0)
    assert (found["dense"], found["dense_at_end"]) == (0.5, 0.0)
    assert (found["latent_step"], found["reach"]) == (1.0, 4.0)
    assert found["confident"] is None
    sure = walk_plausibility(
        lambda z: z, walk, nearness, -2.0, lambda images: images[:, 0] / 4, 0.7
    )
    assert (sure["confident"], sure["confident_at_end"]) == (0.5, 1.0)
