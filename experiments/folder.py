"""The run folder: the one place a run writes to, written so that a kill leaves no half file."""

import contextlib
import dataclasses
import enum
import importlib.metadata
import json
import math
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np

from experiments import processes
from experiments.command import UsageError, disk_trouble, module_name

Config = TypeVar("Config")

CONFIG = "config.json"
METRICS = "metrics.jsonl"
PARTIAL = ".partial-"


@dataclasses.dataclass(frozen=True)
class Folder:
    """An open run folder. It belongs to this process for as long as the object lives."""

    path: Path
    """Where the folder is."""

    @contextlib.contextmanager
    def atomic(self, name: str) -> Iterator[Path]:
        """Gives a temporary path to write, and moves it to `name` when the block ends well.

        The temporary file lies in the same folder and has the same suffix, so that writers that
        look at the suffix work.
        """
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=target.parent, prefix=PARTIAL, suffix=target.suffix
        )
        os.close(handle)
        try:
            yield Path(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a file, whole or not at all."""
        with self.atomic(name) as path:
            path.write_bytes(content)

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file, whole or not at all; a number that is not finite becomes null."""
        self.write_bytes(name, (json.dumps(self._plain(name, value), indent=2) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Reads a JSON file of this folder.

        Raises:
            UsageError: the file is missing or is no JSON.
        """
        return read_json(self.path / name)

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """The content of `name.json`, computed and written first if it is not there yet.

        An evaluation made of such parts goes on where it was stopped.
        """
        file = name if name.endswith(".json") else f"{name}.json"
        if not (self.path / file).exists():
            self.write_json(file, compute())
        return self.read_json(file)

    def append_rows(self, phase: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows to `metrics.jsonl`, each marked with the phase, and waits for the disk."""
        lines = [json.dumps(self._plain(METRICS, {"phase": phase, **row})) + "\n" for row in rows]
        if lines:
            with open(self.path / METRICS, "a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                os.fsync(file.fileno())

    def truncate_rows(self, phase: str, step: int) -> None:
        """Drops the rows of a phase from a step on, and a last line that was not finished."""
        path = self.path / METRICS
        if not path.exists():
            return
        content = path.read_text(encoding="utf-8")
        kept = [line for line in content.splitlines(keepends=True) if _keeps(line, phase, step)]
        if "".join(kept) != content:
            self.write_bytes(METRICS, "".join(kept).encode())

    def rows(self, phase: str | None = None) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, of one phase or of all."""
        path = self.path / METRICS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if phase in (None, row["phase"])]

    def _plain(self, name: str, value: Any) -> Any:
        lost: list[str] = []
        plain = jsonable(value, lost)
        if lost:
            print(
                f"warning: {self.path / name}: not finite, written as null: {', '.join(lost[:10])}",
                file=sys.stderr,
                flush=True,
            )
        return plain


def open_folder(path: str | Path, config: Any) -> Folder:
    """Opens the run folder of a configuration, new or begun by an earlier run of the same one.

    Of several processes the first opens it, and each of the others a copy of its own to write to.

    Args:
        path: where it is or shall be. A field `run` of the configuration, which holds this path,
            is not part of what makes two configurations differ, so a folder can be moved.
        config: the experiment's configuration, a dataclass.

    Raises:
        UsageError: the folder holds another configuration (the message lists the fields that
            differ), holds something else, or is used by another process.
    """
    path = Path(path).expanduser().absolute()
    opened = processes.together(lambda: _open(path, config))
    folder = Folder(processes.private_copy(path)) if opened is None else opened
    # Nobody writes to the folder before all have their copy.
    processes.together(lambda: None)
    return folder


def _open(path: Path, config: Any) -> Folder:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder; choose another --run")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if disk_trouble(error):
            raise
        raise UsageError(f"cannot make {path} ({error.strerror}); choose another --run") from None
    foreign = [child.name for child in path.iterdir() if not child.name.startswith(".")]
    if foreign and not (path / CONFIG).exists():
        raise UsageError(
            f"{path} is not empty and holds no {CONFIG}, so it is no run folder; "
            "choose another --run"
        )
    folder = Folder(path)
    _lock(folder)
    for left_over in path.rglob(f"{PARTIAL}*"):
        left_over.unlink()
    settings = {key: value for key, value in jsonable(config).items() if key != "run"}
    if (path / CONFIG).exists():
        _compare(folder, type(config), settings)
    else:
        content = {
            "experiment": module_name(type(config)),
            "version": _version(),
            "config": settings,
        }
        folder.write_json(CONFIG, content)
    return folder


def made_by(path: str | Path) -> str:
    """The module of the configuration that a run folder was made with.

    Raises:
        UsageError: there is no run folder.
    """
    return str(read_json(Path(path).expanduser().absolute() / CONFIG).get("experiment"))


def read_config(path: str | Path, kind: type[Config]) -> Config:
    """The configuration that a run folder was made with.

    Args:
        path: the run folder.
        kind: the dataclass that the experiment's flags were parsed into.

    Raises:
        UsageError: there is no run folder, or it belongs to another experiment or to a version
            with other settings.
    """
    folder = Path(path).expanduser().absolute()
    found = read_json(folder / CONFIG)
    wanted = module_name(kind)
    if found.get("experiment") != wanted:
        raise UsageError(f"{folder} holds a run of {found.get('experiment')}, not of {wanted}")
    try:
        return _revive(kind, {**found["config"], "run": str(path)})
    except (TypeError, KeyError) as error:
        raise UsageError(f"{folder} was made by another version of {wanted}: {error}") from None


def _revive(kind: Any, value: Any) -> Any:
    """The inverse of `jsonable` for dataclasses of numbers, texts, tuples and dataclasses."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: _revive(types[name], child) for name, child in value.items()})
    return tuple(value) if isinstance(value, list) else value


def jsonable(value: Any, lost: list[str] | None = None, name: str = "") -> Any:
    """A value as JSON can hold it: dataclasses as objects, arrays as lists, NaN as null.

    Args:
        value: dataclasses, mappings, sequences, arrays, paths, enums and numbers, nested.
        lost: if given, collects the names of the numbers that became null.
        name: the name of `value` itself in that list.

    >>> lost = []
    >>> jsonable({"a": (1, float("nan")), "b": np.ones(2)}, lost), lost
    ({'a': [1, None], 'b': [1.0, 1.0]}, ['a.1'])
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    elif hasattr(value, "tolist"):
        value = np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {str(k): jsonable(v, lost, f"{name}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(v, lost, f"{name}.{i}".lstrip(".")) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if lost is not None:
            lost.append(name)
        return None
    if isinstance(value, enum.Enum):
        return value.name
    return value if isinstance(value, str | int | float | None) else str(value)


def _compare(folder: Folder, kind: type, settings: Mapping[str, Any]) -> None:
    found = folder.read_json(CONFIG)
    kept = found.get("config", {})
    with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
        # A setting that did not exist yet when the run was made had its default. Where the flags
        # depend on the preset, settings are compared as they are.
        kept = {key: value for key, value in jsonable(_revive(kind, kept)).items() if key != "run"}
    old = dict(_leaves(kept)) | {"experiment": found.get("experiment")}
    new = dict(_leaves(settings)) | {"experiment": module_name(kind)}
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differ:
        shown = ", ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in differ[:10])
        more = f" and {len(differ) - 10} more" if len(differ) > 10 else ""
        raise UsageError(
            f"{folder.path} holds a run with other settings ({shown}{more}); "
            "choose another --run, or the same flags to go on with it"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(child, f"{name}.{key}".lstrip("."))
    else:
        yield name, value


def _keeps(line: str, phase: str, step: int) -> bool:
    if not line.endswith("\n"):
        return False
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return False
    return row.get("phase") != phase or row.get("step", -1) < step


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except json.JSONDecodeError:
        raise UsageError(f"{path} is no JSON; remove it or choose another --run") from None


def _lock(folder: Folder) -> None:
    """Takes the folder for this process. The system lets go of it however the process ends."""
    handle = os.open(folder.path / ".lock", os.O_RDWR | os.O_CREAT)
    weakref.finalize(folder, os.close, handle)
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise UsageError(
            f"{folder.path} is in use by another process; wait for it or choose another --run"
        ) from None
    except OSError:
        # Some network file systems have no locks; a run is better than none.
        return


def _version() -> str | None:
    try:
        return importlib.metadata.version("latent-flows")
    except importlib.metadata.PackageNotFoundError:
        # Run from a checkout that was never installed.
        return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
