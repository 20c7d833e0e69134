"""The command line of an experiment: a preset, flags over it, and what is wrong with them."""

import contextlib
import difflib
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import tyro

from experiments.runtime import defaults
from experiments.runtime.defaults import settings, words_after
from experiments.runtime.errors import UsageError
from latent_flows._validation import choose

try:
    from tyro._errors import on_parse_error
except ImportError:  # tyro promises nothing about it; without it, tyro says in a box what is wrong
    on_parse_error = contextlib.nullcontext  # type: ignore[assignment,misc]

Config = TypeVar("Config")
Presets = Mapping[str, tuple[str, Config]]


def parse(presets: Presets | type, arguments: Sequence[str], module: str, doc: str | None) -> Any:
    """The configuration that the arguments ask for, or None when they asked for the presets.

    Raises:
        UsageError: unknown flag, or a value that its flag does not take.
        ValueError: unknown preset or choice; the message names the nearest valid one.
        SystemExit: `PRESET --help` was asked for and printed.
    """
    rest = list(arguments)
    if isinstance(presets, type):
        kind, default = presets, tyro.MISSING_NONPROP
        prog, description = f"python -m {module}", _first_paragraph(doc)
    else:
        if rest and rest[0] in ("-h", "--help"):
            print(overview(presets, module, doc), flush=True)
            return None
        preset = rest.pop(0) if rest and not rest[0].startswith("-") else next(iter(presets))
        description, usual = choose("preset", preset, presets)
        prog, kind = f"python -m {module} {preset}", type(usual)
        default = defaults.fitting(usual, rest)
        if defaults.is_quick(kind):
            description += f". {defaults.ABOUT}"
            rest = [word for word in rest if word != defaults.FLAG]
    known = list(flags(kind if isinstance(presets, type) else default))
    with on_parse_error(partial(_tell, known, rest)):
        config = tyro.cli(kind, prog=prog, description=description, args=rest, default=default)
    _check_whole_numbers(config)
    return config


def overview(presets: Presets, module: str, doc: str | None) -> str:
    """The text of `--help`: what the experiment does and which presets it has."""
    width = max(map(len, presets))
    first = next(iter(presets))
    lines = [f"usage: python -m {module} [PRESET] [--flag value ...]", ""]
    lines += [_first_paragraph(doc), ""] if doc else []
    lines += ["presets:"]
    lines += [
        f"  {name:{width}}  {text}{' (the default)' if name == first else ''}"
        for name, (text, _) in presets.items()
    ]
    if any(defaults.is_quick(config) for _, config in presets.values()):
        lines += ["", *textwrap.wrap(defaults.ABOUT, 100)]
    lines += ["", f"python -m {module} {first} --help shows every flag with its default."]
    return "\n".join(lines)


def flags(config: Any) -> Iterator[str]:
    """Every flag of a nested dataclass.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     batch_size: int = 3
    ...     shuffle: bool = True
    >>> list(flags(Config()))
    ['--batch-size', '--shuffle', '--no-shuffle']
    """
    if defaults.is_quick(config):
        yield defaults.FLAG
    for setting in settings(config):
        yield setting.flag
        if isinstance(setting.value, bool):
            yield re.sub(r"([^.-][^.]*)$", r"no-\1", setting.flag)


def _tell(known: Sequence[str], arguments: Sequence[str], event: Any) -> None:
    """As `_refuse`; what is not known here, or has changed in tyro, tyro says."""
    with contextlib.suppress(AttributeError):
        _refuse(known, arguments, event)


def _refuse(known: Sequence[str], arguments: Sequence[str], event: Any) -> None:
    """Says in one line what tyro takes no command line for.

    Raises:
        UsageError: the line.
        ValueError: the value was none of a few valid ones; the message names the nearest.
    """
    argument: Any = getattr(event, "argument", None)
    name = "" if argument is None else argument.display_name()
    match type(event).__name__:
        case "UnrecognizedArgs":
            raise UsageError(_unknown(event.tokens[0], known))
        case "MissingArgs":
            names = ", ".join(missing.arg.display_name() for missing in event.missing_arguments)
            raise UsageError(f"{names} is missing; --help tells what it is")
        case "InvalidChoice":
            choose(f"value of {name}", event.value, dict.fromkeys(event.choices))
        case "BadValue" if event.reason == "too_few_values":
            raise UsageError(f"{name} needs a value")
        case "InstantiationFailure" if argument is None:
            # Settings that do not fit each other. The error that tyro is at knows whose they are.
            owner = getattr(sys.exception(), "arg", "")
            is_said = event.message.startswith(owner)
            raise UsageError(event.message if is_said else f"{owner}: {event.message}")
        case "InstantiationFailure":
            words = " ".join(words_after(arguments).get(name, ()))
            kind = argument.lowered.metavar
            raise UsageError(f"{name} takes {kind}, not {words!r}" if words else event.message)


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


def _check_whole_numbers(config: Any) -> None:
    """Whether whole numbers are what arrays and random keys can hold.

    Raises:
        UsageError: one is not. Keys of seeds that differ by a multiple of 2**32 would be the same.
    """
    for _, flag, value, _ in settings(config):
        low, high = (0, 2**32 - 1) if flag in ("--seed", "--seeds") else (-(2**31), 2**31 - 1)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and number < low == 0:
                raise UsageError(f"{flag}: a seed must not be negative, got {number}")
            if isinstance(number, int) and not low <= number <= high:
                raise UsageError(f"{flag} must lie in [{low}, {high}], got {number}")


def _first_paragraph(doc: str | None) -> str:
    return (doc or "").strip().split("\n\n")[0]
