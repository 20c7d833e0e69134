"""Brownian motion has the moments that the heat equation gives it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry import diffusion
from latent_flows.geometry.diffusion import brownian_motion
from latent_flows.geometry.metrics import conformal, pullback

COUNT = 8_000


def walks(key, metric, z0, ts, **options):
    keys = jax.random.split(key, COUNT)
    return jax.jit(jax.vmap(lambda key: brownian_motion(key, metric, z0, ts, **options)))(keys)


def sphere(z):
    theta, phi = z
    ring = jnp.sin(theta)
    return jnp.stack([ring * jnp.cos(phi), ring * jnp.sin(phi), jnp.cos(theta)])


@pytest.mark.slow
def test_the_mean_place_on_the_sphere_decays_with_the_first_eigenvalue(key, monkeypatch):
    """E x(t) = exp(-t) x(0) with the right drift, and with no other."""
    right = diffusion.frame_and_bend
    z0, time = jnp.array([1.1, 0.3]), 0.12
    keys = jax.random.split(key, COUNT)

    def places(factor):
        def scaled(metric):
            def frame(z):
                root, bend = right(metric)(z)
                return root, factor * bend

            return frame

        monkeypatch.setattr(diffusion, "frame_and_bend", scaled)
        ts = jnp.linspace(0.0, time, 25)
        walk = jax.vmap(lambda key: brownian_motion(key, pullback(sphere), z0, ts))(keys)
        return jax.vmap(sphere)(walk.zs[:, -1]), walk.ok

    x, ok = jax.jit(jax.vmap(places))(jnp.array([1.0, 0.0, -1.0, 2.0]))
    assert ok.all()
    error = x.std(1) / COUNT**0.5
    off = jnp.abs(x.mean(1) - jnp.exp(-time) * sphere(z0))
    assert (off[0] < 4 * error[0] + 1e-3).all()
    assert (off[1:] > 5 * error[1:] + 1e-3).any(1).all()


@pytest.mark.slow
def test_the_distance_in_three_dimensions_spreads_as_its_curvature_says(key):
    """E cos r = exp(-3t/2) on the sphere, and E cosh r = exp(3t/2) in hyperbolic space."""
    keys = jax.random.split(key, COUNT)

    def cosine(curvature):
        metric = conformal(lambda z: 4 / (1 + curvature * z @ z) ** 2)
        ts = jnp.linspace(0.0, 0.2, 41)
        walk = jax.vmap(lambda key: brownian_motion(key, metric, jnp.zeros(3), ts))(keys)
        square = curvature * (walk.zs[:, -1] ** 2).sum(-1)
        return (1 - square) / (1 + square)

    value = jax.jit(jax.vmap(cosine))(jnp.array([1.0, -1.0]))
    error = value.std(1) / COUNT**0.5
    expected = np.exp([-0.3, 0.3])
    assert (jnp.abs(value.mean(1) - expected) < 4 * error + 3e-3).all()
    assert (error < 1e-2).all()


def test_in_flat_space_it_is_a_gaussian_of_the_inverse_metric(key, dtype):
    matrix = jnp.array([[2.0, 0.6], [0.6, 0.5]], dtype)
    z0, time = jnp.array([1.0, -1.0], dtype), 0.7
    walk = walks(key, lambda z: matrix, z0, jnp.array([0.0, time / 3, time], dtype), substeps=2)
    assert walk.zs.shape == (COUNT, 3, 2)
    assert walk.zs.dtype == dtype
    assert_allclose(walk.zs[:, 0], jnp.broadcast_to(z0, (COUNT, 2)))
    expected = time * np.linalg.inv(matrix)
    assert_allclose(walk.zs[:, -1].mean(0), z0, atol=4 * np.sqrt(expected.max() / COUNT))
    assert_allclose(np.cov(walk.zs[:, -1].T), expected, atol=0.06 * expected.max())
    middle = np.cov(walk.zs[:, 1].T)
    assert_allclose(middle, expected / 3, atol=0.02 * expected.max())


@pytest.mark.slow
def test_a_walk_off_the_manifold_is_flagged_and_finite(key):
    edge = lambda z: jnp.eye(2) * jnp.where(jnp.abs(z[0]) < 0.5, 1.0, jnp.nan)  # noqa: E731
    walk = walks(key, edge, jnp.zeros(2), jnp.linspace(0.0, 1.0, 11))
    assert 0 < walk.ok.mean() < 1
    assert jnp.isfinite(walk.zs).all()


@pytest.mark.slow
def test_a_step_factors_the_metric_once(key):
    """Two batched factorisations at a time can wait for each other for ever, on two threads."""
    metric = conformal(lambda z: 4 / (1 + z @ z) ** 2)
    walk = jax.vmap(lambda key: brownian_motion(key, metric, jnp.zeros(3), jnp.arange(3.0)))
    program = jax.jit(walk).lower(jax.random.split(key, 4)).compile().as_text()
    if jax.default_backend() == "cpu":
        assert program.count('custom_call_target="lapack_spotrf_ffi"') == 1
        assert program.count('custom_call_target="lapack_strsm_ffi"') == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"z0": jnp.zeros((2, 2))}, "z0 must be one vector"),
        ({"ts": jnp.zeros(1)}, "ts must be a vector of at least two"),
        ({"ts": jnp.array([0.0, 1.0, 1.0])}, "ts must only increase"),
        ({"substeps": 0}, "substeps must be at least 1, got 0"),
        ({"metric": lambda z: jnp.eye(3)}, r"metric must.*\(2, 2\).*\(3, 3\)"),
    ],
)
def test_what_is_no_walk_is_refused(options, says, key):
    valid = {"metric": lambda z: jnp.eye(2), "z0": jnp.zeros(2), "ts": jnp.array([0.0, 1.0])}
    with pytest.raises(ValueError, match=says):
        brownian_motion(key, **(valid | options))
