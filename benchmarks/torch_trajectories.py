"""Trajectories by inversion in eager PyTorch, the peer of `benchmarks.trajectories`.

Written as one would write it in PyTorch: a batch of latents, a loop over the amounts, a loop over
the steps of Adam.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Params = Mapping[str, Mapping[str, Tensor]]
Blur = Callable[[Tensor], Tensor]
"""From masked differences `[n, 1, h, w]` to the sum of their squares after the blur, `[n]`."""


class Setting(NamedTuple):
    """What is fixed."""

    decoder: str
    """mlp, conv or broadcast, for square images of one channel."""
    side: int
    ts: np.ndarray
    steps: int
    learning_rate: float
    sigma: float


# --- decoders ---


def linear(layer: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """A dense layer on the last axis."""
    y = x @ layer["kernel"]
    return y + layer["bias"] if "bias" in layer else y


def gelu(x: Tensor) -> Tensor:
    """The approximation that flax uses."""
    return F.gelu(x, approximate="tanh")


def split(x: Tensor, s: int) -> Tensor:
    """Depth to space, channels last."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, s, s, c // s**2).transpose(2, 3)
    return x.reshape(n, h * s, w * s, c // s**2)


def mlp(params: Params, side: int, z: Tensor) -> Tensor:
    """Dense layers to the flattened image."""
    *hidden, last = (params[f"Dense_{i}"] for i in range(len(params)))
    for layer in hidden:
        z = gelu(linear(layer, z))
    return linear(last, z).reshape(-1, side, side, 1)


def conv(params: Params, side: int, z: Tensor) -> Tensor:
    """Dense layers to a small grid, then upsampling with a convolution at each resolution."""
    dense = iter(params[f"Dense_{i}"] for i in range(len(params)) if f"Dense_{i}" in params)
    x = gelu(linear(next(dense), z))
    strides, grid = [4] if side % 4 == 0 and side >= 16 else [], side
    grid //= math.prod(strides)
    while grid % 2 == 0 and grid > 4:
        strides.append(2)
        grid //= 2
    x = gelu(linear(next(dense), x)).reshape(len(z), grid, grid, -1)
    for i, stride in enumerate(reversed(strides[1:])):
        x = gelu(split(linear(next(dense), x), stride))
        layer = params[f"Conv_{i}"]
        weight = layer["kernel"].permute(3, 2, 0, 1)
        x = F.conv2d(x.permute(0, 3, 1, 2), weight, layer["bias"], padding=1)
        x = gelu(x).permute(0, 2, 3, 1)
    return split(linear(next(dense), x), strides[0] if strides else 1)


def broadcast(params: Params, side: int, z: Tensor) -> Tensor:
    """A network of the coordinates of a patch, in frames that the latent sets."""
    patch = next(p for p in (4, 2, 1) if side % p == 0)
    ticks = torch.linspace(-1.0, 1.0, side // patch, device=z.device)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    shift = linear(params["Dense_0"], z)[:, :, None, None, None]
    frames = linear(params["Dense_1"], z).reshape(len(z), 3, 1, 1, -1)
    h = (x[..., None] - shift[:, 0]) * frames[:, 0] + (y[..., None] - shift[:, 1]) * frames[:, 1]
    h = h + frames[:, 2]
    for i in range(2, len(params) - 1):
        h = linear(params[f"Dense_{i}"], F.silu(h))
    return split(linear(params[f"Dense_{len(params) - 1}"], F.silu(h)), patch)


DECODERS = {"mlp": mlp, "conv": conv, "broadcast": broadcast}


# --- the loss ---


def by_convolutions(side: int, sigma: float, device: torch.device) -> Blur:
    """Two separable convolutions, over the whole plane: what one writes first."""
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1.0, device=device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()

    def blur(difference: Tensor) -> Tensor:
        x = F.conv2d(difference, kernel[None, None, :, None], padding=(2 * reach, 0))
        return F.conv2d(x, kernel[None, None, None], padding=(0, 2 * reach)).square().sum((1, 2, 3))

    return blur


def by_products(side: int, sigma: float, device: torch.device) -> Blur:
    """The same as a product with one matrix along each axis, of all rows of the plane."""
    reach = math.ceil(4 * sigma)
    kernel = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    columns = [np.convolve(row, kernel) for row in np.eye(side)]
    # Only the quadratic form matters, so the triangle of a QR decomposition does as well.
    triangle = np.linalg.qr(np.stack(columns, 1))[1]
    matrix = torch.tensor(triangle, dtype=torch.float32, device=device)

    def blur(difference: Tensor) -> Tensor:
        return (matrix @ difference @ matrix.T).square().sum((1, 2, 3))

    return blur


BLURS = {"convolutions": by_convolutions, "products": by_products}


# --- trajectories ---


def to_ball(z: Tensor) -> Tensor:
    """The nearest latents of norm `sqrt(d)` or less."""
    return z * (math.sqrt(z.shape[1]) / z.norm(dim=1, keepdim=True)).clamp(max=1)


def translate(images: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Images `[n, 1, h, w]` moved to the right by `t` widths, and where they are known."""
    side = images.shape[-1]
    ticks = torch.arange(side, device=images.device)
    source = ticks - t * side
    x = (2 * source + 1) / side - 1
    y = (2 * ticks + 1) / side - 1
    grid = torch.stack(torch.meshgrid(x, y.to(x), indexing="xy"), -1)
    moved = F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
    known = (source >= -1e-4) & (source <= side - 1 + 1e-4)
    return moved * known, known.to(images).expand(side, side)


class Trajectories:
    """All trajectories of a batch at each call, `[n, T, d]`.

    Args:
        params: of the decoder.
        starts: latents `[n, d]`.
        setting: sizes and settings.
        blur: a key of `BLURS`.
    """

    def __init__(self, params: Params, starts: Tensor, setting: Setting, blur: str):
        self.threads = 1
        self.params, self.starts, self.setting = params, starts, setting
        self.blur = BLURS[blur](setting.side, setting.sigma, starts.device)

    def decode(self, z: Tensor) -> Tensor:
        """Images `[n, 1, h, w]`."""
        images = DECODERS[self.setting.decoder](self.params, self.setting.side, z)
        return torch.sigmoid(images).permute(0, 3, 1, 2)

    def invert(self, target: Tensor, mask: Tensor, start: Tensor) -> Tensor:
        """The best of all iterates of projected Adam."""
        z = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([z], lr=self.setting.learning_rate, fused=True)
        weight = mask.sum()
        best, least = start, start.new_full((len(start),), math.inf)

        def errors() -> Tensor:
            return self.blur(mask * (self.decode(z) - target)) / weight

        for _ in range(self.setting.steps):
            optimizer.zero_grad()
            error = errors()
            error.sum().backward()
            with torch.no_grad():
                better = error < least
                best = torch.where(better[:, None], z, best)
                least = torch.where(better, error, least)
                optimizer.step()
                z.copy_(to_ball(z))
        with torch.no_grad():
            return torch.where((errors() < least)[:, None], z, best)

    def __call__(self) -> Tensor:
        torch.set_num_threads(self.threads)
        starts = self.starts
        starts = starts * (math.sqrt(starts.shape[1]) / starts.norm(dim=1, keepdim=True)).clamp(
            max=1
        )
        with torch.no_grad():
            images = self.decode(starts)
        ts = self.setting.ts
        found: dict[int, Tensor] = {}
        sides = np.flatnonzero(ts > 0), np.flatnonzero(ts <= 0)[::-1]
        for side in sides:
            z = starts
            for i in side.tolist():
                z = self.invert(*translate(images, float(ts[i])), z)
                found[i] = z
        # On the CPU, so that a GPU has finished when the call has.
        return torch.stack([found[i] for i in range(len(ts))], 1).cpu()
