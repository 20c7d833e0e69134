"""A function of the user's own, found by the name that a command line gives it."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from latent_flows._validation import what

__all__ = ["import_function", "is_named", "label"]


def is_named(path: str) -> bool:
    """Whether a name is written as that of a function in a file or module.

    >>> is_named("zoom"), is_named("file.py:zoom")
    (False, True)
    """
    return ":" in path


def label(path: str) -> str:
    """What a function is called in tables, pictures and files: its name alone.

    >>> label("zoom"), label("../mine/sound.py:louder")
    ('zoom', 'louder')
    """
    return path.rpartition(":")[2]


def import_function(path: str, who: str = "generator") -> Callable[..., Any]:
    """The function that `package.module:function` or `file.py:function` names.

    Args:
        path: written like that.
        who: what it is to be, for messages.

    Returns:
        The function, or whatever can be called.

    Raises:
        ValueError: it is not written like this, its module does not import, or has no such name.
    """
    where, _, name = path.rpartition(":")
    if not where or not name:
        raise ValueError(f"{who} must be package.module:function or file.py:function, got {path!r}")
    module = _import_file(where, who) if where.endswith(".py") else _import_module(where, who)
    try:
        function = getattr(module, name)
    except AttributeError:
        near = get_close_matches(name, [n for n in vars(module) if not n.startswith("_")], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{who}: {where} has no {name!r}{hint}") from None
    if not callable(function):
        raise ValueError(f"{who}: {path} is a {type(function).__name__}, no function")
    return function


def _import_module(name: str, who: str) -> Any:
    # As `python -m` does, also where the program was started in another way.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{who}: {name} cannot be imported ({_why(error)})") from None


def _import_file(name: str, who: str) -> Any:
    file = Path(name).expanduser()
    if file.is_dir():
        raise ValueError(f"{who}: {file} is a folder, not a file with a function")
    if not file.is_file():
        raise ValueError(f"{who}: {file} does not exist")
    try:
        return _executed(file.absolute(), file.stat().st_mtime_ns)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{who}: {file} cannot be imported ({_why(error)})") from None


@lru_cache
def _executed(file: Path, changed: int) -> Any:
    """The module of a file: one for all functions in it, until the file is changed."""
    del changed
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _why(error: BaseException) -> str:
    """What went wrong with an import, and which extra it lacks."""
    missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
    return what(error) + ("; pip install 'latent-flows[torch]'" if missing else "")
