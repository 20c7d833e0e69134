"""Principal directions are the singular vectors of the Jacobian, and keep their identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry import local_traversals, principal_directions

LONG = 96


def bent(key, dim, dtype):
    first, second = jax.random.split(key)
    w = jax.random.normal(first, (dim, 40), dtype) * jnp.exp(-jnp.arange(40) / 6).astype(dtype)
    v = jax.random.normal(second, (40, 50), dtype)
    return lambda z: (jnp.tanh(z @ w) @ v).reshape(5, 10)


@pytest.mark.parametrize("dim", [6, LONG])
def test_they_are_the_leading_singular_vectors_formed_or_not(dim, key, dtype):
    f = bent(key, dim, dtype)
    z = 0.1 * jax.random.normal(key, (dim,), dtype)
    found = jax.jit(lambda z: principal_directions(f, z, 3))(z)
    _, values, vectors = np.linalg.svd(jax.jacfwd(lambda z: f(z).ravel())(z))
    tolerance = 1e-5 if dtype == jnp.float64 else 2e-3
    assert found.directions.dtype == dtype
    assert_allclose(found.gains, values[:3], rtol=tolerance)
    assert_allclose(jnp.abs(found.directions @ vectors[:3].T), np.eye(3), atol=tolerance * 10)
    assert_allclose(found.directions @ found.directions.T, np.eye(3), atol=1e-5)
    peaks = np.take_along_axis(
        np.asarray(found.directions), np.abs(found.directions).argmax(1)[:, None], 1
    )
    assert (peaks > 0).all()


def test_a_long_latent_costs_no_jacobian(key):
    f = bent(key, LONG, jnp.float32)
    text = jax.jit(lambda z: principal_directions(f, z, 2)).lower(jnp.zeros(LONG)).as_text()
    assert f"{LONG}x50x" not in text
    assert f"{LONG}x5x10" not in text


def test_a_batch_of_latents_is_mapped(key):
    f = bent(key, LONG, jnp.float32)
    zs = 0.1 * jax.random.normal(key, (3, LONG))
    found = jax.jit(jax.vmap(lambda z: principal_directions(f, z, 2)))(zs)
    alone = jax.jit(lambda z: principal_directions(f, z, 2))(zs[1])
    assert_allclose(found.gains[1], alone.gains, rtol=1e-3)


def test_a_path_keeps_its_direction_where_gains_cross():
    """Far out the second axis shows more than the first, and the path goes on along the first."""

    def f(z):
        return jnp.stack([3 * z[0], z[1] * (1 + 2 * z[0] ** 2), 0.1 * z[2]])

    def walk(z):
        return local_traversals(f, z, 2, steps=12, length=3.0)

    paths = jax.jit(walk)(jnp.zeros(3))
    assert_allclose(paths.zs[0, -1], [3.0, 0.0, 0.0], atol=1e-4)
    assert_allclose(paths.gains[0], 3.0, rtol=1e-4)
    crossed = principal_directions(f, paths.zs[0, -1], 1)
    assert_allclose(crossed.directions[0], [0.0, 1.0, 0.0], atol=1e-4)


def test_a_path_turns_with_the_generator():
    """Along the circle that a ring's direction follows, it stays on the ring."""

    def f(z):
        radius, angle = jnp.hypot(z[0], z[1]), jnp.arctan2(z[1], z[0])
        return jnp.stack([4 * jnp.cos(angle), 4 * jnp.sin(angle), 0.3 * radius])

    quarter = jnp.pi / 2
    paths = local_traversals(f, jnp.array([1.0, 0.0]), 1, steps=32, length=float(quarter))
    assert_allclose(jnp.linalg.norm(paths.zs[0], axis=1), 1.0, atol=1e-3)
    assert_allclose(jnp.abs(paths.zs[0, -1]), [0.0, 1.0], atol=2e-3)


@pytest.mark.parametrize("count", [0, 4])
def test_more_directions_than_the_latent_has_are_refused(count):
    with pytest.raises(ValueError, match="count must be from 1 to the latent's length, 3, got"):
        principal_directions(jnp.sin, jnp.zeros(3), count)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        local_traversals(jnp.sin, jnp.zeros(3), 1, steps=0)
