import dataclasses
import errno
import gc
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.runtime import cli
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import made_by, open_folder, read_config, writable
from tests.experiments.front_doors import front


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
        "from experiments.runtime.run_dir import open_folder\n"
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


def test_a_folder_that_is_open_here_is_not_opened_twice(folder):
    with pytest.raises(UsageError, match="is in use by another process; wait for it or choose"):
        open_folder(folder.path, Config())


@pytest.mark.skipif(sys.platform == "win32", reason="locks of another kind")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_run_is_better_than_none(tmp_path, monkeypatch, code):
    import fcntl

    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    kept = open_folder(tmp_path / "run", Config())
    assert files(kept) == files(open_folder(tmp_path / "run", Config())) == ["config.json"]


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


# --- folders that something has happened to ---

DAMAGED = {
    "a list": b"[1, 2]",
    "null": b"null",
    "a number": b"NaN",
    "a text": b'"config"',
    "binary": b"\x80\x04\x95\xff\x00",
    "empty": b"",
    "cut off": b'{"experiment": "tests',
    "endless": b"[" * 100_000,
    "a huge number": b"9" * 10_000,
    "no experiment": b'{"config": {}}',
    "an experiment that is none": b'{"experiment": 3, "config": {}}',
    "settings that are none": b'{"experiment": "x", "config": [1]}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_config_that_is_none_is_named_by_all_who_read_it(tmp_path, content):
    path = open_folder(tmp_path / "run", Config()).path
    (path / "config.json").write_bytes(content)
    for read in (made_by, partial(read_config, kind=Config), partial(open_folder, config=Config())):
        with pytest.raises(UsageError, match=f"^{re.escape(str(path))}/config.json "):
            read(path)


def test_a_config_that_is_a_folder_or_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = open_folder(tmp_path / "run", Config()).path

    def closed(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", closed)
        with pytest.raises(UsageError, match=r"config.json cannot be read \(Permission denied\)"):
            made_by(path)
    (path / "config.json").unlink()
    (path / "config.json").mkdir()
    with pytest.raises(UsageError, match=r"config.json is no file; remove it"):
        made_by(path)
    with pytest.raises(UsageError, match=r"config.json is a folder where a run keeps a file"):
        open_folder(path, Config())


@pytest.mark.parametrize("path", ["file.md", "file.md/below"])
def test_a_path_that_is_no_folder_is_no_run(tmp_path, path):
    (tmp_path / "file.md").write_text("# Title")
    with pytest.raises(UsageError, match=r"is a file, not a run folder|is no file"):
        made_by(tmp_path / path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": None}, "sizes is null, not settings by name"),
        ({"sizes": [3]}, "sizes is [3], not settings by name"),
        ({"sizes": {"width": "four"}}, 'sizes.width is "four", expected int'),
        ({"sizes": {"width": True}}, "sizes.width is true, expected int"),
        ({"sizes": {"width": 2.5}}, "sizes.width is 2.5, expected int"),
        ({"sizes": {"rates": 0.1}}, "sizes.rates is 0.1, expected tuple[float, ...]"),
        ({"sizes": {"rates": ["a"]}}, 'sizes.rates.0 is "a", expected float'),
        ({"sizes": {"rates": [float("nan")]}}, "sizes.rates.0 is NaN, expected float"),
        ({"sizes": {"rates": [10**400]}}, "expected float"),
        ({"seed": None}, "seed is null, expected int"),
        ({"sed": 1}, "unknown setting 'sed' (did you mean 'seed'?)"),
    ],
)
def test_a_setting_that_has_another_type_is_named(tmp_path, settings, message):
    file = open_folder(tmp_path / "run", Config()).path / "config.json"
    content = json.loads(file.read_text())
    content["config"] |= settings
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        read_config(file.parent, Config)
    assert str(error.value).startswith(f"{file} is damaged or of another version of ")
    with pytest.raises(UsageError, match="holds a run with other settings"):
        open_folder(file.parent, Config())


@pytest.mark.parametrize(
    "name",
    [
        "potential_flows", "directions", "geodesics", "land", "train_vae", "train_gan",
        "train_flow", "flow_vae",
    ],
)  # fmt: skip
def test_the_configuration_of_every_preset_comes_back_as_it_was(tmp_path, name):
    for preset, (_, config) in front(name).PRESETS.items():
        open_folder(tmp_path / preset, config)
        found = read_config(tmp_path / preset, type(config))
        assert found == dataclasses.replace(config, run=str(tmp_path / preset))


@dataclasses.dataclass(frozen=True)
class Optional:
    run: str = ""
    rates: tuple[float, ...] | None = None
    size: int | Literal["own"] = "own"


@pytest.mark.parametrize("config", [Optional(), Optional(rates=(1.0, 0.5)), Optional(size=3)])
def test_settings_of_one_of_several_types_come_back_as_they_were(tmp_path, config):
    open_folder(tmp_path / "run", config)
    found = read_config(tmp_path / "run", Optional)
    assert found == dataclasses.replace(config, run=str(tmp_path / "run"))


@pytest.mark.parametrize(
    "header",
    [
        {"experiment": "experiments.flow_config"},
        {"experiment": "experiments.direction_config"},
        {"experiment": "experiments.guided_config"},
        {"experiment": "experiments.flow_vae_config"},
        {"experiment": "experiments.geodesics", "config": {"vae_training": {"steps": 3}}},
    ],
)
def test_a_run_of_an_earlier_version_says_so_and_how_to_make_a_new_one(tmp_path, header):
    path = open_folder(tmp_path / "run", Config()).path
    (path / "config.json").write_text(json.dumps({"version": "0.1.0", "config": {}} | header))
    for read in (made_by, partial(read_config, kind=Config), partial(open_folder, config=Config())):
        with pytest.raises(UsageError) as error:
            read(path)
        assert str(error.value) == (
            f"{path} was made by an earlier version, whose runs held their generator; make a new "
            "one: train the generator by itself (python -m experiments.train_vae --help), then run "
            "the same experiment on it, with --generator and another --run"
        )


def test_what_a_run_is_given_is_kept_beside_its_settings_and_is_no_result(tmp_path):
    for value in (1, 2):
        folder = open_folder(tmp_path / "run", Config(), given={"source.json": {"value": value}})
        assert folder.read_json("source.json") == {"value": value}
        del folder
        gc.collect()
    assert not cli.is_kept(Config(run=str(tmp_path / "run")))
    (tmp_path / "run" / "scores.json").write_text("1")
    assert cli.is_kept(Config(run=str(tmp_path / "run")))


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "metrics.json", ".lock"])
def test_a_folder_in_place_of_a_file_of_the_run_is_named(tmp_path, name):
    path = open_folder(tmp_path / "run", Config()).path
    (path / name).unlink(missing_ok=True)
    (path / name).mkdir()
    with pytest.raises(UsageError, match=f"{name} is a folder where a run keeps a file"):
        open_folder(path, Config())


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_file_in_place_of_a_folder_of_the_run_is_named(tmp_path, name):
    path = open_folder(tmp_path / "run", Config()).path
    (path / name).write_text("x")
    with pytest.raises(UsageError, match=f"{name} is a file where a run keeps a folder"):
        open_folder(path, Config())


