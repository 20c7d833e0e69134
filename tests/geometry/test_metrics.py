"""Metrics are what their definitions say, and cost no more than they must."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry import geodesic, length, metrics, scalar_curvature
from latent_flows.geometry.curvature import christoffel, connection

WIDTH, DATA, DIM = 7, 50, 3


def bare(metric):
    """The same metric without what it was made of."""
    return partial(type(metric).__call__, metric)


def sphere(z):
    theta, phi = z
    ring = jnp.sin(theta)
    return jnp.stack([ring * jnp.cos(phi), ring * jnp.sin(phi), jnp.cos(theta)])


def network(key, dtype=jnp.float32):
    """A map into data space of which no weight is as large as its Jacobian."""
    first, second = jax.random.split(key)
    w = jax.random.normal(first, (DIM, WIDTH), dtype) / DIM**0.5
    v = jax.random.normal(second, (WIDTH, DATA), dtype) / WIDTH**0.5
    return lambda z: (jnp.tanh(z @ w) @ v).reshape(5, 10)


def ambients():
    scale = lambda x: 1 + x**2  # noqa: E731
    return {
        "euclidean": None,
        "diagonal": scale,
        "full": lambda x: jnp.diag(scale(x)) + 0.1 * jnp.outer(x, x),
    }


@pytest.mark.parametrize("kind", ambients())
def test_pullback_is_the_jacobian_on_both_sides_of_the_ambient_metric(kind, key, x64):
    f, ambient = network(key, x64), ambients()[kind]
    z = jnp.array([0.3, -1.0, 0.7], x64)
    jacobian = jax.jacrev(lambda z: f(z).ravel())(z)
    x = f(z).ravel()
    full = {"euclidean": np.eye(DATA), "diagonal": np.diag(1 + x**2)}.get(kind)
    full = ambient(x) if full is None else full
    assert_allclose(metrics.pullback(f, ambient)(z), jacobian.T @ full @ jacobian, rtol=1e-10)


def test_pullback_of_the_sphere_is_the_round_metric(dtype):
    z = jnp.array([0.7, 2.0], dtype)
    value = jax.jit(metrics.pullback(sphere))(z)
    assert value.dtype == dtype
    assert_allclose(value, np.diag([1, np.sin(0.7) ** 2]), atol=1e-6)
    assert_allclose(metrics.volume(metrics.pullback(sphere))(z), np.sin(0.7), rtol=1e-5)


def test_pullback_keeps_its_immersion():
    metric = metrics.pullback(sphere)
    assert metric.immersion is sphere
    assert metric.ambient is None


def test_stochastic_pullback_is_the_expectation_over_the_noise(key, x64):
    mean = lambda z: jnp.stack([jnp.sin(z[0]), z[0] * z[1], z[1]])  # noqa: E731
    std = lambda z: jnp.exp(0.3 * jnp.stack([z[0], z[1], z[0] - z[1]]))  # noqa: E731
    z = jnp.array([0.5, -0.4], x64)

    def sampled(noise):
        jacobian = jax.jacfwd(lambda z: mean(z) + std(z) * noise)(z)
        return jacobian.T @ jacobian

    draws = jax.vmap(sampled)(jax.random.normal(key, (20_000, 3), x64))
    error = 5 * draws.std(0) / len(draws) ** 0.5
    assert (jnp.abs(draws.mean(0) - metrics.stochastic_pullback(mean, std)(z)) < error).all()
    assert (error < 0.05 * jnp.trace(draws.mean(0))).all()


def test_conformal_scales_its_base():
    base = metrics.pullback(sphere)
    z = jnp.array([0.7, 2.0])
    assert_allclose(metrics.conformal(lambda z: z @ z, base)(z), (z @ z) * base(z), rtol=1e-6)


def test_local_pca_is_the_inverse_of_the_weighted_variance(x64):
    data = jnp.array([[0.0, 0.0], [1.0, 2.0]], x64)
    metric = metrics.local_pca(data, sigma=2.0, rho=0.5)
    weight = np.exp(-5 / 8)
    assert_allclose(metric(data[0]), np.diag([1 / (weight + 0.5), 1 / (4 * weight + 0.5)]))
    assert_allclose(metric(jnp.array([90.0, 0.0], x64)), np.eye(2) / 0.5)


@pytest.mark.parametrize("kind", [*ambients(), "bare"])
def test_products_of_tangents_equal_their_matrix_forms(kind, key, dtype):
    pulled = metrics.pullback(network(key, dtype), ambients().get(kind))
    metric = bare(pulled) if kind == "bare" else pulled
    z, u, v = jax.random.normal(key, (3, DIM), dtype)
    matrix = pulled(z)
    assert_allclose(metrics.inner(metric, z, u, v), u @ matrix @ v, rtol=1e-4)
    assert_allclose(metrics.squared_norm(metric, z, v), v @ matrix @ v, rtol=1e-4)
    assert_allclose(metrics.log_volume(metric)(z), np.linalg.slogdet(matrix)[1] / 2, rtol=1e-3)


def shapes(jaxpr):
    """The shapes of all values computed, in the parts of a computation too."""
    for equation in jaxpr.eqns:
        yield from (var.aval.shape for var in equation.outvars)
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from shapes(inner)


def test_products_of_tangents_form_no_jacobian(key):
    metric = metrics.pullback(network(key))
    z, u, v = jnp.zeros((3, DIM))
    jacobian = {(DATA, DIM), (DIM, DATA), (5, 10, DIM), (DIM, 5, 10)}

    def made(f, *args):
        return jacobian & set(shapes(jax.make_jaxpr(f)(*args).jaxpr))

    assert made(metric, z)
    assert not made(lambda z, v: metrics.squared_norm(metric, z, v), z, v)
    assert not made(lambda z, u, v: metrics.inner(metric, z, u, v), z, u, v)
    assert not made(jax.grad(lambda z: metrics.squared_norm(metric, z, v)), z)


def test_volume_of_a_singular_metric_is_zero_and_of_no_metric_is_nan():
    z = jnp.zeros(2)
    assert metrics.volume(lambda z: jnp.diag(jnp.array([1.0, 0.0])))(z) == 0
    assert jnp.isnan(metrics.volume(lambda z: jnp.diag(jnp.array([1.0, -1.0])))(z))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: metrics.pullback(sphere)(jnp.zeros((4, 2))), r"\(4, 2\).*vmap"),
        (
            lambda: metrics.pullback(sphere, lambda x: jnp.eye(2))(jnp.zeros(2)),
            r"ambient.*\(3, 3\)",
        ),
        (lambda: metrics.matrix(lambda z: jnp.eye(3), jnp.zeros(2)), r"\(2, 2\).*\(3, 3\)"),
        (lambda: metrics.check_tangent("v", jnp.zeros(2), jnp.zeros(3)), r"v must.*\(2,\).*\(3,\)"),
        (lambda: metrics.local_pca(jnp.zeros(3), 1.0, 1.0), r"\[n, d\].*\(3,\)"),
        (lambda: metrics.local_pca(jnp.zeros((0, 2)), 1.0, 1.0), r"n at least 1"),
        (lambda: metrics.local_pca(jnp.zeros((3, 2)), 0.0, 1.0), r"positive.*0.0 and 1.0"),
        (lambda: metrics.local_pca(jnp.zeros((3, 2)), 1.0, -1.0), r"positive.*-1.0"),
        (lambda: metrics.local_pca(jnp.zeros((3, 2)), 1.0, 1.0)(jnp.zeros(3)), r"\(2,\).*\(3,\)"),
    ],
)
def test_what_is_no_metric_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


class Scaled:
    """A metric that knows better ways, and counts no others: the unit one times a number."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, z):
        pytest.fail("the matrix was made although it was not needed")

    def inner(self, z, u, v):
        return self.factor * u @ v

    def sqrt(self, z):
        return jnp.sqrt(self.factor) * jnp.eye(z.shape[0])


