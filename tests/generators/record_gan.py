"""Records what the published PyTorch generators of SNGAN and BigGAN make of random weights.

    python -m tests.generators.record_gan CHECKOUT

with CHECKOUT a clone of github.com/KingJamesSong/PDETraversal or github.com/chi0tzp/WarpedGANSpace,
which hold the same two generators, and PyTorch installed. Each file of `recorded` then has the
settings, the names and shapes of the state dict (its numbers are `states.random_state` of the
seed), the latents, the labels, and pixels of the images on a coarse
grid, whose step is no multiple of two.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np

from tests.generators.states import random_state

HERE = Path(__file__).parent / "recorded"
SAMPLES = 2

SNGAN = {
    # The second block has a convolution in its bypass, the first has none.
    "sngan_32": {"channels": [6, 6, 4, 4], "image_channels": 1, "latent_dim": 5},
    "sngan_64": {"channels": [8, 6, 4, 4, 2], "image_channels": 3, "latent_dim": 7},
}
BIGGAN = {
    "biggan_128": {"resolution": 128, "channels": 4, "latent_dim": 12, "attention": [64]},
    "biggan_256": {"resolution": 256, "channels": 2, "latent_dim": 14, "attention": [16, 64]},
    "biggan_whole": {"resolution": 64, "channels": 2, "latent_dim": 5, "split": False},
    "biggan_separate": {
        "resolution": 32,
        "channels": 2,
        "latent_dim": 5,
        "split": False,
        "shared": False,
    },
}
BIGGAN_DEFAULTS = {"classes": 4, "shared_dim": 6, "shared": True, "split": True, "attention": [16]}


def sngan(channels, image_channels, latent_dim):
    """The published generator, a function of latents."""
    from models.SNGAN.distribution import NormalDistribution
    from models.SNGAN.sn_gen_resnet import (
        ResNetGenConfig,
        make_resnet_generator,
    )

    size = 4 * 2 ** (len(channels) - 1)
    distribution = NormalDistribution(latent_dim)
    wrapper = make_resnet_generator(
        ResNetGenConfig(channels, 4), size, image_channels, distribution
    )
    return wrapper, lambda z, label: wrapper.model(z)


def biggan(resolution, channels, latent_dim, attention, classes, shared, shared_dim, split):
    """The published generator, a function of latents and labels."""
    import torch
    from models.BigGAN.BigGAN import Generator

    net = Generator(
        G_ch=channels,
        dim_z=latent_dim,
        resolution=resolution,
        G_attn="_".join(map(str, attention)),
        n_classes=classes,
        G_shared=shared,
        shared_dim=shared_dim,
        hier=split,
        G_activation=torch.nn.ReLU(inplace=True),
        SN_eps=1e-6,
        skip_init=True,
        no_optim=True,
    )
    return net, lambda z, label: net(z, net.shared(label))


def run(build, settings, seed):
    """Shapes of the state dict, latents, labels and images of one network."""
    import torch

    net, generate = build(**settings)
    # A convolution of SNGAN is in the state dict twice; one name is enough to load it.
    twice = (".model.3.", ".model.6.")
    state = {
        key: value
        for key, value in net.state_dict().items()
        if build is not sngan or not any(name in key for name in twice)
    }
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    arrays = random_state(shapes, seed)
    net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}, strict=False)
    net.eval()
    random = np.random.RandomState(seed)
    z = random.standard_normal((SAMPLES, settings["latent_dim"])).astype(np.float32)
    label = random.randint(settings.get("classes", 1), size=SAMPLES)
    with torch.no_grad():
        images = generate(torch.from_numpy(z), torch.from_numpy(label)).numpy()
    return shapes, z, label, np.moveaxis(images, 1, -1)


def checkout(path):
    """Makes the published modules importable, without what else their package imports."""
    package = types.ModuleType("models")
    package.__path__ = [str(Path(path) / "models")]
    sys.modules["models"] = package


def main(path):
    checkout(path)
    HERE.mkdir(exist_ok=True)
    jobs = [(name, sngan, settings) for name, settings in SNGAN.items()]
    jobs += [(name, biggan, BIGGAN_DEFAULTS | settings) for name, settings in BIGGAN.items()]
    for seed, (name, build, settings) in enumerate(jobs):
        shapes, z, label, images = run(build, settings, seed)
        step = 7 if images.shape[1] > 128 else 3
        about = {"settings": settings, "seed": seed, "step": step, "shapes": shapes}
        np.savez_compressed(
            HERE / f"{name}.npz",
            about=json.dumps(about),
            z=z,
            label=label,
            images=images[:, ::step, ::step],
        )
        print(
            name, f"mean |x| {np.abs(images).mean():.3f}, saturated {(abs(images) > 0.99).mean()}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
