"""A small U-Net as a velocity field of images, for flow matching on a CPU."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from einops import rearrange, repeat
from flax import linen as nn
from jaxtyping import Array, Float

from latent_flows.typing import Scalar

__all__ = ["UNet"]

GROUP = 8
"""Features, at most, that are normalised together."""
FREQUENCIES = (1, 2, 4, 8)
"""Of the quarter turns of time that a network sees."""

Image = Float[Array, "h w c"]


class _Block(nn.Module):
    """Two convolutions, the second scaled and shifted by the time, beside a copy."""

    features: int

    @nn.compact
    def __call__(self, x: Image, time: Float[Array, "k"]) -> Float[Array, "h w features"]:
        shift, scale = jnp.split(nn.Dense(2 * self.features)(time), 2)
        h = nn.Conv(self.features, (3, 3))(nn.silu(_normalised(x)))
        h = nn.silu(_normalised(h) * (1 + scale) + shift)
        h = nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.zeros)(h)
        return h + (x if x.shape[-1] == self.features else nn.Dense(self.features)(x))


class _Attention(nn.Module):
    """Every place with a mean of all, by how alike they are, added to it."""

    @nn.compact
    def __call__(self, x: Image) -> Image:
        *_, features = x.shape
        places = _normalised(x).reshape(-1, features)
        heads = 4 if features % 4 == 0 else 1
        mixed = nn.MultiHeadDotProductAttention(
            heads, out_kernel_init=nn.initializers.zeros, deterministic=True
        )(places)
        return x + mixed.reshape(x.shape)


class UNet(nn.Module):
    """A U-Net `(t, x) -> dx/dt` of one image `[h, w, c]` of any size, zero before it is trained.

    Blocks of `patch x patch` pixels are the features that it starts from; each further width halves
    the resolution, and at the last one all places see each other.

    References:
        Ronneberger, Fischer and Brox, *U-Net: Convolutional Networks for Biomedical Image
        Segmentation*, 2015; with time as in Dhariwal and Nichol, *Diffusion Models Beat GANs on
        Image Synthesis*, 2021.

    >>> import jax
    >>> net = UNet(widths=(4, 8))
    >>> params = jax.jit(net.init)(jax.random.key(0), 0.0, jnp.zeros((7, 5, 1)))
    >>> float(jnp.abs(jax.jit(net.apply)(params, 0.5, jnp.ones((7, 5, 1)))).max())
    0.0
    """

    widths: Sequence[int] = (32, 64)
    """Features at each resolution, the finest first."""
    blocks: int = 1
    """Residual blocks at each resolution on the way down, and as many on the way up."""
    patch: int = 2
    """Pixels along a side of a block."""

    @nn.compact
    def __call__(self, t: Scalar | float, x: Image) -> Image:
        angles = jnp.asarray(t, x.dtype) * (math.pi / 2) * jnp.array(FREQUENCIES, x.dtype)
        time = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])
        time = nn.silu(nn.Dense(self.widths[-1])(time))
        time = nn.silu(nn.Dense(self.widths[-1])(time))

        height, width, channels = x.shape
        margins = [(0, -side % self.patch) for side in (height, width)]
        h = jnp.pad(x, [*margins, (0, 0)], mode="edge")
        h = rearrange(h, "(h a) (w b) c -> h w (a b c)", a=self.patch, b=self.patch)
        h = nn.Conv(self.widths[0], (3, 3))(h)
        kept = []
        for level, features in enumerate(self.widths):
            if level:
                kept.append(h)
                h = nn.Conv(features, (3, 3), strides=2)(h)
            for _ in range(self.blocks):
                h = _Block(features)(h, time)
        h = _Block(self.widths[-1])(_Attention()(h), time)
        for features in reversed(self.widths[:-1]):
            other = kept.pop()
            h = repeat(nn.Dense(features)(h), "h w c -> (h a) (w b) c", a=2, b=2)
            h = jnp.concatenate([h[: other.shape[0], : other.shape[1]], other], axis=-1)
            for _ in range(self.blocks):
                h = _Block(features)(h, time)
        pixels = self.patch**2 * channels
        h = nn.Conv(pixels, (3, 3), kernel_init=nn.initializers.zeros)(nn.silu(_normalised(h)))
        h = rearrange(h, "h w (a b c) -> (h a) (w b) c", a=self.patch, b=self.patch)
        return h[:height, :width]


def _normalised(x: Image) -> Image:
    """Groups of features of mean 0 and variance 1 over the image."""
    count = max(1, x.shape[-1] // GROUP)
    while x.shape[-1] % count:
        count -= 1
    return nn.GroupNorm(num_groups=count, reduction_axes=(-3, -2, -1))(x)
