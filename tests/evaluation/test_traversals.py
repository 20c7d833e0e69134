"""Traversals whose length and effect are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import flows
from latent_flows.evaluation import traversals
from latent_flows.evaluation.traversals import (
    both_ways,
    dominance,
    equal_length_scale,
    path_length,
    traverse,
)
from latent_flows.potentials import PotentialNet, init_stack
from latent_flows.traversals import climbing

TURN = jnp.array([[0.0, -1.0], [1.0, 0.0]])


def rotate(t, z):
    return TURN @ z


def test_the_length_of_a_polygon_does_not_depend_on_the_shape_of_its_corners(key, dtype):
    corners = jax.random.normal(key, (6, 2, 3, 1), dtype)
    expected = np.linalg.norm(np.diff(corners.reshape(6, 6), axis=0), axis=1).sum()
    assert jax.jit(path_length)(corners).dtype == dtype
    np.testing.assert_allclose(path_length(corners), expected, rtol=1e-6)


def test_a_full_turn_is_a_regular_polygon():
    sides = 12
    ts = jnp.linspace(0.0, 2 * jnp.pi, sides + 1)
    found = jax.jit(lambda z: traverse(lambda z: 3 * z, rotate, z, ts))(jnp.array([1.0, 0.0]))
    assert found.ok
    assert found.num_steps > 0
    angles = np.asarray(ts)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    np.testing.assert_allclose(found.zs, circle, atol=0.01)
    np.testing.assert_allclose(found.samples, 3 * found.zs, rtol=1e-6)
    assert float(found.length) == pytest.approx(3 * sides * 2 * np.sin(np.pi / sides), rel=0.01)


def test_the_reversed_flow_goes_back():
    ts, z0 = jnp.linspace(0.0, 1.0, 5), jnp.array([1.0, 0.5])
    there = traverse(jnp.tanh, rotate, z0, ts)
    back = traverse(jnp.tanh, rotate, there.zs[-1], ts, scale=-1.0)
    np.testing.assert_allclose(back.zs, there.zs[::-1], atol=2e-3)
    assert float(back.length) == pytest.approx(float(there.length), rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "generator",
    [
        lambda z: jnp.array([[2.0, 0.0], [1.0, 3.0], [0.0, 1.0]]) @ z,
        lambda z: jnp.stack([jnp.exp(0.5 * z[0]), jnp.sin(z[1]), z[0] * z[1]]),
    ],
    ids=["linear", "nonlinear"],
)
def test_the_scale_gives_the_wanted_length(key, generator):
    ts = jnp.linspace(0.0, 1.0, 6)
    starts = jax.random.normal(key, (4, 2))
    field = lambda t, z: jnp.array([1.0, -0.5])  # noqa: E731

    def mean_length(scale):
        follow = lambda z: traverse(generator, field, z, ts, scale=scale).length  # noqa: E731
        return jnp.mean(jax.vmap(follow)(starts))

    found = jax.jit(lambda: mean_length(equal_length_scale(mean_length, 1.3, rounds=10)))()
    assert float(found) == pytest.approx(1.3, rel=1e-3)


def test_a_length_that_cannot_be_reached_leaves_a_finite_scale():
    for saturating, target in ((jnp.tanh, 2.0), (lambda a: 0.0 * a, 1.0)):
        scale = equal_length_scale(saturating, target, rounds=50)
        assert float(scale) == 1e4
        assert float(saturating(scale)) < target


@pytest.mark.parametrize("most", [3.0, 0.4, 0.05])
def test_a_scale_at_which_paths_do_not_end_is_not_taken(most):
    asked = []

    def mean_length(scale):
        asked.append(float(scale))
        return jnp.where(scale < most, scale, jnp.nan)

    scale = float(equal_length_scale(mean_length, 10.0, rounds=6))
    assert most / 4 <= scale < most
    assert scale == pytest.approx(max(a for a in asked if a < most), rel=1e-5)


def test_a_length_short_of_where_paths_do_not_end_is_reached():
    mean_length = lambda a: jnp.where(a < 3.0, a, jnp.nan)  # noqa: E731
    scale = equal_length_scale(mean_length, jnp.array([2.5, 100.0, 0.5]), rounds=6)
    assert float(scale[0]) == pytest.approx(2.5, rel=1e-3)
    assert 1.5 < float(scale[1]) < 3.0
    assert float(scale[2]) == pytest.approx(0.5, rel=1e-3)


def test_one_step_changes_the_scale_by_at_most_four():
    for target in (1e3, 1e-3):
        scale = float(equal_length_scale(lambda a: a, target, rounds=1))
        assert scale == (4.0 if target > 1 else 0.25)


def test_one_program_serves_every_round_of_a_search_for_equal_lengths():
    mean_length = jax.jit(lambda scale: jnp.array([1.0, 2.0]) * scale)
    equal_length_scale(mean_length, jnp.full(2, 3.0))
    assert mean_length._cache_size() == 1


def test_what_is_not_valid_need_not_be_a_number():
    before, ranges = jnp.zeros((1, 3, 2)), jnp.ones(2)
    after = jnp.array([[[0.3, 0.1], [0.3, -0.1], [jnp.nan, jnp.nan]]])
    counted = dominance(before, after, jnp.array([[True, True, False]]), ranges)
    np.testing.assert_allclose(counted.share, 0.75, rtol=1e-6)


def test_dominance_counts_valid_traversals_in_units_of_the_ranges():
    ranges = jnp.array([2.0, 10.0, 1.0])
    # Two flows; the first changes attribute 0 by +-half its range, and 1 by a quarter of its.
    moves = jnp.array(
        [
            [[1.0, 2.5, 0.0], [1.0, -2.5, 0.0], [-1.0, 2.5, 0.0], [50.0, 50.0, 50.0]],
            [[0.0, 0.0, -0.2], [0.0, 0.0, -0.4], [0.0, 0.0, -0.6], [0.0, 0.0, -0.8]],
        ]
    )
    before = jnp.broadcast_to(jnp.arange(4.0)[:, None], moves.shape)
    valid = jnp.array([[True, True, True, False], [True] * 4])
    found = jax.jit(dominance)(before, before + moves, valid, ranges)
    np.testing.assert_allclose(found.change, [[0.5, 0.25, 0], [0, 0, 0.5]], atol=1e-6)
    np.testing.assert_allclose(found.share, [2 / 3, 1], rtol=1e-5)
    assert found.winner.tolist() == [0, 2]
    np.testing.assert_allclose(found.sign_consistency, [2 / 3, 1], rtol=1e-5)


def test_flows_that_change_nothing_or_only_broken_images_have_no_share():
    same = jnp.ones((1, 3, 2))
    for valid in (jnp.ones((1, 3), bool), jnp.zeros((1, 3), bool)):
        found = dominance(same, same, valid, jnp.ones(2))
        assert found.share.tolist() == [0.0]
        assert all(jnp.isfinite(leaf).all() for leaf in found)
    assert traversals.Dominance._fields == ("change", "share", "winner", "sign_consistency")


@pytest.mark.slow
def test_a_row_runs_from_the_reversed_flow_through_the_start_to_the_forward_one(key):
    net = PotentialNet(width=4, depth=1, horizon=3.0)
    params = init_stack(net, key, 2, 3)
    z0 = jnp.array([0.5, -0.2, 1.0])
    moving, ts, middle = climbing(net), jnp.linspace(0.0, 6.0, 7), 6
    images, zs, times = both_ways(lambda z: 2 * z, moving, params, z0, ts)
    np.testing.assert_allclose(times, np.linspace(-6.0, 6.0, 13), atol=1e-6)
    np.testing.assert_array_equal(zs[:, middle], jnp.broadcast_to(z0, (2, 3)))
    np.testing.assert_array_equal(images, 2 * zs)
    for k in range(2):
        one = jax.tree.map(lambda leaf, k=k: leaf[k], params)
        for sign, part in ((1.0, zs[k, middle:]), (-1.0, zs[k, middle::-1])):
            field = lambda t, z, one=one, sign=sign: sign * moving(one, t, z)  # noqa: E731
            expected = flows.integrate(field, z0, ts).zs
            # Both are within the solver's tolerance of the flow.
            np.testing.assert_allclose(part, expected, atol=0.02)
    assert (jnp.linalg.norm(zs[:, -1] - zs[:, 0], axis=-1) > 0.2).all()
