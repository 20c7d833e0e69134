"""The command line that every benchmark shares: flags, and a file for what was found."""

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from benchmarks.ratio import Ratio

T = TypeVar("T", bound="Flags")


@dataclass(frozen=True)
class Flags:
    """What every benchmark can be asked for."""

    json: str = ""
    """File for all that was measured, as JSON: the flags, rows of any kind, and ratios."""


@dataclass
class Results:
    """What a benchmark found."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """All that its tables show."""
    ratios: list[Ratio] = field(default_factory=list)
    """How the library compares with others."""

    def __iadd__(self, other: "Results") -> "Results":
        self.rows += other.rows
        self.ratios += other.ratios
        return self


class MismatchError(Exception):
    """Two sides that should do the same do not."""


def command(main: Callable[[T], Results], description: str | None, flags: type[T]) -> NoReturn:
    """Measure what the command line says, and write it to the file that it names.

    Args:
        main: measures and prints.
        description: of the benchmark, for `--help`.
        flags: a dataclass.
    """
    config = tyro.cli(flags, description=description)
    if config.json and not (folder := Path(config.json).absolute().parent).is_dir():
        stop(f"there is no folder {folder} for --json {config.json}; make it first", 2)
    try:
        found = main(config)
    except ValueError as error:  # what the library rejects
        stop(str(error), 2)
    except (MismatchError, OSError) as error:
        stop(str(error), 1)
    if config.json:
        write_json(
            Path(config.json),
            {
                "config": asdict(config),
                "rows": found.rows,
                "ratios": [row._asdict() for row in found.ratios],
            },
        )
    raise SystemExit(0)


def stop(message: str, code: int) -> NoReturn:
    """End with one line."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


def write_json(path: Path, content: Any) -> None:
    """A file of JSON, whole or not at all; numbers that are none become null."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """A file, whole or not at all."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_text(content)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinities."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
