"""What a solver says of why it did not get there."""

from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import pytest

from latent_flows import geometry
from latent_flows._results import Result, first_failure, message_of
from latent_flows.flows import integrate
from latent_flows.geometry.metrics import conformal

HALF_PLANE = conformal(lambda z: 1 / z[1] ** 2)
LEFT, RIGHT = jnp.array([-1.0, 1.0]), jnp.array([1.0, 1.0])


def nowhere(z):
    return jnp.nan * jnp.eye(2)


def test_the_first_of_several_failures_is_the_one_that_is_named():
    good = jnp.array([[True, True], [False, True], [True, False], [False, False]])
    named = jax.jit(jax.vmap(first_failure_of))(good)
    wanted = ["", message_of(Result.missed), message_of(Result.detour), message_of(Result.missed)]
    assert [*message_of(named)] == wanted


def first_failure_of(good):
    return first_failure((good[0], Result.missed), (good[1], Result.detour))


def test_within_a_trace_nothing_is_known_yet():
    said = []
    jax.jit(lambda ok: said.append(message_of(first_failure((ok, Result.missed)))))(True)
    assert said == ["traced"]


@pytest.mark.parametrize(
    ("field", "settings", "reason"),
    [
        (lambda t, z: -z, {}, Result.successful),
        (lambda t, z: z, {"max_steps": 1}, Result.max_steps_reached),
        (lambda t, z: z**2, {"max_steps": 64}, Result.max_steps_reached),
        (lambda t, z: jnp.nan * z, {"solver": diffrax.Euler()}, Result.nonfinite),
    ],
)
def test_a_trajectory_says_why_it_is_not_ok(field, settings, reason):
    path = integrate(field, jnp.ones(1), [0.0, 2.0], **settings)
    assert path.result == reason
    assert path.ok == (reason == Result.successful)
    assert path.message == message_of(reason)


@pytest.mark.parametrize(
    ("metric", "settings", "reason"),
    [
        (HALF_PLANE, {}, Result.successful),
        (HALF_PLANE, {"max_iterations": 1}, Result.max_steps_reached),
        pytest.param(nowhere, {}, Result.indefinite, marks=pytest.mark.slow),
        (lambda z: -jnp.eye(2), {}, Result.indefinite),
        # A straight line of two points cannot go as evenly as it would have to.
        (conformal(lambda z: jnp.exp(4 * z[0])), {"segments": 1}, Result.undersampled),
    ],
)
def test_a_geodesic_says_why_it_has_not_converged(metric, settings, reason):
    found = geometry.geodesic(metric, LEFT, RIGHT, **{"segments": 4, **settings})
    assert found.message == message_of(reason)
    assert found.converged == (reason == Result.successful)


def test_a_spline_that_was_stopped_says_so():
    found = geometry.spline_geodesic(HALF_PLANE, LEFT, RIGHT, knots=4, max_iterations=1)
    assert found.result == Result.max_steps_reached


def test_of_a_batch_each_says_its_own():
    ends = jnp.array([[1.0, 1.0], [1.0, -1.0]])  # the second is beyond the border
    found = geometry.geodesic_batch(HALF_PLANE, jnp.stack([LEFT, LEFT]), ends, segments=4)
    assert [bool(word) for word in found.message] == [False, True]
    assert (found.converged == (found.result == Result.successful)).all()


@pytest.mark.slow
def test_a_geodesic_that_does_not_keep_its_speed_says_so():
    follow = partial(geometry.geodesic_flow, HALF_PLANE, RIGHT, jnp.array([3.0, 0.0]), [0.0, 1.0])
    rough = follow(tolerance=1e3)
    assert not rough.ok
    assert rough.result == Result.left_manifold
    exact = follow()
    assert exact.ok
    assert exact.message == ""


@pytest.mark.slow
def test_a_logarithm_says_why_it_has_not_converged():
    half_plane = lambda size: conformal(lambda z: size / z[1] ** 2)  # noqa: E731
    shoot = jax.jit(lambda size: geometry.logarithm(half_plane(size), LEFT, RIGHT, segments=4))
    found = shoot(1.0)
    assert (bool(found.converged), found.message) == (True, "")
    lost = shoot(jnp.nan)
    assert not lost.converged
    assert lost.result == Result.indefinite


@pytest.mark.slow
def test_means_and_walks_say_so_too(key):
    points = jnp.stack([LEFT, RIGHT])
    walk = geometry.brownian_motion(key, nowhere, LEFT, [0.0, 1.0])
    assert walk.result == Result.nonfinite
    # The half-plane in two units, one of them no number: one program finds both means.
    mean = jax.jit(
        lambda size: geometry.frechet_mean(
            conformal(lambda z: size / z[1] ** 2), points, segments=2, max_iterations=1
        )
    )
    assert mean(jnp.nan).result == Result.unsolved
    assert mean(1.0).result == Result.max_steps_reached


@pytest.mark.slow
def test_clusters_that_were_found_say_nothing(key):
    points = jnp.stack([LEFT, RIGHT])
    clusters = geometry.kmeans(key, HALF_PLANE, points, 2, segments=2)
    assert clusters.message == ""


@pytest.mark.slow
def test_a_land_that_was_stopped_says_so(key):
    land = geometry.fit_land(
        key,
        lambda z: jnp.eye(1),
        jax.random.normal(key, (20, 1)) + jnp.arange(20.0)[:, None] % 2 * 9,
        initial=jnp.zeros((1, 1)),
        segments=1,
        samples=16,
        final_samples=16,
        max_iterations=1,
    )
    assert not land.converged
    assert land.result == Result.max_steps_reached
