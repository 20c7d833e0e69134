"""The names that stylegan2-ada-pytorch gives to the weights of StyleGAN2, in its `.pkl` files.

Karras et al., Training Generative Adversarial Networks with Limited Data (NeurIPS 2020). The layers
are those of `stylegan2`; classes, grey images and bounded features are this implementation's.
"""

from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.weights import Target

__all__ = ["key_names"]


def key_names(net: StyleGAN2) -> dict[str, Target]:
    """Where each key of a generator of stylegan2-ada-pytorch belongs.

    The mean of W (`mapping.w_avg`), the noise and the filters may be missing; without noise its
    strength is zero.

    Args:
        net: the network.

    Returns:
        The targets by key, for `weights.from_state_dict`.

    >>> net = StyleGAN2(8, latent_dim=4, mapping_layers=1, channels=(2, 2))
    >>> key_names(net)["synthesis.b8.conv0.weight"].path
    ('params', 'up_0', 'conv', 'kernel')
    """
    names = {"synthesis.b4.const": Target(("params", "constant"), "map")}
    for i in range(net.mapping_layers):
        names |= _dense(f"mapping.fc{i}", f"mapping_{i}")
    if net.classes:
        names |= _dense("mapping.embed", "embed")
    names["mapping.w_avg"] = Target(("statistics", "mean_w"), "flat", optional=True)
    for i, size in enumerate(net.sizes):
        block = f"synthesis.b{size}"
        # Every layer keeps a filter, also the first ones, which change no size.
        resized = max(i, 1)
        blur = ("constants", f"up_{resized - 1}", "conv", "blur")
        names[f"{block}.resample_filter"] = _filter("constants", f"to_rgb_{resized}", "upsample")
        names |= _styled(f"{block}.conv1", f"conv_{i}", f"noise_{2 * i}", blur)
        names |= _modulated(f"{block}.torgb", f"to_rgb_{i}")
        if i:
            names |= _styled(f"{block}.conv0", f"up_{i - 1}", f"noise_{2 * i - 1}", blur)
    return names


def _filter(*path: str) -> Target:
    """Of unit sum as it is published, where ours has the gain of what it fills in."""
    return Target(path, scale=4.0, optional=True)


def _dense(key: str, *path: str) -> dict[str, Target]:
    return {
        f"{key}.weight": Target(("params", *path, "kernel"), "dense"),
        f"{key}.bias": Target(("params", *path, "bias")),
    }


def _modulated(key: str, name: str) -> dict[str, Target]:
    return {
        f"{key}.weight": Target(("params", name, "conv", "kernel"), "conv"),
        f"{key}.bias": Target(("params", name, "bias")),
        **_dense(f"{key}.affine", name, "conv", "modulation"),
    }


def _styled(key: str, name: str, noise: str, blur: tuple[str, ...]) -> dict[str, Target]:
    return {
        **_modulated(key, name),
        f"{key}.noise_strength": Target(("params", name, "noise_strength"), optional=True),
        f"{key}.noise_const": Target(("noise", noise), optional=True),
        f"{key}.resample_filter": _filter(*blur),
    }
