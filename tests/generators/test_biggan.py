"""The BigGAN: agreement with the published generator, classes and conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import biggan
from latent_flows.generators.biggan import BigGAN, key_names
from latent_flows.generators.weights import from_state_dict
from tests.generators import recorded_runs
from tests.rest_slow import rest_slow

RUNS = ("biggan_128", "biggan_256", "biggan_whole", "biggan_separate")


def load(name):
    run = recorded_runs.read(name)
    net = BigGAN(**run.settings)
    return run, net, from_state_dict(net, key_names(net), run.state)


@pytest.fixture(scope="module")
def whole():
    return load("biggan_whole")


@pytest.mark.parametrize("name", rest_slow(RUNS, every=4))
def test_images_are_those_of_the_published_generator(name):
    run, net, variables = load(name)
    images = jax.jit(lambda z, label: net.apply(variables, z, label))(run.z, run.label)
    found = np.asarray(images)[:, :: run.step, :: run.step]
    np.testing.assert_allclose(found, run.images, rtol=0, atol=1e-4)
    assert run.images.std() > 0.1


@pytest.mark.slow
def test_one_latent_and_one_class_give_one_image_of_the_batch(whole):
    run, net, variables = whole
    image = jax.jit(net.apply)(variables, run.z[1], int(run.label[1]))
    assert image.shape == (64, 64, 3)
    np.testing.assert_allclose(image[:: run.step, :: run.step], run.images[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["biggan_128", "biggan_separate"])
def test_an_embedded_class_is_that_class(name):
    run, net, variables = load(name)
    condition = net.apply(variables, run.label, method=net.embed)
    images = jax.jit(net.apply)(variables, run.z, condition)
    found = images[:, :: run.step, :: run.step]
    np.testing.assert_allclose(found, run.images, rtol=0, atol=1e-4)


def test_the_statistics_may_have_either_of_their_names(whole):
    run, net, variables = whole
    renamed = {key.replace(".stored_", ".bn.stored_"): value for key, value in run.state.items()}
    assert set(renamed) != set(run.state)
    found = from_state_dict(net, key_names(net), renamed)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


@pytest.mark.parametrize("name", rest_slow(biggan.PRESETS, every=3))
def test_every_variable_of_a_preset_has_a_name(name):
    net = biggan.PRESETS[name]
    variables = jax.eval_shape(net.init, jax.random.key(0), *net.example_inputs())
    paths = {
        tuple(part.key for part in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert {target.path for target in key_names(net).values()} == paths
    image = jax.eval_shape(net.apply, variables, *net.example_inputs())
    assert image.shape == (net.resolution, net.resolution, 3)


@pytest.mark.parametrize(
    ("z", "label", "message"),
    [
        (jnp.zeros(4), 0, r"z must have shape \[5\], got \[4\]"),
        (jnp.zeros(5), 4, r"label must lie in \[0, 4\), got 4"),
        (jnp.zeros(5), -1, r"label must lie in \[0, 4\), got -1"),
        (jnp.zeros(5), jnp.zeros(3), r"label must be an integer or have shape \[6\], got \[3\]"),
        (jnp.zeros((2, 5)), 1, r"label must be an integer or have shape \[2, 6\]"),
    ],
)
def test_what_is_no_latent_or_class_is_refused(whole, z, label, message):
    _, net, variables = whole
    with pytest.raises(ValueError, match=message):
        net.apply(variables, z, label)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 100}, r"resolution must be one of \[32, 64, 128, 256, 512\], got 100"),
        ({"latent_dim": 121}, "latent_dim must be a multiple of 6, .* got 121"),
        ({"shared": False}, "split=True needs shared=True"),
        ({"channels": 1}, "self-attention needs at least 8 channels, got 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    net = BigGAN(**settings)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(net.latent_dim), 0)
