"""The architectures of this library as generators of images in [0, 1]."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from latent_flows.generators import stylegan2
from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.frozen import FrozenGenerator, freeze
from latent_flows.generators.memory import cast_and_remat, remat_layers
from latent_flows.generators.proggan import ProgGAN
from latent_flows.generators.sngan import SNGAN
from latent_flows.generators.spec import GeneratorSpec, prior
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.typing import Latent

__all__ = ["first_weights", "published"]


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
    """One of the architectures of this library, whose images lie in [-1, 1]."""
    if spec.space != "z" and not isinstance(net, StyleGAN2):
        raise ValueError(f"generator.space {spec.space} is StyleGAN2's; {name} has z alone")
    if spec.label is not None and not isinstance(net, BigGAN):
        raise ValueError(f"generator.label is BigGAN's; {name} has no classes")
    draw = prior(spec, net.latent_dim)
    if spec.recompute:
        net = remat_layers(net)
    apply: Any = net.apply  # flax types its result as a pair as well
    images: Callable[[PyTree, Latent], Array] = apply
    if isinstance(net, BigGAN):
        label = spec.label
        if label is None:
            label = int(np.random.default_rng(seed).integers(net.classes))
        if label >= net.classes:
            raise ValueError(f"generator.label must lie in [0, {net.classes}), got {label}")
        name = f"{name}, class {label}"
        images = lambda variables, z: apply(variables, z, label)  # noqa: E731
    elif isinstance(net, StyleGAN2):
        within = partial(stylegan2.generator, net, space=spec.space, truncation=spec.truncation)
        images = lambda variables, z: within(variables)(z)  # noqa: E731
        draw = _style_prior(net, variables, spec, draw)
        name = f"{name}, {spec.space.upper()} space"
    make = cast_and_remat(images, variables, dtype=spec.dtype, recompute=spec.recompute)
    return freeze(
        lambda z: (make(z) + 1) / 2,
        net.latent_dim * (net.style_count if spec.space == "w+" else 1),
        name=name,
        prior=draw,
        first_layer=first_weights(net, variables, spec.space),
        dataset=dataset,
        labels=labels,
    )


def _style_prior(
    net: StyleGAN2, variables: PyTree, spec: GeneratorSpec, draw: Callable[[PRNGKeyArray], Latent]
) -> Callable[[PRNGKeyArray], Latent]:
    """Draws of W are what the mapping network makes of draws of Z."""
    if spec.space == "z":
        return draw
    apply: Any = net.apply
    to_w = lambda key: apply(variables, draw(key), method=net.to_w)  # noqa: E731
    if spec.space == "w":
        return to_w
    return lambda key: jnp.tile(to_w(key), net.style_count)


def first_weights(net: Any, variables: PyTree, space: str = "z") -> Float[Array, "m d"] | None:
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
