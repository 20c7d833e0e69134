"""Import published weights of a generator: a file of PyTorch into a run folder.

The file is read without running code that a pickle may hold. The run folder holds the generator
(generator.safetensors), config.json, metrics.json (what of the file was used) and a picture of
samples.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Annotated, Any, get_type_hints

import jax
import numpy as np
import tyro
from docstring_parser import parse_from_object

from experiments.generators import limits
from experiments.runtime import tables
from experiments.runtime.cli import UsageError
from experiments.runtime.progress import progress
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Params
from latent_flows import plots
from latent_flows._validation import at_least, choose
from latent_flows.generators import stylegan2, stylegan2_checkpoint
from latent_flows.generators.load import GENERATOR, check_changes
from latent_flows.generators.pretrained import PRESETS as NETS
from latent_flows.generators.pretrained import architecture
from latent_flows.generators.stored import StoredGenerator, to_bytes
from latent_flows.generators.stylegan2_checkpoint import Fitted
from latent_flows.generators.weights import Checkpoint, Target, from_state_dict, read_checkpoint

PHASE = "import"


@dataclass(frozen=True)
class Settings:
    """What an architecture can be set to; each has its own fields."""


def _sentence(text: str) -> str:
    """A text that may begin small and run over several lines.

    >>> _sentence("layers of the\\n    network.")
    'Layers of the network.'
    """
    return " ".join((text[:1].upper() + text[1:]).split())


def _settings_of(net: Any) -> Settings:
    """The fields of a module, with what its docstring says of them."""
    own = [f for f in fields(net) if f.init and f.name not in ("parent", "name")]
    types = get_type_hints(type(net))
    texts = {p.arg_name: p.description for p in parse_from_object(type(net)).params}
    helps = {f.name: tyro.conf.arg(help=_sentence(texts[f.name] or "")) for f in own}
    kind = make_dataclass(
        f"{type(net).__name__}Settings",
        [
            (f.name, Annotated[types[f.name], helps[f.name]], field(default=getattr(net, f.name)))
            for f in own
        ],
        bases=(Settings,),
        frozen=True,
    )
    return kind()


@dataclass(frozen=True)
class Config:
    """Import published weights."""

    run: str = "runs/generator"
    """Run folder; new, or of the same import."""
    weights: str = ""
    """File of the weights: .pt, .pth, .pkl of stylegan2-ada-pytorch, or .safetensors."""
    key: str | None = None
    """Which of several networks in the file, such as g_ema; found by its keys if left out."""
    architecture: tyro.conf.Suppress[str] = "sngan-mnist"
    """Name of the preset."""
    network: Settings = field(default_factory=Settings)
    """Changes to the published configuration; of StyleGAN2 the weights say most of it."""
    samples: int = 9
    """Samples in the picture."""
    mean_samples: int = 4096
    """Samples of the mean of W, for a StyleGAN2 without one in the file."""
    seed: int = 0
    """Source of the samples."""

    def __post_init__(self) -> None:
        at_least(self, samples=1, mean_samples=1, seed=0)


def _describe(net: Any) -> str:
    return f"{type(net).__name__}, {net.resolution} pixels, latents of {net.latent_dim} dimensions"


PRESETS = {
    name: (_describe(net), Config(f"runs/{name}", architecture=name, network=_settings_of(net)))
    for name, net in NETS.items()
}


def network(config: Config) -> Any:
    """The flax module that a configuration names, with its changes."""
    settings = {f.name: getattr(config.network, f.name) for f in fields(config.network)}
    return type(choose("architecture", config.architecture, NETS))(**settings)


def sought(net: Any) -> list[dict[str, Target]]:
    """The keys that are looked for in a file, of every naming that an architecture has."""
    if isinstance(net, stylegan2.StyleGAN2):
        return stylegan2_checkpoint.sought()
    return [architecture(net).key_names(net)]


def fitted(config: Config, net: Any, found: Checkpoint) -> Fitted:
    """The network that the weights are of, and where their keys belong.

    Raises:
        UsageError: a flag says something else, or it is put together in another way.
    """
    if not isinstance(net, stylegan2.StyleGAN2):
        return Fitted(net, architecture(net).key_names(net))
    try:
        fit = stylegan2_checkpoint.fitted(net, found)
    except ValueError as error:
        raise UsageError(f"{config.weights}: {error}") from None
    preset = NETS[config.architecture]
    for name, flag in _flags(net).items():
        given, has = getattr(net, name), getattr(fit.net, name)
        if given not in (has, getattr(preset, name)):
            raise UsageError(
                f"{flag} says {given}, and the weights in {config.weights} are of {has}; leave the "
                "flag out"
            )
    return fit


def _flags(net: Any) -> dict[str, str]:
    """The flags of a network's settings, by their names."""
    own = [f.name for f in fields(net) if f.init and f.name not in ("parent", "name")]
    return {name: f"--network.{name.replace('_', '-')}" for name in own}


def announce(config: Config, net: Any, fit: Fitted) -> None:
    """Says what the weights have told of the network, and what they have not."""
    read = [
        f"{name} {getattr(fit.net, name)} (the preset has {getattr(net, name)})"
        for name in _flags(net)
        if getattr(fit.net, name) != getattr(net, name)
    ]
    if read:
        print(f"read off {config.weights}: {', '.join(read)}", flush=True)
    for name in fit.unknown:
        print(
            f"{config.weights} does not say {name}: it is taken for {getattr(fit.net, name)}, and "
            f"{_flags(net)[name]} says otherwise",
            flush=True,
        )


