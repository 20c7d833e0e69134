import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows._transforms import in_chunks, vmap_chunked
from tests.rest_slow import rest_slow


@pytest.mark.parametrize("effort", [None, lambda x: -x[:, 0], lambda x: (7 * x[:, 1]) % 5])
@pytest.mark.parametrize("n", rest_slow([1, 3, 4, 8, 9, 5], every=2))
def test_batches_and_their_order_change_nothing(n, effort):
    x = jnp.arange(2.0 * n).reshape(n, 2)
    np.testing.assert_array_equal(vmap_chunked(jnp.sum, 4, effort=effort)(x), x.sum(1))


def test_elements_of_like_effort_share_a_batch():
    @jax.custom_batching.custom_vmap
    def slowest(x):
        return x

    @slowest.def_vmap
    def _(size, batched, x):
        return jnp.full_like(x, x.max()), True

    steps = jnp.array([1, 9, 2, 8, 1, 9])
    np.testing.assert_array_equal(vmap_chunked(slowest, 2)(steps), [9, 9, 8, 8, 9, 9])
    sorted_batches = vmap_chunked(slowest, 2, effort=lambda x: x)
    np.testing.assert_array_equal(sorted_batches(steps), [1, 9, 8, 8, 1, 9])


def test_trees_and_keys_are_batched():
    keys, points = jax.random.split(jax.random.key(0), 5), {"a": jnp.arange(5.0)}
    function = lambda key, point: {"b": jax.random.normal(key) + point["a"]}  # noqa: E731
    np.testing.assert_allclose(
        vmap_chunked(function, 2)(keys, points)["b"],
        jax.vmap(function)(keys, points)["b"],
        rtol=1e-5,
    )


def test_a_batch_holds_something():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        vmap_chunked(jnp.sum, 0)


@pytest.mark.parametrize("n", [3, 9])
def test_results_without_numbers_are_kept(n):
    found = vmap_chunked(lambda x: (x, jnp.zeros((0, 2))), 4)(jnp.arange(float(n)))
    assert [leaf.shape for leaf in found] == [(n,), (n, 0, 2)]


def test_what_was_traced_first_is_computed_afterwards():
    """What a trace closed over ends with it."""
    table = np.arange(6.0).reshape(3, 2)
    double = in_chunks(lambda i: jnp.asarray(table)[i], 2)
    places = jnp.array([2, 0, 1])
    assert jax.eval_shape(lambda: double(places)).shape == (3, 2)
    np.testing.assert_array_equal(jax.jit(double)(places), table[[2, 0, 1]])
    np.testing.assert_array_equal(double(places), table[[2, 0, 1]])
