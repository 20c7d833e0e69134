"""Geodesics with closed forms, their derivatives, and what cannot be connected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry.curves import length
from latent_flows.geometry.geodesics import distance, geodesic, geodesic_batch
from latent_flows.geometry.metrics import conformal, pullback

HALF_PLANE = conformal(lambda z: 1 / z[1] ** 2)


def sphere(z):
    return jnp.stack([jnp.sin(z[0]) * jnp.cos(z[1]), jnp.sin(z[0]) * jnp.sin(z[1]), jnp.cos(z[0])])


def great_circle(z0, z1):
    return jnp.arccos(sphere(z0) @ sphere(z1))


def hyperbolic(z0, z1):
    return jnp.arccosh(1 + ((z0 - z1) ** 2).sum() / (2 * z0[1] * z1[1]))


def ends_on_the_sphere(key, dtype, count=20):
    z = jax.random.uniform(key, (2, count, 2), dtype, -1)
    return z * jnp.array([0.8, 1.2], dtype) + jnp.array([jnp.pi / 2, 0], dtype)


def ends_in_the_half_plane(key, dtype, count=20):
    z = jax.random.normal(key, (2, count, 2), dtype)
    return z.at[..., 1].set(jnp.exp(z[..., 1] / 2))


def tolerance(dtype):
    return 1e-5 if dtype == "float32" else 1e-6


def test_on_the_sphere_they_are_great_circles(key, dtype):
    z0, z1 = ends_on_the_sphere(key, dtype)
    metric = pullback(sphere)
    found = jax.jit(jax.vmap(lambda z0, z1: geodesic(metric, z0, z1)))(z0, z1)
    assert found.converged.all()
    assert (found.points[:, 0] == z0).all()
    assert (found.points[:, -1] == z1).all()
    angles = jax.vmap(great_circle)(z0, z1)
    np.testing.assert_allclose(found.length, angles, rtol=tolerance(dtype))
    np.testing.assert_allclose(found.energy, angles**2 / 2, rtol=1e-4)
    assert found.residual.max() < 0.01
    # In the plane of its ends and the centre, in between as well.
    normal = jnp.cross(jax.vmap(sphere)(z0), jax.vmap(sphere)(z1))
    between = jax.vmap(lambda path: sphere(path(0.321)))(found)
    np.testing.assert_allclose((between * normal).sum(-1), 0, atol=1e-4)


@pytest.mark.slow
def test_in_the_half_plane_they_are_as_long_as_hyperbolic_distances(key, dtype):
    z0, z1 = ends_in_the_half_plane(key, dtype)
    found = jax.jit(jax.vmap(lambda z0, z1: geodesic(HALF_PLANE, z0, z1)))(z0, z1)
    assert found.converged.all()
    np.testing.assert_allclose(found.length, jax.vmap(hyperbolic)(z0, z1), rtol=tolerance(dtype))
    np.testing.assert_allclose(2 * found.energy, found.length**2, rtol=1e-3)
    assert found.residual.max() < 0.05


@pytest.mark.slow
def test_distances_through_an_immersion_have_the_derivatives_of_great_circles(key, x64):
    """In both ends and in a number that the metric closes over, backwards and forwards."""

    def ours(radius, z0, z1):
        metric = pullback(lambda z: radius * sphere(z))
        return distance(metric, z0, z1, segments=14, tolerance=1e-8)

    def theirs(radius, z0, z1):
        return radius * great_circle(z0, z1)

    z0, z1 = ends_on_the_sphere(key, x64, 4)
    radius = jnp.full(4, 1.7)
    found = jax.jit(jax.vmap(jax.grad(ours, (0, 1, 2))))(radius, z0, z1)
    wanted = jax.vmap(jax.grad(theirs, (0, 1, 2)))(radius, z0, z1)
    for slope, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(slope, exact, rtol=1e-3, atol=1e-4)
    ahead = jax.vmap(lambda *z: jax.jvp(ours, z, jax.tree.map(jnp.ones_like, z))[1])
    np.testing.assert_allclose(
        jax.jit(ahead)(radius, z0, z1),
        found[0] + found[1].sum(1) + found[2].sum(1),
        rtol=1e-6,
    )


@pytest.mark.parametrize("immersed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_points_have_the_derivatives_of_finite_differences(key, x64, immersed):
    keys = jax.random.split(key, 4)
    inner, outer = jax.random.normal(keys[0], (2, 8)), jax.random.normal(keys[1], (8, 5))
    z0, z1 = jax.random.normal(keys[2], (2, 2))

    def middle(inner, z1):
        def network(z):
            return jnp.concatenate([jnp.tanh(z @ inner) @ outer, z])

        metric = pullback(network)
        shown = metric if immersed else metric.__call__
        return geodesic(shown, z0, z1, segments=6, tolerance=1e-10).points[3]

    both = jax.jit(jax.jacrev(lambda *given: (middle(*given),) * 2, (0, 1), has_aux=True))
    change = (jax.random.normal(keys[3], inner.shape), jnp.array([0.4, -0.7]))
    step = 1e-5
    ahead, behind = (both(inner + s * change[0], z1 + s * change[1])[1] for s in (step, -step))
    found, _ = both(inner, z1)
    slope = jnp.einsum("iab,ab->i", found[0], change[0]) + found[1] @ change[1]
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-5)


@pytest.mark.slow
def test_an_immersion_and_its_matrices_give_the_same_curve(key, x64):
    outer = jax.random.normal(key, (2, 12)), jax.random.normal(key, (12, 9))
    metric = pullback(lambda z: jnp.tanh(z @ outer[0]) @ outer[1])
    z0, z1 = jnp.array([-0.5, 0.8]), jnp.array([0.9, -0.6])
    found = jax.jit(lambda: geodesic(metric, z0, z1))()
    other = jax.jit(lambda: geodesic(metric.__call__, z0, z1, initial=found))()
    assert found.converged
    assert other.converged
    np.testing.assert_allclose(other.length, found.length, rtol=1e-4)
    np.testing.assert_allclose(other.points, found.points, atol=0.01)
    line = length(metric, lambda s: z0 + s * (z1 - z0))
    assert found.length < line * 0.999


@pytest.mark.slow
def test_an_ambient_metric_is_that_of_data_space(x64):
    z0, z1 = jnp.array([-1.0, 0.3]), jnp.array([1.0, 0.9])
    bent = pullback(lambda z: jnp.stack([z[0], jnp.exp(z[1])]), lambda x: jnp.full(2, x[1] ** -2))
    found = jax.jit(lambda: distance(bent, z0, z1, segments=14))()
    wanted = hyperbolic(bent.immersion(z0), bent.immersion(z1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_from_a_place_to_itself_is_no_way_at_all(dtype):
    metric, z = pullback(sphere), jnp.array([1.0, 0.3], dtype)

    def run(z1):
        found = geodesic(metric, z, z1, segments=6)
        return found.length, found

    slope, found = jax.jit(jax.grad(run, has_aux=True))(z)
    assert found.converged
    assert found.length == found.energy == found.residual == 0
    assert (found.points == z).all()
    assert (slope == 0).all()


BROKEN = {
    "indefinite": lambda z: jnp.diag(jnp.array([1.0, -1.0])),
    "singular": lambda z: jnp.diag(jnp.array([1.0, 0.0])),
    "not finite": lambda z: jnp.eye(2) * jnp.where(jnp.abs(z[0]) < 0.5, jnp.nan, 1),
    "immersion that is not finite": pullback(lambda z: jnp.log(z - 0.1)),
    "immersion that forgets an axis": pullback(lambda z: z[:1]),
}


QUICK = ("singular", "not finite")
"""One of a length that is known and one of which nothing is."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in BROKEN],
)
def test_where_the_metric_breaks_down_the_answer_is_a_finite_line(name):
    z0, z1 = jnp.array([-1.0, 0.0]), jnp.array([1.0, 0.5])
    found = jax.jit(lambda: geodesic(BROKEN[name], z0, z1, segments=4))()
    assert not found.converged
    # Of the length nothing is known, but where the metric only fails to see a direction.
    assert jnp.isfinite(found.length) == (name in ("singular", "immersion that forgets an axis"))
    assert not jnp.isnan(found.length)
    np.testing.assert_allclose(found.points[:, 0], jnp.linspace(-1, 1, 5), atol=1e-6)


