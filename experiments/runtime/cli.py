"""The command line every experiment shares: presets, flags, and errors that fit on one line.

An experiment is a function of one frozen dataclass, and the last two lines of its command are

    if __name__ == "__main__":
        raise SystemExit(main(run, PRESETS))
"""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import absl.logging
import jax
import platformdirs

from experiments.runtime import announcements, extension, interrupts, multihost
from experiments.runtime.errors import (
    GOES_ON,
    Failure,
    UsageError,
    disk_trouble,
    is_of_the_disk,
    is_refusal,
    machine_trouble,
)
from experiments.runtime.parsing import Config, Presets, flags, parse, settings
from latent_flows._extras import MissingExtra

__all__ = [
    "Failure",
    "Presets",
    "UsageError",
    "disk_trouble",
    "flags",
    "is_kept",
    "is_of_the_disk",
    "main",
    "module_name",
    "parse",
    "settings",
    "setup",
]

_FRONT = ("train", "config", "__main__")
"""Modules of a room whose command is called like the room itself."""


def main(
    run: Callable[[Config], int | None],
    presets: Presets | type[Config],
    argv: Sequence[str] | None = None,
    *,
    command: str = "",
) -> int:
    """Parses `[PRESET] --flags` into a configuration and runs the experiment with it.

    Args:
        run: the experiment. What it returns is the exit code; None counts as 0.
        presets: name -> (one line that describes it, configuration). The first is the one taken
            when the command line names none. Or the configuration's class, if there are no presets.
        argv: the arguments after the program's name; those of this process by default.
        command: what `python -m` was given, where that is not what the experiment's room is called.

    Returns:
        The exit code: 0; 1 for a `Failure` or a disk that is full or read-only; 2 for a
        `UsageError`, a wrong flag, or a value that the library rejects; after Ctrl-C 130, after
        SIGTERM 143, after SIGHUP 129.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    module = command or module_name(run)
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
        if trouble := machine_trouble(error):
            on = f"; the same command {GOES_ON}" if disk_trouble(error) and is_kept(config) else ""
            return _say(f"error: {trouble}{on}", Failure.exit_code)
        if is_refusal(error, module):
            return _say(f"error: {error}", UsageError.exit_code)
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
    return isinstance(run, str) and extension.is_kept(run, module_name(type(config)))


def setup() -> None:
    """Keeps compiled programs between runs, and the libraries below quiet.

    Programs that took more than half a second to compile are kept in the user's cache folder.
    `JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns
    this off.
    """
    absl.logging.set_verbosity(absl.logging.FATAL)
    for name in ("absl", "jax", "matplotlib", "orbax"):
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


def _report_unraisable(args: "sys.UnraisableHookArgs") -> None:
    # When orbax gives up on a write, its writers still report to an event loop that is gone. What
    # a signal raised in a callback is raised again elsewhere.
    lost = isinstance(args.exc_value, interrupts.Interrupted)
    if not lost and str(args.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(args)


def _say(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    return code
