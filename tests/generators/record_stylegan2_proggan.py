"""Makes the recorded arrays of StyleGAN2 and ProgGAN; needs PyTorch, and is run by hand.

    python -m tests.generators.record_stylegan2_proggan CHECKOUT [--full PRESET ...]

CHECKOUT is a checkout of github.com/chi0tzp/WarpedGANSpace (or KingJamesSong/PDETraversal, whose
folder `models` is the same), whose `models/StyleGAN2/model.py` and `models/ProgGAN/model.py` are
run in evaluation mode. All parameters and buffers are random (seed 0), the filters too, so that a
mirrored one would be noticed. Each archive holds the state dict under `state/`, the inputs and the
images. Two small files of `torch.save` are made as well, and what their main tensor is.

With --full PRESET nothing is written: that network is compared here at its full width.
"""

import argparse
import collections
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import torch

from latent_flows.generators import proggan, stylegan2
from latent_flows.generators.weights import from_state_dict
from tests.generators.recorded_arrays import PROGGAN, STYLEGAN2

HERE = Path(__file__).parent / "recorded"


def published(checkout):
    """The two modules, with StyleGAN2's compiled operations replaced by the same in PyTorch."""
    sys.path.insert(0, str(checkout))
    functional = torch.nn.functional

    class FusedLeakyReLU(torch.nn.Module):
        def __init__(self, channel, negative_slope=0.2, scale=2**0.5):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(channel))

        def forward(self, x):
            return fused_leaky_relu(x, self.bias)

    def fused_leaky_relu(x, bias, negative_slope=0.2, scale=2**0.5):
        bias = bias.view(1, -1, *[1] * (x.ndim - 2))
        return functional.leaky_relu(x + bias, negative_slope) * scale

    with mock.patch("torch.utils.cpp_extension.load"):
        import models.StyleGAN2.op as operations
    # The repository's own slow version, beside the fast one that is not compiled here.
    native = sys.modules["models.StyleGAN2.op.upfirdn2d"]
    native.F = functional  # a name that the file forgets to import

    def upfirdn2d(x, kernel, up=1, down=1, pad=(0, 0)):
        batch, channels, height, width = x.shape
        planes = x.reshape(-1, height, width, 1)
        out = native.upfirdn2d_native(planes, kernel, up, up, down, down, *pad, *pad)
        return out.view(batch, channels, *out.shape[1:3])

    operations.FusedLeakyReLU = FusedLeakyReLU
    operations.fused_leaky_relu = fused_leaky_relu
    operations.upfirdn2d = upfirdn2d
    from models.ProgGAN import model as published_proggan
    from models.StyleGAN2 import model as published_stylegan2

    return published_stylegan2, published_proggan


def build_stylegan2(module, net):
    """The published network with the channels of ours, which there are written into the code."""

    class Narrow(module.Generator):
        def __setattr__(self, name, value):
            if name == "channels":
                value = dict(zip(net.sizes, net.widths, strict=True))
            super().__setattr__(name, value)

    return Narrow(net.resolution, net.latent_dim, net.mapping_layers)


def build_proggan(module, net):
    """The published network's own blocks, with the channels of ours."""
    network = module.Generator()
    before, blocks = net.latent_dim, []
    for i, width in enumerate(net.channels):
        first = module.NormUpscaleConvBlock if i else module.NormConvBlock
        size, padding = (3, 1) if i else (4, 3)
        blocks.append(first(before, width, kernel_size=size, padding=padding))
        blocks.append(module.NormConvBlock(width, width, kernel_size=3, padding=1))
        before = width
    network.features = torch.nn.Sequential(*blocks)
    network.output.conv = torch.nn.Conv2d(before, 3, kernel_size=1, bias=False)
    return network


def randomise(network, rng):
    """Random values everywhere, of the size that keeps pictures within a few units."""
    state = network.state_dict()
    for name, value in state.items():
        noise = rng.normal(size=tuple(value.shape))
        last = name.rpartition(".")[2]
        if last == "kernel":
            noise = np.abs(noise) * 4 / np.abs(noise).sum()
        elif last == "scale":
            # As the published weights have it: the gain of a leaky ReLU by the inputs.
            fan = state[name.replace("wscale.scale", "conv.weight")][0].numel()
            noise = np.sqrt(2 / (fan / 16 if name.startswith("features.0.") else fan)) * (
                1 + 0.2 * noise
            )
        elif last == "bias" and "modulation" in name:
            noise = 1 + 0.3 * noise
        elif name.startswith("style.") and last == "weight":
            noise = noise * 100
        elif name.startswith("style."):
            noise = noise * 20
        elif name.startswith("to_rgb") and name.endswith("conv.weight"):
            noise = 0.15 * noise
        elif last in ("bias", "b") or name.endswith("noise.weight"):
            noise = 0.3 * noise
        state[name] = torch.tensor(noise, dtype=torch.float32)
    network.load_state_dict(state)
    return network.eval(), {name: value.numpy() for name, value in state.items()}


