"""Factors of matrices that do not wait for each other."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows._factors import cholesky, inverse_of, log_volume

SEVERAL = """
import jax
import jax.numpy as jnp
from latent_flows import directions, steering

weights = jax.random.normal(jax.random.key(0), (8 * 8, 64)) / 8
generator = lambda z: jnp.tanh(weights @ z).reshape(8, 8, 1)
moves = (directions.translate_x, directions.translate_y, directions.zoom)
fields = [steering.transformation_field(generator, move, blur=0.0) for move in moves]
together = jax.jit(jax.vmap(lambda z: [field(0.0, z) for field in fields]))
zs = jax.random.normal(jax.random.key(1), (64, 64))
for _ in range(20):
    found = jax.block_until_ready(together(zs))
assert all(jnp.isfinite(each).all() for each in found)
"""


def positive(rows):
    return rows @ rows.T + jnp.eye(len(rows))


def summed(solve, rows):
    return jnp.sum(jnp.sin(solve(positive(rows), rows[0])))


@pytest.fixture
def rows(x64, key):
    return jax.random.normal(key, (5, 4, 4))


def test_the_factor_is_that_of_numpy(rows):
    matrices = jax.vmap(positive)(rows)
    expected = np.linalg.cholesky(matrices)
    np.testing.assert_allclose(cholesky(matrices[0]), expected[0], rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(cholesky)(matrices), expected, rtol=1e-12)
    twice = jax.jit(jax.vmap(jax.vmap(cholesky)))(matrices[None])
    np.testing.assert_allclose(twice[0], expected, rtol=1e-12)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev, jax.hessian])
def test_derivatives_are_those_of_a_plain_solution(derivative, rows):
    plain = lambda matrix, b: jax.scipy.linalg.solve(matrix, b, assume_a="pos")  # noqa: E731
    found, expected = (
        jax.vmap(derivative(lambda rows, solve=solve: summed(solve, rows)))(rows)
        for solve in (lambda matrix, b: inverse_of(matrix)(b), plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_what_is_not_positive_has_none():
    assert jnp.isnan(cholesky(-jnp.eye(2))).any()


@pytest.mark.slow
def test_several_fields_in_one_program_end_on_two_cores():
    """With batched factors they did not: a thread that factorises waited for one that did too."""
    environment = os.environ | {"NPROC": "2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", SEVERAL], env=environment, timeout=120, check=True)


def test_volumes_and_their_slopes_are_those_of_the_determinant():
    several = jax.random.normal(jax.random.key(0), (5, 4, 4))
    ours = jax.vmap(log_volume)
    theirs = lambda many: jnp.linalg.slogdet(many)[1]  # noqa: E731
    np.testing.assert_allclose(ours(several), theirs(several), rtol=1e-5)
    slopes = [jax.grad(lambda x, of=of: of(x).sum())(several) for of in (ours, theirs)]
    np.testing.assert_allclose(*slopes, rtol=2e-4, atol=1e-5)
