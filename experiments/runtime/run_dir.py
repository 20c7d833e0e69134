"""The run folder: the one place a run writes to, written so that a kill leaves no half file."""

import contextlib
import dataclasses
import errno
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from experiments.runtime import extension, interrupts, multihost
from experiments.runtime.announcements import announced
from experiments.runtime.cli import module_name
from experiments.runtime.errors import UsageError, disk_trouble
from experiments.runtime.extension import CONFIG, GIVEN, METRICS, PARTIAL, SCORED, begun
from experiments.runtime.json_values import is_number, is_of, jsonable, leaves, revive, shown

Config = TypeVar("Config")
Timed: TypeAlias = tuple[Any, Mapping[str, float]]
"""What was computed, and seconds by the name of what took them."""

TIMES = "times.json"
FOLDERS = ("checkpoints", "tensorboard")
"""What a run keeps in folders of these names."""
WRITTEN = (".json", ".jsonl", ".png", ".gif")
"""Suffixes of the files that runs write."""
PASSING = ("run", "measure", "latent")
"""Fields of a configuration that do not say what a run is: where it is, how far it goes now, and
from where it is drawn as well."""
EARLIER = re.compile(r"experiments\.\w+_config")
"""What version 0.1.0 called experiments whose runs trained a generator of their own."""
EARLIER_SETTING = "vae_training"
"""Or such a run has this setting."""
_NO_LOCKS = (None, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What some network file systems say, on which a run is better than none."""


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

    def read_object(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of this folder that holds one object.

        Raises:
            UsageError: the file is missing, or holds anything else.
        """
        return read_object(self.path / name)

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """The content of `name.json`, computed and written first if it is not there yet.

        An evaluation made of such parts goes on where it was stopped.
        """
        file = name if name.endswith(".json") else f"{name}.json"
        if not (self.path / file).exists():
            with announced(f"computing {file}"):
                self.write_json(file, compute())
        return self.read_json(file)

    def remember_timed(
        self, name: str, compute: Callable[[], Timed]
    ) -> tuple[Any, dict[str, float]]:
        """As `remember`, of something whose times are noted in `times.json`.

        Returns:
            The content of `name.json`, and the times, if they are known.
        """

        def timed() -> Any:
            made, seconds = compute()
            self.keep_times(name, seconds)
            return made

        return self.remember(name, timed), self.times(name)

    @contextlib.contextmanager
    def understood(self, name: str) -> Iterator[None]:
        """Around the use of what a JSON file of this folder holds; see `understood`."""
        with understood(self.path / (name if name.endswith(".json") else f"{name}.json")):
            yield

    def keep_times(self, name: str, seconds: Mapping[str, float]) -> None:
        """Notes in `times.json` how long something took: the one thing that no run repeats."""
        self.write_json(TIMES, {**self._all_times(), name: dict(seconds)})

    def times(self, name: str) -> dict[str, float]:
        """What `keep_times` noted; empty where it was not noted, or the file is gone."""
        found = self._all_times().get(name)
        return {k: v for k, v in found.items() if is_number(v)} if isinstance(found, dict) else {}

    def _all_times(self) -> dict[str, Any]:
        return read_object(self.path / TIMES) if (self.path / TIMES).exists() else {}

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
        content = path.read_bytes()
        kept = [line for line in content.splitlines(keepends=True) if _keeps(line, phase, step)]
        if b"".join(kept) != content:
            self.write_bytes(METRICS, b"".join(kept))

    def rows(self, phase: str | None = None) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, of one phase or of all; what is no row is left out."""
        path = self.path / METRICS
        lines = path.read_bytes().splitlines() if path.exists() else []
        rows = [_row(line) for line in lines]
        if bad := [number for number, row in enumerate(rows, 1) if row is None]:
            which = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
            print(
                f"warning: {path}: no row of numbers in line {which}, which is left out",
                file=sys.stderr,
                flush=True,
            )
        return [row for row in rows if row is not None and phase in (None, row["phase"])]

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


def open_folder(path: str | Path, config: Any, *, given: Mapping[str, Any] | None = None) -> Folder:
    """Opens the run folder of a configuration, new or begun by an earlier run of the same one.

    Of several processes the first opens it, and each of the others a copy of its own to write to.

    Args:
        path: where it is or shall be. A field `run` of the configuration, which holds this path,
            is not part of what makes two configurations differ, so a folder can be moved.
        config: the experiment's configuration, a dataclass.
        given: what the run is given besides, as JSON by the names of the files to keep it in.

    Raises:
        UsageError: the folder holds another configuration (the message lists the fields that
            differ), holds something else, or is used by another process.
    """
    path = Path(path).expanduser().absolute()
    opened = multihost.together(lambda: _open(path, config, given or {}))
    folder = Folder(multihost.private_copy(path)) if opened is None else opened
    # Nobody writes to the folder before all have their copy.
    multihost.together(lambda: None)
    return folder


def _open(path: Path, config: Any, given: Mapping[str, Any]) -> Folder:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder; choose another --run")
    if (outer := run_around(path)) is not None:
        raise UsageError(f"{path} lies inside the run folder {outer}; choose another --run")
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
    _check_kinds(path)
    _lock(folder)
    for left_over in [*path.rglob(f"{PARTIAL}*")]:
        if left_over.is_file():
            left_over.unlink()
        elif left_over.parent == path:
            shutil.rmtree(left_over)
    header = {
        "experiment": module_name(type(config)),
        "version": _version(),
        **({GIVEN: [*given]} if given else {}),
        "config": lasting(jsonable(config)),
    }
    if (path / CONFIG).exists():
        _compare(folder, type(config), header)
    else:
        folder.write_json(CONFIG, header)
    for name, value in given.items():
        folder.write_json(name, value)
    return folder


def _check_kinds(path: Path) -> None:
    """Whether what should be a file of a run is one, and what should be a folder."""
    for name in (CONFIG, METRICS, TIMES, SCORED, ".lock", *FOLDERS):
        kinds = ("folder", "file") if (path / name).is_dir() else ("file", "folder")
        if (path / name).exists() and (name in FOLDERS) != (kinds[0] == "folder"):
            raise UsageError(
                f"{path / name} is a {kinds[0]} where a run keeps a {kinds[1]}; remove it or "
                "choose another --run"
            )


def read_header(path: str | Path) -> dict[str, Any]:
    """What the `config.json` of a run folder holds: experiment, version and config.

    Raises:
        UsageError: there is no run folder, or its `config.json` is not one.
    """
    folder = Path(path).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a run folder")
    file = folder / CONFIG
    found = read_object(file)
    if not _is_header(found):
        raise UsageError(
            f"{file} is damaged or no run's: it has no experiment with settings; restore it or "
            "choose another run folder"
        )
    return found | {"config": found.get("config", {})}


def _check_version(path: Path, header: Mapping[str, Any]) -> None:
    if EARLIER.fullmatch(header["experiment"]) or EARLIER_SETTING in header["config"]:
        raise UsageError(
            f"{path} was made by an earlier version, whose runs held their generator; make a new "
            "one: train the generator by itself (python -m experiments.train_vae --help), then run "
            "the same experiment on it, with --generator and another --run"
        )


def _is_header(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("experiment"), str)
        and isinstance(found.get("config", {}), dict)
    )


def run_around(path: Path) -> Path | None:
    """The run folder that a path lies in, below its top, or None."""
    for folder in path.expanduser().absolute().parent.resolve().joinpath(path.name).parents:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            file = folder / CONFIG
            if file.is_file() and _is_header(json.loads(file.read_text(encoding="utf-8"))):
                return folder
    return None


def writable(name: str, flag: str) -> Path:
    """The place of a file that a user wants written, if that harms nothing.

    Args:
        name: where the file shall be.
        flag: that named it, for the message.

    Returns:
        The absolute path.

    Raises:
        UsageError: it is a folder, or lies in one that does not exist, or is what a run owns: a
            file of the kinds that runs write in their folders, or anything in a folder below them.
    """
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        raise UsageError(f"{flag} {name} is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {name} lies in a folder that does not exist")
    # The file itself may be a link, which is replaced; the folders on the way are followed.
    target = path.parent.resolve() / path.name
    outer = run_around(target)
    owned = path.suffix.lower() in WRITTEN or path.name.startswith(".")
    if outer is not None and (owned or outer != target.parent):
        raise UsageError(
            f"{flag} {name} is a place that the run in {outer} keeps for itself; choose another"
        )
    return path


def check_finished(path: Path, *files: str) -> None:
    """Whether a run has written files that it writes on its way to the end.

    Raises:
        UsageError: the first is not there.
    """
    for name in files:
        if not (path / name).exists():
            raise UsageError(
                f"{path} has no {name}: the run is not finished; run it to its end first"
            )


def made_by(path: str | Path) -> str:
    """The command of the experiment that a run folder was made with.

    Raises:
        UsageError: there is no run folder, or an earlier version made it.
    """
    header = read_header(path)
    _check_version(Path(path).expanduser().absolute(), header)
    return header["experiment"]


def read_config(path: str | Path, kind: type[Config]) -> Config:
    """The configuration that a run folder was made with.

    Args:
        path: the run folder.
        kind: the dataclass that the experiment's flags were parsed into.

    Raises:
        UsageError: there is no run folder, it belongs to another experiment or to a version
            with other settings, or a setting has a value that it cannot have.
    """
    folder = Path(path).expanduser().absolute()
    found = read_header(folder)
    _check_version(folder, found)
    wanted = module_name(kind)
    if found["experiment"] != wanted:
        raise UsageError(f"{folder} holds a run of {found['experiment']}, not of {wanted}")
    try:
        return revive(kind, {**found["config"], "run": str(path)})
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise UsageError(
            f"{folder / CONFIG} is damaged or of another version of {wanted}: {error}"
        ) from None


def _compare(folder: Folder, kind: type, header: Mapping[str, Any]) -> None:
    """Whether a folder holds a run of these settings; makes it one where that is a longer run."""
    found = read_header(folder.path)
    _check_version(folder.path, found)
    kept = found["config"]
    with contextlib.suppress(TypeError, ValueError, KeyError, OverflowError):
        # A setting that did not exist yet when the run was made had its default. Where the flags
        # depend on the preset, settings are compared as they are.
        kept = lasting(jsonable(revive(kind, kept)))
    old = dict(leaves(kept)) | {"experiment": found["experiment"]}
    new = dict(leaves(header["config"])) | {"experiment": header["experiment"]}
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differ and (plan := extension.planned(folder.path, kind, old, new)) is not None:
        _extend(folder, kind, plan, {**found, "config": header["config"]})
    elif differ:
        changes = ", ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in differ[:10])
        more = f" and {len(differ) - 10} more" if len(differ) > 10 else ""
        raise UsageError(
            f"{folder.path} holds a run with other settings ({changes}{more}); "
            "choose another --run, or the same flags to go on with it"
        )


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say what a run is."""
    return {key: value for key, value in settings.items() if key not in PASSING}


def _extend(
    folder: Folder, kind: type, plan: extension.Extension, header: Mapping[str, Any]
) -> None:
    """Makes the folder that of a longer run."""
    for phase, (done, _) in plan.longer.items():
        print(
            f"{folder.path}: {phase!r} goes on from step {done}; what was made of it is made anew",
            flush=True,
        )
    for name in plan.added:
        value = dict(leaves(header["config"]))[name]
        print(
            f"{folder.path}: goes on with {name} {value}; what was made before is made anew",
            flush=True,
        )
    with interrupts.deferred():
        extension.carry_out(
            folder.path,
            plan,
            folder.truncate_rows,
            keep=begun(header),
            made=getattr(kind, "MADE", ()),
        )
        folder.write_json(CONFIG, header)


def _keeps(line: bytes, phase: str, step: int) -> bool:
    row = _row(line) if line.endswith(b"\n") else None
    return row is not None and (row["phase"] != phase or row.get("step", -1) < step)


def _row(line: bytes) -> dict[str, Any] | None:
    """A row of `metrics.jsonl`: a phase and numbers by name; None where a line is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
        return None
    numbers = [value for k, value in row.items() if k != "phase" and value is not None]
    fits = all(map(is_number, numbers)) and is_of(int, row.get("step", 0))
    return row if fits else None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: there is no such file, or it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except (IsADirectoryError, NotADirectoryError):
        raise UsageError(f"{path} is no file; remove it or choose another --run") from None
    except PermissionError as error:
        if path.is_dir():  # what Windows says of a folder
            raise UsageError(f"{path} is no file; remove it or choose another --run") from None
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is no JSON; remove it or choose another --run") from None


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds, if that is one object.

    Raises:
        UsageError: there is no such file, or it holds anything else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise UsageError(
            f"{path} holds {shown(found)}, not one object; remove it or choose another --run"
        )
    return found


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Around the use of what a JSON file holds: one line where that is not what was written there.

    Raises:
        UsageError: in place of an error that values of another form lead to.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, StopIteration) as error:
        raise UsageError(
            f"{path} does not hold what a run writes there ({type(error).__name__}: {error}); "
            "remove it or choose another --run"
        ) from error


def _lock(folder: Folder) -> None:
    """Takes the folder for this process. The system lets go of it however the process ends."""
    from filelock import FileLock, Timeout

    # `_check_kinds` has seen that it is no folder. A lock that the system does not know of would
    # outlive a process that is killed.
    lock = FileLock(folder.path / ".lock", thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"{folder.path} is in use by another process; wait for it or choose another --run"
        ) from None
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", None) not in _NO_LOCKS:
            raise
    weakref.finalize(folder, lock.release)


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
