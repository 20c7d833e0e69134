"""Frechet means against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry import frechet_mean
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


@pytest.mark.slow
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
    find = jax.vmap(lambda p: frechet_mean(pullback(on_sphere), p))
    found = jax.jit(find)(points[None])
    assert found.converged.all()
    np.testing.assert_allclose(found.point[0], pole, atol=tolerance(dtype))
    np.testing.assert_allclose(found.variance[0], radius**2, rtol=tolerance(dtype))


def test_in_flat_space_the_mean_is_the_weighted_average(key):
    points = jax.random.normal(key, (20, 3))
    weights = jnp.arange(20.0)
    found = frechet_mean(flat, points, weights, initial=jnp.full(3, 9.0))
    assert found.converged
    np.testing.assert_allclose(found.point, jnp.average(points, 0, weights), atol=1e-4)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: frechet_mean(flat, p[0]), r"points .* \[n, d\]"),
        (lambda p: frechet_mean(flat, p[:0]), r"points .* at least 1"),
        (lambda p: frechet_mean(flat, p, jnp.ones(2)), r"weights must have shape \(3,\)"),
        (lambda p: frechet_mean(flat, p, initial=jnp.ones(3)), r"initial must have shape \(2,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((3, 2)))
