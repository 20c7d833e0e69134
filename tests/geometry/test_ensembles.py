"""The geometry of an ensemble is that of sums over its members, which linear members make exact."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry import (
    brownian_motion,
    ensemble_energy,
    ensemble_pullback,
    ensemble_variance,
    fit_land,
    frechet_mean,
    geodesic,
    geodesic_batch,
    kmeans,
    length,
    pullback,
    spline_geodesic,
)

M, N, D = 3, 4, 2
RANDOM = np.random.default_rng(0)
MATRICES, SHIFTS = RANDOM.normal(size=(M, N, D)), RANDOM.normal(size=(M, N))
POINTS = RANDOM.normal(size=(5, D))
START, STOP = np.array([-1.0, 0.0]), np.array([1.0, 0.5])
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)


def linear(spread=1.0, dtype=None):
    """A stack of linear members, whose deviations from their mean are so much as large."""

    def deviating(each):
        return jnp.asarray(each.mean(0) + spread * (each - each.mean(0)), dtype)

    matrices, shifts = deviating(MATRICES), deviating(SHIFTS)
    return lambda z: matrices @ z + shifts


def member(stack, m):
    return lambda z: stack(z)[m]


def test_the_metric_is_the_mean_of_the_members_metrics(dtype):
    stack = linear(dtype=dtype)
    expected = np.einsum("mni,mnj->ij", MATRICES, MATRICES) / M
    z, rtol = jnp.asarray(POINTS[0], dtype), 64 * jnp.finfo(dtype).eps
    for decoders in (stack, [member(stack, m) for m in range(M)], SimpleNamespace(members=stack)):
        for draws in ("one", "independent"):
            metric = ensemble_pullback(decoders, draws=draws)
            assert metric(z).dtype == dtype
            assert_allclose(jax.jit(metric)(z), expected, rtol=rtol)
            assert_allclose(metric.inner(z, z, z + 1), z @ expected @ (z + 1), rtol=rtol)
            assert_allclose(metric.sqrt(z) @ metric.sqrt(z).T, expected, rtol=rtol)


def test_members_of_curved_images_count_the_same():
    members = [lambda z, k=k: jnp.sin(k * jnp.outer(z, z)) for k in (1.0, 2.0, 3.0)]
    z = jnp.array([0.3, 0.7])
    expected = sum(pullback(one)(z) for one in members) / 3
    assert_allclose(ensemble_pullback(members)(z), expected, rtol=1e-5)


@both_dtypes
def test_the_energy_is_the_mean_over_all_pairs_of_draws(dtype):
    stack, points = linear(dtype=dtype), jnp.asarray(POINTS, dtype)
    images = np.array(jax.vmap(stack)(points), np.float64)
    pairs = [
        sum(((b[m] - a[k]) ** 2).sum() for a, b in itertools.pairwise(images))
        for k, m in itertools.product(range(M), repeat=2)
    ]
    found = ensemble_energy(stack, points)
    assert found.dtype == dtype
    assert_allclose(found, 4 / 2 * np.mean(pairs), rtol=32 * jnp.finfo(dtype).eps)


def test_the_variance_is_that_over_members():
    expected = np.var(MATRICES @ POINTS[0] + SHIFTS, axis=0).sum()
    assert_allclose(ensemble_variance(linear())(jnp.asarray(POINTS[0])), expected, rtol=1e-5)


def test_the_gradient_of_the_energy_is_that_of_finite_differences(x64):
    stack = linear(dtype="float64")
    points, step = jnp.asarray(POINTS), 1e-5 * RANDOM.normal(size=POINTS.shape)
    energy = jax.jit(lambda points: ensemble_energy(stack, points))
    slope = (energy(points + step) - energy(points - step)) / 2
    assert_allclose(jnp.vdot(jax.grad(energy)(points), step), slope, rtol=1e-6)
    batch = jax.vmap(energy)(jnp.stack([points, 2 * points]))
    assert_allclose(batch, [energy(points), energy(2 * points)], rtol=1e-12)


@pytest.mark.slow
def test_of_one_draw_a_geodesic_of_linear_members_is_straight():
    metric = ensemble_pullback(linear())
    path = geodesic(metric, START, STOP, segments=8)
    across = STOP - START
    assert path.converged
    assert_allclose(path.points, START + np.linspace(0, 1, 9)[:, None] * across, atol=1e-4)
    assert_allclose(path.length, np.sqrt(across @ metric(jnp.zeros(D)) @ across), rtol=1e-4)


def least(stack, segments):
    """The chain of least energy between linear members: of a quadratic, by its Hessian."""

    def energy(inner):
        return ensemble_energy(stack, jnp.concatenate([START[None], inner, STOP[None]]))

    zero = jnp.zeros((segments - 1, D))
    hessian = jax.hessian(energy)(zero).reshape(2 * (zero.size,))
    return jnp.linalg.solve(hessian, -jax.grad(energy)(zero).ravel()).reshape(zero.shape)


@pytest.mark.slow
def test_of_independent_draws_a_geodesic_is_the_chain_of_least_expected_energy(dtype):
    start, stop = jnp.asarray(START, dtype), jnp.asarray(STOP, dtype)

    metric = ensemble_pullback(linear(0.3, dtype), draws="independent")
    found = geodesic(metric, start, stop, segments=4)
    tolerance = 1e-3 if dtype == jnp.float32 else 1e-6
    assert found.converged
    assert found.points.dtype == dtype
    assert_allclose(found.points[1:-1], least(linear(0.3, dtype), 4), atol=tolerance)
    # Lengths are of the expected metric, in which the straight line is shortest.
    assert found.length > jnp.sqrt(metric.squared_norm(start, stop - start))


@pytest.mark.slow
def test_derivatives_of_such_a_geodesic_are_those_of_the_minimum(x64):
    def middle(shift):
        stack = linear(0.3)
        metric = ensemble_pullback(lambda z: stack(z + shift), draws="independent")
        return geodesic(metric, START, STOP, segments=4, tolerance=1e-9).points[2, 0]

    h = 1e-4
    slope = (middle(h) - middle(-h)) / (2 * h)
    assert_allclose(jax.grad(middle)(0.0), slope, rtol=1e-5)


def hill(z, height=2.0):
    """Two members that are one but for a hill, where they go apart as far as it is high."""
    apart = height * jnp.exp(-4 * z @ z)
    return jnp.stack([jnp.append(z, apart), jnp.append(z, -apart)])


def gentle(z):
    """The same of a wide and low hill: of derivatives that hardly differ."""
    apart = 0.3 * jnp.exp(-z @ z)
    return jnp.stack([jnp.append(z, apart), jnp.append(z, -apart)])


ENDS = jnp.array([-1.5, 0.1]), jnp.array([1.5, 0.1])


@pytest.mark.slow
def test_a_geodesic_goes_round_where_members_disagree():
    path = geodesic(ensemble_pullback(hill), *ENDS, segments=32)
    assert path.converged
    assert path.points[16, 1] > 0.3
    over = length(pullback(member(hill, 0)), lambda s: ENDS[0] + s * (ENDS[1] - ENDS[0]))
    assert path.length < over


def test_a_chord_that_leaps_over_disagreement_is_said_to_be_too_long():
    path = geodesic(ensemble_pullback(hill, draws="independent"), *ENDS, segments=1)
    assert not path.converged
    assert "too few" in path.message
    assert "fewer may help" in path.message
    assert "raise segments" not in path.message


@pytest.mark.slow
def test_independent_draws_keep_farther_from_where_members_disagree_than_one_draw():
    one, free = (ensemble_pullback(gentle, draws=draws) for draws in ("one", "independent"))
    near, far = (geodesic(metric, *ENDS, segments=16) for metric in (one, free))
    assert near.converged
    assert far.converged
    assert far.points[8, 1] > near.points[8, 1] + 0.3
    assert ensemble_energy(gentle, far.points) < ensemble_energy(gentle, near.points)


@pytest.mark.slow
def test_splines_and_batches_find_the_same_curve():
    metric = ensemble_pullback(gentle, draws="independent")
    batch = geodesic_batch(metric, ENDS[0][None], ENDS[1][None], segments=16)
    spline = spline_geodesic(metric, *ENDS, knots=8, segments=16)
    assert batch.converged[0]
    assert spline.converged
    assert_allclose(batch.points[0, ::2], spline.points, atol=0.1)


@pytest.mark.slow
def test_means_and_random_walks_take_it_like_any_metric():
    metric = ensemble_pullback(hill)
    points = jnp.concatenate([ENDS[0] + 0.1 * POINTS, ENDS[1] + 0.1 * POINTS])
    found = kmeans(jax.random.key(0), metric, points, 2, segments=4)
    assert len(set(np.asarray(found.labels)[:5].tolist())) == 1
    walk = brownian_motion(jax.random.key(0), metric, ENDS[0], jnp.linspace(0, 0.1, 5))
    assert walk.ok
    assert jnp.isfinite(walk.zs).all()


@pytest.mark.parametrize(
    ("decoders", "message"),
    [
        ([], "an ensemble needs at least two members, got 0"),
        ([jnp.sin], "an ensemble needs at least two members, got 1"),
        (
            [jnp.sin, 3.0],
            "every member of an ensemble must be a function z -> x, and member 1 is f",
        ),
        (None, "decoders must be a list of functions z -> x, or one function"),
        ({jnp.sin, jnp.cos}, "must be a list of functions z -> x, or one function .*, got set"),
        ("two", "must be a list of functions z -> x, or one function .*, got str"),
        (SimpleNamespace(members=None, name="the VAE of x"), "the VAE of x has one decoder, and"),
        ([jnp.sin, lambda z: z[:1]], r"samples of one shape, got \(2,\), \(1,\)"),
        (jnp.sin, r"must give \[M, \*event\], a sample of each of M members, got shape \(2,\)"),
        (lambda z: None, r"must give \[M, \*event\], .* got NoneType"),
        (lambda z: z[None], "an ensemble needs at least two members, got 1"),
    ],
)
def test_what_is_no_ensemble_is_refused_in_one_line(decoders, message):
    for make in (ensemble_pullback, ensemble_variance):
        with pytest.raises(ValueError, match=message) as caught:
            make(decoders)(jnp.zeros(2))
        assert "\n" not in str(caught.value)


def test_draws_and_points_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="unknown draws 'both'"):
        ensemble_pullback([jnp.sin, jnp.cos], draws="both")
    with pytest.raises(ValueError, match=r"points must be a matrix \[n \+ 1, d\]"):
        ensemble_energy([jnp.sin, jnp.cos], jnp.zeros((1, 2)))


@pytest.mark.parametrize(
    "fit",
    [
        frechet_mean,
        lambda metric, points: kmeans(jax.random.key(0), metric, points, 2),
        lambda metric, points: fit_land(jax.random.key(0), metric, points, samples=16),
    ],
)
def test_what_follows_curves_from_their_velocity_refuses_independent_draws(fit):
    metric = ensemble_pullback(linear(), draws="independent")
    with pytest.raises(ValueError, match='draws="one"'):
        fit(metric, jnp.asarray(POINTS))


@pytest.mark.slow
def test_a_land_takes_an_ensemble(key):
    points = jax.random.normal(key, (12, 2))
    stretched = [lambda z: z, lambda z: 3.0 * z]
    few = {"segments": 2, "samples": 64, "final_samples": 128, "max_iterations": 2}
    ours, plain = (
        fit_land(key, metric, points, **few)
        for metric in (ensemble_pullback(stretched), pullback(lambda z: jnp.sqrt(5.0) * z))
    )
    assert_allclose(ours.means, plain.means, atol=1e-3)
    assert_allclose(ours.log_likelihood, plain.log_likelihood, atol=1e-2)
