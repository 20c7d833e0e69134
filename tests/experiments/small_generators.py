"""Small generators in run folders, made in a moment: what experiments are tried on."""

import json
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp

from latent_flows import data
from latent_flows.generators import rbf
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.rbf import StdNetwork
from latent_flows.generators.sngan import SNGAN
from latent_flows.generators.stored import StoredGenerator, StoredStd, to_bytes
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.vae import VAE, VAEConfig
from tests.generators.small_nets import filled


def small_vae(run, dataset="digits", *, latent_dim=3, size=None, stds=(), seed=0, **config):
    """Keeps a VAE that has learnt nothing in a run folder, as train_vae would.

    Args:
        run: the folder.
        dataset: name of the data that it says it was trained on.
        latent_dim: its latent dimensions.
        size: pixels a side; by default the data's own.
        stds: deviations of its noise, of "rbf" and "network".
        seed: of its parameters.
        **config: of its `VAEConfig`.

    Returns:
        The folder.
    """
    shape = data.load_part(dataset, "train", size=size).image_shape
    settings = {"encoder": "mlp", "decoder": "mlp", "width": 2, "depth": 1, **config}
    made = _vae(dataset, shape, VAEConfig(latent_dim=latent_dim, **settings), tuple(stds), seed)
    return _write(run, "experiments.train_vae", made)


@cache
def _vae(dataset, shape, config, stds, seed):
    vae = VAE(config, shape)
    first, second, third = _keys(seed)
    params = jax.jit(vae.init)(first, jnp.zeros(shape))
    codes = jax.random.normal(second, (40, config.latent_dim))
    net = StdNetwork(shape, width=4, depth=1)
    made = {
        "rbf": lambda: StoredStd(rbf.init_rbf(codes, shape, centres=4)),
        "network": lambda: StoredStd(jax.jit(net.init)(third, jnp.zeros(config.latent_dim)), 4, 1),
    }
    return to_bytes(
        StoredGenerator(
            vae, params, f"the VAE of {dataset}", dataset, noise_std={k: made[k]() for k in stds}
        )
    )


def small_gan(run, dataset=None, *, latent_dim=4, features=(4, 4), channels=1, seed=0):
    """Keeps an SNGAN that has learnt nothing in a run folder, as train_gan would.

    Args:
        run: the folder.
        dataset: name of the data that it says it was trained on.
        latent_dim: its latent dimensions.
        features: of the first layer and each block, which doubles the size from 4 pixels.
        channels: of its images.
        seed: of its parameters.

    Returns:
        The folder.
    """
    made = _gan(dataset, latent_dim, tuple(features), channels, seed)
    return _write(run, "experiments.train_gan", made)


@cache
def _gan(dataset, latent_dim, features, channels, seed):
    net = SNGAN(features, channels, latent_dim)
    variables = jax.jit(net.init)(jax.random.key(seed), jnp.zeros(latent_dim))
    return to_bytes(StoredGenerator(net, variables, "an SNGAN", dataset))


def small_stylegan2(run, *, latent_dim=3, channels=(4, 3)):
    """Keeps a StyleGAN2 that has learnt nothing in a run folder, as import_weights would.

    Args:
        run: the folder.
        latent_dim: numbers of z, and of w.
        channels: features at 4, 8, ... pixels.

    Returns:
        The folder.
    """
    net = StyleGAN2(2 ** (len(channels) + 1), latent_dim, mapping_layers=1, channels=channels)
    kept = StoredGenerator(net, filled(net), "a StyleGAN2")
    return _write(run, "experiments.import_weights", to_bytes(kept))


@jax.jit
def _keys(seed):
    return tuple(jax.random.split(jax.random.key(seed), 3))


def _write(run, experiment, kept):
    path = Path(run)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"experiment": experiment, "config": {}}))
    (path / GENERATOR).write_bytes(kept)
    return path