def used(table: Mapping[str, Target], state: Mapping[str, Any]) -> list[dict]:
    """What of the file each part of the network got, as rows of a table."""
    rows: dict[str, dict[str, Any]] = {}
    for key, target in table.items():
        part = target.path[1].rstrip("0123456789").rstrip("_")
        row = rows.setdefault(part, {"part": part, "keys": 0, "numbers": 0, "not in the file": 0})
        if key in state:
            row["keys"] += 1
            row["numbers"] += int(np.size(state[key]))
        elif target.optional:
            row["not in the file"] += 1
    left = [key for key in state if key not in table]
    return [*rows.values()] + (
        [{"part": "(not needed)", "keys": len(left), "numbers": _size(state, left)}] if left else []
    )


def _size(state: Mapping[str, Any], keys: list[str]) -> int:
    return sum(int(np.size(state[key])) for key in keys)


def draw(net: Any, variables: Params, config: Config, advance: Any) -> np.ndarray:
    """Samples, one after the other, in [0, 1]."""
    sample = jax.jit(net.apply)
    keys = jax.random.split(jax.random.key(config.seed), config.samples)
    images = []
    for i, key in enumerate(keys):
        classes = getattr(net, "classes", 0)
        label = [jax.random.randint(key, (), 0, classes)] if classes else []
        z = jax.random.normal(key, (net.latent_dim,))
        images.append(np.asarray(sample(variables, z, *label)))
        advance(f"sample {i + 1} of {len(keys)}")
    return np.clip((np.stack(images) + 1) / 2, 0, 1)


def check_weights(file: str, table: Mapping[str, Target], state: Mapping[str, Any]) -> None:
    """Reject numbers that are not finite.

    Raises:
        UsageError: naming the first keys that hold some.
    """
    bad = [key for key in table if key in state and not np.isfinite(state[key]).all()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UsageError(
            f"{file} holds numbers that are not finite in {', '.join(bad[:3])}{more}: its training "
            "has probably diverged"
        )


def check_images(file: str, images: np.ndarray) -> None:
    """Reject weights that make no images, or one alone.

    Raises:
        UsageError: that.
    """
    if not np.isfinite(images).all():
        raise UsageError(f"{file} makes images that are not finite")
    if len(images) > 1:
        check_changes(file, images)


def save(folder: Folder, config: Config, net: Any, variables: Params) -> None:
    """Writes the generator into the run folder, where `load_generator` finds it.

    Raises:
        UsageError: the folder holds other weights.
    """
    content = to_bytes(StoredGenerator(net, variables, config.architecture))
    file = folder.path / GENERATOR
    if file.exists() and file.read_bytes() != content:
        raise UsageError(f"{folder.path} holds other weights; choose another --run")
    folder.write_bytes(GENERATOR, content)


def check_picture(config: Config, net: Any) -> None:
    """Reject more samples than there is memory for.

    Raises:
        UsageError: that.
    """
    shape = (net.resolution, net.resolution, getattr(net, "image_channels", 3))
    limits.check_images(config.samples, shape, "the picture", "lower --samples")


def run(config: Config) -> int | None:
    """Read, compare, save, draw."""
    if not config.weights:
        raise UsageError("--weights must name a .pt, .pth, .pkl or .safetensors file")
    net = network(config)
    check_picture(config, net)
    with progress(PHASE, 0, 3 + config.samples) as show:
        done = 0

        def advance(text: str) -> None:
            nonlocal done
            done += 1
            show(done, text)

        show(0, f"reading {config.weights}")
        found = read_checkpoint(config.weights, key=config.key, names=sought(net))
        state = found.state
        advance(f"{len(state)} tensors")
        fit = fitted(config, net, found)
        announce(config, net, fit)
        net, table = fit.net, fit.table
        check_picture(config, net)
        check_weights(config.weights, table, state)
        try:
            variables = from_state_dict(net, table, state)
        except ValueError as error:
            # Several lines, one for each of the first keys that do not fit.
            head, *lines = str(error).split("\n")
            sizes = ", ".join(_flags(net).values())
            print(f"error: {config.weights}: {head}; its sizes are {sizes}", file=sys.stderr)
            print("\n".join(lines), file=sys.stderr, flush=True)
            return 2
        means = {key for key, target in table.items() if target.path[0] == "statistics"}
        if isinstance(net, stylegan2.StyleGAN2) and not means & set(state):
            key = jax.random.key(config.seed)
            mean = stylegan2.mean_w(net, variables, key, samples=config.mean_samples)
            variables = stylegan2.with_mean_w(variables, mean)
        advance("all keys match")
        # Weights that make no images are of no use to anyone, so they are not kept.
        images = draw(net, variables, config, advance)
        check_images(config.weights, images)
        folder = open_folder(config.run, config)
        save(folder, config, net, variables)
        advance("saved")
    caption = f"Samples of {config.architecture} with the imported weights."
    grid = partial(plots.samples_grid, images, caption=caption)
    failed = tables.save_figures(folder, {"samples": grid})
    rows = used(table, state)
    folder.write_json("metrics.json", {"parts": rows})
    tables.show(f"{_describe(net)}: every key has its place", rows)
    return tables.where(folder, failed)
