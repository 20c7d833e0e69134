"""Where a generator comes from: a run folder, or any function that gives an image.

A VAE's run is left to the experiments, which use its encoder and its data as well; everything else
is brought into one form here.
"""

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tyro
from jaxtyping import Array, Float, PRNGKeyArray

from experiments import import_weights, train_gan
from experiments.command import UsageError, module_name
from experiments.folder import made_by, read_config
from experiments.own_function import import_function, read_checkpoint, what
from experiments.training import Params, restore
from latent_flows import data
from latent_flows.data import Dataset
from latent_flows.generators import stylegan2
from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.hoisting import hoist
from latent_flows.generators.proggan import ProgGAN
from latent_flows.generators.sngan import SNGAN
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.thrift import layerwise, thrifty
from latent_flows.limits import at_least
from latent_flows.typing import Generator, Latent

PROBES = 4
"""Draws from the prior whose images are looked at before a generator is taken."""
SLACK = 0.25
"""Of the width of `range`: how far beyond it the pixels of a user's images may lie."""
GANS = (module_name(train_gan.Config), module_name(import_weights.Config))
"""Experiments whose run folders hold a generator alone."""
STUDIES = tuple(f"experiments.{name}" for name in ("flow_config", "direction_config", "geodesics"))
"""Modules of configurations with the fields `generator`, `source` and `seed`, about a generator
that they do not hold."""


@dataclass(frozen=True)
class Source:
    """A generator that is no VAE's: a function of your own, and what to draw its latents from."""

    path: str = ""
    """Your own, instead of a run's: package.module:function or file.py:function, from a latent to
    an image [h, w, c]; with a checkpoint from (params, latent)."""
    checkpoint: str = ""
    """Its parameters: an orbax folder, .npz or .safetensors; names with / are nested
    dictionaries."""
    latent_dim: int | None = None
    """Its latent dimensions, unless the function or the checkpoint has a `latent_dim`."""
    range: tuple[float, float] = (0.0, 1.0)
    """Its black and white."""
    prior: Literal["normal", "truncated", "sphere", "uniform"] = "normal"
    """Latents of any generator but a VAE's: normal; truncated to [-truncation, truncation];
    sphere, of the norm that normal ones have; uniform in [-1, 1]."""
    truncation: float = 1.0
    """Of the truncated prior; also what StyleGAN2 multiplies the distance from the mean of W by."""
    space: Literal["z", "w", "w+"] = "z"
    """StyleGAN2's latent space."""
    label: int | None = None
    """BigGAN's class; none: a random one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What it computes in; latents, images and everything around it keep their precision."""
    recompute: bool = False
    """Compute its features again on the way back instead of keeping them: less memory, more
    time."""

    def __post_init__(self) -> None:
        if self.latent_dim is not None:
            at_least(self, "generator.", latent_dim=1)
        if not self.range[0] < self.range[1]:
            raise ValueError(f"generator.range must be black and white, got {self.range}")
        if not self.truncation > 0:
            raise ValueError(f"generator.truncation must be positive, got {self.truncation}")
        if self.label is not None and self.label < 0:
            raise ValueError(f"generator.label must not be negative, got {self.label}")


Flags = Annotated[Source, tyro.conf.arg(name="generator")]
"""As a field of a configuration: `--generator.path` and so on, beside `--generator RUN`."""


class Supply(NamedTuple):
    """A frozen generator, ready to use."""

    name: str
    """What it is, for captions."""
    generator: Generator
    """From a latent to an image `[h, w, c]`, nominally in [0, 1]; its parameters are its leaves."""
    latent_dim: int
    image_shape: tuple[int, int, int]
    prior: Callable[[PRNGKeyArray], Latent]
    weight: Float[Array, "m d"] | None
    """Of the layers that take the latent, stacked; None where it meets no linear layer."""
    data: Dataset | None
    """The data it was trained on, where their factors can be measured."""


