"""Distances that are known otherwise: closed forms, other libraries, and shooting with SciPy."""

import json
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry import (
    brownian_motion,
    conformal,
    distance,
    exponential_map,
    fit_land,
    frechet_mean,
    geodesic,
    geodesic_batch,
    geodesic_flow,
    kmeans,
    length,
    logarithm,
    parallel_transport,
    pullback,
    spline_geodesic,
)
from tests.rest_slow import rest_slow

HALF_PLANE = conformal(lambda z: 1 / z[1] ** 2)
SURFACES = {
    "torus": lambda z: jnp.stack(
        [(2 + jnp.cos(z[1])) * jnp.cos(z[0]), (2 + jnp.cos(z[1])) * jnp.sin(z[0]), jnp.sin(z[1])]
    ),
    "ellipsoid": lambda z: jnp.stack(
        [
            3 * jnp.sin(z[0]) * jnp.cos(z[1]),
            2 * jnp.sin(z[0]) * jnp.sin(z[1]),
            jnp.cos(z[0]),
        ]
    ),
    "polar": lambda z: jnp.stack([z[0] * jnp.cos(z[1]), z[0] * jnp.sin(z[1]), 0 * z[0]]),
    "sphere": lambda z: jnp.stack(
        [jnp.cos(z[0]) * jnp.cos(z[1]), jnp.cos(z[0]) * jnp.sin(z[1]), jnp.sin(z[0])]
    ),
}
KINDS = dict(zip(SURFACES, np.eye(len(SURFACES)), strict=True))
TORUS, ELLIPSOID = pullback(SURFACES["torus"]), pullback(SURFACES["ellipsoid"])


def surface(kind):
    """One family of metrics, so that one program serves them all."""
    return pullback(lambda z: kind @ jnp.stack([place(z) for place in SURFACES.values()]))


def positive(z):
    """A symmetric positive definite matrix, by the logarithms of its Cholesky factor's diagonal."""
    factor = jnp.array([[jnp.exp(z[0]), 0], [z[1], jnp.exp(z[2])]])
    return factor @ factor.T


def affine_invariant(z):
    """`tr(P^-1 U P^-1 V)`, pulled back to three numbers."""
    inverse = jnp.linalg.inv(positive(z))
    tangents = inverse @ jnp.moveaxis(jax.jacfwd(positive)(z), 2, 0)
    return jnp.einsum("aij,bji->ab", tangents, tangents)


RECORDED = json.loads(Path(__file__).with_name("known_distances.json").read_text())


@jax.jit
def on_surface(kind, z0, z1):
    return geodesic(surface(kind), z0, z1)


@cache
def batch_solver(metric):
    """One program for all pairs of ends."""
    return jax.jit(jax.vmap(lambda z0, z1: geodesic(metric, z0, z1)))


# Ends, and what geomstats 2.8 says of them: matrices with the affine-invariant metric.
MATRICES = [
    ([0.0, 0.0, 0.0], [1.0, 0.5, -1.0], 2.8763177251843235),
    ([-1.0, 2.0, 0.5], [1.5, -1.0, -0.5], 6.646145110173582),
    ([-2.0, 1.0, 2.0], [2.0, 3.0, -2.0], 11.336655258866687),
]
# The half-plane, where geomstats clips the first to 13.37.
PLANE = [
    ([-1e4, 1.0], [1e4, 1.0], np.arccosh(1 + 2e8)),
    ([-1e3, 1.0], [1e3, 2.0], np.arccosh(1 + (4e6 + 1) / 4)),
    ([0.0, 0.01], [2.0, 30.0], 8.010802165207577),
    ([-1.0, 1.0], [1.0, 1.0], 1.7627471740390863),
]


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['surface']} {row['z1']}")
def test_on_surfaces_they_are_those_of_shooting(x64, row):
    ends = jnp.array([row["z0"], row["z1"]], float)
    found = on_surface(KINDS[row["surface"]], *ends)
    assert found.converged
    np.testing.assert_allclose(found.length, row["distance"], rtol=1e-4)
    assert found.length >= row["distance"] * (1 - 1e-9)