def to_images(batch):
    return batch.permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def record_stylegan2(module, net, rng):
    """The published network's answers, for every way to call it."""
    network, state = randomise(build_stylegan2(module, net), rng)
    z = torch.tensor(rng.normal(size=(2, net.latent_dim)), dtype=torch.float32)
    mean = torch.tensor(rng.normal(size=(1, net.latent_dim)), dtype=torch.float32)
    w = network.get_latent(z)
    styles = torch.tensor(
        rng.normal(size=(1, net.style_count, net.latent_dim)), dtype=torch.float32
    )
    silent = [torch.zeros(1, 1, 1, 1)] * network.num_layers
    return {
        **{f"state/{name}": value for name, value in state.items()},
        "z": z.numpy(),
        "mean": mean.numpy()[0],
        "styles": styles.numpy()[0],
        "w": w.numpy(),
        "image": to_images(network([z])[0]),
        "image_without_noise": to_images(network([z], noise=silent)[0]),
        "image_truncated": to_images(network([z], truncation=0.6, truncation_latent=mean)[0]),
        "image_of_styles": to_images(network([styles], input_is_latent=True)[0]),
    }


@torch.no_grad()
def record_proggan(module, net, rng):
    """The published network's answers."""
    network, state = randomise(build_proggan(module, net), rng)
    z = torch.tensor(rng.normal(size=(2, net.latent_dim)), dtype=torch.float32)
    image = to_images(network(z[:, :, None, None]))
    return {
        **{f"state/{name}": value for name, value in state.items()},
        "z": z.numpy(),
        "image": image,
    }


def record_files():
    """A checkpoint as training scripts write it, in both formats that PyTorch has had."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    state = {
        "plain": base.clone(),
        "turned": base.t(),
        "window": base[1:3, 2:5],
        "half": base.half(),
        "brain": base.bfloat16(),
        "learned": torch.nn.Parameter(base[0].clone()),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    tree = {
        "g": collections.OrderedDict((name, value + 1) for name, value in state.items()),
        "g_ema": collections.OrderedDict(state),
        "optimizer": {"state": {0: {"exp_avg": base}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(size=16),
        "latent_avg": base[0],
        "iteration": 3,
    }
    torch.save(tree, HERE / "checkpoint.pt")
    torch.save(tree, HERE / "checkpoint_legacy.pt", _use_new_zipfile_serialization=False)
    np.save(HERE / "checkpoint_plain.npy", base.numpy())


def compare(name, architecture, net, arrays):
    """Prints the largest difference from our network's images."""
    state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
    variables = from_state_dict(net, architecture.key_names(net), state)
    apply = jax.jit(net.apply)
    ours = np.stack([apply(variables, z) for z in arrays["z"]])
    theirs = arrays["image"]
    print(
        f"{name}: largest difference {np.abs(ours - theirs).max():.2e}, "
        f"largest pixel {np.abs(theirs).max():.2f}, deviation {theirs.std():.2f}"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--full", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    style, prog = published(options.checkout)
    if options.full:
        presets = {**stylegan2.PRESETS, **proggan.PRESETS}
        for name in options.full:
            net, rng = presets[name], np.random.default_rng(0)
            if name.startswith("style"):
                arrays, architecture = record_stylegan2(style, net, rng), stylegan2
            else:
                arrays, architecture = record_proggan(prog, net, rng), proggan
            compare(name, architecture, net, arrays)
        return
    arrays = record_stylegan2(style, STYLEGAN2, np.random.default_rng(0))
    compare("stylegan2", stylegan2, STYLEGAN2, arrays)
    np.savez_compressed(HERE / "stylegan2_16.npz", **arrays)
    arrays = record_proggan(prog, PROGGAN, np.random.default_rng(0))
    compare("proggan", proggan, PROGGAN, arrays)
    np.savez_compressed(HERE / "proggan_16.npz", **arrays)
    record_files()


if __name__ == "__main__":
    main()
