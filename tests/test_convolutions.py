"""Convolutions with channels last compute what they did, in a layout that loops are fast in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

from latent_flows._convolutions import channels_last
from latent_flows.generators.layers import Conv, DownConv, UpConv


def layouts(function, *args):
    """The axes of images and kernels in all convolutions of a function."""

    def of(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "conv_general_dilated":
                yield eqn.params["dimension_numbers"]
            for inner in jaxprs_in_params(eqn.params):
                yield from of(inner)

    return set(of(jax.make_jaxpr(function)(*args).jaxpr))


USUAL = lax.conv_dimension_numbers((1, 8, 8, 2), (3, 3, 2, 2), ("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("layer", [Conv, UpConv, DownConv])
def test_the_slope_of_a_layer_is_the_same_and_all_its_convolutions_are_of_one_layout(layer, key):
    net, images = layer(3), jax.random.normal(key, (2, 8, 8, 2))
    params = net.init(key, images[0])
    slope = jax.vmap(jax.grad(lambda x: (jax.jit(net.apply)(params, x) ** 2).sum()))
    assert len(layouts(slope, images)) > 1
    assert layouts(channels_last(slope), images) == {USUAL}
    np.testing.assert_allclose(channels_last(slope)(images), slope(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"window_strides": (2, 1)},
        {"lhs_dilation": (2, 1)},
        {"rhs_dilation": (1, 2)},
        {"feature_group_count": 2},
        {"batch_group_count": 2},
    ],
)
def test_strides_dilations_and_groups_are_kept_whatever_the_layout(settings, key):
    settings = {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), **settings}
    images = jax.random.normal(key, (2, 4, 6, 5))
    kernel = jax.random.normal(key, (4, 4 // settings.get("feature_group_count", 1), 3, 3))

    def convolved(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, dimension_numbers=("NCHW", "OIHW", "NCHW"), **settings
        )

    plain = channels_last(convolved)
    assert layouts(plain, images, kernel) == {USUAL}
    wanted = convolved(images, kernel)
    np.testing.assert_allclose(plain(images, kernel), wanted, rtol=1e-5, atol=1e-5)


def test_what_has_no_convolution_is_left_as_it_is():
    def function(x):
        return {"sum": lax.scan(lambda total, y: (total + y, None), 0.0, x)[0], "none": ()}

    assert channels_last(function)(jnp.arange(4.0)) == {"sum": 6.0, "none": ()}


def test_loops_and_branches_beside_a_convolution_are_computed():
    def function(x):
        smooth = jnp.convolve(x, jnp.ones(2))
        grown = lax.fori_loop(0, 3, lambda _, y: 2 * y, smooth)
        return lax.cond(x[0] > 0, jnp.sum, jnp.max, grown)

    plain = jax.jit(channels_last(function))
    for sign in (1.0, -1.0):
        assert plain(sign * jnp.arange(1.0, 4.0)) == function(sign * jnp.arange(1.0, 4.0))
