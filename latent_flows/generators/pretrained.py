"""The architectures of this library, and each as a generator of images in [0, 1]."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from latent_flows.generators import biggan, proggan, sngan, stylegan2
from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.generators.memory import cast_and_remat, remat_layers
from latent_flows.generators.spec import GeneratorSpec, log_prior, prior
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.typing import Latent

__all__ = ["ARCHITECTURES", "PRESETS", "architecture", "published"]

ARCHITECTURES = (sngan, biggan, proggan, stylegan2)
"""A module each. It has the network, a flax module `z -> image` in [-1, 1] with `latent_dim`,
`resolution` and, unless they are 3, `image_channels`; `PRESETS`, published configurations of it by
their names; `key_names(net)`, where each key of a published state dict belongs; and
`first_weights(net, variables)`, for SeFa, or None where no linear layer takes the latent."""
PRESETS: dict[str, Any] = {
    name: net for module in ARCHITECTURES for name, net in module.PRESETS.items()
}
"""Every published configuration by its name."""


def architecture(net: Any) -> ModuleType:
    """The module of a network's architecture.

    Args:
        net: a network of one of `ARCHITECTURES`.

    Returns:
        The module, with what `ARCHITECTURES` says.

    >>> architecture(PRESETS["sngan-mnist"]).__name__
    'latent_flows.generators.sngan'
    """
    return next(module for module in ARCHITECTURES if module.__name__ == type(net).__module__)


def published(
    name: str,
    net: Any,
    variables: PyTree,
    spec: GeneratorSpec,
    seed: int,
    *,
    dataset: str | None = None,
    labels: tuple[int, ...] = (),
) -> FrozenGenerator:
    """One of the architectures of this library as a generator of images in [0, 1].

    Args:
        name: what it is, for captions.
        net: a network of one of `ARCHITECTURES`.
        variables: its variables.
        spec: how latents are drawn and images computed.
        seed: of the class, if BigGAN's is left open.
        dataset: name of the data that it was trained on.
        labels: of these data.

    Returns:
        The generator.

    Raises:
        ValueError: a setting that this architecture does not have.
    """
    if spec.space != "z" and not isinstance(net, StyleGAN2):
        raise ValueError(f"generator.space {spec.space} is StyleGAN2's; {name} has z alone")
    classes = getattr(net, "classes", 0)
    if spec.label is not None and not classes:
        raise ValueError(
            f"generator.label is for a BigGAN or StyleGAN2 of classes; {name} has no classes"
        )
    label = _label(spec, seed, classes)
    draw = prior(spec, net.latent_dim)
    if spec.recompute:
        net = remat_layers(net)
    apply: Any = net.apply  # flax types its result as a pair as well
    images: Callable[[PyTree, Latent], Array] = apply
    if isinstance(net, BigGAN):
        name = f"{name}, class {label}"
        images = lambda variables, z: apply(variables, z, label)  # noqa: E731
    elif isinstance(net, StyleGAN2):
        within = partial(
            stylegan2.generator, net, space=spec.space, label=label, truncation=spec.truncation
        )
        images = lambda variables, z: within(variables)(z)  # noqa: E731
        draw = _style_prior(net, variables, spec, draw, label)
        name = f"{name}, class {label}" if net.classes else name
        name = f"{name}, {spec.space.upper()} space"
    make = cast_and_remat(images, variables, dtype=spec.dtype, recompute=spec.recompute)
    return freeze(
        lambda z: (make(z) + 1) / 2,
        _latent_dim(net, spec.space),
        name=name,
        prior=draw,
        log_prior=log_prior(spec) if spec.space == "z" else None,
        first_layer=_first_layer(net, variables, spec.space),
        dataset=dataset,
        labels=labels,
    )


def _label(spec: GeneratorSpec, seed: int, classes: int) -> int | None:
    """The class, a random one where it is left open."""
    if not classes:
        return None
    label = spec.label
    if label is None:
        label = int(np.random.default_rng(seed).integers(classes))
    if label >= classes:
        raise ValueError(f"generator.label must lie in [0, {classes}), got {label}")
    return label


def _latent_dim(net: Any, space: str) -> int:
    dims = {"z": lambda: net.latent_dim, "w": lambda: net.style_width}
    dims["w+"] = lambda: net.style_count * net.style_width
    return dims[space]()


def _style_prior(
    net: StyleGAN2,
    variables: PyTree,
    spec: GeneratorSpec,
    draw: Callable[[PRNGKeyArray], Latent],
    label: int | None,
) -> Callable[[PRNGKeyArray], Latent]:
    """Draws of W are what the mapping network makes of draws of Z."""
    if spec.space == "z":
        return draw
    apply: Any = net.apply
    to_w = lambda key: apply(variables, draw(key), label, method=net.to_w)  # noqa: E731
    if spec.space == "w":
        return to_w
    return lambda key: jnp.tile(to_w(key), net.style_count)


def _first_layer(net: Any, variables: PyTree, space: str) -> Array | None:
    """In Z a mapping network comes before StyleGAN2's layers, in W+ each has a part of its own."""
    if isinstance(net, StyleGAN2) and space != "w":
        return None
    return architecture(net).first_weights(net, variables)