def test_what_a_metric_knows_better_ways_for_is_asked_for_instead_of_its_matrix():
    z, u, v = jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0])
    metric = Scaled(4.0)
    assert metrics.inner(metric, z, u, v) == 4
    assert metrics.squared_norm(metric, z, u) == 20
    assert_allclose(metrics.root(metric, z), 2 * np.eye(2))
    assert_allclose(metrics.volume(metric)(z), 4, rtol=1e-6)
    assert_allclose(length(metric, lambda s: s * v), 2 * np.sqrt(10), rtol=1e-6)


class Image:
    """A metric of a map that is no `Pullback`, and makes no matrix but through the map."""

    def __init__(self, immersion, ambient=None):
        self.immersion, self.ambient = immersion, ambient

    def __call__(self, z):
        jacobian = jax.jacfwd(self.immersion)(z)
        scale = 1.0 if self.ambient is None else self.ambient(self.immersion(z))
        return (jacobian.T * scale) @ jacobian


def test_a_metric_that_names_its_immersion_is_treated_as_its_pull_back():
    z0, z1 = jnp.array([0.7, 2.0]), jnp.array([1.5, 3.0])
    named, pulled = Image(sphere), metrics.pullback(sphere)
    ours, theirs = (geodesic(metric, z0, z1, segments=4) for metric in (named, pulled))
    np.testing.assert_array_equal(ours.points, theirs.points)
    assert ours.converged
    for of in (scalar_curvature, christoffel):
        one, other = jax.jit(lambda z, of=of: (of(named)(z), of(pulled)(z)))(z0)
        assert_allclose(one, other, atol=1e-5)
    ambient = lambda x: 1 + x**2  # noqa: E731
    both = Image(sphere, ambient), metrics.pullback(sphere, ambient)
    turned, wanted = jax.jit(lambda *z: [connection(metric)(*z) for metric in both])(z0, z0, z1)
    assert_allclose(turned, wanted, rtol=1e-4)


def test_whether_lengths_are_euclidean_is_one_question():
    assert metrics.euclidean(metrics.pullback(sphere)).is_euclidean
    assert metrics.euclidean(Image(sphere)).flat(jnp.ones(2)).shape == (3,)
    for metric in (bare(metrics.pullback(sphere)), metrics.pullback(sphere, ambient=jnp.exp)):
        assert metrics.euclidean(metric) is None
    assert metrics.pullback(sphere, ambient=jnp.exp).sqrt is None


def test_the_metrics_of_a_linear_generator_are_its_gram_matrix(key):
    matrix = jax.random.normal(key, (6, 3))
    found = metrics.pullback_metrics(lambda z: (matrix @ z).reshape(2, 3), jnp.ones((5, 3)))
    assert_allclose(found, jnp.broadcast_to(matrix.T @ matrix, (5, 3, 3)), rtol=1e-5)


def test_a_unit_metric_is_the_pullback_in_units_of_its_mean(key):
    stretch, points = jnp.array([1.0, 2.0, 4.0]), jax.random.normal(key, (5, 3))
    picture = lambda z: jnp.tile(stretch * z, (2, 1))[..., None] / 8  # noqa: E731
    found = metrics.unit_metric(picture, points)(points[0])
    wanted = jnp.diag(stretch**2) / jnp.mean(stretch**2) + 0.01 * jnp.eye(3)
    assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="damping must be at least 0, got -1"):
        metrics.unit_metric(picture, points, damping=-1.0)
