"""The benchmark of geodesics: its rival is right, and all sides are measured alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.geodesics import (
    FINE,
    Stochman,
    decoder,
    ends,
    georce,
    has_stochman,
    many,
    reached,
    sample,
    stochman_points,
)
from latent_flows.geometry.curves import straight
from latent_flows.geometry.metrics import conformal, pullback


def test_georce_finds_hyperbolic_geodesics(x64):
    metric = conformal(lambda z: 1 / z[1] ** 2)
    z0, z1 = jnp.array([[-1.0, 1.0]]), jnp.array([[1.0, 1.0]])
    points, converged, iterations = jax.jit(many(lambda *z: georce(metric, *z, segments=40)))(
        z0, z1
    )
    assert converged.all()
    assert 1 < iterations[0] < 50
    np.testing.assert_allclose(jnp.linalg.norm(points[0], axis=1), np.sqrt(2), rtol=0.02)


@pytest.mark.slow
def test_a_flat_immersion_has_the_energy_of_a_line_and_no_gradient():
    metric = pullback(lambda z: 2 * z)
    z0, z1 = ends(jax.random.key(0), 3, 2)
    points = jax.vmap(lambda z0, z1: straight(z0, z1, 7))(z0, z1)
    found = reached(metric, sample(points, FINE), points, 1.0)
    np.testing.assert_allclose(found.energy, 2 * ((z1 - z0) ** 2).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(found.gradient, 0, atol=1e-4)


@pytest.mark.skipif(not has_stochman(), reason="stochman is not installed")
def test_stochman_sees_the_same_decoder():
    decode = decoder(jax.random.key(0), 2, (4, 5), 2.0)
    z0, z1 = ends(jax.random.key(1), 3, 2)
    curve, _ = Stochman(decode, z0, z1)()
    points = stochman_points(curve, 9)
    np.testing.assert_allclose(points[:, 0], z0, atol=1e-5)
    np.testing.assert_allclose(points[:, -1], z1, atol=1e-5)
    metric = pullback(decode)
    before = reached(metric, sample(jax.vmap(lambda *z: straight(*z, 8))(z0, z1), 33), points, 0)
    after = reached(metric, jnp.asarray(stochman_points(curve, 33)), points, 0)
    assert (after.energy <= before.energy * 1.001).all()
    assert after.energy.sum() < before.energy.sum()
