"""Parallel transport keeps lengths and angles, and turns by the curvature it goes around."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry.metrics import inner, pullback
from latent_flows.geometry.transport import parallel_transport


def sphere(z):
    theta, phi = z
    ring = jnp.sin(theta)
    return jnp.stack([ring * jnp.cos(phi), ring * jnp.sin(phi), jnp.cos(theta)])


def test_holonomy_round_a_latitude(dtype):
    def turned(theta):
        circle = lambda s: jnp.stack([theta, 2 * jnp.pi * s])  # noqa: E731
        start = jnp.array([1.0, 0.0], dtype)
        w = parallel_transport(pullback(sphere), circle, start)
        return jnp.stack([w[0], jnp.sin(theta) * w[1]])  # in the orthonormal frame

    thetas = jnp.array([0.5, 1.2, np.pi / 2], dtype)
    angle = 2 * np.pi * np.cos(np.asarray(thetas))
    expected = np.stack([np.cos(angle), -np.sin(angle)], 1)
    tolerance = 1e-2 if dtype == jnp.float32 else 1e-3
    assert_allclose(jax.jit(jax.vmap(turned))(thetas), expected, atol=tolerance)


def test_lengths_and_angles_are_kept_and_the_way_back_undoes_it(key, x64):
    metric = pullback(lambda z: jnp.concatenate([z, jnp.sin(2 * z) * z[::-1]]))
    curve = lambda s: jnp.stack([jnp.sin(3 * s), s**2 - 1, jnp.cos(2 * s)])  # noqa: E731
    u, v = jax.random.normal(key, (2, 3), x64)

    @jax.jit
    def carry(w):
        there = parallel_transport(metric, curve, w)
        return there, parallel_transport(metric, lambda s: curve(1 - s), there)

    (u1, u2), (v1, v2) = carry(u), carry(v)
    start, end = jnp.zeros((), x64), jnp.ones((), x64)
    for a, b, a1, b1 in ((u, u, u1, u1), (u, v, u1, v1)):
        assert_allclose(
            inner(metric, curve(end), a1, b1), inner(metric, curve(start), a, b), rtol=1e-6
        )
    assert jnp.linalg.norm(u1 - u) > 0.1
    assert_allclose(u2, u, rtol=1e-6)
    assert_allclose(v2, v, rtol=1e-6)


@pytest.mark.slow
def test_up_the_half_plane_vectors_grow_with_the_height(x64):
    metric = lambda z: jnp.eye(2, dtype=z.dtype) / z[1] ** 2  # noqa: E731
    up = lambda s: jnp.stack([jnp.zeros_like(s), 2**s])  # noqa: E731
    v = jnp.array([0.3, -0.4], x64)
    first = lambda v: parallel_transport(metric, up, v)[0]  # noqa: E731
    w, slope = jax.jit(jax.value_and_grad(first))(v)
    assert_allclose(w, 0.6, rtol=1e-4)
    assert_allclose(slope, [2, 0], rtol=1e-4, atol=1e-6)


def test_what_cannot_be_carried_is_refused():
    flat = lambda z: jnp.eye(2, dtype=z.dtype)  # noqa: E731
    with pytest.raises(ValueError, match=r"v must.*\(2,\).*\(3,\)"):
        parallel_transport(flat, lambda s: jnp.stack([s, s]), jnp.ones(3))
    with pytest.raises(ValueError, match="tolerance must be positive"):
        parallel_transport(flat, lambda s: jnp.stack([s, s]), jnp.ones(2), tolerance=0.0)
    broken = lambda z: jnp.eye(2, dtype=z.dtype) * jnp.sqrt(0.5 - z[0])  # noqa: E731
    with pytest.raises(Exception, match="could not be carried"):
        parallel_transport(broken, lambda s: jnp.stack([s, s]), jnp.ones(2))
