"""A generator as a file that says itself what it is: arrays by name, and a header in JSON."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from latent_flows import _safetensors
from latent_flows._validation import choose, what
from latent_flows.generators import rbf
from latent_flows.generators import vae as vaes
from latent_flows.generators._flow_map import check_steps
from latent_flows.generators.data_flow import DataFlow, restore_data_flow
from latent_flows.generators.frozen import FrozenGenerator, freeze, replace_prior
from latent_flows.generators.pretrained import PRESETS, published
from latent_flows.generators.prior_flow import PriorFlow, VelocityNet, through_noise, with_prior
from latent_flows.generators.rbf import RBF, StdNetwork
from latent_flows.generators.spec import GeneratorSpec, check_no_flow, log_prior, prior
from latent_flows.generators.vae import VAE, VAEConfig
from latent_flows.generators.weights import variable_shapes

__all__ = [
    "StoredGenerator",
    "StoredStd",
    "load_bytes",
    "read",
    "restore_generator",
    "to_bytes",
]

FORMAT = "latent_flows generator"
"""What the header's `format` says."""
VERSION = 3
"""Of the layout; a file with a greater one is refused. Version 2 has flow-matching generators, 3
VAEs of several decoders, and files of all others are still of version 1."""
_NETS: dict[str, Any] = {type(net).__name__: type(net) for net in PRESETS.values()} | {
    DataFlow.__name__: DataFlow
}
_FLAX = ("parent", "name")
_LATER = {
    "StyleGAN2": ("image_channels", "classes", "style_dim", "clamp", "mean_per_layer"),
}
"""Settings that came later. They are left out where they have their default, so that a file is to
the byte what earlier versions write and read."""


class StoredStd(NamedTuple):
    """The deviation of a generator's noise."""

    params: PyTree
    """An `RBF`, or the variables of a `StdNetwork`."""
    width: int = 0
    """Units of a hidden layer of the network."""
    depth: int = 0
    """Its hidden layers."""


class StoredGenerator(NamedTuple):
    """What a file holds of a generator."""

    net: Any
    """A `VAE`, a `DataFlow`, or the flax module of a GAN of this library."""
    variables: PyTree
    """Its parameters, and whatever else it keeps."""
    name: str
    """What it is, for captions."""
    dataset: str | None = None
    """Name, or absolute path, of the data set that it was trained on."""
    labels: tuple[int, ...] = ()
    """The labels of the examples that it was trained on; none: all."""
    augment: tuple[tuple[str, float], ...] = ()
    """Transformations that every training image underwent, and the largest amount of each."""
    noise_std: Mapping[str, StoredStd] = {}
    """Deviations of a VAE's noise: "rbf", "network"."""
    reading: tuple[tuple[str, str], ...] = ()
    """How data with a path are read: settings of `latent_flows.data.load`, and their values."""
    prior_flow: PriorFlow | None = None
    """The prior of a VAE, where it is not the standard normal."""
    from_noise: bool = False
    """Whether the latent is the noise of that prior, and no code."""


def to_bytes(stored: StoredGenerator) -> bytes:
    """The content of a safetensors file, which `load_bytes` reads.

    Args:
        stored: what it shall hold.

    Returns:
        The content: arrays by name, and a header that says what they are.

    >>> import jax
    >>> vae = VAE(VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=2), (4, 4, 1))
    >>> params = vae.init(jax.random.key(0), jnp.zeros((4, 4, 1)))
    >>> content = to_bytes(StoredGenerator(vae, params, "a small VAE", dataset="digits"))
    >>> load_bytes(content).dataset
    'digits'
    """
    arrays = _flat("variables", stored.variables)
    for kind, std in stored.noise_std.items():
        params = std.params._asdict() if isinstance(std.params, RBF) else std.params
        arrays |= _flat(f"noise_std/{kind}", params)
    if stored.prior_flow is not None:
        arrays |= _flat("prior_flow", _flow_arrays(stored.prior_flow))
    is_vae = isinstance(stored.net, VAE)
    settings = _vae_settings(stored.net) if is_vae else _settings(stored.net)
    model: dict[str, Any] = {
        "architecture": type(stored.net).__name__,
        "settings": settings,
        "image_shape": list(stored.net.image_shape) if is_vae else None,
        "name": stored.name,
        "dataset": stored.dataset,
        "labels": list(stored.labels),
        "augment": [list(pair) for pair in stored.augment],
        # Files of generators whose data have a name are those of earlier versions, to the byte.
        **({"reading": dict(stored.reading)} if stored.reading else {}),
        "noise_std": {k: {"width": s.width, "depth": s.depth} for k, s in stored.noise_std.items()},
    }
    if stored.prior_flow is not None:
        model["prior_flow"] = _flow_settings(stored.prior_flow)
    if stored.from_noise:
        model["from_noise"] = True
    # Earlier versions would take the code for the latent.
    version = 2 if stored.from_noise or isinstance(stored.net, DataFlow) else 1
    if "decoders" in settings:
        version = 3
    header = {"format": FORMAT, "version": str(version), "model": json.dumps(model)}
    return _safetensors.save({k: np.asarray(v) for k, v in arrays.items()}, header)


