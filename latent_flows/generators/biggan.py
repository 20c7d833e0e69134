"""BigGAN: the class-conditional generator of Brock, Donahue and Simonyan (2019).

Its shape, and the names of `key_names`, are those of the authors' PyTorch implementation.
"""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, PyTree

from latent_flows.generators.layers import Conv, Conv1, Images, SelfAttention, UpConv, upsample
from latent_flows.generators.weights import Target

__all__ = ["PRESETS", "SEED", "WIDTHS", "BigGAN", "first_weights", "key_names"]

SEED = 4  # pixels along each side of what the first layer makes

WIDTHS: dict[int, tuple[int, ...]] = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
"""For each resolution the features of the first layer, then of each block, in `channels`."""

_BATCH_NORM = partial(nn.BatchNorm, use_running_average=True, epsilon=1e-5)


class _ConditionalNorm(nn.Module):
    """Batch normalisation by running statistics, its gain and bias linear in the condition."""

    @nn.compact
    def __call__(self, x: Images, condition: Float[Array, "*n k"]) -> Images:
        gain, bias = (
            nn.Dense(x.shape[-1], use_bias=False, name=name)(condition) for name in ("gain", "bias")
        )
        x = _BATCH_NORM(use_scale=False, use_bias=False, name="norm")(x)
        return x * (1 + gain[..., None, None, :]) + bias[..., None, None, :]


class _UpBlock(nn.Module):
    """Two convolutions at twice the size, beside a linear map of each pixel."""

    features: int

    @nn.compact
    def __call__(
        self, x: Images, condition: Float[Array, "*n k"]
    ) -> Float[Array, "*n 2*height 2*width features"]:
        y = nn.relu(_ConditionalNorm(name="norm1")(x, condition))
        y = UpConv(self.features, name="conv1")(y)
        y = nn.relu(_ConditionalNorm(name="norm2")(y, condition))
        y = Conv(self.features, name="conv2")(y)
        # A map of each pixel commutes with copying pixels, and the smaller image is the cheaper.
        return y + upsample(Conv1(self.features, name="skip")(x))


class BigGAN(nn.Module):
    """The generator, `(z, label) -> image` in (-1, 1), of `resolution` pixels a side, 3 colours.

    Inference only: batch normalisation uses the stored statistics. Leading axes, the same for `z`
    and `label`, are a batch.

    References:
        Brock, Donahue and Simonyan, *Large Scale GAN Training for High Fidelity Natural Image
        Synthesis*, 2019, appendix B.

    >>> net = BigGAN(resolution=32, channels=2, classes=5, latent_dim=8, attention=(16,))
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), *net.example_inputs())
    >>> jax.eval_shape(net.apply, variables, jnp.ones(8), 3).shape
    (32, 32, 3)
    """

    resolution: int = 128
    """Pixels along each side: 32, 64, 128, 256 or 512."""
    channels: int = 96
    """Width: features of the thinnest layer (of a quarter of each layer, at 32 pixels)."""
    latent_dim: int = 120
    """Latent dimensions; the split latent needs a multiple of its number of parts, one for the
    first layer and one for each block."""
    classes: int = 1000
    """Classes of images."""
    attention: tuple[int, ...] = (64,)
    """Resolutions after which self-attention follows."""
    shared: bool = True
    """One embedding of the class for all layers; otherwise each has its own gains and biases."""
    shared_dim: int = 128
    """Size of that embedding."""
    split: bool = True
    """A part of the latent for each block, beside the class ("hierarchical")."""

    def setup(self) -> None:
        if self.resolution not in WIDTHS:
            raise ValueError(f"resolution must be one of {list(WIDTHS)}, got {self.resolution}")
        if self.split and self.latent_dim % self.slots:
            raise ValueError(
                f"latent_dim must be a multiple of {self.slots}, the parts of a split latent at "
                f"{self.resolution} pixels, got {self.latent_dim}"
            )
        if self.split and not self.shared:
            raise ValueError("split=True needs shared=True: parts of the latent join the embedding")
        first, *widths = (self.channels * width for width in WIDTHS[self.resolution])
        if self.shared:
            self.embedding = nn.Embed(self.classes, self.shared_dim)
        self.dense = nn.Dense(SEED**2 * first)
        self.blocks = [_UpBlock(width) for width in widths]
        self.attentions = {
            str(i): SelfAttention() for i in range(len(widths)) if self.attends(after=i)
        }
        self.norm = _BATCH_NORM()
        self.conv = Conv(3)

    @property
    def slots(self) -> int:
        """Parts of the latent: one for the first layer and, if it is split, one for each block."""
        return len(WIDTHS[self.resolution]) if self.split else 1

    def attends(self, after: int) -> bool:
        """Whether self-attention follows a block."""
        return SEED * 2 ** (after + 1) in self.attention

    def example_inputs(self) -> tuple[Array, Array]:
        """Inputs of the right shapes, for `init`."""
        return jnp.zeros(self.latent_dim), jnp.zeros((), jnp.int32)

    def embed(self, label: ArrayLike) -> Float[Array, "*n k"]:
        """The condition of a class: its shared embedding, or one-hot without one.

        Mixtures of conditions are conditions, so `embed` gives the ends of an interpolation.

        Raises:
            ValueError: a label that is not an integer, or none of the classes.
        """
        label = jnp.asarray(label)
        if not jnp.issubdtype(label.dtype, jnp.integer):
            raise ValueError(f"label must be an integer, got {label.dtype}")
        if (
            not isinstance(label, jax.core.Tracer)
            and not (label >= 0).all() & (label < self.classes).all()
        ):
            raise ValueError(f"label must lie in [0, {self.classes}), got {label}")
        return self.embedding(label) if self.shared else jax.nn.one_hot(label, self.classes)

    def __call__(
        self, z: Float[Array, "*n latent"], label: ArrayLike
    ) -> Float[Array, "*n height width 3"]:
        """The image of a latent and a class.

        Args:
            z: one latent of `latent_dim` numbers.
            label: the class, an integer in `[0, classes)`, or a condition as `embed` gives it.

        Raises:
            ValueError: a latent or condition of another size, or a label that is no class.
        """
        if z.shape[-1:] != (self.latent_dim,):
            raise ValueError(f"z must have shape [{self.latent_dim}], got {list(z.shape)}")
        label = jnp.asarray(label)
        integer = jnp.issubdtype(label.dtype, jnp.integer)
        condition = self.embed(label) if integer else label
        size = self.shared_dim if self.shared else self.classes
        if condition.shape != (*z.shape[:-1], size):
            raise ValueError(
                f"label must be an integer or have shape {[*z.shape[:-1], size]}, got "
                f"{list(label.shape)}"
            )
        first, *parts = jnp.split(z, self.slots, axis=-1)
        x = rearrange(self.dense(first), "... (c h w) -> ... h w c", h=SEED, w=SEED)
        for i, block in enumerate(self.blocks):
            given = jnp.concatenate([condition, parts[i]], -1) if self.split else condition
            x = block(x, given)
            if self.attends(after=i):
                x = self.attentions[str(i)](x)
        return jnp.tanh(self.conv(nn.relu(self.norm(x))))


