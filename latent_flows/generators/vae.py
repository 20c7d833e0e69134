"""Variational autoencoders: an encoder, a decoder and a likelihood, of a sample or of many.

Strided and transposed convolutions are written as space-to-depth and depth-to-space
rearrangements around dense layers: the same linear maps, several times faster on CPU.
"""

import dataclasses
import math
from functools import partial
from itertools import zip_longest
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jaxtyping import Array, Float, Num, PyTree

from latent_flows._validation import at_least, floats
from latent_flows.generators import likelihoods
from latent_flows.typing import Generator, Scalar

__all__ = [
    "VAE",
    "BroadcastDecoder",
    "ConvDecoder",
    "ConvEncoder",
    "DecoderName",
    "Dense",
    "EncoderName",
    "LikelihoodName",
    "MLPDecoder",
    "MLPEncoder",
    "VAEConfig",
    "first_weights",
    "generator",
    "members",
    "standardised",
]

EncoderName = Literal["mlp", "conv"]
DecoderName = Literal["mlp", "conv", "broadcast"]
LikelihoodName = Literal["bernoulli", "gaussian", "discretised_logistic"]


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """The architecture of a variational autoencoder."""

    latent_dim: int = 6
    """Latent dimensions."""
    encoder: EncoderName = "conv"
    """mlp: dense layers; conv: patches merged 4x4, then 2x2, until 4 to 7 pixels are left, along
    each side as far as it can be divided."""
    decoder: DecoderName = "broadcast"
    """mlp: dense layers; conv: the encoder's mirror image; broadcast: a network of the
    pixel's coordinates in a frame that the latent moves, stretches and shears."""
    width: int = 64
    """Units of a hidden layer (features of a pixel, for conv and broadcast)."""
    depth: int = 2
    """Hidden layers of mlp, and of broadcast after its first."""
    likelihood: LikelihoodName = "bernoulli"
    """bernoulli: a probability a pixel; gaussian: a mean a pixel, one learned deviation;
    discretised_logistic: the same for a probability of each of 256 grey values."""
    decoders: int = 1
    """Decoders of this architecture that share the encoder, an ensemble: they agree where there are
    data. A sample is the mean of theirs; each example of a batch trains one of them."""
    apart: bool = False
    """broadcast: whether what shifts the picture is kept out of what stretches, shears and fills
    it."""

    def __post_init__(self):
        at_least(self, "vae ", latent_dim=1, width=1, depth=1, decoders=1)
        if self.apart and self.decoder != "broadcast":
            raise ValueError(
                f"vae apart is of the decoder broadcast, which shifts pictures, not of "
                f"{self.decoder}: leave it out"
            )


def _strides(height: int, width: int) -> list[tuple[int, int]]:
    """Patch merges of an image: of each side by itself, the shorter one not at all at the end."""
    return list(zip_longest(_strides_of_side(height), _strides_of_side(width), fillvalue=1))


def _strides_of_side(size: int) -> tuple[int, ...]:
    """Patch merges from `size` pixels to 4 to 7: first 4 at once, then 2 by 2."""
    strides = []
    if size % 4 == 0 and size >= 16:
        strides.append(4)
        size //= 4
    while size % 2 == 0 and size > 4:
        strides.append(2)
        size //= 2
    return tuple(strides)


def _merge(x: Array, patch: tuple[int, int]) -> Array:
    return rearrange(x, "... (h a) (w b) c -> ... h w (a b c)", a=patch[0], b=patch[1])


def _split(x: Array, patch: tuple[int, int]) -> Array:
    return rearrange(x, "... h w (a b c) -> ... (h a) (w b) c", a=patch[0], b=patch[1])