def test_lines_that_are_no_rows_are_left_out_and_named(folder, capsys):
    rows = [{"phase": "a", "step": 0, "loss": 1.0}, {"phase": "a", "step": 1, "loss": None}]
    bad = [b"{", b"[1]", b"null", b'{"step": 2}', b'{"phase": "a", "step": "2"}', b"\x80\xff", b""]
    bad += [b'{"phase": 3, "step": 2}', b'{"phase": "a", "step": 2, "loss": "low"}']
    good = [json.dumps(row).encode() for row in rows]
    (folder.path / "metrics.jsonl").write_bytes(b"\n".join([good[0], *bad, good[1], b""]))
    assert folder.rows("a") == folder.rows() == rows
    assert capsys.readouterr().err.splitlines()[0] == (
        f"warning: {folder.path / 'metrics.jsonl'}: no row of numbers in line "
        "2, 3, 4, 5, 6, 7, 8, 9, 10, which is left out"
    )
    folder.truncate_rows("a", 1)
    assert (folder.path / "metrics.jsonl").read_bytes() == good[0] + b"\n"


def test_what_a_file_of_the_run_should_hold_is_one_object(folder):
    folder.write_json("metrics.json", [1, 2])
    with pytest.raises(UsageError, match=r"metrics.json holds \[1, 2\], not one object; remove it"):
        folder.read_object("metrics.json")
    folder.write_json("metrics.json", {"rows": 3})
    with (
        pytest.raises(UsageError, match=r"metrics.json does not hold what a run writes"),
        folder.understood("metrics"),
    ):
        sum(row["x"] for row in folder.read_object("metrics.json")["rows"])


def test_times_are_kept_apart_from_what_took_them(folder):
    calls = []

    def compute():
        calls.append(1)
        return {"score": 2.0}, {"seconds": 0.5}

    first = folder.remember_timed("scores/a", compute)
    assert first == folder.remember_timed("scores/a", compute) == ({"score": 2.0}, {"seconds": 0.5})
    assert len(calls) == 1
    assert folder.read_json("scores/a.json") == {"score": 2.0}
    assert folder.read_json("times.json") == {"scores/a": {"seconds": 0.5}}
    (folder.path / "times.json").unlink()
    assert folder.remember_timed("scores/a", compute) == ({"score": 2.0}, {})


# --- what would lie in a run's folder ---


@pytest.mark.parametrize(
    "name",
    ["config.json", "metrics.json", "new.JSON", "metrics.jsonl", "a.png", "a.gif", ".lock", "c/a"],
)
def test_no_file_is_written_where_a_run_has_its_own(folder, name):
    (folder.path / "c").mkdir()
    with pytest.raises(UsageError, match=f"^--to .*{name} is a place that the run in .* keeps"):
        writable(str(folder.path / name), "--to")
    link = folder.path.parent / "link"
    link.symlink_to(folder.path)
    with pytest.raises(UsageError, match="is a place that the run"):
        writable(str(link / name), "--to")


def test_other_files_may_lie_anywhere(folder, tmp_path):
    for name in (folder.path / "flows.safetensors", tmp_path / "a.json", tmp_path / "any"):
        assert writable(str(name), "--to") == name
    with pytest.raises(UsageError, match="is a folder; name a file"):
        writable(str(tmp_path), "--to")
    with pytest.raises(UsageError, match="lies in a folder that does not exist"):
        writable(str(tmp_path / "no" / "a"), "--to")


def test_a_run_inside_the_folder_of_another_is_refused(folder):
    for inner in ("b", "checkpoints/line"):
        with pytest.raises(UsageError, match=r"lies inside the run folder .*; choose another"):
            open_folder(folder.path / inner, Config())
    assert files(folder) == ["config.json"]