def _vae_settings(vae: VAE) -> dict[str, Any]:
    settings = dataclasses.asdict(vae.config)
    # Came later: files of one decoder are those of earlier versions, to the byte.
    return {k: v for k, v in settings.items() if k != "decoders" or v > 1}


def _settings(net: Any) -> dict[str, Any]:
    later = _LATER.get(type(net).__name__, ())
    return {
        f.name: getattr(net, f.name)
        for f in dataclasses.fields(net)
        if f.init
        and f.name not in _FLAX
        and not (f.name in later and getattr(net, f.name) == f.default)
    }


def load_bytes(content: bytes) -> StoredGenerator:
    """Reads what `to_bytes` wrote.

    Args:
        content: of a file.

    Returns:
        What it holds.

    Raises:
        ValueError: truncated, corrupt, of another kind, written by a newer version, or with arrays
            that are not those of its architecture.
    """
    try:
        arrays = safetensors.load(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, AttributeError) as error:
        raise ValueError(f"truncated, corrupt or no safetensors file ({error})") from None
    return _understood(header, arrays)


def read(path: str | Path) -> StoredGenerator:
    """Reads a file of `to_bytes`.

    Args:
        path: of the file.

    Returns:
        What it holds.

    Raises:
        ValueError: there is no such file, and as `load_bytes`.
    """
    place = Path(path).expanduser()
    found = _safetensors.read(place)
    try:
        return _understood(*found)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def restore_generator(
    stored: StoredGenerator, spec: GeneratorSpec | None = None, *, seed: int = 0
) -> FrozenGenerator:
    """The generator that was stored.

    Args:
        stored: what a file holds.
        spec: how latents are drawn and samples computed; of no account for a VAE, whose prior is
            its own.
        seed: of the class, if BigGAN's is left open.

    Returns:
        The generator.

    Raises:
        ValueError: a setting that this generator does not have.
    """
    kind = _FROM_NOISE if stored.from_noise else type(stored.net).__name__
    return choose("generator", kind, _RESTORED)(stored, spec or GeneratorSpec(), seed)


def _restored_gan(stored: StoredGenerator, spec: GeneratorSpec, seed: int) -> FrozenGenerator:
    check_no_flow(spec, stored.name)
    known: Any = {"dataset": stored.dataset, "labels": stored.labels}
    gan = published(stored.name, stored.net, stored.variables, spec, seed, **known)
    return dataclasses.replace(gan, reading=stored.reading)


def _restored_data_flow(stored: StoredGenerator, spec: GeneratorSpec, seed: int) -> FrozenGenerator:
    _check_no_gan(spec, stored.name)
    return restore_data_flow(
        stored.name,
        _solved_as(stored.net, spec),
        stored.variables,
        spec,
        dataset=stored.dataset,
        labels=stored.labels,
        reading=stored.reading,
    )