class Dense(nn.Dense):
    """A dense layer on the last axis, the others laid end to end.

    The gradient of its weights is then one product of two matrices. With several axes to sum over,
    as those of a batch and of pixels, XLA for CPUs transposes both factors first: training takes
    half as long again.
    """

    def __call__(self, x: Float[Array, "*n m"]) -> Float[Array, "*n k"]:
        rows = super().__call__(x.reshape(-1, x.shape[-1]))
        return rows.reshape(*x.shape[:-1], self.features)


class MLPEncoder(nn.Module):
    """Dense layers on a vector, or on images `[..., height * width * channels]` laid flat."""

    config: VAEConfig
    """Sizes and kinds of layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "*n m"]) -> Array:
        for _ in range(self.config.depth):
            x = nn.gelu(Dense(8 * self.config.width)(x))
        return x


class ConvEncoder(nn.Module):
    """Patch merges, each followed by a dense layer on the features of a pixel."""

    config: VAEConfig
    """Sizes and kinds of layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "*n height width channels"]) -> Array:
        features = self.config.width // 2
        for patch in _strides(*x.shape[-3:-1]):
            x = nn.gelu(Dense(features)(_merge(x, patch)))
            features *= 2
        return nn.gelu(Dense(4 * self.config.width)(x.reshape(*x.shape[:-3], -1)))


