"""What a pair classifier sees, and that it takes one pair or many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import classifiers
from latent_flows.classifiers import PairClassifier, pair_features, shrink, space_to_depth


def test_blocks_of_pixels_become_channels(key):
    x = jax.random.normal(key, (6, 4, 3))
    blocks = space_to_depth(x, 2)
    assert blocks.shape == (3, 2, 12)
    for i, j in np.ndindex(3, 2):
        patch = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
        np.testing.assert_array_equal(blocks[i, j], patch)


def test_a_side_that_the_block_does_not_divide_is_padded_by_zeros(key):
    x = jax.random.normal(key, (3, 5, 1))
    blocks = space_to_depth(x, 4)
    assert blocks.shape == (1, 2, 16)
    np.testing.assert_array_equal(blocks[0, 0].reshape(4, 4)[:3], x[:, :4, 0])
    np.testing.assert_array_equal(blocks[0, 0].reshape(4, 4)[3], 0)
    assert float(jnp.sum(blocks**2)) == pytest.approx(float(jnp.sum(x**2)), rel=1e-6)


@pytest.mark.parametrize(("side", "block"), [(32, 1), (34, 2), (64, 2), (128, 4)])
def test_large_images_become_means_of_their_blocks(key, side, block):
    x = jax.random.normal(key, (2, side, side, 3))
    means = x.reshape(2, side // block, block, side // block, block, 3).mean((2, 4))
    np.testing.assert_allclose(shrink(x), means, atol=1e-5)
    assert max(shrink(x).shape[1:3]) <= classifiers.MAX_SIDE


def test_features_are_the_first_image_and_the_change(key):
    before, after = jax.random.uniform(key, (2, 5, 8, 8, 1))
    found = pair_features(before, after, gain=3.0)
    assert found.shape == (5, 8, 8, 2)
    np.testing.assert_allclose(found[..., :1], before, rtol=1e-6)
    np.testing.assert_allclose(found[..., 1:], 3 * (after - before), atol=1e-6)
    assert not pair_features(before, before)[..., 1:].any()


def test_one_pair_and_many_are_classified_alike(key):
    pairs = jax.random.normal(key, (2, 3, 9, 7, 2))
    net = PairClassifier(width=4, classes=5)
    params = jax.jit(net.init)(key, pairs[0, 0])
    together = jax.jit(net.apply)(params, pairs)
    assert together.shape == (2, 3, 5)
    mapped = jax.jit(jax.vmap(jax.vmap(lambda pair: net.apply(params, pair))))(pairs)
    np.testing.assert_allclose(mapped, together, rtol=1e-4, atol=1e-5)
    assert jnp.std(together) > 0