def _restored_from_noise(
    stored: StoredGenerator, spec: GeneratorSpec, seed: int
) -> FrozenGenerator:
    _check_no_gan(spec, stored.name)
    for name in ("dtype", "recompute"):
        if getattr(spec, name) != getattr(GeneratorSpec(), name):
            raise ValueError(f"generator.{name} is of no account for {stored.name}: leave it out")
    assert stored.prior_flow is not None
    plain = stored._replace(prior_flow=None, from_noise=False)
    vae = _restored_vae(plain, GeneratorSpec(), seed)
    found = through_noise(vae, _solved_as(stored.prior_flow, spec))
    found = dataclasses.replace(found, name=stored.name)
    return replace_prior(found, prior(spec, found.latent_dim), log_prior(spec))


def _restored_vae(stored: StoredGenerator, spec: GeneratorSpec, seed: int) -> FrozenGenerator:
    if stored.prior_flow is None:
        check_no_flow(spec, stored.name)
    net, params = stored.net, stored.variables
    plain = dataclasses.replace(spec, path="", data="", steps=None, solver="")
    if plain != GeneratorSpec():
        raise ValueError(
            "settings such as generator.prior and generator.space are for a generator without an "
            f"encoder, and {stored.name} has one"
        )
    apply: Any = net.apply  # flax types its result as a pair as well
    found = freeze(
        vaes.generator(net, params),
        net.config.latent_dim,
        name=stored.name,
        encode=partial(apply, params, method=net.encode),
        log_likelihood=partial(apply, params, method=net.log_likelihood),
        noise_std={kind: _std(std, net) for kind, std in stored.noise_std.items()},
        first_layer=vaes.first_weights(net, params),
        augment=stored.augment,
        reading=stored.reading,
        dataset=stored.dataset,
        labels=stored.labels,
        members=vaes.members(net, params),
    )
    if stored.prior_flow is None:
        return found
    return with_prior(found, _solved_as(stored.prior_flow, spec))


_FROM_NOISE = "VAE from noise"
_RESTORED: dict[str, Callable[[StoredGenerator, GeneratorSpec, int], FrozenGenerator]] = {
    **dict.fromkeys(_NETS, _restored_gan),
    DataFlow.__name__: _restored_data_flow,
    VAE.__name__: _restored_vae,
    _FROM_NOISE: _restored_from_noise,
}
"""What makes a generator of each kind that a file may hold."""


def _check_no_gan(spec: GeneratorSpec, name: str) -> None:
    """Rejects what only GANs have.

    Raises:
        ValueError: a space, or a class.
    """
    if spec.space != "z":
        raise ValueError(f"generator.space {spec.space} is StyleGAN2's; {name} has z alone")
    if spec.label is not None:
        raise ValueError(f"generator.label is BigGAN's; {name} has no classes")


def _solved_as(flow: Any, spec: GeneratorSpec) -> Any:
    """A `DataFlow` or `PriorFlow` with the solver, and the number of its steps, that are asked for.

    Raises:
        ValueError: no such solver, or one that cannot choose its steps.
    """
    steps = flow.steps if spec.steps is None else spec.steps or None
    solver = spec.solver or flow.solver
    check_steps(steps, solver)
    return dataclasses.replace(flow, steps=steps, solver=solver)


def _std(stored: StoredStd, vae: VAE) -> Any:
    if isinstance(stored.params, RBF):
        return partial(rbf.std, stored.params)
    network: Any = _network(stored, vae)
    return partial(network.apply, stored.params)


def _network(stored: StoredStd, vae: VAE) -> StdNetwork:
    return StdNetwork(vae.image_shape, width=stored.width, depth=stored.depth)


def _understood(header: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> StoredGenerator:
    if header.get("format") != FORMAT:
        raise ValueError(f"a safetensors file, but none of a {FORMAT}")
    version = header.get("version", "")
    if version not in map(str, range(1, VERSION + 1)):
        raise ValueError(
            f"version {version or 'nothing'} of the layout, and this latent_flows reads versions "
            f"up to {VERSION}; a newer one is needed"
        )
    # A damaged header can fail in any way at all, and it means one thing here.
    try:
        model = json.loads(header["model"])
        stds = {
            kind: StoredStd(_std_params(kind, arrays), **sizes)
            for kind, sizes in model["noise_std"].items()
        }
        found = StoredGenerator(
            _net(model),
            _nested("variables", arrays),
            str(model["name"]),
            None if model["dataset"] is None else str(model["dataset"]),
            tuple(int(label) for label in model["labels"]),
            tuple((str(name), float(most)) for name, most in model["augment"]),
            stds,
            tuple((str(k), str(v)) for k, v in model.get("reading", {}).items()),
            _flow(model.get("prior_flow"), arrays),
            bool(model.get("from_noise", False)),
        )
        if found.from_noise and found.prior_flow is None:
            raise ValueError("noise without a flow")
        wanted = _shapes(found)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"its header makes no sense ({what(error)})") from None
    _check_shapes(type(found.net).__name__, arrays, wanted)
    return found