class MLPDecoder(nn.Module):
    """Dense layers to the flattened image, or a vector."""

    config: VAEConfig
    """Sizes and kinds of layers."""
    image_shape: tuple[int, ...]
    """Height, width and channels of a sample, or the length of a vector."""

    @nn.compact
    def __call__(self, z: Float[Array, "*n d"]) -> Array:
        for _ in range(self.config.depth):
            z = nn.gelu(Dense(8 * self.config.width)(z))
        x = Dense(math.prod(self.image_shape))(z)
        return x.reshape(*z.shape[:-1], *self.image_shape)


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`, with a 3x3 convolution at each resolution."""

    config: VAEConfig
    """Sizes and kinds of layers."""
    image_shape: tuple[int, ...]
    """Height, width and channels of a sample."""

    @nn.compact
    def __call__(self, z: Float[Array, "*n d"]) -> Array:
        height, width, channels = self.image_shape
        patches = _strides(height, width)
        down, across = (math.prod(sides) for sides in zip((1, 1), *patches, strict=True))
        features = self.config.width // 2 * 2 ** len(patches)
        grid = (height // down, width // across, features)
        x = nn.gelu(Dense(4 * self.config.width)(z))
        x = nn.gelu(Dense(math.prod(grid))(x)).reshape(*z.shape[:-1], *grid)
        for patch in reversed(patches[1:]):
            features //= 2
            x = nn.gelu(_split(Dense(math.prod(patch) * features)(x), patch))
            x = nn.gelu(nn.Conv(features, (3, 3))(x))
        last = patches[0] if patches else (1, 1)
        return _split(Dense(math.prod(last) * channels)(x), last)


class BroadcastDecoder(nn.Module):
    r"""A network of the coordinates `p` of a patch, in frames that the latent sets.

    The latent first shifts the coordinates, then stretches and shears them:

    $$ h_j(p, z) = (A_j + B_j z) \cdot (p - C z) + c_j + d_j \cdot z $$

    and a network on `h` writes a patch of 4 x 4 pixels. Translation of the picture is thus linear
    in the latent whatever its size; spatial broadcast (Watters et al. 2019) has only the terms
    `A_j p + c_j + d_j z`.

    Where `config.apart`, everything else is given `z` without its part in the span of the rows of
    `C`: along them the picture moves and does nothing else.
    """

    config: VAEConfig
    """Sizes and kinds of layers."""
    image_shape: tuple[int, ...]
    """Height, width and channels of a sample."""

    @nn.compact
    def __call__(self, z: Float[Array, "*n d"]) -> Array:
        height, width, channels = self.image_shape
        patch = next(p for p in (4, 2, 1) if height % p == 0 and width % p == 0)
        rows, columns = (
            jnp.linspace(-1.0, 1.0, n // patch, dtype=z.dtype) for n in (height, width)
        )
        y, x = jnp.meshgrid(rows, columns, indexing="ij")
        shifting = Dense(2, use_bias=False)
        shift = shifting(z)[..., None, None, :]
        if self.config.apart:
            z = _without(z, shifting.variables["params"]["kernel"])
        features = self.config.width
        # Random frames to begin with: with the usual bias of zero, a latent of zero would have
        # none, and training spends its first half on making some.
        frames = Dense(3 * features, bias_init=nn.initializers.normal(2.0))(z)
        across, down, still = jnp.split(frames[..., None, None, :], 3, -1)
        x, y = x[..., None] - shift[..., :1], y[..., None] - shift[..., 1:]
        h = x * across + y * down + still
        for _ in range(self.config.depth):
            h = Dense(self.config.width)(nn.silu(h))
        return _split(Dense(patch**2 * channels)(nn.silu(h)), (patch, patch))


def _without(z: Float[Array, "*n d"], columns: Float[Array, "d k"]) -> Float[Array, "*n d"]:
    """What of `z` is orthogonal to all columns, by Gram and Schmidt."""
    for i in range(columns.shape[1]):
        unit = columns[:, i] / jnp.linalg.norm(columns[:, i])
        z = z - (z @ unit)[..., None] * unit
        columns = columns - jnp.outer(unit, unit @ columns)
    return z


_ENCODERS = {"mlp": MLPEncoder, "conv": ConvEncoder}
_DECODERS = {"mlp": MLPDecoder, "conv": ConvDecoder, "broadcast": BroadcastDecoder}


class VAE(nn.Module):
    """A variational autoencoder (Kingma and Welling, 2014) with prior `N(0, I)`.

    Of a vector, what is encoded is `(x - centre) / spread`, and the mean of the likelihood is
    `centre + spread * decoder(z)`. These two are variables that are not learnt: 0 and 1 until
    `standardised` sets them to the mean and the deviation of data.

    With several decoders, the parameters of all are stacked, and the likelihood is that of one
    drawn at random: of a sample the mean over decoders of their densities, and the mean is theirs.

    Every method takes one point, or many with axes in front, which training is quicker with than
    `jax.vmap`:

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators.vae import VAE, VAEConfig
    >>> vae = VAE(VAEConfig(latent_dim=3, width=8), image_shape=(16, 16, 1))
    >>> x = jnp.zeros((16, 16, 1))
    >>> params = vae.init(jax.random.key(0), x)
    >>> mean, std = vae.apply(params, x, method=vae.encode)
    >>> mean.shape, vae.apply(params, mean, method=vae.decode).shape
    ((3,), (16, 16, 1))
    >>> vae.apply(params, jnp.zeros((5, 3)), method=vae.decode).shape
    (5, 16, 16, 1)
    """

    config: VAEConfig
    """Sizes and kinds of layers."""
    image_shape: tuple[int, ...]
    """Height, width and channels of a sample, or the length of a vector."""

    def setup(self):
        if len(self.image_shape) != 3:
            _check_vectors(self.config, self.image_shape)
            self.centre = self.param("centre", nn.initializers.zeros, self.image_shape)
            self.spread = self.param("spread", nn.initializers.ones, self.image_shape)
        self.encoder = _ENCODERS[self.config.encoder](self.config)
        self.posterior = Dense(2 * self.config.latent_dim)
        decoder: Any = _DECODERS[self.config.decoder]
        if self.config.decoders > 1:
            decoder = nn.vmap(
                decoder,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                axis_size=self.config.decoders,
            )
        self.decoder = decoder(self.config, self.image_shape)
        if self.config.likelihood == "gaussian":
            self.log_std = self.param("log_std", nn.initializers.constant(-1.0), ())
        elif self.config.likelihood == "discretised_logistic":
            self.log_scale = self.param("log_scale", nn.initializers.constant(-2.0), ())

    def example_inputs(self) -> tuple[Float[Array, "*event"]]:
        """Inputs of the right shapes, for `init`."""
        return (jnp.zeros(self.image_shape),)

    def encode(self, x: Float[Array, "*n_event"]) -> tuple[Float[Array, "*n d"], ...]:
        """Mean and standard deviation of the posterior `q(z | x)`, a diagonal Gaussian."""
        batch = self._batch(x)
        floats("the VAE", x=x)
        if len(self.image_shape) != 3:
            centre, spread = self._standard()
            x = (x - centre) / spread
        elif self.config.encoder == "mlp":
            x = x.reshape(*batch, -1)
        mean, raw = jnp.split(self.posterior(self.encoder(x)), 2, -1)
        # Bounded, so that no log-variance can overflow early in training.
        return mean, jnp.exp(5.0 * jnp.tanh(raw / 5.0))

    def _batch(self, x: Num[Array, "*n_event"]) -> tuple[int, ...]:
        """The axes in front of those of a sample.

        Raises:
            ValueError: it is none of a sample's shape.
        """
        count = x.ndim - len(self.image_shape)
        if x.shape[max(count, 0) :] != self.image_shape:
            raise ValueError(f"the VAE encodes images of shape {self.image_shape}, got {x.shape}")
        return x.shape[:count]

    def decode(self, z: Float[Array, "*n d"]) -> Float[Array, "*n_event"]:
        """The mean of `p(x | z)`: an image in [0, 1], or a vector; over all decoders."""
        if self.config.decoders == 1:
            return self._mean(self.decoder(z))
        return self.members(z).mean(0)

    def members(self, z: Float[Array, "*n d"]) -> Float[Array, "members *n_event"]:
        """What each decoder makes of a latent."""
        return self._mean(self._decoded(z))

    def _decoded(self, z: Float[Array, "*n d"]) -> Float[Array, "members *n_event"]:
        if self.config.decoders == 1:
            return self.decoder(z)[None]
        return self.decoder(jnp.broadcast_to(z, (self.config.decoders, *z.shape)))

    def _mean(self, decoded: Float[Array, "*n_event"]) -> Float[Array, "*n_event"]:
        if len(self.image_shape) == 3:
            return jax.nn.sigmoid(decoded)
        centre, spread = self._standard()
        return centre + spread * decoded

    def _standard(self) -> tuple[Array, Array]:
        return jax.lax.stop_gradient((self.centre, self.spread))

    def log_likelihood(
        self, x: Float[Array, "*n_event"], z: Float[Array, "*n d"]
    ) -> Float[Array, "*n"]:
        """`log p(x | z)` in nats, summed over pixels and channels; of a decoder drawn at random."""
        one = self._log_likelihood
        for _ in self._batch(x):
            one = jax.vmap(one)
        if self.config.decoders == 1:
            return one(x, self.decoder(z))
        each = jax.vmap(partial(one, x))(self._decoded(z))
        return jax.nn.logsumexp(each, 0) - jnp.log(self.config.decoders)

    def member_log_likelihoods(
        self, xs: Float[Array, "members *event"], zs: Float[Array, "members d"]
    ) -> Float[Array, "members"]:
        """`log p_m(x_m | z_m)` in nats, of each decoder another sample."""
        decoded = self.decoder(zs[0])[None] if self.config.decoders == 1 else self.decoder(zs)
        return jax.vmap(self._log_likelihood)(xs, decoded)

    def _log_likelihood(self, x: Float[Array, "*event"], decoded: Float[Array, "*event"]) -> Scalar:
        if len(self.image_shape) != 3:
            _, spread = self._standard()
            deviation = spread * jnp.exp(self.log_std)
            return likelihoods.gaussian(x, self._mean(decoded), deviation)
        if self.config.likelihood == "bernoulli":
            return likelihoods.bernoulli(x, decoded)
        mean = self._mean(decoded)
        if self.config.likelihood == "gaussian":
            return likelihoods.gaussian(x, mean, jnp.exp(self.log_std))
        return likelihoods.discretised_logistic(x, mean, jnp.exp(self.log_scale))

    def __call__(self, x: Float[Array, "*event"]) -> Scalar:
        """`log p(x | z)` at the posterior mean: touches every parameter, so `init` makes all."""
        return self.log_likelihood(x, self.encode(x)[0])


def standardised(params: PyTree, vectors: Float[Array, "n d"]) -> PyTree:
    """The variables of a VAE of vectors, with the mean and the deviation of data.

    Args:
        params: the variables.
        vectors: of the data.

    Returns:
        The variables. A number that is the same in all vectors keeps a deviation of 1.

    >>> vae = VAE(VAEConfig(2, "mlp", "mlp", 4, 1, "gaussian"), (3,))
    >>> params = vae.init(jax.random.key(0), jnp.zeros(3))
    >>> data = jnp.array([[0.0, 1.0, 5.0], [2.0, 1.0, 9.0]])
    >>> standardised(params, data)["params"]["spread"].tolist()
    [1.0, 1.0, 2.0]
    """
    centre, spread = jnp.mean(vectors, 0), jnp.std(vectors, 0)
    spread = jnp.where(spread > 1e-6 * (1e-6 + jnp.abs(centre)), spread, 1.0)
    return {**params, "params": {**params["params"], "centre": centre, "spread": spread}}


def _check_vectors(config: VAEConfig, shape: tuple[int, ...]) -> None:
    """Whether an architecture is one of vectors.

    Raises:
        ValueError: it is one of images.
    """
    wanted = {"encoder": "mlp", "decoder": "mlp", "likelihood": "gaussian"}
    if len(shape) != 1 or any(getattr(config, name) != kind for name, kind in wanted.items()):
        raise ValueError(
            f"a VAE of samples of shape {shape}, which are no images, has the encoder mlp, the "
            f"decoder mlp and the likelihood gaussian, and takes vectors; got {config.encoder}, "
            f"{config.decoder} and {config.likelihood} (--vae.encoder mlp --vae.decoder mlp "
            "--vae.likelihood gaussian)"
        )


def generator(vae: VAE, params) -> Generator:
    """The decoder with its parameters closed over, `z -> x`.

    Args:
        vae: the network.
        params: its variables.

    Returns:
        `z -> x`, the mean of the likelihood.
    """
    apply: Any = vae.apply  # flax types its result as a pair as well
    return partial(apply, params, method=vae.decode)


def members(vae: VAE, params) -> Generator | None:
    """All decoders of an ensemble as one function.

    Args:
        vae: the network.
        params: its variables.

    Returns:
        `z -> [M, *event]`, of which `generator` is the mean; None where there is one decoder.
    """
    apply: Any = vae.apply
    return partial(apply, params, method=vae.members) if vae.config.decoders > 1 else None


def first_weights(vae: VAE, params) -> Float[Array, "m d"]:
    """The weights of the decoder's layers that take the latent, stacked, as SeFa needs them.

    Args:
        vae: the network.
        params: its variables.

    Returns:
        One row a unit, of each decoder, and one column a latent dimension.
    """
    decoder = params["params"]["decoder"]
    # The broadcast decoder takes it twice: to move and to stretch its frames.
    count = 2 if vae.config.decoder == "broadcast" else 1
    kernels = [decoder[f"Dense_{i}"]["kernel"] for i in range(count)]
    if vae.config.apart:
        kernels[1] = jnp.vectorize(_without, signature="(k,d),(d,s)->(k,d)")(
            kernels[1].mT, kernels[0]
        ).mT
    return jnp.concatenate([kernel.mT.reshape(-1, kernel.shape[-2]) for kernel in kernels])
