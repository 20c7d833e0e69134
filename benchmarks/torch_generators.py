"""Generators as people have them in PyTorch: what `benchmarks.from_torch` takes over.

Each is written as its users write it, with a batch in front and channels before rows and columns,
at random weights.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GENERATORS", "Given"]


class Given(NamedTuple):
    """A generator and how it takes latents."""

    call: Any
    """The module, or a function that calls one."""
    latent_dim: int
    """Numbers of a latent."""
    latent_shape: tuple[int, ...]
    """In which it takes them."""


def mlp(width: int = 512) -> Given:
    """The decoder of a VAE of digits: dense layers."""
    net = nn.Sequential(
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 784),
        nn.Sigmoid(),
    )
    return Given(net, 64, (64,))


def dcgan(width: int = 64) -> Given:
    """DCGAN's generator of 64 x 64 pixels, of the tutorial of PyTorch."""
    sizes = [100, 8 * width, 4 * width, 2 * width, width]
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(sizes)):
        place = (1, 0) if i == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, *place, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    layers += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
    net = nn.Sequential(*layers)
    for norm in (layer for layer in net if isinstance(layer, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return Given(net, 100, (100, 1, 1))


class Attention(nn.Module):
    """Of the pixels to each other, by several heads."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.norm, self.heads = nn.GroupNorm(4, width), heads
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        parts = self.mix(pixels).view(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*parts)
        return x + self.out(seen.transpose(1, 2).reshape(n, h * w, c)).transpose(1, 2).view(x.shape)


class Residual(nn.Module):
    """Two convolutions with group norms and SiLU."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(4, before), nn.SiLU(), nn.Conv2d(before, after, 3, 1, 1)
        )
        self.second = nn.Sequential(
            nn.GroupNorm(4, after), nn.SiLU(), nn.Conv2d(after, after, 3, 1, 1)
        )
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.second(self.first(x))


class Larger(nn.Module):
    """Twice as many pixels along each side."""

    def __init__(self, mode: str):
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode=self.mode)


def vae(width: int = 32) -> Given:
    """The decoder of a latent diffusion model's VAE, small: 32 x 32 pixels."""
    net = nn.Sequential(
        nn.Linear(16, 2 * width * 64),
        nn.Unflatten(1, (2 * width, 8, 8)),
        Residual(2 * width, 2 * width),
        Attention(2 * width),
        Larger("nearest"),
        Residual(2 * width, width),
        Larger("bilinear"),
        Residual(width, width),
        nn.GroupNorm(4, width),
        nn.SiLU(),
        nn.Conv2d(width, 3, 3, 1, 1),
        nn.Sigmoid(),
    )
    return Given(net, 16, (16,))


def autoencoder_kl(width: int = 16) -> Given:
    """The decoder of diffusers' `AutoencoderKL`, tiny: 16 x 16 pixels of 4 x 8 x 8 numbers."""
    from diffusers import AutoencoderKL

    net = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(width, 2 * width),
        norm_num_groups=4,
    )
    return Given(Decoded(net), 256, (4, 8, 8))


class Decoded(nn.Module):
    """The sample alone of what an autoencoder decodes."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        return self.net.decode(z).sample


# --- StyleGAN2 ---


class Modulated(nn.Module):
    """A convolution whose weights are scaled by a style, and brought back to unit variance."""

    def __init__(self, before: int, after: int, size: int, style: int, up: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, after, before, size, size))
        self.scale = 1 / math.sqrt(before * size**2)
        self.style, self.up, self.normed = nn.Linear(style, before), up, size > 1
        nn.init.ones_(self.style.bias)
        kernel = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(kernel, kernel) / 16)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        n, c, height, width = x.shape
        weight = self.scale * self.weight * self.style(w).view(n, 1, c, 1, 1)
        if self.normed:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.view(1, n * c, height, width)
        if not self.up:
            pad = weight.shape[-1] // 2
            made = F.conv2d(x, weight.flatten(0, 1), padding=pad, groups=n)
            return made.view(n, -1, height, width)
        made = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
        return upfirdn2d(made.view(n, -1, *made.shape[2:]), self.kernel, pad=(1, 1))


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Zeros between the pixels and around them, and a filter, as the reference has it."""
    n, c, height, width = x.shape
    x = F.pad(x.view(n, c, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x = F.pad(x.view(n, c, height * up, width * up), (*pad, *pad))
    flipped = torch.flip(kernel, (0, 1))[None, None]
    made = F.conv2d(x.view(n * c, 1, *x.shape[2:]), flipped)
    return made.view(n, c, *made.shape[2:])


class StyleGAN2(nn.Module):
    """Mapping, constant, blocks with styles and skip connections to colours; without noise."""

    def __init__(self, dim: int, width: int, side: int):
        super().__init__()
        self.mapping = nn.ModuleList(nn.Linear(dim, dim) for _ in range(4))
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))
        self.first = Modulated(width, width, 3, dim)
        self.first_colour = Modulated(width, 3, 1, dim)
        count = int(math.log2(side)) - 2
        self.ups = nn.ModuleList(Modulated(width, width, 3, dim, up=True) for _ in range(count))
        self.convs = nn.ModuleList(Modulated(width, width, 3, dim) for _ in range(count))
        self.colours = nn.ModuleList(Modulated(width, 3, 1, dim) for _ in range(count))
        self.biases = nn.ParameterList(
            nn.Parameter(0.1 * torch.randn(1, width, 1, 1)) for _ in range(2 * count + 1)
        )

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            w = math.sqrt(2) * F.leaky_relu(layer(w), 0.2)
        biases = iter(self.biases)

        def active(x: Tensor) -> Tensor:
            return math.sqrt(2) * F.leaky_relu(x + next(biases), 0.2)

        x = active(self.first(self.start.repeat(len(z), 1, 1, 1), w))
        image = self.first_colour(x, w)
        for up, conv, colour in zip(self.ups, self.convs, self.colours, strict=True):
            x = active(conv(active(up(x, w)), w))
            image = upfirdn2d(image, up.kernel, up=2, pad=(2, 1)) + colour(x, w)
        return image


def stylegan2(width: int = 32) -> Given:
    """StyleGAN2's generator of 32 x 32 pixels, narrow."""
    return Given(StyleGAN2(64, width, 32), 64, (64,))


GENERATORS: dict[str, Callable[[], Given]] = {
    "MLP": mlp,
    "DCGAN": dcgan,
    "VAE": vae,
    "AutoencoderKL": autoencoder_kl,
    "StyleGAN2": stylegan2,
}
"""By name, each at the size that is measured."""
