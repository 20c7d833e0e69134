"""Block elimination agrees with the dense solution, and probes find the blocks again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.geometry._block_tridiagonal import from_product, solve


def dense(diagonal, upper):
    m, d = diagonal.shape[:2]
    whole = np.zeros((m, d, m, d))
    for i in range(m):
        whole[i, :, i] = diagonal[i]
    for i in range(m - 1):
        whole[i, :, i + 1] = upper[i]
        whole[i + 1, :, i] = upper[i].T
    return whole.reshape(m * d, m * d)


def random(key, m, d, dtype, shift):
    square, upper, right = (
        jax.random.normal(k, shape, dtype)
        for k, shape in zip(
            jax.random.split(key, 3), [(m, d, d), (m - 1, d, d), (m, d)], strict=True
        )
    )
    return square + square.mT + shift * jnp.eye(d, dtype=dtype), upper, right


@pytest.mark.parametrize(("m", "d"), [(1, 2), (2, 1), (6, 3)])
def test_definite_systems_are_solved(key, dtype, m, d):
    diagonal, upper, right = random(key, m, d, dtype, 12)
    found = jax.jit(solve)(diagonal, upper, right)
    wanted = np.linalg.solve(dense(diagonal, upper), right.ravel())
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-4 if dtype == "float32" else 1e-12)


def test_indefinite_systems_are_solved_only_when_told(key, x64):
    diagonal, upper, right = random(key, 5, 2, x64, 0)
    assert not jnp.isfinite(solve(diagonal, upper, right)).all()
    found = solve(diagonal, upper, right, definite=False)
    wanted = np.linalg.solve(dense(diagonal, upper), right.ravel())
    np.testing.assert_allclose(found.ravel(), wanted, rtol=1e-8)


@pytest.mark.parametrize(("m", "d"), [(1, 2), (2, 3), (7, 2)])
def test_blocks_are_found_again_from_products(key, m, d):
    diagonal, upper, _ = random(key, m, d, jnp.float32, 0)
    whole = jnp.asarray(dense(diagonal, upper), jnp.float32)
    found = from_product(lambda x: (whole @ x.ravel()).reshape(x.shape), m, d, jnp.float32)
    np.testing.assert_allclose(found[0], diagonal, rtol=1e-6)
    np.testing.assert_allclose(found[1], upper, rtol=1e-6)
