"""What a pair classifier sees, and that it takes one pair or many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import classifiers
from latent_flows.classifiers import (
    LeNet,
    PairClassifier,
    ResNet18,
    VectorPairClassifier,
    number_scales,
    pair_features,
    shrink,
    space_to_depth,
    vector_features,
)


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


def test_images_are_shrunk_to_the_side_asked_for(key):
    before, after = jax.random.uniform(key, (2, 16, 16, 1))
    assert pair_features(before, after, side=8).shape == (8, 8, 2)
    np.testing.assert_allclose(shrink(before, 4).mean(), before.mean(), rtol=1e-5)


def test_features_of_vectors_do_not_depend_on_the_units_of_their_numbers(key):
    before, after = jax.random.normal(key, (2, 50, 3))

    def features(before, after):
        return vector_features(before, after, *number_scales(before), gain=2.0)

    own = features(before, after)
    np.testing.assert_allclose(own[:, :3].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(own[:, :3].std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(own[:, 3:], 2 * (after - before) / before.std(0), rtol=1e-4)
    units, shift = jnp.array([0.1, 1.0, 7.0]), jnp.array([5.0, 0.0, -50.0])
    other = features(units * before + shift, units * after + shift)
    np.testing.assert_allclose(other, own, atol=1e-3)


def test_numbers_that_hardly_vary_are_not_blown_up():
    samples = jnp.array([[0.0, 3.0, 1.0], [2.0, 3.0, 1.0 + 1e-6]])
    mean, scale = number_scales(samples)
    np.testing.assert_allclose(scale, [1, 1e-3, 1e-3], rtol=1e-5)
    np.testing.assert_allclose(mean[:2], [1, 3])
    np.testing.assert_array_equal(number_scales(jnp.ones((4, 2)))[1], 1)
    with pytest.raises(ValueError, match=r"floating-point.*int32"):
        vector_features(jnp.arange(3), jnp.arange(3), jnp.zeros(3), jnp.ones(3))


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (PairClassifier(width=4, classes=5), (9, 8, 2)),
        (LeNet(classes=5), (9, 8, 2)),
        (VectorPairClassifier(width=8, classes=5), (7,)),
        pytest.param(ResNet18(classes=5, width=8), (64, 72, 2), marks=pytest.mark.slow),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_pair_and_many_are_classified_alike(net, shape, key):
    pairs = jax.random.normal(key, (2, 3, *shape))
    params = jax.jit(net.init)(key, pairs[0, 0])
    together = jax.jit(net.apply)(params, pairs)
    assert together.shape == (2, 3, 5)
    mapped = jax.jit(jax.vmap(jax.vmap(lambda pair: net.apply(params, pair))))(pairs)
    np.testing.assert_allclose(mapped, together, rtol=1e-4, atol=1e-5)
    assert jnp.std(together) > 0


@pytest.mark.slow
def test_a_narrow_resnet_sees_small_images(key):
    net = ResNet18(classes=3, width=4)
    pairs = jax.random.normal(key, (2, 9, 8, 2))
    assert jnp.std(jax.jit(net.apply)(jax.jit(net.init)(key, pairs[0]), pairs)) > 0


def test_lenet_makes_do_with_small_images_and_refuses_tiny_ones(key):
    net = LeNet(classes=3)
    for side in (8, 12, 28, 64):
        shapes = jax.eval_shape(net.init, key, jnp.zeros((side, side, 2)))
        assert jax.eval_shape(net.apply, shapes, jnp.zeros((side, side, 2))).shape == (3,)
    with pytest.raises(ValueError, match="lenet needs images of at least 8 pixels a side"):
        jax.eval_shape(net.init, key, jnp.zeros((4, 9, 2)))


def test_resnet18_has_the_weights_of_its_paper(key):
    """11.2 million for three colours and 512 x 1000 more for ImageNet's classes."""
    shapes = jax.eval_shape(ResNet18(classes=1000).init, key, jnp.zeros((64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 11_689_512