def named(run: str, source: Source) -> tuple[str, Source, int | None]:
    """The generator that the flags of an experiment name: where it is, and how to use it.

    A run of one of `STUDIES` stands for the generator that it was about, and brings its own seed.

    Raises:
        UsageError: flags of a generator that has its own.
    """
    if source.path or not run or (maker := made_by(run)) not in STUDIES:
        return run, source, None
    if source != Source():
        raise UsageError(
            f"--generator {run} is a run of {maker}, which has its own generator; "
            "leave out the other flags of the generator"
        )
    earlier: Any = read_config(run, importlib.import_module(maker).Config)
    run, source, seed = named(earlier.generator, earlier.source)
    return run, source, earlier.seed if seed is None else seed


def is_supplied(run: str, source: Source) -> bool:
    """Whether the flags of an experiment name a generator that is no VAE's."""
    run, source, _ = named(run, source)
    return is_given(run, source)


def supplied(run: str, source: Source, seed: int) -> Supply | None:
    """The generator that the flags of an experiment name, or None where it is that of a VAE.

    Raises:
        UsageError: there is no such generator, or flags of one that are of no account.
    """
    run, source, own = named(run, source)
    if is_given(run, source):
        return supply(run, source, seed if own is None else own)
    if source != Source():
        raise UsageError(
            "flags such as --generator.prior and --generator.space are for a generator without "
            "an encoder: name one by --generator.path, or by --generator and its run folder"
        )
    return None


def supply(run: str, source: Source, seed: int) -> Supply:
    """The generator of a run folder that holds no VAE, or of the user.

    Args:
        run: the run folder; of no account where `source` has a path.
        source: the rest of the flags.
        seed: of the class, if BigGAN's is left open.

    Raises:
        UsageError: the folder or the function does not give a generator, or what that makes are
            no images.
    """
    if source.path:
        return _checked(_own(source), source)
    if made_by(run) == module_name(train_gan.Config):
        return _checked(_trained(run, source), source)
    net, variables = import_weights.load(run)
    return _checked(published(Path(run).name, net, variables, source, seed), source)


def is_given(run: str, source: Source) -> bool:
    """Whether the flags name a generator that `supply` loads, and no VAE."""
    return bool(source.path) or (bool(run) and made_by(run) in GANS)


def draws(
    prior: Callable[[PRNGKeyArray], Latent], key: PRNGKeyArray, count: int
) -> Float[Array, "n d"]:
    """Independent latents."""
    return jax.jit(jax.vmap(prior))(jax.random.split(key, count))


# --- priors ---


def prior(source: Source, dim: int) -> Callable[[PRNGKeyArray], Latent]:
    """A function that draws a latent of `dim` numbers.

    >>> z = prior(Source(prior="sphere"), 9)(jax.random.key(0))
    >>> print(jnp.linalg.norm(z).round(4))
    3.0
    """

    def sphere(key: PRNGKeyArray) -> Latent:
        z = jax.random.normal(key, (dim,))
        return math.sqrt(dim) * z / jnp.linalg.norm(z)

    priors: dict[str, Callable[[PRNGKeyArray], Latent]] = {
        "normal": lambda key: jax.random.normal(key, (dim,)),
        "truncated": lambda key: jax.random.truncated_normal(
            key, -source.truncation, source.truncation, (dim,)
        ),
        "sphere": sphere,
        "uniform": lambda key: jax.random.uniform(key, (dim,), minval=-1.0),
    }
    return priors[source.prior]


# --- generators that this project trains or imports ---


def _trained(run: str, source: Source) -> Supply:
    config = read_config(run, train_gan.Config)
    networks = config.networks
    net = SNGAN(networks.generator, _colours(run), networks.latent_dim)
    variables = restore(run, train_gan.PHASE, partial(train_gan.initial, net))
    found = published(f"SNGAN trained on {config.data}", net, variables, source, config.seed)
    if config.data != "sprites":
        return found
    return found._replace(data=data.load("sprites", split="train", size=config.image_size))


