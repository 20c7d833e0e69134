"""The command line every experiment shares: presets, flags, and errors that fit on one line.

An experiment is a function of one frozen dataclass, and the last two lines of its command are

    if __name__ == "__main__":
        raise SystemExit(main(run, PRESETS))
"""

import contextlib
import dataclasses
import difflib
import dis
import errno
import io
import logging
import os
import re
import shlex
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, get_args, get_type_hints

import absl.logging
import jax
import platformdirs
import tyro

from experiments.runtime import announcements, defaults, interrupts, kept, memory, multihost
from latent_flows._extras import MissingExtra
from latent_flows._validation import choose

Config = TypeVar("Config")
Presets = Mapping[str, tuple[str, Config]]

_DISK = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write or read",
    errno.EPERM: "no permission to write or read",
}
_FRONT = ("train", "config", "__main__")
"""Modules of a room whose command is called like the room itself."""
_GOES_ON = "goes on from the last checkpoint"
# What the C++ libraries below orbax say when they wrap one of the errors above.
_DISK_TEXTS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
}


class UsageError(Exception):
    """What was asked for cannot be done: one line on stderr and exit code 2."""

    exit_code = 2


class Failure(Exception):
    """What was asked for was tried and failed: one line on stderr and exit code 1."""

    exit_code = 1


