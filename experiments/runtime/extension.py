"""How far a run has got, and going on for longer than it was made for, or with one stage more.

A configuration says in `PHASES` which of its settings train which phases, in their order, of which
each is made from those before it; and in `MADE` which files are made of them, besides pictures and
JSON. In `LATER` it may say which settings add a stage: each with its value without the stage, and
how the names of the stage's own settings begin.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from experiments.runtime.errors import UsageError

Phases: TypeAlias = Mapping[str, tuple[str, ...]]
"""The phases that each setting of a `Training` trains, by its name."""
CONFIG = "config.json"
METRICS = "metrics.jsonl"
GIVEN = "given"
"""Of `config.json`: names of the files that hold what the run was given."""
SCORED = "metrics.json"
PARTIAL = ".partial-"
"""How the names of what is being written or removed begin: the next run removes it in any case."""


def is_kept(run: str | Path, experiment: str) -> bool:
    """Whether a run of an experiment has left a checkpoint, or a result, in its folder.

    Args:
        run: the folder.
        experiment: the command of the experiment.
    """
    path = Path(run).expanduser()
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("experiment") == experiment:
            return _has_checkpoint(path) or _has_result(path, begun(found))
    return False


def begun(header: Mapping[str, Any]) -> set[str]:
    """The files that a run has written before it has got anywhere."""
    return {CONFIG, METRICS, *header.get(GIVEN, ())}


def _has_checkpoint(path: Path) -> bool:
    # One that is not written to its end has another name.
    return any(step.name.isdigit() for step in path.glob("checkpoints/*/*"))


def _has_result(path: Path, others: set[str]) -> bool:
    return any(
        file.is_file() and not file.name.startswith(".") and file.name not in others
        for folder in path.iterdir()
        if folder.name not in ("checkpoints", "tensorboard")
        for file in ([folder] if folder.is_file() else folder.iterdir())
    )


class Reached(NamedTuple):
    """Where a phase is."""

    done: int
    """Steps taken."""
    rows: int
    """The step before which rows of metrics are those that a longer run writes too: the last one
    of a finished run may be there because it was the last."""


class Extension(NamedTuple):
    """What changes when a run goes on."""

    longer: Mapping[str, Reached]
    """Phases that go on."""
    stale: tuple[str, ...]
    """Phases that are made from these, and so are trained anew."""
    added: tuple[str, ...] = ()
    """Settings that add a stage."""


def planned(
    path: Path, kind: type, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Extension | None:
    """What it takes to go on with a run under settings that differ in steps, or by a stage, alone.

    Args:
        path: the run folder.
        kind: the configuration's class.
        old: settings that the run was made with, by their dotted names.
        new: settings that are asked for.

    Returns:
        The plan, or None where other settings differ as well, or a phase that is not trained here.

    Raises:
        UsageError: the phase has taken so many steps already, or its step size falls towards the
            end that it had.
    """
    phases: Phases = getattr(kind, "PHASES", {})
    later: Mapping[str, tuple[str, str]] = getattr(kind, "LATER", {})
    added = tuple(k for k, (without, _) in later.items() if old.get(k) == without != new.get(k))
    its_own = tuple(later[name][1] for name in added)
    differ = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    names = [key for key in differ if key not in added and not key.startswith(its_own)]
    steps = {f"{setting}.steps" for setting in phases}
    if not steps.issuperset(names) or not {*old}.issuperset(names):
        return None
    longer: dict[str, Reached] = {}
    stale: list[str] = []
    for setting, its in phases.items():
        changed, follows = f"{setting}.steps" in names, bool(longer)
        for phase in its:
            done = _done(path, phase)
            if follows:
                stale += [phase] if done else []
            elif changed and done:
                _check(path, setting, phase, done, old, new)
                is_last = done == old[f"{setting}.steps"]
                is_extra = is_last and (done - 1) % old[f"{setting}.log_every"]
                longer[phase] = Reached(done, done - 1 if is_extra else done)
    return Extension(longer, tuple(stale), added)


def _done(path: Path, phase: str) -> int:
    steps = (path / "checkpoints" / phase).glob("*")
    return max((int(step.name) for step in steps if step.name.isdigit()), default=0)


def _check(
    path: Path,
    setting: str,
    phase: str,
    done: int,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> None:
    before, steps = old[f"{setting}.steps"], new[f"{setting}.steps"]
    flag = f"--{setting.replace('_', '-')}"
    if steps <= done:
        raise UsageError(
            f"{path}: {phase!r} has taken {done} of its {before} steps already, so it cannot end "
            f"at {flag}.steps {steps}; ask for more, or choose another --run"
        )
    if new[f"{setting}.decay"] != "none":
        raise UsageError(
            f"{path}: {phase!r} cannot go on to {flag}.steps {steps}: its step size falls along a "
            f"{new[f'{setting}.decay']} to zero at step {before}, and in a run of {steps} steps "
            f"would be another from the start; choose another --run, or {flag}.decay none in one"
        )


def carry_out(
    path: Path,
    plan: Extension,
    forget: Callable[[str, int], None],
    *,
    keep: set[str],
    made: tuple[str, ...] = (),
) -> None:
    """Removes what was made of phases that go on, or before a stage was added, to be made anew.

    What is made last goes first: wherever this is stopped, the folder is that of a run of the old
    settings that has not got to its end.

    Args:
        path: the run folder.
        plan: from `planned`.
        forget: takes the rows of a phase out of `metrics.jsonl`, from a step on.
        keep: files of the folder that hold more than what was made of phases.
        made: files that were, besides pictures and JSON.
    """
    if plan.longer or plan.added:
        pictures = [*path.glob("*.png"), *path.glob("*.gif")]
        results = [
            file
            for folder in (path, *filter(Path.is_dir, path.iterdir()))
            for file in folder.glob("*.json")
            if folder != path or file.name not in {*keep, SCORED}
        ]
        first = [path / name for name in (SCORED, *made)]
        for file in (*pictures, *first, *results):
            file.unlink(missing_ok=True)
    for phase in reversed(plan.stale):
        for home in ("tensorboard", "checkpoints"):
            if (old := path / home / phase).exists():
                # Renamed first: half a checkpoint would be a damaged one.
                away = path / f"{PARTIAL}{home}-{phase}"
                shutil.rmtree(away, ignore_errors=True)
                old.rename(away)
                shutil.rmtree(away)
        forget(phase, 0)
    for phase, reached in plan.longer.items():
        forget(phase, reached.rows)
