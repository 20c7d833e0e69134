r"""StyleGAN2: a mapping network `z -> w`, and a synthesis network whose weights `w` modulates.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN (CVPR 2020). The layers and
the names of their weights are those of the PyTorch port that most published tools use
(rosinality/stylegan2-pytorch). Parameters are stored as published; the factors of the equalised
learning rate are applied when they are used.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from latent_flows._validation import at_least, choose
from latent_flows.generators.pixel_norm import pixel_norm
from latent_flows.generators.resampling import fir_kernel, upfirdn
from latent_flows.generators.weights import Target
from latent_flows.typing import Generator, Latent

__all__ = [
    "CHANNELS",
    "MAPPING_RATE",
    "PRESETS",
    "TAPS",
    "EqualDense",
    "Image",
    "ModulatedConv",
    "Noise",
    "Space",
    "StyleGAN2",
    "StyledConv",
    "Styles",
    "ToRGB",
    "first_weights",
    "generator",
    "key_names",
    "mean_w",
    "styles",
    "with_mean_w",
]

Image = Float[Array, "height width channels"]
Styles = Float[Array, "layers d"]
Noise: TypeAlias = Literal["stored", "none"] | PRNGKeyArray
Space = Literal["z", "w", "w+"]

TAPS = (1, 3, 3, 1)
CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64, 32)
"""Features at 4, 8, ..., 1024 pixels; from 64 pixels on, for a channel multiplier of two."""
MAPPING_RATE = 0.01  # learning rate of the mapping network relative to the rest


def _activate(x: Array, bias: Array) -> Array:
    """Leaky ReLU that keeps the variance."""
    return math.sqrt(2) * jax.nn.leaky_relu(x + bias.astype(x.dtype), 0.2)


def _clamped(x: Array, limit: float | None) -> Array:
    return x if limit is None else jnp.clip(x, -limit, limit)


class EqualDense(nn.Module):
    """A dense layer with an equalised learning rate: factors at run time, not in the weights."""

    features: int
    """Channels of the result."""
    rate: float = 1.0
    """The learning rate, as a factor on weights that are drawn the larger for it."""
    bias_init: float = 0.0
    """What the bias starts at."""
    activate: bool = False
    """Whether a leaky ReLU follows."""

    @nn.compact
    def __call__(self, x: Float[Array, "inputs"]) -> Float[Array, "features"]:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1 / self.rate), shape)
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        y = x @ (kernel * (self.rate / math.sqrt(x.shape[-1]))).astype(x.dtype)
        bias = (bias * self.rate).astype(x.dtype)
        return _activate(y, bias) if self.activate else y + bias


class ModulatedConv(nn.Module):
    r"""A convolution whose weights a style scales, and demodulation scales back.

    $$ w'_{oi} = s_i w_{oi}, \quad
       y_o = \frac{\sum_i w'_{oi} * x_i}{\sqrt{\sum_i \lVert w'_{oi} \rVert^2 + 10^{-8}}} $$

    Features are scaled instead of weights, which is the same and lets a batch share its weights.
    """

    features: int
    """Channels of the result."""
    size: int = 3
    """Pixels along each side of the kernel."""
    demodulate: bool = True
    """Whether the result is scaled back to unit variance."""
    up: bool = False
    """Whether height and width are doubled."""

    @nn.compact
    def __call__(self, x: Image, w: Latent) -> Float[Array, "height2 width2 features"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel = kernel / math.sqrt(math.prod(shape[:3]))
        style = EqualDense(x.shape[-1], bias_init=1.0, name="modulation")(w)
        x = x * style.astype(x.dtype)
        weights = kernel.astype(x.dtype)
        convolve = partial(
            jax.lax.conv_general_dilated,
            window_strides=(1, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if self.up:
            edge = (self.size - 1, self.size - 1)
            mirrored = weights[::-1, ::-1]
            x = convolve(x[None], mirrored, padding=(edge, edge), lhs_dilation=(2, 2))[0]
            blur = self.variable("constants", "blur", fir_kernel, TAPS, 4.0).value
            rest = len(TAPS) - 1 - self.size
            x = upfirdn(x, blur, pad=((rest + 1) // 2 + 1, rest // 2 + 1))
        else:
            x = convolve(x[None], weights, padding="SAME")[0]
        if self.demodulate:
            # In single precision at least: half precision has too few digits for sums of squares.
            wide = jnp.promote_types(kernel.dtype, jnp.float32)
            power = jnp.square(style.astype(wide)) @ jnp.square(kernel.astype(wide)).sum((0, 1))
            x = x * jax.lax.rsqrt(power + 1e-8).astype(x.dtype)
        return x


class StyledConv(nn.Module):
    """A modulated convolution, noise of a learned strength, a bias and a leaky ReLU."""

    features: int
    """Channels of the result."""
    up: bool = False
    """Whether height and width are doubled."""
    clamp: float | None = None
    """The largest absolute value of the result."""

    @nn.compact
    def __call__(
        self, x: Image, w: Latent, noise: Float[Array, "height2 width2"] | None
    ) -> Float[Array, "height2 width2 features"]:
        x = ModulatedConv(self.features, up=self.up, name="conv")(x, w)
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if noise is not None:
            x = x + (strength * noise[..., None]).astype(x.dtype)
        return _clamped(_activate(x, bias), self.clamp)


class ToRGB(nn.Module):
    """Colours out of features, added to the picture of the resolution below."""

    channels: int = 3
    """Of an image: three colours, or one grey."""
    clamp: float | None = None
    """The largest absolute value of the colours that are added."""

    @nn.compact
    def __call__(
        self, x: Image, w: Latent, skip: Float[Array, "height//2 width//2 colours"] | None
    ) -> Float[Array, "height width colours"]:
        rgb = ModulatedConv(self.channels, size=1, demodulate=False, name="conv")(x, w)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        rgb = _clamped(rgb + bias.astype(rgb.dtype), self.clamp)
        if skip is None:
            return rgb
        kernel = self.variable("constants", "upsample", fir_kernel, TAPS, 4.0).value
        rest = len(TAPS) - 2
        return rgb + upfirdn(skip, kernel, up=2, pad=((rest + 1) // 2 + 1, rest // 2))


class StyleGAN2(nn.Module):
    r"""StyleGAN2's generator, `z -> w -> image`, in [-1, 1] nominally.

    $w$ is one latent for all layers, or in W+ one for each of them. Noise is what the checkpoint
    holds, none, or fresh from a key. Truncation is $\bar w + \psi (w - \bar w)$ with the mean
    $\bar w$ of the collection `statistics`, zero until it is imported or set by `with_mean_w`.

    >>> from functools import partial
    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators.stylegan2 import StyleGAN2
    >>> net = StyleGAN2(resolution=8, latent_dim=4, mapping_layers=1, channels=(2, 2))
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.ones(4))
    >>> to_w = partial(net.apply, method=net.to_w)
    >>> from_w = partial(net.apply, method=net.from_w)
    >>> w = jax.eval_shape(to_w, variables, jnp.ones(4))
    >>> w.shape, jax.eval_shape(from_w, variables, w).shape
    ((4,), (8, 8, 3))
    """

    resolution: int = 256
    """Pixels along each side, a power of two from 8 to 1024."""
    latent_dim: int = 512
    """Dimensions of `z`, and of `w` unless `style_dim` says otherwise."""
    mapping_layers: int = 8
    """Layers of the mapping network."""
    channel_multiplier: int = 2
    """Features from 64 pixels on, relative to half those of `CHANNELS`."""
    channels: tuple[int, ...] | None = None
    """Features at 4, 8, ... pixels, instead of those."""
    checkpoint: bool = False
    """Recompute each resolution's features on the way back instead of storing them."""
    image_channels: int = 3
    """Channels of an image: 3 colours, or 1 of grey."""
    classes: int = 0
    """Classes that the mapping network takes beside `z`; 0: none."""
    style_dim: int | None = None
    """Dimensions of `w`, where they are not those of `z`."""
    clamp: float | None = None
    """Largest absolute value of features, 256 where it was trained in half precision; none: any."""
    mean_per_layer: bool = False
    """Whether each layer has a mean of W of its own, as encoders keep it."""

    def __post_init__(self) -> None:
        at_least(self, "StyleGAN2 ", latent_dim=1, mapping_layers=0, channel_multiplier=1)
        at_least(self, "StyleGAN2 ", image_channels=1, classes=0)
        if self.style_dim is not None:
            at_least(self, "StyleGAN2 ", style_dim=1)
        if self.clamp is not None and not self.clamp > 0:
            raise ValueError(f"StyleGAN2 clamp must be positive, got {self.clamp}")
        if not self.mapping_layers and (self.classes or self.style_width != self.latent_dim):
            raise ValueError("StyleGAN2 of classes, or of another w than z, needs mapping_layers")
        if self.resolution not in [2**n for n in range(3, 11)]:
            raise ValueError(
                f"resolution must be a power of two from 8 to 1024, got {self.resolution}"
            )
        if self.channels is not None and len(self.channels) != len(self.sizes):
            raise ValueError(
                f"channels must give the features at {self.sizes} pixels, got {self.channels}"
            )
        super().__post_init__()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The resolutions, from 4 pixels on."""
        return tuple(2**n for n in range(2, self.resolution.bit_length()))

    @property
    def widths(self) -> tuple[int, ...]:
        """The features at each of `sizes`."""
        if self.channels is not None:
            return self.channels
        return tuple(
            width if size < 64 else width * self.channel_multiplier // 2
            for size, width in zip(self.sizes, CHANNELS, strict=False)
        )

    @property
    def style_width(self) -> int:
        """The dimensions of `w`."""
        return self.latent_dim if self.style_dim is None else self.style_dim

    @property
    def style_count(self) -> int:
        """The latents of W+: one a layer, each resolution sharing its last with the next."""
        return 2 * len(self.sizes)

    def setup(self) -> None:
        self.mapping = [
            EqualDense(self.style_width, rate=MAPPING_RATE, activate=True)
            for _ in range(self.mapping_layers)
        ]
        if self.classes:
            self.embed = EqualDense(self.style_width)
        means = (self.style_count,) if self.mean_per_layer else ()
        self.mean_w = self.variable("statistics", "mean_w", jnp.zeros, (*means, self.style_width))
        self.constant = self.param("constant", nn.initializers.normal(1.0), (4, 4, self.widths[0]))
        styled: Any = nn.remat(StyledConv) if self.checkpoint else StyledConv
        rgb: Any = nn.remat(ToRGB) if self.checkpoint else ToRGB
        self.up = [styled(width, up=True, clamp=self.clamp) for width in self.widths[1:]]
        self.conv = [styled(width, clamp=self.clamp) for width in self.widths]
        self.to_rgb = [rgb(self.image_channels, self.clamp) for _ in self.widths]
        # One for the first resolution, two for each of the others.
        sides = [4, *(size for size in self.sizes[1:] for _ in range(2))]
        self.noises = [self._noise(i, side) for i, side in enumerate(sides)]

    def _noise(self, index: int, side: int) -> Any:
        # The key exists only while `init` runs, which is when the function is called.
        return self.variable(
            "noise", f"noise_{index}", lambda: jax.random.normal(self.make_rng(), (side, side))
        )

    def example_inputs(self) -> tuple[Any, ...]:
        """What `init` takes: a latent, and a class if there are any."""
        return (jnp.zeros(self.latent_dim), 0) if self.classes else (jnp.zeros(self.latent_dim),)

    def to_w(self, z: Latent, label: ArrayLike | None = None) -> Float[Array, "style_width"]:
        """The mapping network, `z -> w`; with classes `(z, label) -> w`.

        Args:
            z: the latent.
            label: the class, an integer in `[0, classes)`, or a condition `[classes]`.

        Raises:
            ValueError: a latent of another size, or a label that is no class.
        """
        _check_latent(z, self.latent_dim)
        w = pixel_norm(z)
        if self.classes or label is not None:
            condition = self._condition(label, z.dtype)
            w = jnp.concatenate([w, pixel_norm(self.embed(condition))])
        for layer in self.mapping:
            w = layer(w)
        return w

    def _condition(self, label: ArrayLike | None, dtype: Any) -> Array:
        if label is None or not self.classes:
            what = "needs a label" if self.classes else "has no classes, and got a label"
            raise ValueError(f"this StyleGAN2 of {self.classes} classes {what}")
        found = jnp.asarray(label)
        if found.shape == (self.classes,) and jnp.issubdtype(found.dtype, jnp.floating):
            return found.astype(dtype)
        if found.shape or not jnp.issubdtype(found.dtype, jnp.integer):
            raise ValueError(
                f"label must be an integer or have shape [{self.classes}], got {found.dtype} "
                f"{list(found.shape)}"
            )
        if not isinstance(found, jax.core.Tracer) and not 0 <= found < self.classes:
            raise ValueError(f"label must lie in [0, {self.classes}), got {found}")
        return jax.nn.one_hot(found, self.classes, dtype=dtype)

    def from_w(
        self, w: Latent | Styles, *, truncation: float | Array = 1.0, noise: Noise = "stored"
    ) -> Image:
        """The synthesis network, `w -> image`.

        Args:
            w: a latent of W, or of W+ with shape `[style_count, style_width]`.
            truncation: what the distance from the mean of W is multiplied with; 1: nothing.
            noise: `"stored"` with the weights, `"none"`, or a random key for fresh noise.

        Raises:
            ValueError: `w` of another shape, or an unknown kind of noise.
        """
        if w.shape not in ((self.style_width,), (self.style_count, self.style_width)):
            raise ValueError(
                f"w must have shape ({self.style_width},) or ({self.style_count}, "
                f"{self.style_width}), got {w.shape}"
            )
        mean = self.mean_w.value.astype(w.dtype)
        w = mean + truncation * (w - mean) if _truncates(truncation) else w
        styles = jnp.broadcast_to(w, (self.style_count, self.style_width))
        drawn = self._drawn(noise, w.dtype)
        x = self.conv[0](self.constant.astype(w.dtype), styles[0], next(drawn))
        image = self.to_rgb[0](x, styles[1], None)
        for i, (up, conv, to_rgb) in enumerate(
            zip(self.up, self.conv[1:], self.to_rgb[1:], strict=True)
        ):
            x = up(x, styles[2 * i + 1], next(drawn))
            x = conv(x, styles[2 * i + 2], next(drawn))
            image = to_rgb(x, styles[2 * i + 3], image)
        return image

    def __call__(
        self,
        z: Latent,
        label: ArrayLike | None = None,
        *,
        truncation: float | Array = 1.0,
        noise: Noise = "stored",
    ) -> Image:
        """`z -> w -> image`; see `to_w` and `from_w`."""
        return self.from_w(self.to_w(z, label), truncation=truncation, noise=noise)

    def _drawn(self, noise: Any, dtype: Any) -> Iterator[Array | None]:
        kind = noise if isinstance(noise, str) else "key"
        choose("noise", kind, dict.fromkeys(("stored", "none", "key")))
        if kind == "key" and not hasattr(noise, "dtype"):
            raise ValueError(f"noise must be 'stored', 'none' or a random key, got {noise!r}")
        for i, stored in enumerate(self.noises):
            if isinstance(noise, str):
                yield stored.value if noise == "stored" else None
            else:
                yield jax.random.normal(jax.random.fold_in(noise, i), stored.value.shape, dtype)


def _check_latent(z: Array, dim: int) -> None:
    if z.shape != (dim,):
        raise ValueError(f"z must have shape ({dim},), got {z.shape}; vmap over a batch")


def _truncates(truncation: float | Array) -> bool:
    return not isinstance(truncation, int | float) or truncation != 1.0


def generator(
    net: StyleGAN2,
    variables: Any,
    *,
    space: Space = "z",
    label: int | None = None,
    layers: Sequence[int] | None = None,
    base: Latent | Styles | None = None,
    truncation: float | Array = 1.0,
    noise: Noise = "stored",
) -> Generator:
    """The network with its variables closed over, as a map from one of its latent spaces.

    Args:
        net: the network.
        variables: what `init` or the import of weights made.
        space: `"z"`; `"w"`, the mapping network's output; or `"w+"`, one such for each layer,
            flattened to `style_count * style_width` numbers.
        label: the class of `"z"`, where there are some; the other spaces have it in `w`.
        layers: the layers of W+ that the latent is given to, of which `"w+"` then has one `w` each;
            all by default.
        base: what the other layers have: a latent of W, or of W+ with shape
            `[style_count, style_width]`.
        truncation: what the distance from the mean of W is multiplied with.
        noise: `"stored"`, `"none"` or a random key.

    Returns:
        `z -> image`, or `w -> image`.

    Raises:
        ValueError: an unknown space, layers that there are not, or layers without a base.

    >>> import jax, jax.numpy as jnp
    >>> from latent_flows.generators import stylegan2
    >>> net = stylegan2.StyleGAN2(8, latent_dim=4, mapping_layers=1, channels=(2, 2))
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.ones(4))
    >>> def image(variables, w):
    ...     return stylegan2.generator(net, variables, space="w+", noise="none")(w)
    >>> jax.eval_shape(image, variables, jnp.ones(net.style_count * 4)).shape
    (8, 8, 3)
    """
    synthesis = partial(
        _apply(net), variables, truncation=truncation, noise=noise, method=net.from_w
    )
    to_styles = styles(net, variables, space=space, label=label, layers=layers, base=base)
    return lambda z: synthesis(to_styles(z))


def styles(
    net: StyleGAN2,
    variables: Any,
    *,
    space: Space = "z",
    label: int | None = None,
    layers: Sequence[int] | None = None,
    base: Latent | Styles | None = None,
) -> Callable[[Latent], Latent | Styles]:
    """What the layers are given for a latent of one of the spaces.

    Args:
        net: the network.
        variables: as of `generator`.
        space: as there.
        label: as there.
        layers: as there.
        base: as there.

    Returns:
        `z -> w`, one latent of W for all layers or `[style_count, style_width]`.

    Raises:
        ValueError: as `generator` does.

    >>> import jax, jax.numpy as jnp
    >>> net = StyleGAN2(8, latent_dim=4, mapping_layers=1, channels=(2, 2))
    >>> variables = jax.eval_shape(net.init, jax.random.key(0), jnp.ones(4))
    >>> given = styles(net, variables, space="w", layers=[1], base=jnp.zeros(4))
    >>> print(given(jnp.ones(4)).sum(1))
    [0. 4. 0. 0.]
    """
    to_w = partial(_apply(net), variables, method=net.to_w)
    placed = _placed(net, layers, base)
    spaces: dict[str, Callable[[Latent], Latent | Styles]] = {
        "z": lambda z: placed(to_w(z, label)),
        "w": placed,
        "w+": lambda w: placed(w.reshape(-1, net.style_width)),
    }
    return choose("space", space, spaces)


def _placed(
    net: StyleGAN2, layers: Sequence[int] | None, base: Latent | Styles | None
) -> Callable[[Array], Array]:
    """Styles of all layers out of those of some."""
    if layers is None:
        return lambda w: w
    if base is None:
        raise ValueError("layers need a base, which the others keep")
    if not layers or not all(0 <= i < net.style_count for i in layers):
        raise ValueError(f"layers must be in [0, {net.style_count}), got {list(layers)}")
    kept = jnp.broadcast_to(jnp.asarray(base), (net.style_count, net.style_width))
    return lambda w: kept.astype(w.dtype).at[jnp.array(layers)].set(w)


def mean_w(net: StyleGAN2, variables: Any, key: PRNGKeyArray, *, samples: int = 4096) -> Latent:
    """The mean of W over standard normal `z`, and over classes, estimated from samples.

    Args:
        net: the network.
        variables: its variables.
        key: a random key.
        samples: how many are drawn.

    Returns:
        The mean.
    """
    z = jax.random.normal(key, (samples, net.latent_dim))
    to_w = partial(_apply(net), variables, method=net.to_w)
    if not net.classes:
        return jax.vmap(to_w)(z).mean(0)
    labels = jax.random.randint(jax.random.fold_in(key, 1), (samples,), 0, net.classes)
    return jax.vmap(to_w)(z, labels).mean(0)


def with_mean_w(variables: Any, mean: Latent) -> Any:
    """The variables with this mean of W, which truncation draws towards.

    Args:
        variables: of the network.
        mean: the mean of W, such as from `mean_w`.

    Returns:
        The variables, otherwise as they were.
    """
    return {**variables, "statistics": {"mean_w": jnp.asarray(mean)}}


def _apply(net: StyleGAN2) -> Any:
    # flax types its result as a pair as well.
    return net.apply


def key_names(net: StyleGAN2) -> dict[str, Target]:
    """Where each key of a published state dict belongs.

    The mean of W (`latent_avg`), the stored noise and the filters may be missing.

    Args:
        net: the network.

    Returns:
        The targets by key, for `weights.from_state_dict`.
    """
    names: dict[str, Target] = {"input.input": Target(("params", "constant"), "image")}
    for i in range(net.mapping_layers):
        names |= _dense(f"style.{i + 1}", f"mapping_{i}")
    names |= _styled("conv1", "conv_0")
    names |= _rgb("to_rgb1", "to_rgb_0")
    for i in range(len(net.sizes) - 1):
        names |= _styled(f"convs.{2 * i}", f"up_{i}")
        names[f"convs.{2 * i}.conv.blur.kernel"] = Target(
            ("constants", f"up_{i}", "conv", "blur"), optional=True
        )
        names |= _styled(f"convs.{2 * i + 1}", f"conv_{i + 1}")
        names |= _rgb(f"to_rgbs.{i}", f"to_rgb_{i + 1}")
        names[f"to_rgbs.{i}.upsample.kernel"] = Target(
            ("constants", f"to_rgb_{i + 1}", "upsample"), optional=True
        )
    for i in range(2 * len(net.sizes) - 1):
        names[f"noises.noise_{i}"] = Target(("noise", f"noise_{i}"), "plane", optional=True)
    names["latent_avg"] = Target(("statistics", "mean_w"), "flat", optional=True)
    if net.classes:
        # No port with these names has classes; theirs are under the names of `stylegan2_ada`.
        names |= _dense("embed", "embed")
    return names


def first_weights(
    net: StyleGAN2, variables: PyTree, layers: Sequence[int] | None = None
) -> Float[Array, "m d"]:
    """The weights of every layer's modulation, each of which takes a latent of W, for SeFa.

    Args:
        net: the network.
        variables: its variables.
        layers: of W+, whose modulations are taken; all by default.

    Returns:
        One row a feature, one column a dimension of W.
    """
    chosen = range(net.style_count) if layers is None else layers
    # A latent of W+ is that of a resolution's last convolution, or of its colours and the next
    # resolution's first convolution.
    takers: dict[int, tuple[str, ...]] = {2 * i: (f"conv_{i}",) for i in range(len(net.sizes))}
    takers |= {2 * i + 1: (f"to_rgb_{i}", f"up_{i}") for i in range(len(net.sizes))}
    wanted = {name for i in chosen for name in takers[i]}
    return jnp.concatenate(
        [
            layer["conv"]["modulation"]["kernel"].T
            for name, layer in variables["params"].items()
            if name in wanted
        ]
    )


def _dense(key: str, *path: str) -> dict[str, Target]:
    return {
        f"{key}.weight": Target(("params", *path, "kernel"), "dense"),
        f"{key}.bias": Target(("params", *path, "bias")),
    }


def _modulated(key: str, *path: str) -> dict[str, Target]:
    return {
        f"{key}.weight": Target(("params", *path, "kernel"), "modulated_conv"),
        **_dense(f"{key}.modulation", *path, "modulation"),
    }


def _styled(key: str, name: str) -> dict[str, Target]:
    return {
        **_modulated(f"{key}.conv", name, "conv"),
        f"{key}.noise.weight": Target(("params", name, "noise_strength"), "flat"),
        f"{key}.activate.bias": Target(("params", name, "bias")),
    }


def _rgb(key: str, name: str) -> dict[str, Target]:
    return {
        **_modulated(f"{key}.conv", name, "conv"),
        f"{key}.bias": Target(("params", name, "bias"), "flat"),
    }


PRESETS = {
    "stylegan2-256": StyleGAN2(resolution=256),
    "stylegan2-512": StyleGAN2(resolution=512),
    "stylegan2-1024": StyleGAN2(resolution=1024),
}
"""The published configurations: cars, churches, cats and horses (256, 512), faces (1024)."""
