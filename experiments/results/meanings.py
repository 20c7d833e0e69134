"""What a run was set to, and what the flags of its row mean now.

A row is flags over a preset, and a preset may change; a run keeps its whole configuration.
"""

import importlib
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from experiments.results.groups import Group, Row
from experiments.results.jobs import flags_of
from experiments.runtime.json_values import jsonable, leaves, shown
from experiments.runtime.parsing import parse
from experiments.runtime.run_dir import CONFIG, lasting, read_header

Settings: TypeAlias = Mapping[str, Any]
"""By dotted names; those of the run's generator begin with `generator`."""
OF_A_SEED = ("seed", "generator")
"""Settings that a row does not say."""


def meant(group: Group, row: Row) -> Settings:
    """What the flags of a row, and those of the group's generator, mean now."""
    own = _parsed(group.module, flags_of(group, row))
    if not group.generator:
        return own
    module, flags = group.generator.split(" ", 1)
    return {**own, **_of_generator(_parsed(module, flags))}


def kept(run: Path, generator: Path | None) -> Settings:
    """What a run, and the run of its generator if it has one of the group's, were set to.

    Returns:
        Nothing for what keeps no configuration.
    """
    found = _lasting(read_header(run)["config"]) if (run / CONFIG).exists() else {}
    if found and generator is not None and (generator / CONFIG).exists():
        found |= _of_generator(_lasting(read_header(generator)["config"]))
    return found


def differences(was: Settings, now: Settings) -> list[str]:
    """What has changed, of what both know: a setting that came later had its default before.

    >>> differences({"steps": 800, "b2": 0.999}, {"steps": 800, "b2": 0.99, "b1": 0.9})
    ['b2 0.999, now 0.99']
    """
    return [
        f"{name} {shown(value)}, now {shown(now[name])}"
        for name, value in was.items()
        if name in now and now[name] != value
    ]


def changed(kept: Settings, group: Group, row: Row | None) -> list[str]:
    """What a run was set to that its row's flags mean no more; nothing if none was kept."""
    return differences(kept, meant(group, row)) if kept and row is not None else []


def in_common(several: Sequence[Settings]) -> Settings:
    """What all are set to.

    >>> in_common([{"a": 1, "b": 2}, {"a": 1, "b": 3}]), in_common([])
    ({'a': 1}, {})
    """
    first = several[0] if several else {}
    return {
        name: value
        for name, value in first.items()
        if all(name in each and each[name] == value for each in several)
    }


def forget() -> None:
    """Of what flags mean: for presets that have changed since."""
    _parsed.cache_clear()


@lru_cache
def _parsed(module: str, flags: str) -> dict[str, Any]:
    front = importlib.import_module(module)
    if hasattr(front, "__path__"):
        front = importlib.import_module(f"{module}.__main__")
    return _lasting(jsonable(parse(front.PRESETS, shlex.split(flags), module, None)))


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in leaves(lasting(config)) if name not in OF_A_SEED}


def _of_generator(settings: Settings) -> dict[str, Any]:
    return {f"generator.{name}": value for name, value in settings.items()}