def _colours(run: str) -> int:
    """The colours of a trained GAN's images, from its weights: its data need not be there."""
    path = Path(run).expanduser().absolute() / "checkpoints" / train_gan.PHASE
    steps = [child for child in path.glob("*") if child.name.isdigit()]
    if not steps:
        return 1  # for `restore` to say what is missing
    with ocp.StandardCheckpointer() as reader:
        # The shapes alone, not the arrays.
        found = reader.metadata(max(steps, key=lambda step: int(step.name)) / "default")
    return int(found.item_metadata["params/params/conv/bias"].shape[0])


def published(name: str, net: Any, variables: Params, source: Source, seed: int) -> Supply:
    """One of the architectures of this library, whose images lie in [-1, 1]."""
    if source.space != "z" and not isinstance(net, StyleGAN2):
        raise UsageError(f"--generator.space {source.space} is StyleGAN2's; {name} has z alone")
    if source.label is not None and not isinstance(net, BigGAN):
        raise UsageError(f"--generator.label is BigGAN's; {name} has no classes")
    draw = prior(source, net.latent_dim)
    if source.recompute:
        net = layerwise(net)
    apply: Any = net.apply  # flax types its result as a pair as well
    images: Callable[[Params, Latent], Array] = apply
    if isinstance(net, BigGAN):
        label = source.label
        if label is None:
            label = int(np.random.default_rng(seed).integers(net.classes))
        if label >= net.classes:
            raise UsageError(f"--generator.label must lie in [0, {net.classes}), got {label}")
        name = f"{name}, class {label}"
        images = lambda variables, z: apply(variables, z, label)  # noqa: E731
    elif isinstance(net, StyleGAN2):
        within = partial(stylegan2.generator, net, space=source.space, truncation=source.truncation)
        images = lambda variables, z: within(variables)(z)  # noqa: E731
        draw = _style_prior(net, variables, source, draw)
        name = f"{name}, {source.space.upper()} space"
    make = thrifty(images, variables, dtype=source.dtype, recompute=source.recompute)
    return Supply(
        name,
        lambda z: (make(z) + 1) / 2,
        net.latent_dim * (net.style_count if source.space == "w+" else 1),
        (net.resolution, net.resolution, getattr(net, "image_channels", 3)),
        draw,
        first_weights(net, variables, source.space),
        None,
    )


def _style_prior(
    net: StyleGAN2, variables: Params, source: Source, draw: Callable[[PRNGKeyArray], Latent]
) -> Callable[[PRNGKeyArray], Latent]:
    """Draws of W are what the mapping network makes of draws of Z."""
    if source.space == "z":
        return draw
    apply: Any = net.apply
    to_w = lambda key: apply(variables, draw(key), method=net.to_w)  # noqa: E731
    if source.space == "w":
        return to_w
    return lambda key: jnp.tile(to_w(key), net.style_count)


def first_weights(net: Any, variables: Params, space: str = "z") -> Float[Array, "m d"] | None:
    """The weights of the layers that take the latent, for SeFa; None where none is linear.

    Of a split latent the first layer sees the first part alone; in W every layer's modulation sees
    all of it.
    """
    params = variables["params"]
    if isinstance(net, SNGAN):
        return params["dense"]["kernel"].T
    if isinstance(net, BigGAN):
        seen = params["dense"]["kernel"].T
        return jnp.pad(seen, ((0, 0), (0, net.latent_dim - seen.shape[1])))
    if isinstance(net, ProgGAN):
        kernel = params["conv_0"]["kernel"]
        return jnp.moveaxis(kernel, 2, -1).reshape(-1, net.latent_dim)
    if isinstance(net, StyleGAN2) and space == "w":
        layers = [
            layer["conv"]["modulation"]
            for name, layer in params.items()
            if name.startswith(("up_", "conv_", "to_rgb_"))
        ]
        return jnp.concatenate([layer["kernel"].T for layer in layers])
    return None


# --- a user's own ---


