"""Small networks of every architecture, and variables for them that cost no compilation."""

import jax
import jax.numpy as jnp
import numpy as np

from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.proggan import ProgGAN
from latent_flows.generators.sngan import SNGAN
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.generators.weights import variable_shapes

SMALL_SNGAN = SNGAN((2, 2), latent_dim=3)
SMALL_BIGGAN = BigGAN(resolution=32, channels=2, classes=5, latent_dim=8, attention=())
SMALL_PROGGAN = ProgGAN(channels=(2, 3), latent_dim=5)
SMALL_STYLEGAN2 = StyleGAN2(resolution=8, latent_dim=3, mapping_layers=1, channels=(2, 4))
GANS = (SMALL_SNGAN, SMALL_BIGGAN, SMALL_PROGGAN, SMALL_STYLEGAN2)


def small_net_of_a_vae(decoder="mlp", likelihood="bernoulli", shape=(8, 8, 3)):
    """A VAE with two latents."""
    encoder = "mlp" if decoder == "mlp" else "conv"
    config = VAEConfig(2, encoder=encoder, decoder=decoder, width=2, likelihood=likelihood)
    return VAE(config, shape)


def filled(net):
    """Variables of the right shapes, without compiling what would draw them."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        numbers = random.normal(size=leaf.shape)
        is_variance = "var" in path[-1].key
        return jnp.asarray(np.abs(numbers) if is_variance else numbers, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, variable_shapes(net))