@pytest.mark.slow
def test_too_few_iterations_are_owned_up_to():
    z0, z1 = jnp.array([-1.0, 0.3]), jnp.array([1.0, 0.3])
    few = jax.jit(lambda: geodesic(HALF_PLANE, z0, z1, segments=6, max_iterations=2))()
    assert not few.converged


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"z0": jnp.zeros((1, 2))}, r"z0 must be one latent.*got shape \(1, 2\)"),
        ({"z1": jnp.zeros(3)}, r"z1 must have the shape of z0, \(2,\), got \(3,\)"),
        ({"z0": jnp.zeros(2, complex)}, "z0 must be real"),
        ({"metric": lambda z: jnp.eye(3)}, r"metric must .*\(2, 2\).*got \(3, 3\)"),
        ({"segments": 0}, "segments and max_iterations must be at least 1"),
        ({"tolerance": 0.0}, "tolerance positive"),
        ({"initial": jnp.zeros((5, 3))}, r"initial must be .*got shape \(5, 3\)"),
        ({"initial": lambda s: s}, r"initial must be .*got shape \(33,\)"),
    ],
)
def test_what_makes_no_sense_is_named(arguments, words):
    usual = {"metric": HALF_PLANE, "z0": jnp.array([0.0, 1.0]), "z1": jnp.array([1.0, 1.0])}
    with pytest.raises(ValueError, match=words):
        geodesic(**(usual | arguments))


@pytest.mark.slow
def test_a_batch_of_pairs_is_as_one_by_one(key):
    metric = conformal(lambda z: 1 + (z**2).sum())
    z0, z1 = jax.random.normal(key, (2, 5, 2))
    settings = {"segments": 6}
    together = jax.jit(lambda a, b: geodesic_batch(metric, a, b, batch_size=2, **settings))(z0, z1)
    each = jax.jit(jax.vmap(lambda a, b: geodesic(metric, a, b, **settings)))(z0, z1)
    assert together.converged.all()
    np.testing.assert_allclose(together.points, each.points, atol=1e-5)
    np.testing.assert_allclose(together.length, each.length, rtol=1e-5)


@pytest.mark.parametrize(
    ("z0", "z1", "initial", "message"),
    [
        (jnp.ones(2), jnp.ones(2), None, r"matrices \[pairs, d\] of one shape, got \(2,\)"),
        (jnp.ones((3, 2)), jnp.ones((2, 2)), None, r"of one shape, got \(3, 2\) and \(2, 2\)"),
        (jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones((2, 5, 2)), "each of the 3 pairs, got 2"),
    ],
)
def test_batches_that_do_not_fit_are_refused(z0, z1, initial, message):
    with pytest.raises(ValueError, match=message):
        geodesic_batch(lambda z: jnp.eye(2), z0, z1, initial=initial)
