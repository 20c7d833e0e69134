"""Connections and curvatures have their closed forms, whichever way they are computed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry import curvature
from latent_flows.geometry.metrics import conformal, pullback
from tests.rest_slow import rest_slow


def bare(metric):
    """The same metric without what it was made of."""
    return partial(type(metric).__call__, metric)


def half_space(z):
    return jnp.eye(z.shape[0], dtype=z.dtype) / z[-1] ** 2


def sphere(z):
    theta, phi = z
    ring = jnp.sin(theta)
    return jnp.stack([ring * jnp.cos(phi), ring * jnp.sin(phi), jnp.cos(theta)])


def torus(z):
    ring = 2 + jnp.cos(z[1])
    return jnp.stack([ring * jnp.cos(z[0]), ring * jnp.sin(z[0]), jnp.sin(z[1])])


def graph(z):
    """A surface of three dimensions without any symmetry, in a space of five."""
    return jnp.concatenate([z, jnp.stack([jnp.sin(z[0] * z[1]) + z[2] ** 2, jnp.exp(z[0] - z[2])])])


METRICS = {
    "immersed": pullback(graph),
    "ambient, diagonal": pullback(graph, lambda x: 1 + x**2),
    "ambient, full": pullback(graph, lambda x: jnp.eye(5) + jnp.outer(x, x)),
    "bare": bare(pullback(graph)),
}


def tolerance(dtype):
    return 1e-2 if dtype == jnp.float32 else 1e-3


def test_christoffel_symbols_of_the_half_plane(dtype):
    y = 0.5
    gamma = jax.jit(curvature.christoffel(half_space))(jnp.array([1.0, y], dtype))
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 1] = expected[0, 1, 0] = expected[1, 1, 1] = -1 / y
    expected[1, 0, 0] = 1 / y
    assert gamma.dtype == dtype
    assert_allclose(gamma, expected, atol=1e-5)


@pytest.mark.parametrize("kind", rest_slow(METRICS, every=2))
def test_connection_contracts_the_christoffel_symbols(kind, key, x64):
    z, u, v = jax.random.normal(key, (3, 3), x64)
    gamma = np.asarray(jax.jit(curvature.christoffel(METRICS[kind]))(z))
    got = jax.jit(curvature.connection(METRICS[kind]))(z, u, v)
    assert_allclose(got, np.einsum("kij,i,j->k", gamma, u, v), rtol=1e-9, atol=1e-12)
    bend = jax.jit(jax.vmap(curvature.acceleration(METRICS[kind]), (None, 0)))(z, jnp.stack([u, v]))
    assert_allclose(bend[1], -np.einsum("kij,i,j->k", gamma, v, v), rtol=1e-9, atol=1e-12)


def turned(v, r):
    """The curvature of a curve whose polar coordinates change evenly."""
    out, round_ = v
    return abs(2 * out**2 * round_ + r**2 * round_**3) / (out**2 + r**2 * round_**2) ** 1.5


@pytest.mark.parametrize("kind", [pullback, lambda polar: bare(pullback(polar))])
def test_straight_lines_in_polar_coordinates_turn_as_curves_in_the_plane_do(kind, dtype):
    plane = kind(lambda z: z[0] * jnp.stack([jnp.cos(z[1]), jnp.sin(z[1]), 0 * z[1]]))
    z = jnp.array([2.0, 0.3], dtype)
    vs = jnp.array([[0.0, 1.0], [1.0, 0.5], [-0.3, 2.0], [1.0, 0.0]], dtype)
    turns = jax.jit(jax.vmap(curvature.geodesic_curvature(plane), (None, 0)))
    found, exact = turns(z, vs), 1e-5 if dtype == jnp.float32 else 1e-12
    assert found.dtype == dtype
    assert_allclose(found, [turned(v, 2.0) for v in np.asarray(vs)], rtol=exact, atol=exact)
    # A direction has no length.
    assert_allclose(turns(z, 3 * vs), found, rtol=10 * exact, atol=exact)


def test_the_equator_is_a_geodesic_and_other_circles_turn(x64):
    turns = curvature.geodesic_curvature(pullback(sphere))
    thetas = jnp.array([jnp.pi / 2, 1.0, 0.4])
    zs, v = jnp.stack([thetas, 0 * thetas], -1), jnp.array([0.0, 1.0])
    found = jax.vmap(turns, (0, None))(zs, v)
    assert_allclose(found, jnp.abs(1 / jnp.tan(thetas)), atol=1e-9)
    # A number too where nothing turns: the gradient is that of |cot|, or 0.
    slopes = jax.vmap(jax.grad(turns), (0, None))(zs, v)[:, 0]
    assert_allclose(slopes[1:], -1 / jnp.sin(thetas[1:]) ** 2, rtol=1e-6)
    assert jnp.isfinite(slopes[0])


def test_scalar_curvature_of_the_sphere_is_2(dtype):
    z = jnp.array([[0.4, 1.0], [1.5, -2.0]], dtype)
    for metric in (pullback(sphere), bare(pullback(sphere))):
        value = jax.jit(jax.vmap(curvature.scalar_curvature(metric)))(z)
        assert value.dtype == dtype
        assert_allclose(value, 2, rtol=tolerance(dtype))


@pytest.mark.parametrize(
    ("dim", "dtype"), [(2, "float32"), (2, "float64"), (3, "float64")], indirect=["dtype"]
)
def test_scalar_curvature_of_hyperbolic_space_is_negative(dim, dtype):
    z = jnp.linspace(0.3, 1.0, dim, dtype=dtype)
    # The same space as data space, seen through a change of coordinates.
    seen = pullback(jnp.sinh, half_space)
    for metric in (half_space, seen) if dim == 2 else (seen,):
        value = jax.jit(curvature.scalar_curvature(metric))(z)
        assert_allclose(value, -dim * (dim - 1), rtol=tolerance(dtype))


def test_curvature_of_a_torus_changes_sign(dtype):
    angles = jnp.array([0.0, 1.0, 2.0, 3.0], dtype)
    z = jnp.stack([jnp.ones_like(angles), angles], 1)
    value = jax.jit(jax.vmap(curvature.scalar_curvature(pullback(torus))))(z)
    assert_allclose(value, 2 * np.cos(angles) / (2 + np.cos(angles)), atol=tolerance(dtype))


def test_riemann_is_the_same_from_outside_and_from_inside(key, x64):
    z = jax.random.normal(key, (3,), x64)
    outside = jax.jit(curvature.riemann(METRICS["immersed"]))(z)
    inside = jax.jit(curvature.riemann(METRICS["bare"]))(z)
    assert jnp.abs(inside).max() > 0.1
    assert_allclose(outside, inside, atol=1e-10)


def test_riemann_has_the_symmetries_of_a_curvature(key, x64):
    metric = METRICS["ambient, full"]
    z = jax.random.normal(key, (3,), x64)
    lowered = jnp.einsum("hi,ijkl->hjkl", metric(z), jax.jit(curvature.riemann(metric))(z))
    assert jnp.abs(lowered).max() > 0.1
    assert_allclose(lowered, -lowered.transpose(0, 1, 3, 2), atol=1e-10)
    assert_allclose(lowered, -lowered.transpose(1, 0, 2, 3), atol=1e-10)
    assert_allclose(lowered, lowered.transpose(2, 3, 0, 1), atol=1e-10)
    cycle = lowered + lowered.transpose(0, 2, 3, 1) + lowered.transpose(0, 3, 1, 2)
    assert_allclose(cycle, 0, atol=1e-10)


def test_riemann_of_constant_curvature_has_one_form(x64):
    radius = 1.5
    metric = conformal(lambda z: 4 * radius**2 / (1 + z @ z) ** 2)
    z = jnp.array([0.2, -0.5, 1.0], x64)
    m = metric(z)
    products = np.einsum("ik,jl->ijkl", m, m)
    expected = (products - products.swapaxes(2, 3)) / radius**2
    lowered = np.einsum("hi,ijkl->hjkl", m, jax.jit(curvature.riemann(metric))(z))
    assert_allclose(lowered, expected, atol=1e-10)
    assert_allclose(jax.jit(curvature.ricci(metric))(z), 2 / radius**2 * m, atol=1e-10)


def test_sectional_curvature_belongs_to_the_plane(key, x64):
    z, u, v = jax.random.normal(key, (3, 3), x64)
    for metric in (METRICS["immersed"], METRICS["ambient, full"]):
        section = jax.jit(curvature.sectional_curvature(metric))
        expected = section(z, u, v)
        assert abs(expected) > 1e-3
        assert_allclose(section(z, u + 2 * v, 3 * v - u), expected, rtol=1e-6)
    assert_allclose(
        jax.jit(curvature.sectional_curvature(METRICS["immersed"]))(z, u, v),
        jax.jit(curvature.sectional_curvature(METRICS["bare"]))(z, u, v),
        rtol=1e-8,
    )


def test_a_cylinder_over_the_sphere_is_flat_along_its_axis(x64):
    metric = pullback(lambda z: jnp.append(sphere(z[:2]), z[2]))
    section = jax.jit(curvature.sectional_curvature(metric))
    z, basis = jnp.array([0.8, 0.3, 5.0], x64), jnp.eye(3, dtype=x64)
    assert_allclose(section(z, basis[0], basis[1]), 1, rtol=1e-10)
    assert_allclose(section(z, basis[0], basis[2]), 0, atol=1e-10)
    assert section(z, basis[0], 0 * basis[0]) == 0


def test_a_tangent_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"v must.*\(2,\).*\(3,\)"):
        curvature.sectional_curvature(half_space)(jnp.ones(2), jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3, 3\)"):
        curvature.christoffel(lambda z: jnp.eye(3))(jnp.ones(2))
