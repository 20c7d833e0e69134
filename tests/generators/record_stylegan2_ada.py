"""Makes the recorded networks of stylegan2-ada-pytorch; needs PyTorch, and is run by hand.

    python -m tests.generators.record_stylegan2_ada CHECKOUT

CHECKOUT is a checkout of github.com/NVlabs/stylegan2-ada-pytorch. Small networks with random
parameters and buffers (seed 0) are pickled as its training loop pickles them, with a text in place
of their source that would raise if it were run, and what they make is written beside it.
"""

import argparse
import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent / "recorded"
SOURCE = "raise RuntimeError('the code in the pickle was run')\n"
NETWORKS = {
    "ada_colour": {
        "z_dim": 6,
        "c_dim": 0,
        "w_dim": 6,
        "img_resolution": 16,
        "img_channels": 3,
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": {"channel_base": 64, "channel_max": 5},
    },
    "ada_grey_of_classes": {
        "z_dim": 5,
        "c_dim": 3,
        "w_dim": 4,
        "img_resolution": 8,
        "img_channels": 1,
        "mapping_kwargs": {"num_layers": 3},
        # The bound is low, so that it is reached.
        "synthesis_kwargs": {
            "channel_base": 32,
            "channel_max": 5,
            "conv_clamp": 1.5,
            "num_fp16_res": 1,
        },
    },
}


def randomised(network, rng):
    """Random values everywhere but in the filters, of the size that keeps pictures small."""
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        noise = rng.normal(size=tuple(value.shape))
        last = name.rpartition(".")[2]
        if last == "resample_filter":
            continue
        if "mapping.fc" in name:
            noise *= 100 if last == "weight" else 20
        elif name.endswith("affine.bias"):
            noise = 1 + 0.3 * noise
        elif last in ("bias", "noise_strength"):
            noise *= 0.3
        value.data.copy_(torch.tensor(noise, dtype=torch.float32))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def record(name, networks, easy_dict, rng):
    """One network, pickled, and its answers."""
    settings = NETWORKS[name]
    ema = randomised(networks.Generator(**copy.deepcopy(settings)), rng)
    other = randomised(networks.Generator(**copy.deepcopy(settings)), rng)
    critic = networks.Discriminator(
        c_dim=settings["c_dim"],
        img_resolution=settings["img_resolution"],
        img_channels=settings["img_channels"],
        channel_base=16,
        channel_max=2,
    )
    for network in [*ema.modules(), *critic.modules()]:
        if hasattr(network, "_orig_module_src"):
            type(network)._orig_module_src = SOURCE
    snapshot = {
        "training_set_kwargs": easy_dict(
            class_name="training.dataset.ImageFolderDataset", path="a"
        ),
        "G": other,
        "D": critic.eval().requires_grad_(False),
        "G_ema": ema,
        "augment_pipe": None,
    }
    with open(HERE / f"{name}.pkl", "wb") as file:
        pickle.dump(snapshot, file)
    z = torch.tensor(rng.normal(size=(2, settings["z_dim"])), dtype=torch.float32)
    labels = np.arange(2) % max(settings["c_dim"], 1)
    c = torch.nn.functional.one_hot(torch.tensor(labels), max(settings["c_dim"], 1)).float()
    c = c[:, : settings["c_dim"]]
    exact = {"noise_mode": "const", "force_fp32": True}
    w = ema.mapping(z, c)
    np.savez_compressed(
        HERE / f"{name}.npz",
        z=z.numpy(),
        labels=labels,
        w=w[:, 0].numpy(),
        image=ema(z, c, **exact).permute(0, 2, 3, 1).numpy(),
        image_truncated=ema(z, c, truncation_psi=0.6, **exact).permute(0, 2, 3, 1).numpy(),
        image_without_noise=ema(z, c, noise_mode="none", force_fp32=True)
        .permute(0, 2, 3, 1)
        .numpy(),
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    sys.path.insert(0, str(parser.parse_args().checkout))
    import dnnlib
    from training import networks

    torch.set_num_threads(1)
    for name in NETWORKS:
        record(name, networks, dnnlib.EasyDict, np.random.default_rng(0))


if __name__ == "__main__":
    main()
