"""A user's function and its parameters, found by the names on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from safetensors import SafetensorError
from safetensors.numpy import load_file

from experiments.command import UsageError


def import_function(path: str) -> Callable[..., Any]:
    """The function that `package.module:function` or `file.py:function` names.

    Raises:
        UsageError: it is not written like this, its module does not import, or has no such name.
    """
    where, _, name = path.rpartition(":")
    if not where or not name:
        raise UsageError(
            f"--generator.path must be package.module:function or file.py:function, got {path!r}"
        )
    module = _import_file(where) if where.endswith(".py") else _import_module(where)
    try:
        function = getattr(module, name)
    except AttributeError:
        near = get_close_matches(name, [n for n in vars(module) if not n.startswith("_")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"--generator.path: {where} has no {name!r}{hint}") from None
    if not callable(function):
        raise UsageError(f"--generator.path: {path} is a {type(function).__name__}, no function")
    return function


def _import_module(name: str) -> Any:
    # As `python -m` does, also where the program was started in another way.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"--generator.path: {name} cannot be imported ({what(error)})") from None


def _import_file(name: str) -> Any:
    file = Path(name).expanduser()
    if not file.is_file():
        raise UsageError(f"--generator.path: {file} does not exist")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"--generator.path: {file} cannot be imported ({what(error)})") from None
    return module


def read_checkpoint(path: str) -> Any:
    """The parameters in an orbax folder, a .npz or a .safetensors file, as nested dictionaries.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise UsageError(f"--generator.checkpoint: {place} does not exist")
    try:
        if place.is_dir():
            with ocp.StandardCheckpointer() as reader:
                return reader.restore(_orbax_folder(place))
        if place.suffix == ".npz":
            with np.load(place, allow_pickle=False) as file:
                return _nested(dict(file))
        if place.suffix == ".safetensors":
            return _nested(load_file(place))
    except (SafetensorError, ValueError, OSError, KeyError, EOFError, TypeError) as error:
        raise UsageError(
            f"--generator.checkpoint: {place} cannot be read ({what(error)})"
        ) from None
    raise UsageError(
        f"--generator.checkpoint must be an orbax folder, .npz or .safetensors, got {place.name}"
    )


def _orbax_folder(place: Path) -> Path:
    """A checkpoint itself, or the newest that an orbax manager keeps below this folder."""
    steps = [int(child.name) for child in place.iterdir() if child.name.isdigit()]
    if steps:
        place = place / str(max(steps))
    return place / "default" if (place / "default").is_dir() else place


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Names with slashes as nested dictionaries.

    >>> _nested({"a/b": 1, "a/c": 2, "d": 3})
    {'a': {'b': 1, 'c': 2}, 'd': 3}
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return tree


def what(error: BaseException) -> str:
    """An error's kind and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
