import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.command import UsageError
from experiments.folder import open_folder


@dataclasses.dataclass(frozen=True)
class Sizes:
    width: int = 3
    rates: tuple[float, ...] = (0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Config:
    run: str = "somewhere"
    seed: int = 0
    sizes: Sizes = dataclasses.field(default_factory=Sizes)


@pytest.fixture
def folder(tmp_path):
    return open_folder(tmp_path / "run", Config())


def files(folder):
    return sorted(p.name for p in folder.path.iterdir() if p.name != ".lock")


def test_the_configuration_is_written(folder):
    content = json.loads((folder.path / "config.json").read_text())
    assert content["config"] == {"seed": 0, "sizes": {"width": 3, "rates": [0.1, 0.2]}}
    assert content["experiment"] == Config.__module__


def test_the_same_configuration_opens_the_folder_again_even_when_moved(tmp_path):
    del_me = open_folder(tmp_path / "a", Config(run="a"))
    before = (del_me.path / "config.json").read_bytes()
    del del_me
    (tmp_path / "a").rename(tmp_path / "b")
    assert (open_folder(tmp_path / "b", Config(run="b")).path / "config.json").read_bytes() == (
        before
    )


def test_another_configuration_is_refused_and_the_difference_listed(tmp_path):
    del_me = open_folder(tmp_path / "run", Config())
    path = del_me.path
    del del_me
    with pytest.raises(UsageError) as error:
        open_folder(path, Config(seed=1, sizes=Sizes(width=4)))
    assert str(error.value) == (
        f"{path} holds a run with other settings (seed: 0 -> 1, sizes.width: 3 -> 4); "
        "choose another --run, or the same flags to go on with it"
    )
    assert json.loads((path / "config.json").read_text())["config"]["seed"] == 0


def test_a_setting_that_came_later_had_its_default(tmp_path):
    file = open_folder(tmp_path / "run", Config()).path / "config.json"
    content = json.loads(file.read_text())
    del content["config"]["sizes"]["rates"]
    file.write_text(json.dumps(content))
    assert open_folder(tmp_path / "run", Config()).path == file.parent
    with pytest.raises(UsageError, match=r"sizes.rates: .* -> \[9.0\]"):
        open_folder(tmp_path / "run", Config(sizes=Sizes(rates=(9.0,))))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError) as error:
        open_folder(tmp_path, Config())
    assert str(error.value) == (
        f"{tmp_path} is not empty and holds no config.json, so it is no run folder; "
        "choose another --run"
    )
    with pytest.raises(UsageError, match="is a file, not a folder; choose another --run"):
        open_folder(tmp_path / "thesis.tex", Config())
    with pytest.raises(UsageError, match=r"cannot make .* \(Not a directory\); choose another"):
        open_folder(tmp_path / "thesis.tex" / "run", Config())


def test_only_one_process_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time, dataclasses\n"
        "from experiments.folder import open_folder\n"
        "Empty = dataclasses.make_dataclass('Empty', [], frozen=True)\n"
        f"folder = open_folder({str(tmp_path / 'run')!r}, Empty())\n"
        "print('open', flush=True); time.sleep(60)"
    )
    empty = dataclasses.make_dataclass(
        "Empty", [], frozen=True, namespace={"__module__": "__main__"}
    )
    root = Path(__file__).parents[2]
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root)
    try:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UsageError) as error:
            open_folder(tmp_path / "run", empty())
    finally:
        other.kill()
        other.communicate()
    assert str(error.value) == (
        f"{tmp_path / 'run'} is in use by another process; wait for it or choose another --run"
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    with pytest.raises(UsageError, match=f"experiment: {config['experiment']} -> "):
        open_folder(tmp_path / "run", empty())  # refused for its settings, no longer for the lock


def test_a_write_that_fails_leaves_the_old_file_and_no_other(folder, monkeypatch):
    folder.write_json("a.json", 1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        folder.write_json("a.json", 2)
    assert folder.read_json("a.json") == 1
    assert files(folder) == ["a.json", "config.json"]


def test_atomic_keeps_the_suffix_and_makes_folders(folder):
    with folder.atomic("figures/grid.png") as path:
        assert path.suffix == ".png"
        path.write_bytes(b"x")
        assert not (folder.path / "figures" / "grid.png").exists()
    assert [p.name for p in (folder.path / "figures").iterdir()] == ["grid.png"]


def test_what_a_killed_write_left_is_removed(tmp_path):
    path = open_folder(tmp_path / "run", Config()).path
    (path / ".partial-x.json").write_text("{")
    assert files(open_folder(path, Config())) == ["config.json"]


def test_json_holds_null_for_nan_and_says_so(folder, capsys):
    value = {"a": float("nan"), "b": jnp.array([1.0, jnp.inf]), "c": np.float32(2)}
    folder.write_json("x.json", value)
    assert "NaN" not in (folder.path / "x.json").read_text()
    assert folder.read_json("x.json") == {"a": None, "b": [1.0, None], "c": 2.0}
    assert capsys.readouterr().err == (
        f"warning: {folder.path / 'x.json'}: not finite, written as null: a, b.1\n"
    )


def test_remember_computes_once(folder):
    calls = []

    def compute():
        calls.append(1)
        return {"score": np.float32(0.5), "shape": (1, 2)}

    first, second = folder.remember("scores", compute), folder.remember("scores", compute)
    assert first == second == {"score": 0.5, "shape": [1, 2]}
    assert len(calls) == 1


def test_reading_a_file_that_is_missing_or_broken(folder):
    with pytest.raises(UsageError, match=r"missing.json does not exist$"):
        folder.read_json("missing.json")
    folder.write_bytes("broken.json", b"{")
    with pytest.raises(UsageError, match=r"broken.json is no JSON; remove it or choose another"):
        folder.read_json("broken.json")


def test_truncation_drops_one_phase_from_a_step_on_and_a_torn_line(folder):
    folder.append_rows("a", [{"step": s, "loss": s / 2} for s in range(4)])
    folder.append_rows("b", [{"step": s} for s in range(2)])
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"phase": "a", "st')
    folder.truncate_rows("a", 2)
    assert folder.rows("a") == [{"phase": "a", "step": s, "loss": s / 2} for s in range(2)]
    assert folder.rows("b") == [{"phase": "b", "step": s} for s in range(2)]
    assert len(folder.rows()) == 4
