"""Loading a generator: from the run folder that holds it, or a function of your own."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from latent_flows import _memory
from latent_flows._validation import what
from latent_flows.generators import stored
from latent_flows.generators.frozen import FrozenGenerator, draw_latents
from latent_flows.generators.spec import GeneratorSpec, check_no_flow
from latent_flows.generators.user_function import user_function
from latent_flows.typing import Generator

__all__ = ["GENERATOR", "REFERENCE", "check_changes", "is_function", "load_generator", "reference"]

GENERATOR = "generator.safetensors"
"""The file of a run folder that holds a generator."""
REFERENCE = "generator.json"
"""The file of a run folder that says which generator the run was about."""
PROBES = 4
"""Draws from the prior whose samples are looked at before a generator is taken."""
SAME = 1e-6
"""Up to which numbers of two samples are the same."""
SLACK = 0.25
"""Of the width of `range`: how far beyond it the pixels of a user's images may lie."""


def load_generator(spec: str | Path | GeneratorSpec, *, seed: int = 0) -> FrozenGenerator:
    """The generator that a specification names, once a few of its samples were looked at.

    Args:
        spec: a run folder that holds a generator, or was about one; or a function of your own as
            `package.module:function` or `file.py:function`. A `GeneratorSpec` says more of it.
        seed: of the class, if BigGAN's is left open.

    Returns:
        The generator.

    Raises:
        ValueError: there is none, it is damaged, its samples are not finite or all the same, or a
            setting is of no account for it.

    >>> generator = load_generator(GeneratorSpec("jax.numpy:sin", latent_dim=3))
    >>> generator.event_shape, generator.prior(jax.random.key(0)).shape
    ((3,), (3,))
    """
    if not isinstance(spec, GeneratorSpec):
        spec = GeneratorSpec(str(spec))
    if not spec.path:
        raise ValueError(
            "no generator is named: give a run folder, package.module:function or file.py:function"
        )
    spec, seed = _followed(spec, seed)
    found = _SOURCES["function" if is_function(spec.path) else "file"](spec, seed)
    return _checked(_named(_with_data(found, spec)), spec)


def _from_file(spec: GeneratorSpec, seed: int) -> FrozenGenerator:
    _check_plain(spec)
    place = Path(spec.path).expanduser()
    file = place / GENERATOR if place.is_dir() else place
    return stored.restore_generator(stored.read(file), spec, seed=seed)


def _from_function(spec: GeneratorSpec, seed: int) -> FrozenGenerator:
    check_no_flow(spec, spec.path)
    return user_function(spec)


_SOURCES: dict[str, Callable[[GeneratorSpec, int], FrozenGenerator]] = {
    "file": _from_file,
    "function": _from_function,
}
"""Where a generator may come from."""


def _with_data(found: FrozenGenerator, spec: GeneratorSpec) -> FrozenGenerator:
    """The generator, with the data that the specification says it was trained on."""
    if not spec.data:
        return found
    from latent_flows import data

    return dataclasses.replace(found, dataset=data.locate(spec.data))


def _named(found: FrozenGenerator) -> FrozenGenerator:
    """The generator, with the names that its own data have for the numbers of a sample."""
    if found.output_names or not str(found.dataset).endswith(".npz"):
        return found
    from latent_flows.data import array_file

    names = array_file.output_names(Path(str(found.dataset)))
    fit = len(names) == math.prod(found.event_shape)
    return dataclasses.replace(found, output_names=names) if fit else found


def is_function(path: str) -> bool:
    """Whether a specification names a function, and no place on the disk.

    Args:
        path: of a `GeneratorSpec`.

    Returns:
        Whether it is written like one, and no such file or folder exists.

    >>> is_function("model.py:decode"), is_function("runs/vae"), is_function("C:/runs/vae")
    (True, False, False)
    """
    where, colon, name = path.rpartition(":")
    return bool(colon and where) and name.isidentifier() and not _exists(path)


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except OSError:
        return False  # such as a name that is too long


def reference(spec: GeneratorSpec, seed: int, home: Path) -> dict[str, Any]:
    """What a run writes of its generator into its own folder, as JSON can hold it.

    Args:
        spec: of the generator.
        seed: that it was loaded with.
        home: the folder of the run. Where both folders are moved together they find each other.

    Returns:
        The resolved specification, which `load_generator` follows.
    """
    spec, seed = _followed(spec, seed)
    places = _places(spec)
    return {
        "spec": dataclasses.asdict(dataclasses.replace(spec, **_moved(places, Path.absolute))),
        "seed": seed,
        "near": _moved(places, lambda place: os.path.relpath(place.absolute(), home)),
    }


def _places(spec: GeneratorSpec) -> dict[str, tuple[Path, str]]:
    """The files and folders that a specification names, each with what follows its name."""
    found = {}
    if not is_function(spec.path):
        found["path"] = (Path(spec.path).expanduser(), "")
    elif ".py:" in spec.path:
        where, _, name = spec.path.rpartition(":")
        found["path"] = (Path(where).expanduser(), f":{name}")
    for setting in ("checkpoint", "data"):
        if (where := getattr(spec, setting)) and (setting != "data" or _is_own(where)):
            found[setting] = (Path(where).expanduser(), "")
    return found


def _is_own(name: str) -> bool:
    from latent_flows import data

    return data.is_own(name)


