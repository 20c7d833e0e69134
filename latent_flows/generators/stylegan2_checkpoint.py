"""Checkpoints of StyleGAN2: whose names their weights have, and the network that they are of."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from latent_flows.generators import stylegan2, stylegan2_ada
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.weights import Checkpoint, State, Target

__all__ = ["Fitted", "fitted", "sought"]

_LEAST = StyleGAN2(8, latent_dim=1, mapping_layers=1, channels=(1, 1))
_UNUSUAL = "its {key} is {value!r}, and only {expected!r} is read"


class Fitted(NamedTuple):
    """A network, and where each key of its checkpoint belongs."""

    net: StyleGAN2
    """With the settings that the weights have."""
    table: dict[str, Target]
    """The targets by key."""
    unknown: tuple[str, ...] = ()
    """Settings that the checkpoint does not say."""


class _Names(NamedTuple):
    """Keys whose shapes say what a network is like."""

    table: Callable[[StyleGAN2], dict[str, Target]]
    mapping: str
    """Weights of layer `{i}` of the mapping network, from `first`."""
    first: int
    constant: str
    convolution: str
    """Weights of the last layer of `{size}` pixels, or of the `{i}`-th resolution."""
    modulation: str
    colours: str
    mean: str
    embedding: str = ""


_PORTS = {
    "rosinality": _Names(
        stylegan2.key_names,
        mapping="style.{i}.weight",
        first=1,
        constant="input.input",
        convolution="convs.{last}.conv.weight",
        modulation="conv1.conv.modulation.weight",
        colours="to_rgb1.conv.weight",
        mean="latent_avg",
    ),
    "ada": _Names(
        stylegan2_ada.key_names,
        mapping="mapping.fc{i}.weight",
        first=0,
        constant="synthesis.b4.const",
        convolution="synthesis.b{size}.conv1.weight",
        modulation="synthesis.b4.conv1.affine.weight",
        colours="synthesis.b4.torgb.weight",
        mean="mapping.w_avg",
        embedding="mapping.embed.weight",
    ),
}


def sought() -> list[dict[str, Target]]:
    """The keys by which a StyleGAN2 of any size is found in a file, of each port.

    Returns:
        Tables of the smallest network.
    """
    return [names.table(_LEAST) for names in _PORTS.values()]


def fitted(net: StyleGAN2, checkpoint: Checkpoint) -> Fitted:
    """The network that a checkpoint is of, as far as the shapes of its weights say.

    Args:
        net: what it is thought to be; it keeps what the weights do not tell.
        checkpoint: the weights, and the settings of their modules where they are known.

    Returns:
        The network, with the resolution, features, mapping layers, latents, channels and classes of
        the weights, and where their keys belong; `net` itself where they are of something else.

    Raises:
        ValueError: a network that is put together in another way, which shapes alone do not show.

    >>> state = {"style.1.weight": np.zeros((4, 4)), "input.input": np.zeros((1, 2, 4, 4))}
    >>> fitted(StyleGAN2(8), Checkpoint(state)).net.resolution
    8
    """
    state = checkpoint.state
    for port, names in _PORTS.items():
        if all(len(_shape(state, key)) > 1 for key in (names.constant, names.modulation)):
            found = _sized(net, names, state)
            if port == "ada":
                return _bounded(found, names, checkpoint)
            return Fitted(found, names.table(found))
    return Fitted(net, stylegan2.key_names(net))


def _sized(net: StyleGAN2, names: _Names, state: State) -> StyleGAN2:
    first = 0 if names.embedding else 1  # the axis of the output features
    widths = [_shape(state, names.constant)[first]]
    while (key := _convolution(names, len(widths))) in state:
        widths.append(_shape(state, key)[first])
    depth = 0
    while names.mapping.format(i=names.first + depth) in state:
        depth += 1
    style_dim = _shape(state, names.modulation)[1]
    into = _shape(state, names.mapping.format(i=names.first)) or (style_dim,)
    embedded, classes = _shape(state, names.embedding) or (0, 0)
    latent_dim = into[-1] - embedded
    colours = _shape(state, names.colours) or (3, 3)
    mean = _shape(state, names.mean)
    sized = net.clone(
        resolution=4 * 2 ** (len(widths) - 1),
        latent_dim=latent_dim,
        mapping_layers=depth,
        channels=tuple(widths),
        image_channels=colours[first],
        classes=classes,
        style_dim=None if style_dim == latent_dim else style_dim,
        mean_per_layer=len(mean) == 2 and mean[0] > 1,
    )
    return _by_multiplier(net, sized)


def _shape(state: State, key: str) -> tuple[int, ...]:
    return np.shape(state[key]) if key in state else ()


def _convolution(names: _Names, i: int) -> str:
    return names.convolution.format(size=4 * 2**i, last=2 * i - 1)


def _by_multiplier(net: StyleGAN2, sized: StyleGAN2) -> StyleGAN2:
    """The same, with a channel multiplier where that says as much as the list of channels."""
    if net.channels == sized.channels:
        return sized
    for multiplier in (net.channel_multiplier, 1, 2, 4):
        usual = sized.clone(channels=None, channel_multiplier=multiplier)
        if usual.widths == sized.widths:
            return usual
    return sized


def _bounded(net: StyleGAN2, names: _Names, checkpoint: Checkpoint) -> Fitted:
    """What the modules say beside the shapes of their weights."""
    settings = checkpoint.settings
    if not settings:
        return Fitted(net, names.table(net), ("clamp",))
    blocks = [f"synthesis.b{size}" for size in net.sizes]
    layers = [f"{block}.conv{i}" for block in blocks for i in (0, 1)]
    dense = [f"mapping.fc{i}" for i in range(net.mapping_layers)]
    usual: Mapping[str, Any] = {
        **{f"{block}.architecture": "skip" for block in blocks},
        **{f"{layer}.activation": "lrelu" for layer in [*layers, *dense]},
        **{f"{layer}.bias_gain": stylegan2.MAPPING_RATE for layer in dense},
    }
    for key, expected in usual.items():
        if (value := settings.get(key, expected)) != expected:
            raise ValueError(_UNUSUAL.format(key=key, value=value, expected=expected))
    clamp = settings.get("synthesis.b4.conv1.conv_clamp")
    bounded = net.clone(clamp=None if clamp is None else float(clamp))
    return Fitted(bounded, names.table(bounded))
