"""SNGAN: the residual generator of Miyato et al. (2018), and the discriminator it is trained with.

The generator has the shape, and `key_names` the names, of the PyTorch implementation whose weights
are in circulation (latent directions and potential flows on MNIST and AnimeFaces).
"""

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from latent_flows.generators.layers import Conv, Conv1, DownConv, Images, UpConv, pool, upsample
from latent_flows.generators.weights import Target

__all__ = ["PRESETS", "SEED", "SNGAN", "Discriminator", "first_weights", "key_names"]

SEED = 4  # pixels along each side of what the first layer makes

_GLOROT = nn.initializers.glorot_uniform()
# Inside residual branches, whose variance a rectifier halves.
_BRANCH = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


def _norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name=name)


class _UpBlock(nn.Module):
    """Two convolutions at twice the size, beside an enlarged copy."""

    features: int

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Float[Array, "*n 2*height 2*width features"]:
        y = nn.relu(_norm(train, "norm1")(x))
        y = UpConv(self.features, kernel_init=_BRANCH, name="conv1")(y)
        y = nn.relu(_norm(train, "norm2")(y))
        y = Conv(self.features, kernel_init=_BRANCH, name="conv2")(y)
        if x.shape[-1] == self.features:
            return upsample(x) + y
        return UpConv(self.features, name="skip")(x) + y


class SNGAN(nn.Module):
    """The generator, `z -> image` in (-1, 1), of `4 * 2 ** (len(channels) - 1)` pixels a side.

    A latent with leading axes is a batch, which `train=True` needs: batch normalisation then uses
    the statistics of the batch, and updates the running ones (`mutable=["batch_stats"]`).

    References:
        Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, 2018.

    >>> import jax
    >>> net = SNGAN(channels=(4, 4), latent_dim=3)
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(3))
    >>> jax.eval_shape(net.apply, variables, jnp.ones(3)).shape
    (8, 8, 1)
    """

    channels: tuple[int, ...] = (256, 256, 256, 256)
    """Features of the first layer, then of each block that doubles the size."""
    image_channels: int = 1
    """Colours of a pixel."""
    latent_dim: int = 128
    """Latent dimensions."""

    @property
    def resolution(self) -> int:
        """Pixels along each side of an image."""
        return SEED * 2 ** (len(self.channels) - 1)

    @nn.compact
    def __call__(
        self, z: Float[Array, "*n latent"], train: bool = False
    ) -> Float[Array, "*n height width channels"]:
        """The image of a latent.

        Args:
            z: one latent of `latent_dim` numbers, or several along leading axes.
            train: normalise by the statistics of the batch.

        Raises:
            ValueError: a latent of another size, or training with one latent.
        """
        if z.shape[-1:] != (self.latent_dim,):
            raise ValueError(f"z must have shape [{self.latent_dim}], got {list(z.shape)}")
        if train and z.ndim == 1:
            raise ValueError("train=True needs a batch of latents, got one")
        x = nn.Dense(SEED**2 * self.channels[0], kernel_init=_GLOROT, name="dense")(z)
        x = rearrange(x, "... (c h w) -> ... h w c", h=SEED, w=SEED)
        for i, features in enumerate(self.channels[1:]):
            x = _UpBlock(features, name=f"block{i}")(x, train)
        x = nn.relu(_norm(train, "norm")(x))
        return jnp.tanh(Conv(self.image_channels, kernel_init=_GLOROT, name="conv")(x))


PRESETS = {
    "sngan-mnist": SNGAN(channels=(256,) * 4, image_channels=1, latent_dim=128),
    "sngan-animefaces": SNGAN(channels=(1024, 512, 256, 128, 64), image_channels=3, latent_dim=128),
}
"""The published generators: MNIST at 32 pixels, anime faces at 64."""


