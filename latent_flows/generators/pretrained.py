"""The architectures of this library, and each as a generator of images in [0, 1]."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from latent_flows.generators import biggan, proggan, sngan, stylegan2
from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.generators.memory import cast_and_remat, remat_layers
from latent_flows.generators.spec import GeneratorSpec, log_prior, prior
from latent_flows.generators.style_layers import layer_numbers
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.typing import Latent

__all__ = ["ARCHITECTURES", "PRESETS", "architecture", "published", "style_mixing"]

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
    _check(name, net, spec)
    label = _label(spec, seed, getattr(net, "classes", 0))
    draw = prior(spec, net.latent_dim)
    if spec.recompute:
        net = remat_layers(net)
    if isinstance(net, StyleGAN2):
        given = _of_styles(net, variables, spec, draw, label)
    else:
        apply: Any = net.apply  # flax types its result as a pair as well
        classed = isinstance(net, BigGAN)
        given = _Given(
            lambda tree, z: apply(tree, z, label) if classed else apply(tree, z),
            variables,
            net.latent_dim,
            draw,
            architecture(net).first_weights(net, variables),
        )
    make = cast_and_remat(given.images, given.tree, dtype=spec.dtype, recompute=spec.recompute)
    words = [name]
    words += [] if label is None else [f"class {label}"]
    words += [f"{spec.space.upper()} space"] if isinstance(net, StyleGAN2) else []
    words += [f"layers {spec.layers}"] if spec.layers else []
    return freeze(
        lambda z: (make(z) + 1) / 2,
        given.latent_dim,
        name=", ".join(words),
        prior=given.draw,
        log_prior=log_prior(spec) if spec.space == "z" else None,
        first_layer=given.first_layer,
        dataset=dataset,
        labels=labels,
    )


class _Given(NamedTuple):
    """What an architecture makes of a specification."""

    images: Callable[[PyTree, Latent], Array]
    """In [-1, 1]."""
    tree: PyTree
    latent_dim: int
    draw: Callable[[PRNGKeyArray], Latent]
    first_layer: Array | None


def _check(name: str, net: Any, spec: GeneratorSpec) -> None:
    """Reject settings that an architecture does not have."""
    if spec.label is not None and not getattr(net, "classes", 0):
        raise ValueError(
            f"generator.label is for a BigGAN or StyleGAN2 of classes; {name} has no classes"
        )
    if spec.base and not spec.layers:
        raise ValueError("generator.base is what the layers keep that generator.layers leaves out")
    if isinstance(net, StyleGAN2):
        return
    if spec.space != "z":
        raise ValueError(f"generator.space {spec.space} is StyleGAN2's; {name} has z alone")
    if spec.layers:
        raise ValueError(
            f"generator.layers {spec.layers} is StyleGAN2's; {name} has no layers that take a style"
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


def _of_styles(
    net: StyleGAN2,
    variables: PyTree,
    spec: GeneratorSpec,
    draw: Callable[[PRNGKeyArray], Latent],
    label: int | None,
) -> _Given:
    """A StyleGAN2 of one of its spaces, and of some of its layers."""
    apply: Any = net.apply
    layers = layer_numbers(spec.layers, net.style_count) if spec.layers else None
    count = net.style_count if layers is None else len(layers)

    def to_w(key: PRNGKeyArray) -> Latent:
        return apply(variables, draw(key), label, method=net.to_w)

    def images(tree: PyTree, z: Latent) -> Array:
        weights, base = tree
        return stylegan2.generator(
            net,
            weights,
            space=spec.space,
            label=label,
            layers=layers,
            base=base,
            truncation=spec.truncation,
        )(z)

    # In Z a mapping network comes before the layers, in W+ each has a part of its own.
    first_layer = stylegan2.first_weights(net, variables, layers) if spec.space == "w" else None
    dims = {"z": net.latent_dim, "w": net.style_width, "w+": count * net.style_width}
    # Draws of W are what the mapping network makes of draws of Z.
    draws = {"z": draw, "w": to_w, "w+": lambda key: jnp.tile(to_w(key), count)}
    # The same draw for every run: a base that is seen in one is the base in another.
    base = None if layers is None else jax.jit(to_w)(jax.random.key(spec.base))
    return _Given(images, (variables, base), dims[spec.space], draws[spec.space], first_layer)


def style_mixing(
    net: StyleGAN2, variables: PyTree, spec: GeneratorSpec, seed: int, layers: str
) -> Callable[[Latent, Latent], Array]:
    """Moves some layers of a StyleGAN2 alone, while the others stay where they started.

    Args:
        net: the network.
        variables: its variables.
        spec: by which it is a generator; its latents are of that.
        seed: as in `published`.
        layers: those that move, such as `"2-4"`, counted from 0.

    Returns:
        `(z0, z) -> image`, in which these layers have the styles of `z` and all others those of
        `z0`.

    Raises:
        ValueError: layers that there are not, or that the latent is not given to.

    References:
        Karras et al., *A Style-Based Generator Architecture for GANs*, 2019, section 3.1; as edits
        of chosen layers: Haerkoenen et al., *GANSpace*, 2020, section 2.2.
    """
    moved = layer_numbers(layers, net.style_count, "--layers")
    label = _label(spec, seed, net.classes)
    given = _of_styles(net, variables, spec, prior(spec, net.latent_dim), label)
    own = layer_numbers(spec.layers, net.style_count) if spec.layers else range(net.style_count)
    if not set(moved) <= set(own):
        raise ValueError(
            f"--layers {layers}: the latent is given to layers {spec.layers} alone, as "
            "generator.layers says; name some of these"
        )

    def images(tree: PyTree, pair: Array) -> Array:
        weights, base = tree
        placed = stylegan2.styles(
            net,
            weights,
            space=spec.space,
            label=label,
            layers=own if spec.layers else None,
            base=base,
        )
        start, end = (jnp.broadcast_to(placed(z), (net.style_count, net.style_width)) for z in pair)
        mixed = start.at[jnp.array(moved)].set(end[jnp.array(moved)])
        image = stylegan2.generator(net, weights, space="w+", truncation=spec.truncation)
        return image(mixed.ravel())

    make = cast_and_remat(images, given.tree, dtype=spec.dtype, recompute=spec.recompute)
    return lambda z0, z: (make(jnp.stack([z0, z])) + 1) / 2