def _shapes(found: StoredGenerator) -> dict[str, Any]:
    """The arrays that a generator has, by name."""
    wanted = _flat("variables", variable_shapes(found.net))
    for kind, std in found.noise_std.items():
        z = jnp.zeros(found.net.config.latent_dim)
        if isinstance(std.params, RBF):
            count = len(std.params.centres)
            shapes = {
                "centres": (count, z.size),
                "bandwidths": (count,),
                "log_weights": (count, *found.net.image_shape),
                "zeta": (),
            }
            like: Any = {k: jax.ShapeDtypeStruct(v, z.dtype) for k, v in shapes.items()}
        else:
            like = jax.eval_shape(_network(std, found.net).init, jax.random.key(0), z)
        wanted |= _flat(f"noise_std/{kind}", like)
    if found.prior_flow is not None:
        net, z = found.prior_flow.net, jnp.zeros(found.net.config.latent_dim)
        like = {
            "params": jax.eval_shape(net.init, jax.random.key(0), 0.0, z),
            "mean": jax.ShapeDtypeStruct(z.shape, z.dtype),
            "scale": jax.ShapeDtypeStruct(2 * z.shape, z.dtype),
        }
        wanted |= _flat("prior_flow", like)
    return wanted


def _check_shapes(
    name: str, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Whether arrays are those of an architecture.

    Raises:
        ValueError: the first that is not.
    """
    for key, like in wanted.items():
        if key not in arrays:
            raise ValueError(f"its arrays are not those of {name}: {key} is missing")
        found = arrays[key]
        if found.shape != like.shape or not jnp.issubdtype(found.dtype, jnp.floating):
            raise ValueError(
                f"its arrays are not those of {name}: {key} is {found.dtype} {found.shape}, "
                f"expected {like.dtype} {like.shape}"
            )


def _net(model: Mapping[str, Any]) -> Any:
    settings: Any = {
        k: tuple(v) if isinstance(v, list) else v for k, v in model["settings"].items()
    }
    if model["architecture"] == VAE.__name__:
        return VAE(VAEConfig(**settings), tuple(int(side) for side in model["image_shape"]))
    net = choose("architecture", model["architecture"], _NETS)(**settings)
    if isinstance(net, DataFlow):
        check_steps(net.steps, net.solver)
    return net


def _std_params(kind: str, arrays: Mapping[str, np.ndarray]) -> PyTree:
    found = _nested(f"noise_std/{kind}", arrays)
    return RBF(**found) if kind == "rbf" else found


def _flow_arrays(flow: PriorFlow) -> dict[str, PyTree]:
    return {"params": flow.params, "mean": flow.mean, "scale": flow.scale}


def _flow_settings(flow: PriorFlow) -> dict[str, Any]:
    return {
        "width": flow.net.width,
        "depth": flow.net.depth,
        "steps": flow.steps,
        "solver": flow.solver,
    }


def _flow(settings: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]) -> PriorFlow | None:
    if settings is None:
        return None
    net = VelocityNet(settings["width"], settings["depth"])
    steps, solver = settings["steps"], settings["solver"]
    check_steps(steps, solver)
    return PriorFlow(**_nested("prior_flow", arrays), net=net, steps=steps, solver=solver)


def _flat(prefix: str, tree: PyTree) -> dict[str, Any]:
    return {f"{prefix}/{name}": leaf for name, leaf in flatten_dict(tree, sep="/").items()}


def _nested(prefix: str, arrays: Mapping[str, np.ndarray]) -> Any:
    start = f"{prefix}/"
    flat = {k.removeprefix(start): jnp.asarray(v) for k, v in arrays.items() if k.startswith(start)}
    return unflatten_dict(flat, sep="/")
