r"""Progressively grown GANs: pixel-normalised convolutions between nearest-neighbour upsamplings.

Karras et al., Progressive Growing of GANs for Improved Quality, Stability, and Variation (ICLR
2018), at its last stage of growth. The layers and the names of their weights are those of the
PyTorch port that most published tools use, in which the factors of the equalised learning rate are
stored as `wscale.scale`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from latent_flows._validation import at_least
from latent_flows.generators.pixel_norm import pixel_norm
from latent_flows.generators.weights import Target
from latent_flows.typing import Latent

__all__ = ["CHANNELS", "PRESETS", "Image", "ProgGAN", "ScaledConv", "first_weights", "key_names"]

Image = Float[Array, "height width channels"]

CHANNELS = (512, 512, 512, 512, 256, 128, 64, 32, 16)
"""Features at 4, 8, ..., 1024 pixels."""


class ScaledConv(nn.Module):
    """Pixel normalisation, a convolution without bias, then a stored factor and a bias."""

    features: int
    """Channels of the result."""
    size: int = 3
    """Pixels along each side of the kernel."""
    up: bool = False
    """Whether height and width are doubled."""
    spread: bool = False
    """Whether the input is one pixel, which the kernel spreads out to its own size."""

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "height2 width2 features"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape).astype(x.dtype)
        gain = math.sqrt(2 / (x.shape[-1] if self.spread else math.prod(shape[:3])))
        scale = self.param("scale", nn.initializers.constant(gain), ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = pixel_norm(x)
        if self.spread:
            # A cross-correlation mirrors the kernel when it is the image that is one pixel.
            x = jnp.einsum("i,abio->abo", x[0, 0], kernel[::-1, ::-1])
        else:
            if self.up:
                x = x.repeat(2, axis=0).repeat(2, axis=1)
            x = jax.lax.conv_general_dilated(
                x[None],
                kernel,
                window_strides=(1, 1),
                padding="SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[0]
        return x * scale.astype(x.dtype) + bias.astype(x.dtype)


class ProgGAN(nn.Module):
    """The generator of a fully grown ProgGAN, `z -> image`, in [-1, 1] nominally.

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators.proggan import ProgGAN
    >>> net = ProgGAN(channels=(4, 2), latent_dim=3)
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.ones(3))
    >>> jax.eval_shape(net.apply, variables, jnp.ones(3)).shape
    (8, 8, 3)
    """

    channels: tuple[int, ...] = CHANNELS
    """Features at 4, 8, ... pixels; their number sets the resolution."""
    latent_dim: int = 512
    """Dimensions of `z`, of which only the direction matters."""
    checkpoint: bool = False
    """Recompute each layer's features on the way back instead of storing them."""

    def __post_init__(self) -> None:
        at_least(self, "ProgGAN ", latent_dim=1)
        if not self.channels or min(self.channels) < 1:
            raise ValueError(
                f"channels must give the features at 4, 8, ... pixels, got {self.channels}"
            )
        super().__post_init__()

    @property
    def resolution(self) -> int:
        """Pixels along each side."""
        return 4 * 2 ** (len(self.channels) - 1)

    @nn.compact
    def __call__(self, z: Latent) -> Image:
        """One latent of shape `(latent_dim,)` to one image.

        Raises:
            ValueError: `z` of another shape.
        """
        if z.shape != (self.latent_dim,):
            raise ValueError(
                f"z must have shape ({self.latent_dim},), got {z.shape}; vmap over a batch"
            )
        conv: Any = nn.remat(ScaledConv) if self.checkpoint else ScaledConv
        x = z[None, None]
        for i, width in enumerate(self.channels):
            first = conv(
                width, **({"up": True} if i else {"size": 4, "spread": True}), name=f"conv_{2 * i}"
            )
            x = jax.nn.leaky_relu(first(x), 0.2)
            x = jax.nn.leaky_relu(conv(width, name=f"conv_{2 * i + 1}")(x), 0.2)
        return conv(3, size=1, name="to_rgb")(x)


def key_names(net: ProgGAN) -> dict[str, Target]:
    """Where each key of a published state dict belongs.

    Args:
        net: the network.

    Returns:
        The targets by key, for `weights.from_state_dict`.
    """
    layers = {f"features.{i}": f"conv_{i}" for i in range(2 * len(net.channels))}
    return {
        key: target
        for prefix, name in {**layers, "output": "to_rgb"}.items()
        for key, target in {
            f"{prefix}.conv.weight": Target(("params", name, "kernel"), "conv"),
            f"{prefix}.wscale.scale": Target(("params", name, "scale"), "flat"),
            f"{prefix}.wscale.b": Target(("params", name, "bias")),
        }.items()
    }


def first_weights(net: ProgGAN, variables: PyTree) -> Float[Array, "m d"]:
    """The weights of the layer that takes the latent, for SeFa.

    Args:
        net: the network.
        variables: its variables.

    Returns:
        One row a unit and pixel, one column a latent dimension.
    """
    kernel = variables["params"]["conv_0"]["kernel"]
    return jnp.moveaxis(kernel, 2, -1).reshape(-1, net.latent_dim)


PRESETS = {
    "proggan-1024": ProgGAN(),
    "proggan-512": ProgGAN(CHANNELS[:8]),
    "proggan-256": ProgGAN(CHANNELS[:7]),
    "proggan-128": ProgGAN(CHANNELS[:6]),
}
"""The published configurations: faces (1024), and what stages of smaller images grow to."""
