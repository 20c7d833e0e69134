"""The Laplacian of a manifold has the spectrum of that manifold."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows import calculus, pde
from latent_flows.geometry.metrics import log_volume, pullback
from latent_flows.geometry.operators import coordinate_laplacian, inverse_root, laplace_beltrami


def bare(metric):
    """The same metric without what it was made of."""
    return partial(type(metric).__call__, metric)


def sphere(z):
    theta, phi = z
    ring = jnp.sin(theta)
    return jnp.stack([ring * jnp.cos(phi), ring * jnp.sin(phi), jnp.cos(theta)])


def surface(z):
    return jnp.concatenate([z, jnp.stack([jnp.sin(z[0] * z[1]) + z[2] ** 2, jnp.exp(z[0] - z[2])])])


# Homogeneous harmonic polynomials, by degree.
HARMONICS = {
    1: lambda x: x[0] - 2 * x[2],
    2: lambda x: x[0] * x[1] + x[2] ** 2 - x[0] ** 2,
    3: lambda x: x[2] * (2 * x[2] ** 2 - 3 * x[0] ** 2 - 3 * x[1] ** 2) + x[0] * x[1] * x[2],
}


@pytest.mark.parametrize(("form", "dtype"), [(0, "float32"), (1, "float64")], indirect=["dtype"])
def test_spherical_harmonics_are_eigenfunctions(form, dtype):
    metric = (pullback(sphere), bare(pullback(sphere)))[form]
    z = jnp.array([[0.7, 0.2], [1.9, -1.0]], dtype)

    @jax.jit
    @jax.vmap
    def values(z):
        functions = [lambda z, y=y: y(sphere(z)) for y in HARMONICS.values()]
        return [(f(z), laplace_beltrami(metric)(f)(z)) for f in functions]

    for degree, (f, value) in zip(HARMONICS, values(z), strict=True):
        assert value.dtype == dtype
        assert_allclose(value, -degree * (degree + 1) * f, rtol=1e-3, atol=1e-4)


def test_the_operator_is_the_divergence_of_the_gradient(key, x64):
    metric = pullback(surface, lambda x: 1 + x**2)
    f = lambda z: jnp.sin(z[0]) * z[1] + z[2] ** 3  # noqa: E731
    z = jax.random.normal(key, (3,), x64)
    volume = lambda z: jnp.exp(log_volume(metric)(z))  # noqa: E731

    def flux(z):
        return volume(z) * jnp.linalg.solve(metric(z), jax.grad(f)(z))

    expected = jax.jit(lambda z: jnp.trace(jax.jacfwd(flux)(z)) / volume(z))(z)
    operator = laplace_beltrami(metric)
    assert_allclose(jax.jit(operator(f))(z), expected, rtol=1e-9)
    last = jax.jit(operator(lambda z: z[2]))(z)
    assert_allclose(jax.jit(coordinate_laplacian(metric))(z)[2], last, rtol=1e-9)


def test_in_flat_space_it_is_the_laplacian_in_any_linear_coordinates(key, x64):
    w = jax.random.normal(key, (3, 3), x64)
    f = lambda x: jnp.sin(x[0]) * x[1] + x[2] ** 3  # noqa: E731
    z = jnp.array([0.3, -0.2, 1.0], x64)
    value = laplace_beltrami(pullback(lambda z: w @ z))(lambda z: f(w @ z))(z)
    assert_allclose(value, calculus.laplacian(f)(w @ z), rtol=1e-9)


def test_standing_waves_solve_the_wave_equation_on_the_sphere(x64):
    speed, degree = 0.7, 2
    frequency = speed * np.sqrt(degree * (degree + 1))
    u = lambda t, z: jnp.cos(frequency * t) * HARMONICS[degree](sphere(z))  # noqa: E731
    t, z = jnp.array(0.4, x64), jnp.array([0.9, 0.3], x64)
    on_the_sphere = pde.wave(u, speed, laplacian=laplace_beltrami(pullback(sphere)))
    assert_allclose(on_the_sphere(t, z), 0, atol=1e-10)
    assert abs(pde.wave(u, speed)(t, z)) > 1e-2


def test_inverse_root_makes_an_orthonormal_basis(key, dtype):
    a = jax.random.normal(key, (4, 4), dtype)
    matrix = a @ a.T + jnp.eye(4, dtype=dtype)
    root = inverse_root(matrix)
    assert_allclose(root.T @ matrix @ root, np.eye(4), atol=1e-5)
    assert_allclose(root, jnp.triu(root))


def test_what_is_no_function_of_a_latent_is_refused():
    operator = laplace_beltrami(lambda z: jnp.eye(2, dtype=z.dtype))
    with pytest.raises(ValueError, match=r"f must return shape \(\)"):
        operator(lambda z: z)(jnp.ones(2))
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(2, 2\)"):
        laplace_beltrami(lambda z: jnp.eye(2))(lambda z: z @ z)(jnp.ones(3))