def key_names(net: SNGAN) -> dict[str, Target]:
    """Where each array of a PyTorch state dict belongs.

    A block's convolutions stand in a state dict twice, as `conv1` and in the sequence `model`;
    either name will do.

    Args:
        net: the network.

    Returns:
        The targets by key, for `weights.from_state_dict`.

    >>> key_names(SNGAN(channels=(4, 4)))["model.2.conv1.weight"]
    Target(path=('params', 'block0', 'conv1', 'kernel'), layout='conv', ...)
    """
    names = _layer("model.0", ("dense",), "dense")
    for i, (before, after) in enumerate(zip(net.channels, net.channels[1:], strict=False)):
        key, block = f"model.{2 + i}", f"block{i}"
        names |= _batch_norm(f"{key}.model.0", (block, "norm1"))
        names |= _batch_norm(f"{key}.model.4", (block, "norm2"))
        for conv, place in (("conv1", 3), ("conv2", 6)):
            names |= _layer(f"{key}.{conv}", (block, conv), "conv")
            names |= _layer(f"{key}.model.{place}", (block, conv), "conv")
        if before != after:
            names |= _layer(f"{key}.bypass.1", (block, "skip"), "conv")
    last = 1 + len(net.channels)
    names |= _batch_norm(f"model.{last}", ("norm",))
    return names | _layer(f"model.{last + 2}", ("conv",), "conv")


def first_weights(net: SNGAN, variables: PyTree) -> Float[Array, "m d"]:
    """The weights of the layer that takes the latent, for SeFa.

    Args:
        net: the network.
        variables: its variables.

    Returns:
        One row a unit, one column a latent dimension.
    """
    return variables["params"]["dense"]["kernel"].T


def _layer(key: str, path: tuple[str, ...], layout: str) -> dict[str, Target]:
    return {
        f"{key}.weight": Target(("params", *path, "kernel"), layout),
        f"{key}.bias": Target(("params", *path, "bias"), "same"),
    }


def _batch_norm(key: str, path: tuple[str, ...]) -> dict[str, Target]:
    return {
        f"{key}.weight": Target(("params", *path, "scale"), "same"),
        f"{key}.bias": Target(("params", *path, "bias"), "same"),
        f"{key}.running_mean": Target(("batch_stats", *path, "mean"), "same"),
        f"{key}.running_var": Target(("batch_stats", *path, "var"), "same"),
    }


class Discriminator(nn.Module):
    """A score for each image, large for real ones.

    Its layers are plain; `adversarial.normalise` gives their weights spectral norm 1.

    References:
        Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, 2018, table 3.

    >>> import jax
    >>> net = Discriminator(channels=(4, 4))
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((8, 8, 1)))
    >>> jax.eval_shape(net.apply, variables, jnp.ones((5, 8, 8, 1))).shape
    (5,)
    """

    channels: tuple[int, ...] = (128, 128, 128, 128)
    """Features of the blocks; each halves an even size while more than 8 pixels are left."""

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "*n"]:
        for i, features in enumerate(self.channels):
            x = _DownBlock(features, first=i == 0, name=f"block{i}")(x)
        x = nn.relu(x).sum((-3, -2))
        return nn.Dense(1, kernel_init=_GLOROT, name="dense")(x)[..., 0]


class _DownBlock(nn.Module):
    """Two convolutions, the second of half the size if there is room, beside a shortcut."""

    features: int
    first: bool

    @nn.compact
    def __call__(self, x: Images) -> Float[Array, "*n height2 width2 features"]:
        height, width, channels = x.shape[-3:]
        halve = min(height, width) > 8 and height % 2 == width % 2 == 0
        second = DownConv if halve else Conv
        # The first block sees pixels, which no rectifier must touch.
        y = x if self.first else nn.relu(x)
        y = nn.relu(Conv(self.features, kernel_init=_BRANCH, name="conv1")(y))
        y = second(self.features, kernel_init=_BRANCH, name="conv2")(y)
        # The mean of pixels and a map of each commute; the smaller image is the cheaper.
        skip = pool(x) if halve else x
        if halve or channels != self.features:
            skip = Conv1(self.features, kernel_init=_GLOROT, name="skip")(skip)
        return skip + y