PRESETS = {
    "biggan-128": BigGAN(resolution=128, latent_dim=120),
    "biggan-256": BigGAN(resolution=256, latent_dim=140),
    "biggan-512": BigGAN(resolution=512, latent_dim=160),
}
"""The published configurations: 96 channels, 1000 classes, 20 latent dimensions a block."""


def key_names(net: BigGAN) -> dict[str, Target]:
    """Where each array of a PyTorch state dict belongs.

    Weights are stored beside the vectors of a power iteration, `u0`; one more step from there
    gives the spectral norm that they are divided by, as the implementation does for inference. Its
    own batch normalisation (`mybn`) stores the same statistics under other names; either will do.

    Args:
        net: the network.

    Returns:
        The targets by key, for `weights.from_state_dict`.

    >>> key_names(PRESETS["biggan-128"])["blocks.3.1.theta.weight"]
    Target(path=('params', 'attentions_3', 'theta', 'kernel'), layout='conv', ...)
    """
    names = _spectral("linear", ("dense",), "dense", bias=True)
    if net.shared:
        names["shared.weight"] = Target(("params", "embedding", "embedding"), "same")
    for i in range(len(WIDTHS[net.resolution]) - 1):
        key, block = f"blocks.{i}", f"blocks_{i}"
        for conv, place in {"conv1": "conv1", "conv2": "conv2", "conv_sc": "skip"}.items():
            names |= _spectral(f"{key}.0.{conv}", (block, place), "conv", bias=True)
        for norm, place in {"bn1": "norm1", "bn2": "norm2"}.items():
            for term in ("gain", "bias"):
                at = (block, place, term)
                if net.shared:
                    names |= _spectral(f"{key}.0.{norm}.{term}", at, "dense", bias=False)
                else:
                    names[f"{key}.0.{norm}.{term}.weight"] = Target(
                        ("params", *at, "kernel"), "same"
                    )
            names |= _statistics(f"{key}.0.{norm}", (block, place, "norm"))
        if net.attends(after=i):
            layer = f"attentions_{i}"
            for conv in ("theta", "phi", "g", "o"):
                names |= _spectral(f"{key}.1.{conv}", (layer, conv), "conv", bias=False)
            names[f"{key}.1.gamma"] = Target(("params", layer, "gamma"), "flat")
    names |= _statistics("output_layer.0", ("norm",))
    names["output_layer.0.gain"] = Target(("params", "norm", "scale"), "same")
    names["output_layer.0.bias"] = Target(("params", "norm", "bias"), "same")
    return names | _spectral("output_layer.2", ("conv",), "conv", bias=True)


def first_weights(net: BigGAN, variables: PyTree) -> Float[Array, "m d"]:
    """The weights of the layer that takes the latent, for SeFa.

    Args:
        net: the network.
        variables: its variables.

    Returns:
        One row a unit, one column a latent dimension; zeros for the parts of a split latent that
        the first layer does not see.
    """
    seen = variables["params"]["dense"]["kernel"].T
    return jnp.pad(seen, ((0, 0), (0, net.latent_dim - seen.shape[1])))


def _spectral(key: str, path: tuple[str, ...], layout: str, *, bias: bool) -> dict[str, Target]:
    weight = Target(("params", *path, "kernel"), layout, normalise=f"{key}.u0")
    names = {f"{key}.weight": weight}
    return names | ({f"{key}.bias": Target(("params", *path, "bias"), "same")} if bias else {})


def _statistics(key: str, path: tuple[str, ...]) -> dict[str, Target]:
    return {
        f"{key}{inner}.stored_{moment}": Target(("batch_stats", *path, moment), "same")
        for inner in ("", ".bn")
        for moment in ("mean", "var")
    }