@pytest.mark.parametrize(
    ("metric", "rows", "error"),
    [
        # As many as elsewhere, so that one program serves both.
        (HALF_PLANE, 4 * PLANE, 2e-5),
        pytest.param(affine_invariant, MATRICES, 1e-3, marks=pytest.mark.slow),
    ],
)
def test_distances_of_known_spaces(x64, metric, rows, error):
    z0, z1, known = (jnp.array(column) for column in zip(*rows, strict=True))
    found = batch_solver(metric)(z0, z1)
    assert found.converged.all()
    np.testing.assert_allclose(found.length, known, rtol=error)
    assert (found.length >= known * (1 - 1e-6)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_right_answers_far_apart_are_called_right(key, dtype):
    z = jax.random.normal(key, (2, 16, 2), dtype)
    z = z.at[..., 1].set(jnp.exp((3 if dtype == "float64" else 2) * z[..., 1]))
    found = batch_solver(HALF_PLANE)(*z)
    squares = ((z[0] - z[1]) ** 2).sum(-1) / (2 * z[0, :, 1] * z[1, :, 1])
    assert found.converged.all()
    np.testing.assert_allclose(found.length, jnp.arccosh(1 + squares), rtol=3e-5)


def test_where_no_curve_is_shortest_none_is_claimed(x64):
    """Around the origin by more than half a turn: any curve can be made shorter, down to 2."""
    z0, z1 = jnp.array([1.0, 0.0]), jnp.array([1.0, 4.0])
    found = on_surface(KINDS["polar"], z0, z1)
    assert 2 <= found.length <= 4
    assert not found.converged
    polar = pullback(SURFACES["polar"])
    assert jnp.isnan(jax.jit(lambda: distance(polar, z0, z1, segments=14, unknown="nan"))())
    near = on_surface(KINDS["polar"], z0, jnp.array([1.0, 2.0]))
    assert near.converged
    np.testing.assert_allclose(near.length, 2 * np.sin(1), rtol=1e-4)


@jax.jit
def by_matrices(z0, z1):
    return geodesic(TORUS.__call__, z0, z1)


@pytest.mark.parametrize("z1", rest_slow([[2.5, 0.0], [-2.5, 0.0]], every=2))
def test_a_saddle_is_no_minimum(x64, z1):
    """The torus' outer equator is no shortest path once it has passed a conjugate point."""
    z0, z1 = jnp.zeros(2), jnp.array(z1)
    wanted = next(row["distance"] for row in RECORDED if row["z1"] == [2.5, 0])
    found = on_surface(KINDS["torus"], z0, z1)
    assert found.converged
    np.testing.assert_allclose(found.length, wanted, rtol=1e-4)
    matrices = by_matrices(z0, z1)
    assert matrices.converged
    np.testing.assert_allclose(matrices.length, wanted, rtol=1e-3)


def test_the_long_way_round_a_sphere_is_left(x64):
    z0, z1 = jnp.zeros(2), jnp.array([0.0, 4.0])
    found = on_surface(KINDS["sphere"], z0, z1)
    # Over a pole, where the chart ends; never as long as along the equator with a claim.
    assert not (found.converged & (found.length > 3.99))


@pytest.mark.slow
def test_a_logarithm_past_a_conjugate_point_claims_no_detour(x64):
    z0, z1 = jnp.zeros(2), jnp.array([2.5, 0.0])
    there = jax.jit(lambda: logarithm(TORUS, z0, z1, segments=14))()
    speed = jnp.sqrt(there.vector @ TORUS(z0) @ there.vector)
    wanted = next(row["distance"] for row in RECORDED if row["z1"] == [2.5, 0])
    assert ~there.converged | (jnp.abs(speed / wanted - 1) < 1e-4)


EUCLIDEAN = conformal(lambda z: jnp.ones(()))


def test_a_distance_is_the_length_or_says_that_it_is_not_known():
    nowhere = jnp.array([jnp.nan, 0.0])
    assert not jnp.isfinite(distance(EUCLIDEAN, nowhere, jnp.ones(2), segments=2))
    assert jnp.isnan(distance(EUCLIDEAN, nowhere, jnp.ones(2), segments=2, unknown="nan"))
    with pytest.raises(ValueError, match="unknown 'Nan'"):
        distance(EUCLIDEAN, jnp.zeros(2), jnp.ones(2), unknown="Nan")


# Each a family of metrics with a number, so that one program serves them all.
FAMILIES = {
    "conformal": lambda a: conformal(lambda z: a),
    "diagonal": lambda a: lambda z: jnp.diag(jnp.stack([0.1 * a**2, a])),
    "immersed": lambda a: pullback(lambda z: jnp.where(a > 0, jnp.log(z), z / 0)),
}


@partial(jax.jit, static_argnames="family")
def in_family(family, a, z0, z1):
    return geodesic(FAMILIES[family](a), z0, z1, segments=4)


@pytest.mark.parametrize(
    ("family", "a", "z0"),
    [
        ("conformal", 1.0, [jnp.nan, 0]),
        ("conformal", 1.0, [jnp.inf, 0]),
        ("conformal", jnp.nan, [0, 0]),
        ("conformal", -1.0, [0, 0]),
        ("diagonal", -1.0, [0, 0]),
        ("immersed", 1.0, [-1, 1]),
        ("immersed", -1.0, [0, 0]),
    ],
)
def test_a_distance_of_what_is_not_finite_is_not_finite(family, a, z0):
    path = in_family(family, a, jnp.array(z0, float), jnp.array([1.0, 1.5]))
    assert not jnp.isfinite(path.length)
    assert not path.converged
    assert not jnp.isfinite(path.residual)


@pytest.mark.parametrize("broken", [[jnp.nan, 1.0], [jnp.inf, 1.0]])
def test_a_length_of_what_is_not_finite_is_not_finite(broken):
    assert not jnp.isfinite(length(EUCLIDEAN, lambda s: s * jnp.array(broken)))
    assert not jnp.isfinite(length(lambda z: -jnp.eye(2), lambda s: s * jnp.ones(2)))


@pytest.mark.slow
def test_ends_that_are_close_have_no_residual():
    z0 = jnp.array([1.0, 0.3])
    steps = jnp.array([0, 1e-7, 1e-6, 1e-5, 1e-4])

    def along(step):
        return geodesic(ELLIPSOID, z0, z0 + jnp.stack([0.0, step]), segments=14)

    found = jax.jit(jax.vmap(along))(steps)
    assert found.converged.all()
    assert (found.residual < 1e-3).all()
    speed = jnp.sqrt(ELLIPSOID(z0)[1, 1])
    np.testing.assert_allclose(found.length, steps * speed, rtol=0.05, atol=3e-6)


@pytest.mark.slow
def test_an_unfinished_search_is_no_longer_than_its_start(key):
    z = jax.random.normal(key, (2, 8, 2))
    z = z.at[..., 1].set(jnp.exp(z[..., 1]))
    search = partial(geodesic, HALF_PLANE, segments=14, max_iterations=1)
    found = jax.jit(jax.vmap(search))(*z)
    lines = jax.vmap(lambda a, b: length(HALF_PLANE, lambda s: a + s * (b - a), segments=512))(*z)
    squares = ((z[0] - z[1]) ** 2).sum(-1) / (2 * z[0, :, 1] * z[1, :, 1])
    assert (found.length <= lines * 1.001).all()
    assert (found.length >= jnp.arccosh(1 + squares) * 0.9999).all()


@pytest.mark.slow
def test_past_the_border_of_a_manifold_nothing_is_followed():
    """Of one probability, whose two values are at 0 and pi of an angle."""
    interval = conformal(lambda z: (1 / (z * (1 - z)))[0])
    ts = jnp.array([0.0, 0.3, 0.5, 1.0])
    flow = jax.jit(lambda v: geodesic_flow(interval, jnp.array([0.1]), v, ts))
    angle = 2 * np.arcsin(np.sqrt(0.1)) - ts * 0.25 / np.sqrt(0.09)
    out = flow(jnp.array([-0.25]))
    assert not out.ok
    np.testing.assert_allclose(out.zs[:3, 0], np.sin(angle[:3] / 2) ** 2, rtol=1e-3)
    inside = flow(jnp.array([0.25]))
    assert inside.ok
    with pytest.raises(Exception, match="could not be followed"):
        exponential_map(interval, jnp.array([0.1]), jnp.array([-0.25]))


SOLVERS = {
    "geodesic": lambda m, a, b: geodesic(m, a, b, segments=4).length,
    "geodesic_batch": lambda m, a, b: geodesic_batch(m, a[None], b[None], segments=4).length,
    "spline_geodesic": lambda m, a, b: spline_geodesic(m, a, b, knots=2, segments=4).length,
    "logarithm": lambda m, a, b: logarithm(m, a, b, segments=4).vector,
    "exponential_map": lambda m, a, b: exponential_map(m, a, b - a),
    "frechet_mean": lambda m, a, b: frechet_mean(m, jnp.stack([a, b]), segments=2).point,
    "kmeans": lambda m, a, b: (
        kmeans(jax.random.key(0), m, jnp.stack([a, b]), 2, segments=2).inertia
    ),
    "parallel_transport": lambda m, a, b: parallel_transport(m, lambda s: a + s * (b - a), b),
    "brownian_motion": lambda m, a, b: (
        brownian_motion(jax.random.key(0), m, a, jnp.linspace(0, 0.1, 3)).zs
    ),
    "fit_land": lambda m, a, b: (
        fit_land(
            jax.random.key(0),
            m,
            jnp.stack([a, b, a + 0.1, b + 0.2]),
            1,
            segments=2,
            samples=16,
            final_samples=16,
            max_iterations=1,
        ).means
    ),
}


# A search for means within one for geodesics; means and geodesics by themselves are quick.
LONG = ("fit_land", "kmeans", "logarithm", "geodesic_batch", "frechet_mean", "brownian_motion")


def wide(z):
    """A metric of 64 bits."""
    return jnp.eye(2) / z[1] ** 2


NARROW = conformal(lambda z: (1 / z[1] ** 2).astype(jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_ends_and_metrics_may_differ_in_precision(x64, name):
    """The result has that of the mode, whichever of the two is less precise."""
    a, b = jnp.array([0.0, 1.0], jnp.float32), jnp.array([1.0, 1.0], jnp.float32)
    found = jax.jit(lambda: SOLVERS[name](wide, a, b))()
    assert found.dtype == jnp.float64
    assert jnp.isfinite(found).all()
    assert jnp.isfinite(jax.jit(lambda: SOLVERS[name](NARROW, a, b))()).all()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in SOLVERS],
)
def test_where_ends_and_metrics_differ_in_precision_there_is_a_program(x64, name):
    """Arrays of two precisions in one loop would be refused before it is compiled."""
    ends = [jax.ShapeDtypeStruct((2,), jnp.float32)] * 2
    for metric in (wide, NARROW):
        assert jax.eval_shape(lambda a, b, m=metric: SOLVERS[name](m, a, b), *ends).dtype == x64