def _own(source: Source) -> Supply:
    function = import_function(source.path)
    params = read_checkpoint(source.checkpoint) if source.checkpoint else None
    dim = source.latent_dim or getattr(function, "latent_dim", None)
    if isinstance(params, dict) and "latent_dim" in params:
        stored = int(np.asarray(params.pop("latent_dim")))
        dim = dim or stored
    if dim is None:
        raise UsageError(
            f"--generator.path {source.path}: give --generator.latent-dim, or the function an "
            "attribute latent_dim"
        )
    if source.space != "z" or source.label is not None:
        raise UsageError("--generator.space and --generator.label are for published generators")
    _check_arguments(source, function)
    if params is None:
        apply = lambda _, z: function(z)  # noqa: E731
    else:
        apply, params = function, jax.tree.map(jnp.asarray, params)
    call = thrifty(apply, params, dtype=source.dtype, recompute=source.recompute)
    low, high = source.range
    shape = _image_shape(source, call, int(dim))
    if params is None:
        _check_dtype(source, function, int(dim))
    return Supply(
        source.path,
        lambda z: (call(z) - low) / (high - low),
        int(dim),
        shape,
        prior(source, int(dim)),
        None,
        None,
    )


def _check_arguments(source: Source, function: Callable[..., Any]) -> None:
    """Whether the function takes what it will be given."""
    given = ("params", "z") if source.checkpoint else ("z",)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some callables do not tell
    try:
        signature.bind(*given)
    except TypeError as error:
        hint = "" if source.checkpoint else "; with --generator.checkpoint it gets (params, z)"
        raise UsageError(
            f"--generator.path {source.path} cannot be called with ({', '.join(given)}): "
            f"{error}{hint}"
        ) from None


def _image_shape(source: Source, call: Callable[[Array], Any], dim: int) -> tuple[int, int, int]:
    """The shape of a user's image.

    Raises:
        UsageError: the function fails on a latent, or what it gives is no image.
    """
    told = f"--generator.path {source.path}"
    try:
        image = jax.eval_shape(call, jax.ShapeDtypeStruct((dim,), jnp.float32))
    except Exception as error:
        raise UsageError(f"{told} fails on a latent of shape ({dim},): {what(error)}") from None
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype is None:
        raise UsageError(f"{told} gives {type(image).__name__}, not an image [h, w, c]")
    if len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
        raise UsageError(
            f"{told} gives shape {shape}, not an image [h, w, c] with one or three channels"
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UsageError(f"{told} gives {dtype}, not floating-point pixels")
    return shape


def _check_dtype(source: Source, function: Callable[[Array], Any], dim: int) -> None:
    """Whether a function without a checkpoint computes in a narrow dtype if its latent has that.

    Raises:
        UsageError: numbers of its own are wider.
    """
    made = jax.eval_shape(function, jax.ShapeDtypeStruct((dim,), source.dtype))
    if made.dtype != jnp.dtype(source.dtype):
        raise UsageError(
            f"--generator.path {source.path} makes {made.dtype} of latents in {source.dtype}, so "
            "numbers of its own are wider; pass them by --generator.checkpoint, or leave out "
            "--generator.dtype"
        )


def _checked(found: Supply, source: Source) -> Supply:
    """The same, once images of a few draws were found to be finite and in their range.

    Raises:
        UsageError: they are not.
    """
    latents = draws(found.prior, jax.random.key(0), PROBES)
    try:
        # Programs take its parameters as arguments: as constants they would each hold a copy.
        found = found._replace(generator=hoist(found.generator, found.latent_dim))
        images = np.asarray(jax.jit(jax.lax.map)(found.generator, latents))
    except Exception as error:
        raise UsageError(f"{found.name} cannot make an image: {what(error)}") from None
    if not np.isfinite(images).all():
        raise UsageError(f"{found.name} makes images that are not finite")
    if source.path and (images.min() < -SLACK or images.max() > 1 + SLACK):
        low, high = source.range
        seen = [low + (high - low) * float(v) for v in (images.min(), images.max())]
        raise UsageError(
            f"{found.name} makes pixels from {seen[0]:.3g} to {seen[1]:.3g}, far beyond "
            f"--generator.range {low:g} {high:g}; give their black and white"
        )
    return found
