"""StyleGAN2: agreement with the published generator, and its three latent spaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import stylegan2
from latent_flows.generators.stylegan2 import (
    StyleGAN2,
    generator,
    key_names,
    mean_w,
    with_mean_w,
)
from latent_flows.generators.weights import from_state_dict
from tests.generators.recorded_arrays import STYLEGAN2 as NET
from tests.generators.recorded_arrays import Recorded
from tests.rest_slow import rest_slow


@pytest.fixture(scope="module")
def recorded():
    return Recorded("stylegan2_16")


@pytest.fixture(scope="module")
def variables(recorded):
    state = {**recorded.state, "latent_avg": recorded["mean"]}
    return from_state_dict(NET, key_names(NET), state)


@pytest.fixture(scope="module")
def synthesise(variables):
    """`(w, truncation, noise strength) -> image`, compiled once for all tests."""

    def run(w, truncation, noisy):
        noise = jax.tree.map(lambda leaf: noisy * leaf, variables["noise"])
        return NET.apply({**variables, "noise": noise}, w, truncation=truncation, method=NET.from_w)

    compiled = jax.jit(run)
    return lambda w, truncation=1.0, noisy=1.0: compiled(
        jnp.broadcast_to(w, (NET.style_count, NET.latent_dim)), truncation, noisy
    )


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_mapping_network_is_the_published_one(recorded, variables):
    w = [NET.apply(variables, z, method=NET.to_w) for z in recorded["z"]]
    assert_same(np.stack(w), recorded["w"])
    assert np.std(w) > 0.1


def test_images_are_those_of_the_published_generator(recorded, variables):
    compiled = jax.jit(generator(NET, variables))
    images = np.stack([compiled(z) for z in recorded["z"]])
    assert_same(images, recorded["image"])
    assert images.std() > 0.1


def test_images_without_noise_are_the_published_ones(recorded, variables):
    compiled = jax.jit(generator(NET, variables, noise="none"))
    assert_same(compiled(recorded["z"][0]), recorded["image_without_noise"][0])
    assert np.abs(recorded["image_without_noise"] - recorded["image"]).max() > 0.1


def test_truncated_images_are_the_published_ones(recorded, synthesise):
    for w, image in zip(recorded["w"], recorded["image_truncated"], strict=True):
        assert_same(synthesise(w, truncation=0.6), image)
    assert np.abs(recorded["image_truncated"] - recorded["image"]).max() > 0.1


def test_images_of_one_style_a_layer_are_the_published_ones(recorded, synthesise):
    assert_same(synthesise(recorded["styles"]), recorded["image_of_styles"][0])


def test_the_three_spaces_agree(recorded, variables):
    z = jnp.asarray(recorded["z"][0])
    w = NET.apply(variables, z, method=NET.to_w)
    plus = jnp.tile(w, NET.style_count)
    z_image, w_image, plus_image = jax.jit(
        lambda: [
            generator(NET, variables, space=space, truncation=0.7)(point)
            for space, point in (("z", z), ("w", w), ("w+", plus))
        ]
    )()
    np.testing.assert_allclose(z_image, w_image, atol=1e-5)
    np.testing.assert_allclose(plus_image, w_image, atol=1e-5)


def test_full_truncation_gives_the_image_of_the_mean(recorded, synthesise):
    image = synthesise(recorded["mean"])
    np.testing.assert_allclose(synthesise(recorded["w"][0], truncation=0.0), image, atol=1e-5)


def test_the_estimated_mean_is_that_of_many_styles(variables, key):
    few = mean_w(NET, variables, key, samples=4096)
    z = jax.random.normal(jax.random.key(7), (20_000, NET.latent_dim))
    w = jax.vmap(lambda z: NET.apply(variables, z, method=NET.to_w))(z)
    assert np.all(np.abs(few - w.mean(0)) < 5 * w.std(0) / np.sqrt(4096))
    assert with_mean_w(variables, few)["statistics"]["mean_w"] is few


def test_noise_from_a_key_is_fresh_and_of_the_learned_strength(recorded, variables, key):
    w = jnp.asarray(recorded["w"][0])

    @jax.jit
    def image(variables, key):
        return NET.apply(variables, w, noise=key, method=NET.from_w)

    first = image(variables, key)
    np.testing.assert_array_equal(first, image(variables, key))
    assert np.abs(first - image(variables, jax.random.key(1))).max() > 0.1
    silent = {
        path: {**leaves, "noise_strength": np.float32(0)} if "noise_strength" in leaves else leaves
        for path, leaves in variables["params"].items()
        if path != "constant"
    }
    silent = {**variables, "params": {**silent, "constant": variables["params"]["constant"]}}
    assert_same(image(silent, key), recorded["image_without_noise"][0])


def test_a_batch_is_its_images_one_by_one(recorded, synthesise):
    w = jnp.asarray(recorded["w"])
    together = jax.vmap(synthesise)(w)
    for one, image in zip(w, together, strict=True):
        np.testing.assert_allclose(synthesise(one), image, atol=1e-5)


@pytest.mark.slow
def test_recomputing_features_changes_no_gradient(recorded, variables):
    w = jnp.asarray(recorded["w"][0])

    def gradient(net):
        def energy(w):
            return jnp.sum(net.apply(variables, w, method=net.from_w) ** 2)

        return jax.jit(jax.grad(energy))(w)

    saving = NET.clone(checkpoint=True)
    np.testing.assert_allclose(gradient(saving), gradient(NET), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", rest_slow(stylegan2.PRESETS, every=3))
def test_every_variable_of_a_preset_has_a_name(name):
    net = stylegan2.PRESETS[name]
    z = jnp.zeros(net.latent_dim)
    image, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), z)
    size = int(name.removeprefix("stylegan2-"))
    assert image.shape == (size, size, 3)
    paths = jax.tree_util.tree_leaves_with_path(variables)
    names = {tuple(part.key for part in path) for path, _ in paths}
    assert {target.path for target in key_names(net).values()} == names


def test_the_channel_multiplier_counts_from_64_pixels():
    assert StyleGAN2(128, channel_multiplier=1).widths == (512, 512, 512, 512, 256, 128)
    assert StyleGAN2(1024).widths == (512, 512, 512, 512, 512, 256, 128, 64, 32)


def test_noise_and_filters_may_be_missing_from_a_state_dict(recorded):
    state = {
        key: value
        for key, value in recorded.state.items()
        if not key.endswith("kernel") and "noises" not in key
    }
    variables = from_state_dict(NET, key_names(NET), state)
    np.testing.assert_allclose(variables["constants"]["up_0"]["conv"]["blur"].sum(), 4)
    assert variables["noise"]["noise_2"].shape == (8, 8)
    assert 0.5 < variables["noise"]["noise_4"].std() < 1.5


def test_half_precision_is_close_and_comes_out_as_it_went_in(recorded, variables):
    halved = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), variables)
    z = jnp.asarray(recorded["z"][0], jnp.bfloat16)
    image = jax.jit(NET.apply)(halved, z)
    assert image.dtype == jnp.bfloat16
    expected = recorded["image"][0]
    assert np.abs(image - expected).mean() < 0.1 * expected.std()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 48}, "a power of two from 8 to 1024, got 48"),
        ({"channels": (3, 3)}, r"features at \(4, 8, 16\) pixels, got \(3, 3\)"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StyleGAN2(**{"resolution": 16, **settings})


def test_wrong_inputs_are_refused(variables):
    with pytest.raises(ValueError, match=r"z must have shape \(6,\), got \(5,\)"):
        NET.apply(variables, jnp.zeros(5))
    with pytest.raises(ValueError, match=r"w must have shape \(6,\) or \(6, 6\), got \(4, 6\)"):
        NET.apply(variables, jnp.zeros((4, 6)), method=NET.from_w)
    with pytest.raises(ValueError, match="unknown noise 'loud'"):
        NET.apply(variables, jnp.zeros(6), noise="loud", method=NET.from_w)
    with pytest.raises(ValueError, match="noise must be 'stored', 'none' or a random key, got 3"):
        NET.apply(variables, jnp.zeros(6), noise=3, method=NET.from_w)
    with pytest.raises(ValueError, match="unknown space 'v'"):
        generator(NET, variables, space="v")
