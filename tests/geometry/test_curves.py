"""Lengths and energies of curves with closed forms; the spline through points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from latent_flows.geometry.curves import (
    differentiate,
    energy,
    evaluate,
    great_circle,
    length,
    measure,
    resample,
    resample_by_length,
    straight,
)
from latent_flows.geometry.metrics import conformal, pullback

HALF_PLANE = conformal(lambda z: 1 / z[1] ** 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_length_and_energy_of_a_vertical_line_in_the_half_plane(dtype):
    def climb(s):
        return jnp.stack([jnp.zeros_like(s), jnp.exp(2 * s)])

    np.testing.assert_allclose(length(HALF_PLANE, climb), 2, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda: energy(HALF_PLANE, climb))(), 2, rtol=1e-5)


def test_length_of_a_latitude_through_the_immersion(x64):
    sphere = pullback(
        lambda z: jnp.array(
            [jnp.sin(z[0]) * jnp.cos(z[1]), jnp.sin(z[0]) * jnp.sin(z[1]), jnp.cos(z[0])]
        )
    )
    found = length(sphere, lambda s: jnp.stack([jnp.full_like(s, 0.5), 2 * jnp.pi * s**2]))
    np.testing.assert_allclose(found, 2 * np.pi * np.sin(0.5), rtol=1e-6)


def test_energy_exceeds_half_the_squared_length_of_an_uneven_pace(x64):
    def uneven(s):
        return s**2 * jnp.array([3.0, 4.0])

    assert length(lambda z: jnp.eye(2), uneven) == pytest.approx(5)
    assert energy(lambda z: jnp.eye(2), uneven) == pytest.approx(25 / 2 * 4 / 3)


def test_the_spline_is_scipys_and_its_derivatives_too(x64, key):
    points = jax.random.normal(key, (7, 2))
    wanted = CubicSpline(np.linspace(0, 1, 7), points)
    s = np.array([0.0, 0.1, 0.5, 0.77, 1.0])
    np.testing.assert_allclose(jax.vmap(lambda s: evaluate(points, s))(s), wanted(s), atol=1e-12)
    slope = jax.vmap(jax.jacfwd(lambda s: evaluate(points, s)))(s)
    np.testing.assert_allclose(slope, wanted(s, 1), atol=1e-10)
    np.testing.assert_allclose(differentiate(points, s, 2), wanted(s, 2), atol=1e-10)


@pytest.mark.parametrize("segments", [1, 2, 3, 8])
def test_a_line_stays_a_line(dtype, segments):
    z0, z1 = jnp.array([1.0, 2.0], dtype), jnp.array([-3.0, 0.1], dtype)
    points = straight(z0, z1, segments)
    assert (points[0] == z0).all()
    assert (points[-1] == z1).all()
    np.testing.assert_allclose(resample(points, 5), straight(z0, z1, 5), atol=1e-5)
    found, half_square, _ = measure(lambda z: jnp.eye(2), points)
    np.testing.assert_allclose(found, jnp.linalg.norm(z1 - z0), rtol=1e-5)
    np.testing.assert_allclose(2 * half_square, found**2, rtol=1e-5)


def test_no_movement_has_no_length_and_no_slope(dtype):
    def moved(z):
        return measure(lambda z: jnp.eye(2), jnp.stack([z, z, z]))[0]

    z = jnp.array([0.1, 0.7], dtype)
    assert moved(z) == 0
    assert (jax.grad(moved)(z) == 0).all()


def test_segments_below_one_are_named():
    with pytest.raises(ValueError, match="segments must be at least 1, got 0"):
        length(HALF_PLANE, lambda s: jnp.stack([s, s + 1]), segments=0)


def test_shares_of_its_length_are_places_of_a_polygon(dtype):
    points = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]], dtype)
    found = resample_by_length(points, np.array([0.0, 0.125, 0.25, 0.5, 1.0]))
    assert found.dtype == dtype
    expected = [[0, 0], [0.5, 0], [1, 0], [1, 1], [1, 3]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_great_circle_turns_evenly_and_its_norm_goes_evenly_from_end_to_end(key):
    z0, z1 = jax.random.normal(key, (2, 5)) * jnp.array([[1.0], [3.0]])
    points = np.asarray(great_circle(z0, z1, 6))
    np.testing.assert_array_equal(points[[0, -1]], np.stack([z0, z1]))
    norms = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(norms, np.linspace(norms[0], norms[-1], 7), rtol=1e-5)
    turns = np.arccos((points[:-1] * points[1:]).sum(1) / norms[:-1] / norms[1:])
    np.testing.assert_allclose(turns, turns.mean(), rtol=1e-3)
    whole = np.arccos(points[0] @ points[-1] / norms[0] / norms[-1])
    np.testing.assert_allclose(turns.sum(), whole, rtol=1e-3)


@pytest.mark.parametrize("end", [[2.0, 0.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
def test_where_no_single_arc_joins_the_ends_it_is_the_straight_line(end):
    z0, z1 = jnp.array([1.0, 0.0]), jnp.array(end)
    found, slope = jax.jvp(lambda z: great_circle(z0, z, 4), (z1,), (jnp.ones(2),))
    np.testing.assert_allclose(found, straight(z0, z1, 4), atol=1e-6)
    assert np.isfinite(slope).all()
