"""Geodesics as an equation: great circles, hyperbolic lines, and the maps that undo each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry.exponential import (
    exponential_map,
    geodesic_flow,
    logarithm,
    logarithm_map,
)
from latent_flows.geometry.metrics import pullback, squared_norm


def half_plane(z):
    return jnp.eye(2, dtype=z.dtype) / z[1] ** 2


def sphere(z):
    theta, phi = z
    ring = jnp.sin(theta)
    return jnp.stack([ring * jnp.cos(phi), ring * jnp.sin(phi), jnp.cos(theta)])


def network(key, dtype):
    first, second = jax.random.split(key)
    w = jax.random.normal(first, (2, 16), dtype)
    v = jax.random.normal(second, (16, 20), dtype) / 4
    return lambda z: jnp.tanh(z @ w) @ v


def tolerance(dtype):
    return 1e-2 if dtype == jnp.float32 else 1e-3


def test_exponential_map_follows_great_circles(dtype):
    z = jnp.array([1.0, 0.5], dtype)
    vs = jnp.array([[0.3, 0.4], [-0.2, 2.0], [0.0, 0.0]], dtype)
    ends = jax.jit(jax.vmap(lambda v: exponential_map(pullback(sphere), z, v)))(vs)
    assert ends.dtype == dtype
    for v, end in zip(vs, ends, strict=True):
        x, tangent = jax.jvp(sphere, (z,), (v,))
        angle = jnp.linalg.norm(tangent)
        expected = jnp.cos(angle) * x + jnp.sinc(angle / jnp.pi) * tangent
        assert_allclose(sphere(end), expected, atol=tolerance(dtype))


def test_geodesics_of_the_half_plane_are_half_circles_of_constant_speed(x64):
    dtype = x64
    ts = jnp.linspace(0.0, 2.0, 5, dtype=dtype)
    flow = geodesic_flow(half_plane, jnp.array([0.0, 1.0], dtype), jnp.array([1.0, 0.0], dtype), ts)
    assert flow.ok
    expected = np.stack([np.tanh(ts), 1 / np.cosh(ts)], 1)
    assert_allclose(flow.zs, expected, atol=tolerance(dtype))
    speed = jax.vmap(lambda z, v: squared_norm(half_plane, z, v))(flow.zs, flow.velocities)
    assert_allclose(speed, 1, rtol=tolerance(dtype))


@pytest.mark.slow
def test_a_geodesic_that_leaves_in_finite_time_is_flagged_and_finite():
    edge = lambda z: jnp.exp(-2 * z)[:, None]  # noqa: E731  (of finite length to infinity)
    z, v = jnp.zeros(1), jnp.full(1, 2.0)  # gone at t = 1/2
    flow = geodesic_flow(edge, z, v, jnp.array([0.0, 0.25, 1.0]), max_steps=200)
    assert not flow.ok
    assert jnp.isfinite(flow.zs).all()
    assert jnp.isfinite(flow.velocities).all()
    assert_allclose(flow.zs[1], np.log(2), rtol=1e-3)
    assert_allclose(flow.zs[2], flow.zs[1])
    with pytest.raises(Exception, match="could not be followed"):
        exponential_map(edge, z, v, max_steps=200)


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        pytest.param("sphere", "float32", marks=pytest.mark.slow),
        pytest.param("network", "float64", marks=pytest.mark.slow),
    ],
    indirect=["dtype"],
)
def test_exponential_map_undoes_logarithm_map_through_an_immersion(space, key, dtype):
    metric = pullback(sphere if space == "sphere" else network(key, dtype))
    low, high = ([0.6, 0.0], [2.5, 2.0]) if space == "sphere" else ([-1, -1], [1, 1])
    z0, z1 = jax.random.uniform(key, (2, 6, 2), dtype, jnp.array(low), jnp.array(high))

    @jax.jit
    @jax.vmap
    def there(z0, z1):
        found = logarithm(metric, z0, z1)
        return found, exponential_map(metric, z0, found.vector)

    found, ends = there(z0, z1)
    assert found.converged.all()
    assert found.vector.dtype == dtype
    assert_allclose(ends, z1, atol=tolerance(dtype))
    if space == "sphere":
        x0, x1 = jax.vmap(sphere)(z0), jax.vmap(sphere)(z1)
        angle = jnp.arccos((x0 * x1).sum(1))
        length = jnp.sqrt(jax.vmap(lambda z, v: squared_norm(metric, z, v))(z0, found.vector))
        assert_allclose(length, angle, rtol=tolerance(dtype))


@pytest.mark.slow
def test_logarithm_has_the_hyperbolic_distance_and_its_slope_or_says_that_it_has_not(x64):
    def distance(z0, z1, scale):
        metric = lambda z: scale**2 * half_plane(z)  # noqa: E731
        found = logarithm(metric, z0, z1)
        return jnp.sqrt(squared_norm(metric, z0, found.vector)), found

    def exact(z0, z1, scale):
        return scale * jnp.arccosh(1 + ((z1 - z0) ** 2).sum() / (2 * z0[1] * z1[1]))

    z0, scale = jnp.array([-0.3, 1.0], x64), jnp.array(1.3, x64)
    # Two points, the first point again, and one on the other side of the edge.
    z1 = jnp.array([[1.5, 0.4], [-2.0, 3.0], [-0.3, 1.0], [0.0, -1.0]], x64)
    slope_of = jax.value_and_grad(distance, (0, 1, 2), has_aux=True)
    (length, found), slopes = jax.jit(jax.vmap(slope_of, (None, 0, None)))(z0, z1, scale)
    assert found.converged.tolist() == [True, True, True, False]
    assert jnp.isfinite(found.vector).all()
    assert_allclose(found.vector[2], 0, atol=1e-9)
    for i in (0, 1):
        expected, expected_slopes = jax.value_and_grad(exact, (0, 1, 2))(z0, z1[i], scale)
        assert_allclose(length[i], expected, rtol=1e-7)
        for slope, expected in zip(slopes, expected_slopes, strict=True):
            assert_allclose(slope[i], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: exponential_map(half_plane, jnp.ones(2), jnp.ones(3)), r"v must.*\(2,\).*\(3,\)"),
        (lambda: exponential_map(half_plane, jnp.ones((4, 2)), jnp.ones(2)), r"z must.*vmap"),
        (lambda: logarithm_map(half_plane, jnp.ones(2), jnp.ones(3)), r"z1 must.*\(2,\).*\(3,\)"),
        (lambda: logarithm(lambda z: jnp.eye(3), jnp.zeros(2), jnp.ones(2)), r"\(2, 2\)|metric"),
        (
            lambda: geodesic_flow(half_plane, jnp.ones(2), jnp.ones(2), [0.0, 1.0], tolerance=-1.0),
            "tolerance must be positive, got -1.0",
        ),
        (lambda: geodesic_flow(half_plane, jnp.ones(2), jnp.ones(2), [0.0, 0.0]), "times"),
    ],
)
def test_what_is_no_geodesic_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
