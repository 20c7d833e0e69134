"""LAND against Gaussians in flat space, integrals on a grid and a closed form on the sphere."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.mixture import GaussianMixture

from latent_flows._results import Result
from latent_flows._transforms import vmap_chunked
from latent_flows.geometry.land import (
    Land,
    Proposal,
    fit_land,
    land_log_prob,
    normalise_land,
    sample_land,
)
from latent_flows.geometry.metrics import conformal

FLAT, RING, SPHERE = (0.0, 0.0), (10.0, 0.0), (0.0, 1.0)
SEGMENTS = 8


def make(kind):
    """One family of metrics, so that one program serves them all: flat space, a metric that grows
    away from the unit circle, and the sphere in stereographic projection. None is defined far away
    to the right."""
    ring, sphere = kind

    def factor(z):
        value = (1 + ring * (z @ z - 1) ** 2) * (4 / (1 + z @ z) ** 2) ** sphere
        return jnp.where(z[0] > 100, jnp.nan, value)

    return conformal(factor)


@partial(jax.jit, static_argnums=3)
def fit(key, kind, points, components=1):
    return fit_land(
        key,
        make(kind),
        points,
        components,
        initial=points[:components],
        samples=512,
        final_samples=1024,
        segments=SEGMENTS,
        max_iterations=10,
    )


@jax.jit
def normalise(key, kind, land):
    return normalise_land(key, land, make(kind), samples=1024)


@partial(jax.jit, static_argnames="measure")
def log_prob(kind, land, points, measure="lebesgue"):
    return vmap_chunked(lambda z: land_log_prob(land, make(kind), z, measure=measure), 512)(points)


@pytest.fixture(scope="module")
def ellipse():
    shape = np.array([[0.8, 0.0], [0.5, 0.3]])
    normal = np.random.default_rng(0).normal(size=(100, 2))
    return jnp.asarray(normal @ shape + [0.5, -0.3], jnp.float32)


@pytest.fixture(scope="module")
def on_arc():
    """A fit to points along part of the unit circle."""
    rng = np.random.default_rng(0)
    angle, radius = rng.normal(size=100) * 0.8, 1 + 0.08 * rng.normal(size=100)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    return fit(jax.random.key(0), RING, jnp.asarray(points, jnp.float32))


@pytest.fixture(scope="module")
def by_hand():
    """One component on the unit circle, of which only the density is asked."""
    centre, one = jnp.array([[1.0, 0.0]]), jnp.ones(1)
    return Land(
        means=centre,
        precisions=jnp.eye(2)[None],
        weights=one,
        log_constants=0 * one,
        log_constant_errors=0 * one,
        log_likelihood=jnp.zeros(()),
        converged=jnp.array(True),
        proposal=Proposal(centre, centre[0], jnp.eye(2)),
        measure="lebesgue",
        segments=SEGMENTS,
    )


@pytest.fixture(scope="module")
def grid():
    axis = jnp.linspace(-2.2, 2.2, 51)
    return jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


@pytest.mark.slow
def test_in_flat_space_the_fit_is_the_gaussian_of_greatest_likelihood(ellipse, key):
    land = fit(key, FLAT, ellipse)
    mean, covariance = np.mean(ellipse, 0), np.cov(ellipse.T, bias=True)
    gaussian = stats.multivariate_normal(mean, covariance)
    assert land.converged
    np.testing.assert_allclose(land.means[0], mean, atol=0.03)
    np.testing.assert_allclose(jnp.linalg.inv(land.precisions[0]), covariance, atol=0.04)
    np.testing.assert_allclose(
        log_prob(FLAT, land, ellipse), gaussian.logpdf(ellipse), atol=0.1, rtol=0.02
    )
    np.testing.assert_allclose(land.log_likelihood, gaussian.logpdf(ellipse).mean(), atol=0.03)
    exact = np.log(2 * np.pi) - np.linalg.slogdet(land.precisions[0])[1] / 2
    assert abs(land.log_constants[0] - exact) < 4 * land.log_constant_errors[0]
    assert land.log_constant_errors[0] < 0.03


@pytest.mark.slow
def test_in_flat_space_a_mixture_is_a_gaussian_mixture(key):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(120, 2)) * [0.4, 0.2] + np.tile([[-1.0, 0.0], [1.0, 0.5]], (60, 1))
    land = fit(key, FLAT, jnp.asarray(points, jnp.float32), 2)
    theirs = GaussianMixture(2, random_state=0, n_init=3).fit(points)
    order = np.argsort(land.means[:, 0]), np.argsort(theirs.means_[:, 0])
    np.testing.assert_allclose(land.means[order[0]], theirs.means_[order[1]], atol=0.05)
    np.testing.assert_allclose(land.weights[order[0]], theirs.weights_[order[1]], atol=0.03)
    np.testing.assert_allclose(land.log_likelihood, theirs.score(points), atol=0.05)


def test_on_the_sphere_the_constant_is_that_of_the_polar_integral(dtype, key):
    precision = 3.0
    zero = jnp.zeros(1, dtype)
    land = Land(
        means=jnp.zeros((1, 2), dtype),
        # At the origin the metric is 4 times the identity.
        precisions=4 * precision * jnp.eye(2, dtype=dtype)[None],
        weights=zero + 1,
        log_constants=zero,
        log_constant_errors=zero,
        log_likelihood=zero[0],
        converged=jnp.array(True),
        proposal=Proposal(
            jax.random.normal(key, (100, 2), dtype) / 3,
            jnp.zeros(2, dtype),
            jnp.eye(2, dtype=dtype) / 3,
        ),
        measure="volume",
        segments=SEGMENTS,
    )
    found = normalise(key, SPHERE, land)
    exact, _ = integrate.quad(
        lambda angle: 2 * np.pi * np.sin(angle) * np.exp(-precision * angle**2 / 2), 0, np.pi
    )
    error = found.log_constant_errors[0]
    assert found.log_constants.dtype == dtype
    assert 0 < error < 0.05
    assert abs(found.log_constants[0] - np.log(exact)) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["volume", "lebesgue"])
def test_the_density_integrates_to_one(on_arc, grid, key, measure):
    land = normalise(key, RING, replace(on_arc, measure=measure))
    points, cell = grid
    error = land.log_constant_errors[0]
    assert error < 0.1
    total = jnp.exp(log_prob(RING, land, points)).sum() * cell
    assert abs(total - 1) < 4 * error


@pytest.mark.slow
def test_the_two_densities_differ_by_the_volume(on_arc, ellipse):
    lebesgue = log_prob(RING, on_arc, ellipse)
    volume = log_prob(RING, on_arc, ellipse, measure="volume")
    exact = jax.vmap(lambda z: jnp.log(make(RING)(z)[0, 0]))(ellipse)
    np.testing.assert_allclose(lebesgue - volume, exact, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_samples_have_the_moments_of_the_density(on_arc, grid, key):
    samples = jax.jit(lambda key: sample_land(key, on_arc, make(RING), 400, oversampling=4))(key)
    points, _ = grid
    weights = jax.nn.softmax(log_prob(RING, on_arc, points))
    for power in (1, 2):
        moments = (samples**power).mean(0)
        np.testing.assert_allclose(moments, weights @ points**power, atol=0.08)


@pytest.mark.slow
def test_where_the_metric_is_not_finite_the_density_is_zero(by_hand, ellipse):
    found = log_prob(RING, by_hand, ellipse.at[0].set(200.0))
    assert found[0] == -jnp.inf
    assert jnp.isfinite(found[1:]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": 0}, "more than components"),
        ({"components": 5}, "more than components"),
        ({"measure": "volumes"}, "did you mean 'volume'"),
        ({"initial": jnp.zeros((2, 2))}, r"initial must have shape \(1, 2\), got \(2, 2\)"),
        ({"samples": 4}, "samples must be at least 16, got 4"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        fit_land(jax.random.key(0), make(FLAT), jnp.zeros((5, 2)), **change)


def test_more_samples_are_asked_for_than_a_precision_has_entries(key):
    points = jax.random.normal(key, (12, 6))
    with pytest.raises(ValueError, match="at least 21, the free entries of a precision of 6 num"):
        fit_land(key, make(FLAT), points, samples=20)


def test_constants_that_are_not_known_are_said(by_hand):
    known = replace(by_hand, converged=jnp.array(True), log_constant_errors=jnp.array([0.1]))
    assert (known.result == Result.successful, known.message) == (True, "")
    unknown = replace(known, log_constant_errors=jnp.array([0.1, 0.9]))
    assert unknown.result == Result.unknown_constants
    assert "raise final_samples" in unknown.message
    # What has not converged is said first.
    assert replace(unknown, converged=jnp.array(False)).result == Result.max_steps_reached


def test_a_point_of_another_shape_is_named(by_hand):
    with pytest.raises(ValueError, match=r"z must have shape \(2,\), got \(3,\)"):
        land_log_prob(by_hand, make(RING), jnp.zeros(3))


@pytest.mark.slow
def test_progress_is_told_step_by_step_and_changes_nothing(key):
    points = 0.5 * jax.random.normal(key, (30, 2))
    metric = conformal(lambda z: 1 + z @ z)
    few = {"samples": 16, "final_samples": 16, "segments": 4, "max_iterations": 3}
    told = []
    found = fit_land(
        key, metric, points, 2, initial=points[:2], **few, progress=lambda *at: told.append(at)
    )
    silent = fit_land(key, metric, points, 2, initial=points[:2], **few)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), found, silent)
    steps, values = zip(*told, strict=True)
    assert steps == tuple(range(1, len(steps) + 1))
    assert len(steps) <= (1 + 3) * 2
    # Nothing is known before both means were looked at; then it only rises.
    assert values[0] == -np.inf
    assert np.isfinite(values[1:]).all()
    assert (np.diff(values[1:]) >= 0).all()