def _moved(
    places: Mapping[str, tuple[Path, str]], move: Callable[[Path], Path | str]
) -> dict[str, Any]:
    return {setting: f"{move(place)}{rest}" for setting, (place, rest) in places.items()}


def check_changes(name: str, samples: Float[np.ndarray, "n *event"]) -> None:
    """Whether samples of different latents differ at all.

    Args:
        name: of the generator, for the message.
        samples: of several latents.

    Raises:
        ValueError: they are the same.

    >>> check_changes("a bowl", np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))]))
    """
    if np.ptp(samples, axis=0).max() <= SAME:
        raise ValueError(
            f"{name} makes the same sample of every latent: there is nothing to move through or "
            "to measure"
        )


def _followed(spec: GeneratorSpec, seed: int) -> tuple[GeneratorSpec, int]:
    """The specification of the generator itself, where a run is named that was about it."""
    place = Path(spec.path).expanduser()
    if not _exists(spec.path) or not place.is_dir() or (place / GENERATOR).is_file():
        return spec, seed
    file = place / REFERENCE
    if not file.is_file():
        raise ValueError(_nothing_in(place))
    if dataclasses.replace(spec, path="", data="") != GeneratorSpec():
        raise ValueError(
            f"{place} is a run that has its own generator; leave out the other settings of the "
            "generator"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        settings, seed = dict(found["spec"]), int(found["seed"])
        settings["range"] = tuple(settings["range"])
        kept = GeneratorSpec(**settings)
        near = _places(dataclasses.replace(kept, **found["near"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{file} does not say which generator the run was about ({what(error)})"
        ) from None
    # What was moved together with the run is where it was, as seen from there.
    beside = {k: ((place.absolute() / where).resolve(), rest) for k, (where, rest) in near.items()}
    there = {k: found for k, found in beside.items() if found[0].exists()}
    kept = dataclasses.replace(kept, **_moved(there, Path.absolute))
    kept = dataclasses.replace(kept, data=spec.data or kept.data)
    home = Path(kept.path)
    if home.is_dir() and not (home / GENERATOR).is_file():
        raise ValueError(f"the generator of {place} is gone: {_nothing_in(home)}")
    return kept, seed


def _nothing_in(place: Path) -> str:
    config = place / "config.json"
    if not config.is_file():
        return f"{place} holds no generator: it is no run folder"
    if (place / "checkpoints").is_dir():
        return (
            f"{place} holds no {GENERATOR}: its training was not finished (the same command goes "
            "on with it), or it was made by version 0.1.0 (make it anew)"
        )
    return f"{place} holds no generator and was about none: there is no {GENERATOR}"


def _check_plain(spec: GeneratorSpec) -> None:
    place = Path(spec.path).expanduser()
    if not _exists(spec.path):
        raise ValueError(
            f"generator {spec.path} does not exist: name a run folder, package.module:function or "
            "file.py:function"
        )
    if place.suffix == ".py":
        raise ValueError(f"generator {spec.path} names no function: write {spec.path}:FUNCTION")
    for name in ("checkpoint", "latent_dim", "range"):
        if getattr(spec, name) != getattr(GeneratorSpec(), name):
            raise ValueError(
                f"generator.{name} belongs to a function of your own; the generator of "
                f"{spec.path} has its own"
            )


def _checked(found: FrozenGenerator, spec: GeneratorSpec) -> FrozenGenerator:
    """The same, once samples of a few draws were found to be finite, in range and different."""
    _memory.require(
        4 * PROBES * math.prod(found.event_shape),
        f"a few samples of {found.name} ({PROBES} of {found.event_shape})",
        "make them smaller",
    )
    latents = draw_latents(found.prior, jax.random.key(0), PROBES)
    try:
        samples = np.asarray(jax.jit(jax.lax.map)(found.decode, latents))
    except Exception as error:
        raise ValueError(f"{found.name} cannot make a sample: {what(error)}") from None
    if not np.isfinite(samples).all():
        raise ValueError(f"{found.name} makes samples that are not finite")
    own = is_function(spec.path)
    is_image = len(found.event_shape) == 3 and found.event_shape[2] in (1, 3)
    if own and is_image and (samples.min() < -SLACK or samples.max() > 1 + SLACK):
        low, high = spec.range
        seen = [low + (high - low) * float(v) for v in (samples.min(), samples.max())]
        raise ValueError(
            f"{found.name} makes pixels from {seen[0]:.3g} to {seen[1]:.3g}, far beyond "
            f"generator.range {low:g} {high:g}; give their black and white, or scale them"
        )
    check_changes(found.name, samples)
    if own:
        _check_slopes(found, latents)
    return found


def _check_slopes(found: FrozenGenerator, latents: Array) -> None:
    """Whether samples have derivatives that say how they change.

    Raises:
        ValueError: they are zero, as of rounded numbers, or not finite.
    """

    @jax.jit
    def slopes(generator: Generator, latents: Array) -> Array:
        def slope(z: Array) -> Array:
            return jax.jvp(generator, (z,), (jnp.ones_like(z),))[1]

        return jax.lax.map(slope, latents)

    try:
        made = np.asarray(slopes(found.decode, latents))
    except TypeError:
        return  # a function with a derivative of its own that goes backwards only
    if not np.isfinite(made).all():
        raise ValueError(f"{found.name} makes samples whose derivatives are not finite")
    if not made.any():
        raise ValueError(
            f"{found.name} makes samples whose derivatives by the latent are zero, as if they "
            "never changed: is something rounded, or held by stop_gradient?"
        )
