import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import pde
from latent_flows.calculus import laplacian, time_derivative
from latent_flows.potentials import PotentialNet

K = (0.6, -0.8, 1.2)


def points(dtype, count=7):
    keys = jax.random.split(jax.random.key(3))
    ts = jax.random.uniform(keys[0], (count,), dtype, 0.5, 2.0)
    return ts, jax.random.normal(keys[1], (count, len(K)), dtype)


def residuals(residual, dtype):
    """The residual and the size of its terms, at random points."""
    ts, zs = points(dtype)
    value, terms = jax.jit(jax.vmap(lambda t, z: (residual(t, z), residual.terms(t, z))))(ts, zs)
    size = sum(jnp.abs(term) for term in terms)
    assert value.shape == ts.shape
    assert value.dtype == dtype
    assert size.min() > 1e-5
    return value / size


def plane_wave(speed):
    k = jnp.asarray(K)
    return lambda t, z: jnp.sin(k.astype(z.dtype) @ z - speed * jnp.linalg.norm(k) * t)


def heat_kernel(diffusivity):
    def u(t, z):
        s = 4 * diffusivity * t
        return jnp.exp(-z @ z / s) / (jnp.pi * s) ** (z.size / 2)

    return u


def ornstein_uhlenbeck(rate, diffusivity, mean0=1.0, variance0=0.3):
    """The Gaussian density of `dz = -rate z dt + sqrt(2 D) dW`, started from a Gaussian."""

    def p(t, z):
        decay = jnp.exp(-rate * t)
        mean = mean0 * decay
        variance = variance0 * decay**2 + diffusivity / rate * (1 - decay**2)
        return jnp.exp(-((z - mean) ** 2).sum() / (2 * variance)) / variance ** (z.size / 2)

    return p


