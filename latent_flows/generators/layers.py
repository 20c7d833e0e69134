"""Layers that the convolutional generators share. All take images with any leading axes.

Resampling by a factor of two is fused with the 3 x 3 convolution next to it: the same linear map
for less than half of the products.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

__all__ = ["Conv", "Conv1", "DownConv", "Images", "SelfAttention", "UpConv", "pool", "upsample"]

Images = Float[Array, "*n height width channels"]

Conv = partial(nn.Conv, kernel_size=(3, 3), padding=1)
"""A 3 x 3 convolution that keeps the size."""
Conv1 = partial(nn.Conv, kernel_size=(1, 1))
"""A linear map of each pixel's channels."""

_GLOROT = nn.initializers.glorot_uniform()


def upsample(x: Images) -> Float[Array, "*n 2*height 2*width channels"]:
    """Twice the height and width: the nearest pixel.

    Args:
        x: images, `[*n, h, w, c]`.

    Returns:
        `[*n, 2h, 2w, c]`.

    >>> upsample(jnp.arange(2.0).reshape(1, 2, 1))[..., 0].tolist()
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
    """
    return repeat(x, "... h w c -> ... (h a) (w b) c", a=2, b=2)


def pool(x: Images) -> Float[Array, "*n height//2 width//2 channels"]:
    """Half the height and width: the mean of 2 x 2 pixels.

    Args:
        x: images of even height and width, `[*n, h, w, c]`.

    Returns:
        `[*n, h / 2, w / 2, c]`.

    >>> pool(jnp.arange(4.0).reshape(2, 2, 1)).tolist()
    [[[1.5]]]
    """
    return reduce(x, "... (h a) (w b) c -> ... h w c", "mean", a=2, b=2)


def _pad(x: Images) -> Float[Array, "*n height+2 width+2 channels"]:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])


class _Resampling(nn.Module):
    """A 3 x 3 kernel and a bias, and how they become a 2 x 2 convolution of blocks of pixels."""

    features: int
    use_bias: bool = True
    kernel_init: Any = _GLOROT

    def weights(self, x: Images) -> tuple[Array, Array, Array]:
        """The image, the kernel and the bias, of one dtype."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        bias = (
            self.param("bias", nn.initializers.zeros, (self.features,))
            if self.use_bias
            else jnp.zeros(self.features, x.dtype)
        )
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias)
        return x, kernel, bias


def _convolve(
    x: Images, kernel: Float[Array, "2 2 channels features"]
) -> Float[Array, "*n height-1 width-1 features"]:
    """A convolution of the padded image, kept where the kernel overlaps it."""
    *lead, height, width, _ = x.shape
    out = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[-3:]),
        kernel,
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.reshape(*lead, height - 1, width - 1, kernel.shape[-1])


class UpConv(_Resampling):
    r"""`upsample`, then a 3 x 3 convolution.

    An output pixel sees 2 x 2 pixels of the input, each through the sum of the taps that fall on
    it, so all four pixels of a block come from one 2 x 2 convolution with four times the features.
    """

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "*n 2*height 2*width features"]:
        x, kernel, bias = self.weights(x)
        # Row a of a block sees the input rows a - 1 and a; the taps 0 | 1 2 of row 0 fall on them,
        # and the taps 0 1 | 2 of row 1.
        taps = jnp.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], kernel.dtype)
        small = jnp.einsum("ait,bjs,tscd->ijcabd", taps, taps, kernel)
        height, width = x.shape[-3:-1]
        out = _convolve(_pad(x), rearrange(small, "i j c a b d -> i j c (a b d)"))
        out = rearrange(out, "... (a b d) -> a b ... d", a=2, b=2)
        rows = [
            [out[a, b, ..., a : a + height, b : b + width, :] for b in range(2)] for a in range(2)
        ]
        blocks = jnp.stack([jnp.stack(row) for row in rows])
        return rearrange(blocks, "a b ... h w d -> ... (h a) (w b) d") + bias


class DownConv(_Resampling):
    r"""A 3 x 3 convolution, then `pool`.

    The mean of four neighbouring outputs sees 4 x 4 pixels of the input: 2 x 2 blocks of them.
    """

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "*n height//2 width//2 features"]:
        x, kernel, bias = self.weights(x)
        # Tap t of a 3-wide kernel, shifted by 0 and by 1, falls on t and t + 1 of 4.
        taps = jnp.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], kernel.dtype) / 2
        large = jnp.einsum("it,js,tscd->ijcd", taps, taps, kernel)
        blocks = rearrange(_pad(x), "... (h a) (w b) c -> ... h w (a b c)", a=2, b=2)
        kernel = rearrange(large, "(i a) (j b) c d -> i j (a b c) d", a=2, b=2)
        return _convolve(blocks, kernel) + bias


class SelfAttention(nn.Module):
    r"""Each pixel with a mean of all pixels, by how alike they are, added to it.

    $$ o_i = x_i + \gamma\, W_o \sum_j \mathrm{softmax}_j(\theta_i \cdot \phi_j)\, g_j $$

    where the pixels `j` are 2 x 2 maxima of `phi` and `g`, and no scale divides the products.

    References:
        Zhang et al., *Self-Attention Generative Adversarial Networks*, 2019, in the form of Brock,
        Donahue and Simonyan, *Large Scale GAN Training*, 2019.
    """

    @nn.compact
    def __call__(self, x: Images) -> Images:
        channels = x.shape[-1]
        if channels < 8:
            raise ValueError(f"self-attention needs at least 8 channels, got {channels}")
        theta = Conv1(channels // 8, use_bias=False, name="theta")(x)
        phi = Conv1(channels // 8, use_bias=False, name="phi")(x)
        values = Conv1(channels // 2, use_bias=False, name="g")(x)
        phi, values = (
            reduce(y, "... (h a) (w b) c -> ... (h w) c", "max", a=2, b=2) for y in (phi, values)
        )
        scores = jnp.einsum("...hwc,...kc->...hwk", theta, phi)
        mixed = jnp.einsum("...hwk,...kc->...hwc", nn.softmax(scores), values)
        gamma = self.param("gamma", nn.initializers.zeros, (1,))
        return x + gamma.astype(x.dtype) * Conv1(channels, use_bias=False, name="o")(mixed)
