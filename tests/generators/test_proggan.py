"""ProgGAN: agreement with the published generator, and what its latents are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import proggan
from latent_flows.generators.proggan import ProgGAN, key_names
from latent_flows.generators.weights import from_state_dict
from tests.generators.recorded_arrays import PROGGAN, Recorded


@pytest.fixture(scope="module")
def recorded():
    return Recorded("proggan_16")


@pytest.fixture(scope="module")
def variables(recorded):
    return from_state_dict(PROGGAN, key_names(PROGGAN), recorded.state)


@pytest.fixture(scope="module")
def generate(variables):
    return jax.jit(lambda z: PROGGAN.apply(variables, z))


def test_images_are_those_of_the_published_generator(recorded, generate):
    images = np.stack([generate(z) for z in recorded["z"]])
    assert images.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(images, recorded["image"], rtol=0, atol=1e-4)
    assert images.std() > 0.1


def test_only_the_direction_of_a_latent_matters(recorded, generate):
    z = recorded["z"][0]
    np.testing.assert_allclose(generate(3 * z), generate(z), atol=1e-5)
    assert np.abs(generate(-z) - generate(z)).max() > 0.1


def test_recomputing_features_changes_no_gradient(recorded, variables):
    z = jnp.asarray(recorded["z"][0])

    def gradient(net):
        return jax.jit(jax.grad(lambda z: jnp.sum(net.apply(variables, z) ** 2)))(z)

    saving = PROGGAN.clone(checkpoint=True)
    np.testing.assert_allclose(gradient(saving), gradient(PROGGAN), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", proggan.PRESETS)
def test_every_variable_of_a_preset_has_a_name(name):
    net = proggan.PRESETS[name]
    assert net.resolution == int(name.removeprefix("proggan-"))
    z = jnp.zeros(net.latent_dim)
    image, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), z)
    assert image.shape == (net.resolution, net.resolution, 3)
    paths = jax.tree_util.tree_leaves_with_path(variables)
    names = {tuple(part.key for part in path) for path, _ in paths}
    assert {target.path for target in key_names(net).values()} == names


def test_half_precision_comes_out_as_it_went_in(recorded, variables):
    net = jax.eval_shape(lambda z: PROGGAN.apply(variables, z), jnp.zeros(7, jnp.bfloat16))
    assert net.dtype == jnp.bfloat16


def test_wrong_settings_and_latents_are_refused(variables):
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        ProgGAN(latent_dim=0)
    with pytest.raises(ValueError, match="channels must give the features"):
        ProgGAN(channels=())
    with pytest.raises(ValueError, match=r"z must have shape \(7,\), got \(2, 7\)"):
        PROGGAN.apply(variables, jnp.zeros((2, 7)))