EQUATIONS = {
    "wave": lambda: pde.wave(plane_wave(1.7), 1.7),
    "wave, the other way": lambda: pde.wave(plane_wave(-1.7), 1.7),
    "heat": lambda: pde.heat(heat_kernel(0.7), 0.7),
    "Hamilton-Jacobi": lambda: pde.hamilton_jacobi(lambda t, z: z @ z / (2 * (t + 1))),
    "Hamilton-Jacobi, forced": lambda: pde.hamilton_jacobi(
        lambda t, z: t * z.sum(), lambda t, z: z.sum() + z.size * t**2 / 2
    ),
    # The Cole-Hopf transformation of the heat kernel.
    "Hamilton-Jacobi, viscous": lambda: pde.hamilton_jacobi(
        lambda t, z: -2 * 0.7 * jnp.log(heat_kernel(0.7)(t, z)), viscosity=0.7
    ),
    "Fokker-Planck": lambda: pde.fokker_planck(
        ornstein_uhlenbeck(0.8, 0.5), lambda t, z: -0.8 * z, 0.5
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_the_residual_vanishes_on_a_solution(name, dtype):
    tolerance = 1e-12 if dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(residuals(EQUATIONS[name](), dtype), 0, atol=tolerance)


NOT_SOLUTIONS = {
    "wave of another speed": lambda: pde.wave(plane_wave(1.7), 1.5),
    "heat backwards": lambda: pde.heat(heat_kernel(0.7), -0.7),
    "Hamilton-Jacobi with the wrong sign": lambda: pde.hamilton_jacobi(
        lambda t, z: -z @ z / (2 * (t + 1))
    ),
    "Fokker-Planck with the drift reversed": lambda: pde.fokker_planck(
        ornstein_uhlenbeck(0.8, 0.5), lambda t, z: 0.8 * z, 0.5
    ),
}


@pytest.mark.parametrize("name", NOT_SOLUTIONS)
def test_the_residual_does_not_vanish_elsewhere(name, x64):
    assert jnp.abs(residuals(NOT_SOLUTIONS[name](), x64)).max() > 0.05


def test_a_residual_is_the_sum_of_its_signed_terms(x64):
    residual = pde.wave(lambda t, z: t**3 * (z @ z), 2.0)
    z = jnp.asarray(K, x64)
    terms = residual.terms(1.5, z)
    np.testing.assert_allclose(terms, (6 * 1.5 * (z @ z), -4 * 6 * 1.5**3))
    np.testing.assert_allclose(residual(1.5, z), sum(terms))


def test_the_equation_takes_another_laplacian(x64):
    """A wave on the plane in the coordinates y = z / 2, where lengths are twice as long."""
    z = jnp.asarray(K, x64)
    halved = pde.wave(
        lambda t, y: plane_wave(1.7)(t, 2 * y),
        1.7,
        laplacian=lambda f: lambda y: laplacian(f)(y) / 4,
    )
    np.testing.assert_allclose(halved(0.4, z / 2), 0, atol=1e-12)


def test_without_viscosity_no_laplacian_is_computed(x64):
    def refuse(f):
        raise AssertionError("asked for a Laplacian")

    u, z = (lambda t, z: t * (z @ z)), jnp.asarray(K, x64)
    assert len(pde.hamilton_jacobi(u, laplacian=refuse).terms(1.0, z)) == 2
    with pytest.raises(AssertionError):
        pde.hamilton_jacobi(u, viscosity=0.1, laplacian=refuse)(1.0, z)
    traced = jax.jit(lambda nu: pde.hamilton_jacobi(u, viscosity=nu)(1.0, z))
    np.testing.assert_allclose(traced(0.0), pde.hamilton_jacobi(u)(1.0, z))


def test_the_speed_is_learned_through_the_residual(x64):
    ts, zs = points(x64)

    def loss(speed):
        return jnp.square(jax.vmap(pde.wave(plane_wave(1.7), speed))(ts, zs)).mean()

    slope = jax.jit(jax.grad(loss))
    assert slope(1.5) < 0 < slope(1.9)
    np.testing.assert_allclose(slope(1.7), 0, atol=1e-10)


def test_the_residual_of_a_network_has_gradients_in_its_parameters():
    net = PotentialNet(width=8)
    ts, zs = points(jnp.float32, 3)
    params = net.init(jax.random.key(0), ts[0], zs[0])

    def loss(params):
        u = lambda t, z: net.apply(params, t, z)  # noqa: E731
        return pde.relative_residual(pde.wave(u, 1.0), ts, zs)

    grads = jax.jit(jax.grad(loss))(params)["params"]
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert jnp.abs(grads["latent"]["kernel"]).max() > 0


def test_relative_residual_of_a_solution_of_independent_terms_and_of_opposite_ones(x64):
    ts, zs = points(x64)
    np.testing.assert_allclose(pde.relative_residual(EQUATIONS["heat"](), ts, zs), 0, atol=1e-20)
    signs = jnp.asarray([1.0, 1.0, -1.0, -1.0]), jnp.asarray([[1.0], [-1.0], [1.0], [-1.0]])
    uncorrelated = pde.Residual(lambda t, z: (t, 3 * z[0]))
    np.testing.assert_allclose(pde.relative_residual(uncorrelated, *signs), 1)
    same = pde.Residual(lambda t, z: (t, t))
    np.testing.assert_allclose(pde.relative_residual(same, *signs), 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e18])
def test_relative_residual_does_not_depend_on_the_scale_of_the_potential(scale):
    ts, zs = points(jnp.float32)
    u = plane_wave(1.7)

    def at(scale):
        return pde.relative_residual(pde.wave(lambda t, z: scale * u(t, z), 1.2), ts, zs)

    np.testing.assert_allclose(at(scale), at(1.0), rtol=1e-4)


def test_relative_residual_of_no_motion_is_zero_with_a_finite_gradient():
    ts, zs = points(jnp.float32)

    def still(a):
        return pde.relative_residual(pde.wave(lambda t, z: a * t**2 * (z @ z), 1.0), ts, zs)

    value, slope = jax.value_and_grad(still)(0.0)
    assert value == 0
    assert jnp.isfinite(slope)


def test_relative_residual_refuses_shapes_that_do_not_match():
    residual = EQUATIONS["wave"]()
    with pytest.raises(ValueError, match=r"\(3,\) and \(4, 2\)"):
        pde.relative_residual(residual, jnp.ones(3), jnp.ones((4, 2)))


def test_a_new_equation_is_one_function(x64):
    @pde.equation
    def klein_gordon(u, mass):
        return lambda t, z: (
            time_derivative(u, 2)(t, z),
            -laplacian(lambda y: u(t, y))(z),
            mass**2 * u(t, z),
        )

    k = jnp.asarray(K)
    frequency = jnp.sqrt(k @ k + 0.5**2)
    residual = klein_gordon(lambda t, z: jnp.cos(k @ z - frequency * t), mass=0.5)
    np.testing.assert_allclose(residuals(residual, x64), 0, atol=1e-12)


def test_an_equation_may_hold_for_each_component_of_a_vector():
    """With an operator that gives a vector, each component is one equation."""
    ts, zs = points("float32")
    diagonal = lambda f: lambda z: jnp.diagonal(jax.hessian(f)(z))  # noqa: E731
    # Of |z|^2 every component of the diagonal is 2: each is a heat equation of rate 2.
    heat = pde.heat(lambda t, z: 2 * t + z @ z, 1.0, laplacian=diagonal)
    np.testing.assert_allclose(pde.relative_residual(heat, ts, zs), 0, atol=1e-10)


@pytest.mark.parametrize("name", [name for name, found in pde.EQUATIONS.items() if found])
def test_an_equation_by_name_is_that_of_the_module_with_one_coefficient(name, x64):
    u = lambda t, z: jnp.sin(t) * jnp.cos(z @ z) + t**2  # noqa: E731
    expected = {
        "wave": pde.wave(u, 0.7),
        "heat": pde.heat(u, 0.7),
        "hamilton_jacobi": pde.hamilton_jacobi(u),
        "fokker_planck": pde.fokker_planck(u, lambda t, z: -z, 0.7),
    }[name]
    z = jnp.array([0.3, -0.5], x64)
    found = pde.EQUATIONS[name]
    np.testing.assert_allclose(found(u, 0.7)(0.4, z), expected(0.4, z), rtol=1e-12)
    # The Laplacian of another geometry takes the place of the Euclidean one.
    flat = found(u, 0.7, laplacian=lambda f: lambda z: jnp.zeros(()))
    assert found.on_manifold == (name in ("wave", "heat"))
    assert (flat(0.4, z) == expected(0.4, z)) == (name == "hamilton_jacobi")


def test_a_coefficient_is_positive_and_cannot_vanish():
    raw = jnp.linspace(-50.0, 50.0, 11)
    found = jax.vmap(pde.coefficient)(raw)
    np.testing.assert_array_equal(found, pde.coefficient(raw))
    assert (found >= 0.1).all()
    assert (jnp.diff(found) >= 0).all()
    np.testing.assert_allclose(found[-1], 50.1, rtol=1e-5)


def test_the_names_of_equations_are_told_with_what_they_say():
    told = pde.described()
    assert told.endswith("none")
    assert all(found.about in told for found in pde.EQUATIONS.values() if found)
