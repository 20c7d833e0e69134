"""Leading eigenvectors by products alone: known matrices, equal values, few of them, and none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows.geometry._krylov import leading
from tests.rest_slow import rest_slow

DIM, COUNT = 200, 5


def found(values, count=COUNT):
    """What is found of a matrix with such eigenvalues, its true vectors, and the products it took.

    A product of a block is counted once for each column.
    """
    turn = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (DIM, DIM)))[0]
    taken = []

    def times(block):
        jax.debug.callback(lambda: taken.append(block.shape[1]))
        return turn @ (values[:, None] * (turn.T @ block))

    first = jax.random.normal(jax.random.key(0), (DIM, count))
    got = jax.block_until_ready(jax.jit(lambda first: leading(times, first))(first))
    jax.effects_barrier()
    return *got, turn[:, :count], sum(taken)


@pytest.mark.parametrize("decay", rest_slow([0.95, 0.5], every=2))
def test_the_leading_values_are_found_in_few_products(decay):
    wanted = decay ** jnp.arange(DIM, dtype=jnp.float32)
    values, vectors, truth, taken = found(wanted)
    assert_allclose(values, wanted[:COUNT], rtol=1e-3)
    assert_allclose(np.abs(vectors.T @ truth), np.eye(COUNT), atol=0.02)
    assert taken <= 12 * COUNT


def test_equal_values_are_all_found():
    wanted = jnp.ones(DIM).at[:4].set(9.0).at[4].set(4.0)
    values, vectors, _, _ = found(wanted)
    assert_allclose(values, wanted[:COUNT], rtol=1e-3)
    assert_allclose(vectors.T @ vectors, np.eye(COUNT), atol=1e-4)


@pytest.mark.parametrize("rank", [0, 2])
def test_where_fewer_values_are_not_zero_vectors_are_orthonormal_all_the_same(rank):
    values, vectors, _, _ = found(jnp.zeros(DIM).at[:rank].set(3.0))
    assert_allclose(values, [3.0] * rank + [0.0] * (COUNT - rank), atol=1e-4)
    assert_allclose(vectors.T @ vectors, np.eye(COUNT), atol=1e-4)
