"""SNGAN's generator in eager PyTorch, the peer of `benchmarks.gan_step`.

It takes the parameters that flax has, convolutions with their kernels as PyTorch lays them out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SEED = 4


def images(weights: Any, z: Tensor) -> Tensor:
    """Images `[..., c, h, w]` of latents `[..., d]`."""
    params, stats = weights["params"], weights["batch_stats"]
    lead, z = z.shape[:-1], z.reshape(-1, z.shape[-1])
    x = z @ params["dense"]["kernel"] + params["dense"]["bias"]
    x = x.reshape(len(z), -1, SEED, SEED)
    for i in range(sum(name.startswith("block") for name in params)):
        x = _block(params[f"block{i}"], stats[f"block{i}"], x)
    x = F.relu(_norm(params["norm"], stats["norm"], x))
    x = torch.tanh(_conv(params["conv"], x))
    return x.reshape(*lead, *x.shape[1:])


def _block(params: Any, stats: Any, x: Tensor) -> Tensor:
    y = F.relu(_norm(params["norm1"], stats["norm1"], x))
    y = _conv(params["conv1"], _enlarge(y))
    y = _conv(params["conv2"], F.relu(_norm(params["norm2"], stats["norm2"], y)))
    skip = _enlarge(x)
    return y + (_conv(params["skip"], skip) if "skip" in params else skip)


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def _conv(layer: Any, x: Tensor) -> Tensor:
    return F.conv2d(x, layer["kernel"].permute(3, 2, 0, 1), layer["bias"], padding=1)


def _norm(params: Any, stats: Any, x: Tensor) -> Tensor:
    return F.batch_norm(
        x, stats["mean"], stats["var"], params["scale"], params["bias"], training=False, eps=1e-5
    )
