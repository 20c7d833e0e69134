"""The SNGAN: agreement with the published generator, and what its training relies on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import sngan
from latent_flows.generators.sngan import SNGAN, Discriminator, key_names
from latent_flows.generators.weights import from_state_dict
from tests.generators import recorded_runs

RUNS = ("sngan_32", "sngan_64")
SMALL = SNGAN(channels=(4, 4, 3), latent_dim=5)


@pytest.fixture(scope="module")
def small():
    return jax.jit(SMALL.init)(jax.random.key(0), jnp.zeros(5))


@pytest.mark.parametrize("name", RUNS)
def test_images_are_those_of_the_published_generator(name):
    run = recorded_runs.read(name)
    net = SNGAN(**run.settings)
    variables = from_state_dict(net, key_names(net), run.state)
    images = jax.jit(jax.vmap(lambda z: net.apply(variables, z)))(run.z)
    assert images.shape[1:] == (net.resolution, net.resolution, net.image_channels)
    found = np.asarray(images)[:, :: run.step, :: run.step]
    np.testing.assert_allclose(found, run.images, rtol=0, atol=1e-4)
    assert run.images.std() > 0.1


def test_a_state_dict_may_have_the_convolutions_under_either_name_or_both():
    run = recorded_runs.read("sngan_32")
    net = SNGAN(**run.settings)
    other = {
        key.replace(".conv1.", ".model.3.").replace(".conv2.", ".model.6."): value
        for key, value in run.state.items()
    }
    assert set(other) != set(run.state)
    expected = from_state_dict(net, key_names(net), run.state)
    for state in (other, run.state | other):
        found = from_state_dict(net, key_names(net), state)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", sngan.PRESETS)
def test_every_variable_of_a_preset_has_a_name(name):
    net = sngan.PRESETS[name]
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(net.latent_dim))
    paths = {
        tuple(part.key for part in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert {target.path for target in key_names(net).values()} == paths


@pytest.mark.slow
def test_a_batch_is_its_latents_one_by_one(small, key):
    z = jax.random.normal(key, (2, 3, 5))
    apply = jax.jit(lambda z: SMALL.apply(small, z))
    one_by_one = jax.vmap(jax.vmap(apply))(z)
    np.testing.assert_allclose(apply(z), one_by_one, atol=1e-6)


def test_training_normalises_by_the_batch_and_moves_the_running_statistics(small, key):
    z = jax.random.normal(key, (16, 5))

    @jax.jit
    def train(stats):
        variables = {**small, "batch_stats": stats}
        return SMALL.apply(variables, z, train=True, mutable=["batch_stats"])

    images, changed = train(small["batch_stats"])
    again, _ = train(jax.tree.map(lambda x: x + 1, small["batch_stats"]))
    np.testing.assert_array_equal(images, again)
    stats = changed["batch_stats"]
    for _ in range(60):
        stats = train(stats)[1]["batch_stats"]
    settled = jax.jit(SMALL.apply)({**small, "batch_stats": stats}, z)
    # Inference by the statistics of the one batch there ever was is training on it.
    np.testing.assert_allclose(settled, images, atol=5e-2)


@pytest.mark.parametrize(
    ("z", "train", "message"),
    [
        (jnp.zeros(4), False, r"z must have shape \[5\], got \[4\]"),
        (jnp.zeros(()), False, r"z must have shape \[5\], got \[\]"),
        (jnp.zeros(5), True, "train=True needs a batch"),
    ],
)
def test_a_latent_of_another_shape_is_refused(small, z, train, message):
    with pytest.raises(ValueError, match=message):
        SMALL.apply(small, z, train=train)


@pytest.mark.parametrize("size", [28, 9])
def test_the_discriminator_scores_images_of_any_size_by_all_of_their_pixels(size, key):
    net = Discriminator(channels=(2, 2, 2))
    x = jax.random.normal(key, (size, size, 1))
    variables = jax.jit(net.init)(key, x)
    gradient = jax.jit(jax.grad(lambda x: net.apply(variables, x)))(x)
    assert (np.abs(gradient) > 0).mean() > 0.9


def test_settings_are_those_of_the_published_generators():
    assert {name: net.resolution for name, net in sngan.PRESETS.items()} == {
        "sngan-mnist": 32,
        "sngan-animefaces": 64,
    }
    assert dataclasses.replace(SMALL, channels=(2,) * 6).resolution == 128
