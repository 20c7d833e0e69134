"""Whether a run folder holds something that the same command would go on from."""

import contextlib
import json
from pathlib import Path

ROWS = ("config.json", "metrics.jsonl", "generator.json")
"""Files that a run writes before it has got anywhere."""


def is_kept(run: str | Path, experiment: str) -> bool:
    """Whether a run of an experiment has left a checkpoint, or a result, in its folder.

    Args:
        run: the folder.
        experiment: the module of the experiment's configuration.
    """
    path = Path(run).expanduser()
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((path / ROWS[0]).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("experiment") == experiment:
            return _has_checkpoint(path) or _has_result(path)
    return False


def _has_checkpoint(path: Path) -> bool:
    # One that is not written to its end has another name.
    return any(step.name.isdigit() for step in path.glob("checkpoints/*/*"))


def _has_result(path: Path) -> bool:
    return any(
        file.is_file() and not file.name.startswith(".") and file.name not in ROWS
        for folder in path.iterdir()
        if folder.name not in ("checkpoints", "tensorboard")
        for file in ([folder] if folder.is_file() else folder.iterdir())
    )