def main(
    run: Callable[[Config], int | None],
    presets: Presets | type[Config],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses `[PRESET] --flags` into a configuration and runs the experiment with it.

    Args:
        run: the experiment. What it returns is the exit code; None counts as 0.
        presets: name -> (one line that describes it, configuration). The first is the one taken
            when the command line names none. Or the configuration's class, if there are no presets.
        argv: the arguments after the program's name; those of this process by default.

    Returns:
        The exit code: 0; 1 for a `Failure` or a disk that is full or read-only; 2 for a
        `UsageError`, a wrong flag, or a value that the library rejects; after Ctrl-C 130, after
        SIGTERM 143, after SIGHUP 129.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    module = module_name(run)
    config: Any = None
    try:
        interrupts.enter(lambda: _interrupted(config, module, arguments))
        announcements.loaded()
        config = parse(presets, arguments, module, sys.modules[run.__module__].__doc__)
        if config is None:
            return 0
        setup()
        multihost.join()
        return _unless_interrupted(run, config) or 0
    except KeyboardInterrupt:
        code = interrupts.arrived()
        return _say(_interrupted(config, module, arguments), code)
    except (UsageError, Failure, MissingExtra) as error:
        return _say(f"error: {error}", getattr(error, "exit_code", UsageError.exit_code))
    except Exception as error:
        if trouble := _trouble(error, config):
            return _say(f"error: {trouble}", 1)
        if isinstance(error, ValueError) and _is_validation(error.__traceback__, module):
            return _say(f"error: {error}", 2)
        raise
    finally:
        interrupts.leave()


def _unless_interrupted(run: Callable[[Config], int | None], config: Config) -> int | None:
    try:
        return run(config)
    except Exception:
        if interrupts.is_asked():
            # What some library has made of the exception that a signal raised in it.
            raise interrupts.Interrupted from None
        raise


def _interrupted(config: Any, module: str, arguments: Sequence[str]) -> str:
    """The last line of a run that was stopped."""
    command = shlex.join(["python", "-m", module, *arguments])
    if is_kept(config):
        return f"interrupted: progress is saved; to go on, run: {command}"
    return f"interrupted: nothing was saved yet; to start again, run: {command}"


def is_kept(config: Any) -> bool:
    """Whether the same command would go on from something that is on the disk.

    A configuration may have a method `is_kept` that says so; others have a run folder, or nothing.
    """
    if hasattr(config, "is_kept"):
        return config.is_kept()
    run = getattr(config, "run", None)
    return isinstance(run, str) and kept.is_kept(run, module_name(type(config)))


def parse(presets: Presets | type, arguments: Sequence[str], module: str, doc: str | None) -> Any:
    """The configuration that the arguments ask for, or None when they asked for the presets.

    Raises:
        UsageError: unknown flag, or a value that its flag does not take.
        ValueError: unknown preset or choice; the message names the nearest valid one.
        SystemExit: `PRESET --help` was asked for and printed.
    """
    if isinstance(presets, type):
        kind, default, rest = presets, tyro.MISSING_NONPROP, list(arguments)
        prog, description = f"python -m {module}", (doc or "").strip().split("\n\n")[0]
    else:
        if arguments and arguments[0] in ("-h", "--help"):
            print(overview(presets, module, doc), flush=True)
            return None
        named = bool(arguments) and not arguments[0].startswith("-")
        preset = arguments[0] if named else next(iter(presets))
        description, default = choose("preset", preset, presets)
        kind, rest = type(default), list(arguments[1:] if named else arguments)
        prog = f"python -m {module} {preset}"
        default = defaults.fitting(default, rest)
        if defaults.is_quick(kind):
            description += f". {defaults.ABOUT}"
            rest = [word for word in rest if word != defaults.FLAG]
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            config, unknown = tyro.cli(
                kind,
                prog=prog,
                description=description,
                args=rest,
                default=default,
                return_unknown_args=True,
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        raise UsageError(condense(captured.getvalue(), kind.__name__)) from None
    if unknown:
        raise UsageError(
            _unknown(unknown[0], list(flags(kind if isinstance(presets, type) else default)))
        )
    _check_whole_numbers(config)
    return config


def overview(presets: Presets, module: str, doc: str | None) -> str:
    """The text of `--help`: what the experiment does and which presets it has."""
    width = max(map(len, presets))
    first = next(iter(presets))
    lines = [f"usage: python -m {module} [PRESET] [--flag value ...]", ""]
    lines += [(doc or "").strip().split("\n\n")[0], ""] if doc else []
    lines += ["presets:"]
    lines += [
        f"  {name:{width}}  {text}{' (the default)' if name == first else ''}"
        for name, (text, _) in presets.items()
    ]
    if any(defaults.is_quick(config) for _, config in presets.values()):
        lines += ["", *textwrap.wrap(defaults.ABOUT, 100)]
    lines += ["", f"python -m {module} {first} --help shows every flag with its default."]
    return "\n".join(lines)


def flags(config: Any, prefix: str = "--") -> Iterator[str]:
    """Every flag of a nested dataclass.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     batch_size: int = 3
    ...     shuffle: bool = True
    >>> list(flags(Config()))
    ['--batch-size', '--shuffle', '--no-shuffle']
    """
    if defaults.is_quick(config):
        yield defaults.FLAG
    for name, value in settings(config, prefix):
        yield name
        if isinstance(value, bool):
            yield re.sub(r"([^.-][^.]*)$", r"no-\1", name)


def settings(config: Any, prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """Every flag of a nested dataclass, and its value there."""
    types = get_type_hints(
        config if isinstance(config, type) else type(config), include_extras=True
    )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name, None)
        given = [getattr(extra, "name", None) for extra in get_args(types[field.name])[1:]]
        name = next(filter(None, given), field.name).replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_whole_numbers(config: Any) -> None:
    """Whether whole numbers are what arrays and random keys can hold.

    Raises:
        UsageError: one is not. Keys of seeds that differ by a multiple of 2**32 would be the same.
    """
    for flag, value in settings(config):
        low, high = (0, 2**32 - 1) if flag in ("--seed", "--seeds") else (-(2**31), 2**31 - 1)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number < low == 0:
                raise UsageError(f"{flag}: a seed must not be negative, got {number}")
            if isinstance(number, int) and not low <= number <= high:
                raise UsageError(f"{flag} must lie in [{low}, {high}], got {number}")


def setup() -> None:
    """Keeps compiled programs between runs, and the libraries below quiet.

    Programs that took more than half a second to compile are kept in the user's cache folder.
    `JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns
    this off.
    """
    absl.logging.set_verbosity(absl.logging.FATAL)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.formatwarning = lambda message, *_, **__: (
        f"warning: {' '.join(str(message).split())}\n"
    )
    # An entry that a killed process left half written is compiled again; nothing to report.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
    sys.unraisablehook = _report_unraisable
    config: Any = jax.config
    if config.jax_compilation_cache_dir is None and config.jax_enable_compilation_cache:
        folder = Path(platformdirs.user_cache_dir("latent_flows")) / "jax"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def module_name(thing: Any) -> str:
    """The command of the experiment that a function or class belongs to, as `python -m` takes it.

    >>> from experiments.generators import train_vae
    >>> module_name(train_vae.run)
    'experiments.train_vae'
    """
    name = thing.__module__
    if name == "__main__":
        spec = sys.modules["__main__"].__spec__
        name = spec.name if spec is not None else Path(sys.argv[0]).stem
    package, *rooms = name.split(".")
    if package != "experiments" or not rooms:
        return name
    return f"{package}.{rooms[0] if rooms[-1] in _FRONT else rooms[-1]}"


def condense(box: str, config_name: str) -> str:
    """One line out of the box in which tyro reports a wrong value.

    Raises:
        ValueError: the value was none of a few valid ones; the message names the nearest.
    """
    # Rules part it into the title, what went wrong, and the flag's help. Where stdout takes no
    # UTF-8 they are made of hyphens.
    parts: list[list[str]] = [[]]
    for row in filter(None, (line.strip(" │") for line in box.splitlines())):
        if re.match("[╭╰]|[─-]{3,}$", row):
            parts.append([])
        else:
            parts[-1].append(row)
    text, *help_lines = (" ".join(part) for part in parts[1:] or parts)
    if match := re.match(
        r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", text
    ):
        value, flag, names = match.groups()
        choose(f"value of {flag}", value, dict.fromkeys(re.findall(r"'([^']*)'", names)))
    if match := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{match[1]} needs a value"
    if match := re.match(r"Error parsing (--\S+): (.*)", text):
        flag, reason = match.groups()
        given = re.search(r"\[.*?\]|'[^']*'", reason)
        kind = re.search(rf"{re.escape(flag)} (\S+)", " ".join(help_lines))
        if given and kind:
            words = " ".join(re.findall(r"'([^']*)'", given[0]))
            return f"{flag} takes {kind[1]}, not {words!r}"
    return text.removeprefix(f"Error parsing {config_name}: ").removeprefix("Error parsing ")


def disk_trouble(error: BaseException) -> str | None:
    """What is wrong with the disk when that is what the error is about, else None."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            where = f": {cause.filename}" if cause.filename else ""
            return _DISK[cause.errno] + where
        for text, code in _DISK_TEXTS.items():
            if text in str(cause):
                path = re.search(r'"(/[^"]*|[A-Za-z]:[^"]*)"', str(cause))
                return _DISK[code] + (f": {path[1]}" if path else "")
        cause = cause.__cause__ or cause.__context__
    return None


def _trouble(error: BaseException, config: Any) -> str | None:
    """What the machine lacks, when that is what the error is about, else None."""
    if disk := disk_trouble(error):
        return disk + (f"; the same command {_GOES_ON}" if is_kept(config) else "")
    return memory.shortage(error) or file_trouble(error)


def file_trouble(error: BaseException) -> str | None:
    """Which file cannot be used and why, when that is what the error is about, else None."""
    if not isinstance(error, OSError) or not error.filename:
        return None
    names = [str(name) for name in (error.filename, error.filename2) if name]
    return f"{' -> '.join(names)} cannot be used: {error.strerror}"


def is_of_the_disk(line: str) -> bool:
    """Whether the last line of a run says that it stopped for want of disk: it did not fail.

    >>> is_of_the_disk("error: no space left on the device: runs/a"), is_of_the_disk("error: NaN")
    (True, False)
    """
    return any(text in line for text in (*_DISK.values(), _GOES_ON))


def _unknown(token: str, valid: Sequence[str]) -> str:
    if not token.startswith("-"):
        return f"unexpected argument {token!r} (a preset comes before the flags)"
    given = token.partition("=")[0]
    flag = "--" + given.lstrip("-").replace("_", "-")
    # A bare name finds its nested flag: --steps, --training.steps.
    tails = [name for name in valid if name.rpartition(".")[2] == flag.removeprefix("--")]
    # Hyphens and dots, which all flags have, make none like another.
    bare = {name.strip("-").replace(".", " "): name for name in reversed(valid)}
    close = difflib.get_close_matches(flag.strip("-").replace(".", " "), bare, n=1, cutoff=0.5)
    near = tails or [bare[name] for name in close]
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists the flags"
    return f"unknown flag {given}; {hint}"


def _is_validation(where: TracebackType | None, module: str) -> bool:
    """Whether the exception comes from a `raise` statement of the library or the experiments."""
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    if where is None:
        return False
    ours = {_package(name) for name in ("latent_flows", "experiments", "__main__", module)}
    raised = where.tb_frame.f_code.co_code[where.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and _package(where.tb_frame.f_globals.get("__name__", "")) in ours


def _package(module: str) -> str:
    return module.partition(".")[0]


def _report_unraisable(args: "sys.UnraisableHookArgs") -> None:
    # When orbax gives up on a write, its writers still report to an event loop that is gone. What
    # a signal raised in a callback is raised again elsewhere.
    lost = isinstance(args.exc_value, interrupts.Interrupted)
    if not lost and str(args.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(args)


def _say(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    return code
