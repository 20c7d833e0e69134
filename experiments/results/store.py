"""The numbers of a group of rows, in a file."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from experiments.results.groups import Group
from experiments.results.jobs import Job, run_of
from experiments.results.meanings import changed, in_common
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder, read_object, run_around, understood

Entry: TypeAlias = dict[str, Any]
"""Of one row and seed: label, seed, command, status, values by column, message, and settings of the
run where they were kept."""
SETTINGS = "settings"


def results_in(results: str) -> Path:
    """The folder for numbers and pages, if it is no run's and no file.

    Raises:
        UsageError: it is.
    """
    path = Path(results).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UsageError(f"--results {results} is a file, not a folder")
    if (outer := run_around(path / "any")) is not None:
        raise UsageError(f"--results {results} lies in the run folder {outer}; choose another")
    return path


def read_entries(path: Path) -> list[Entry]:
    """The entries of a file of a group, each with all of its settings."""
    found = read_object(path)
    common = found.get(SETTINGS, {})
    return [
        {**entry, SETTINGS: {**common, **entry[SETTINGS]}} if SETTINGS in entry else entry
        for entry in found["entries"]
    ]


def written(entries: Sequence[Entry]) -> dict[str, Any]:
    """What a file holds of entries: the settings that all share once, besides each one's own.

    >>> rows = [{"label": "a", "settings": {"x": 1, "y": 2}}, {"label": "b", "settings": {"x": 1}}]
    >>> written(rows)["settings"], written(rows)["entries"][0]["settings"]
    ({'x': 1}, {'y': 2})
    """
    common = in_common([entry[SETTINGS] for entry in entries if SETTINGS in entry])
    return {
        **({SETTINGS: common} if common else {}),
        "entries": [
            {**entry, SETTINGS: _without(common, entry[SETTINGS])} if SETTINGS in entry else entry
            for entry in entries
        ],
    }


class Store:
    """The numbers of a group, in a file that is whole at any moment."""

    def __init__(self, results: str, name: str):
        self._folder, self._file = Folder(results_in(results)), f"{name}.json"
        path = self._folder.path / self._file
        self.entries: dict[tuple[str, int], Entry] = {}
        if path.exists():
            with understood(path):
                self.entries = {(e["label"], e["seed"]): e for e in read_entries(path)}

    def put(self, entry: Entry) -> None:
        """Keep an entry, in place of an older one of the same row and seed."""
        self.entries[entry["label"], entry["seed"]] = entry
        self._folder.write_json(self._file, written([*self.entries.values()]))

    def status(self, job: Job, group: Group) -> str:
        """What is known of a job: nothing if it was run by another command or other settings."""
        kept = self.entries.get((job.label, job.seed), {})
        if kept.get("command") != shlex.join(job.command):
            return ""
        differs = changed(kept.get(SETTINGS, {}), group, run_of(group, job.label))
        return "" if differs else str(kept.get("status", ""))


def _without(common: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in common}
