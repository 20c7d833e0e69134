"""The table: what is run, kept and shown, with an experiment that takes no time."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from threading import get_ident

import pytest

from experiments.results import meanings, table, workers
from experiments.results import page as table_page
from experiments.results.groups import (
    ACROSS,
    GROUPS,
    STRAIGHT,
    STRAIGHTNESS,
    TAUGHT,
    TURNING,
    Across,
    Group,
    Measure,
    Row,
)
from experiments.results.store import read_entries
from tests.test_docs import complaint

FAKE = """
import json, pathlib, sys, time
words = sys.argv[1:]
flags = dict(zip(words[1::2], words[2::2]))
print("started", flags["--seed"])
with open("started.txt", "a") as file:
    file.write(" ".join(words) + "\\n")
if words[0] == "refused":
    sys.exit(print("error: no such thing", file=sys.stderr) or 2)
if words[0] == "diverging" and flags["--seed"] == "1":
    sys.exit(print("error: flows: loss became non-finite at step 3", file=sys.stderr) or 1)
if words[0] == "full":
    sys.exit(print("error: no space left; the same command goes on from the last checkpoint",
                   file=sys.stderr) or 1)
if words[0] == "waiting":
    time.sleep(60)
folder = pathlib.Path(flags["--run"])
folder.mkdir(parents=True)
end = time.monotonic() + 30
while words[0] == "meeting" and sum(path.is_dir() for path in folder.parent.iterdir()) < 2:
    if time.monotonic() > end:
        sys.exit("no other came")
    time.sleep(0.01)
share = float(flags["--share"]) + int(flags["--seed"])
lines = [{"method": "own", "share": share}, {"method": "other", "share": 2 * share}]
metrics = {"comparison": lines, "alone": {"residual": [0.0, share]}, "loss": 0.5}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""
SETTLED = """
import dataclasses, json, pathlib, sys
from experiments.runtime.cli import parse
@dataclasses.dataclass(frozen=True)
class Config:
    share: float = 0.0
    steps: int = 3
    seed: int = 0
    run: str = ""
    generator: str = ""
PRESETS = {"small": ("", Config())}
if __name__ == "__main__":
    config = parse(PRESETS, sys.argv[1:], "settled_rows", None)
    folder = pathlib.Path(config.run)
    folder.mkdir(parents=True)
    header = {"experiment": "settled_rows", "config": dataclasses.asdict(config)}
    (folder / "config.json").write_text(json.dumps(header))
    (folder / "metrics.json").write_text(json.dumps({"comparison": [{"share": config.share}]}))
"""
MEASURES = {
    "share": Measure("share", "comparison"),
    "residual": Measure("residual", "alone"),
    "nothing": Measure("nothing"),
}


def group(*rows, **more):
    return Group("A title", "fake_rows", tuple(rows), MEASURES, figure=("share",), **more)


@pytest.fixture
def fake(tmp_path, monkeypatch, call):
    """Calls the table in an empty folder with one group of the given rows."""
    (tmp_path / "fake_rows.py").write_text(FAKE)
    (tmp_path / "settled_rows.py").write_text(SETTLED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)

    def run(rows, *argv):
        monkeypatch.setattr(table, "GROUPS", {"fake": rows})
        monkeypatch.setattr(table_page, "GROUPS", {"fake": rows})
        return call(table, *argv)

    return run


COMMON = {"wave", "learnt lines", "latent coordinates"}
GROUP = group(Row("row"))
ROWS = group(
    Row("first", "small --share 1.0", "own"),
    Row("second: other", "diverging --share 3.0", "own"),
    Row("beside", method="other", of="first"),
)


def started():
    path = Path("started.txt")
    return path.read_text().splitlines() if path.exists() else []


def entries():
    found = json.loads(Path("docs/results/fake.json").read_text())["entries"]
    return {(entry["label"], entry["seed"]): entry for entry in found}


def test_rows_are_run_kept_and_not_run_again(fake):
    code, out, err = fake(ROWS, "run", "fake", "--seeds", 0, 1)
    assert (code, err) == (0, "")
    assert "fake, 4 of 4: second: other, seed 1: diverged" in out
    kept = entries()
    assert kept["first", 1]["values"] == {"share": 2.0, "residual": 1.0}
    # What a run says of itself alone is not said of another method.
    assert kept["beside", 0]["values"] == {"share": 2.0}
    assert kept["second: other", 1]["status"] == "diverged"
    assert kept["second: other", 1]["message"] == "flows: loss became non-finite at step 3"
    assert kept["first", 0]["command"] == (
        "python -m fake_rows small --share 1.0 --seed 0 --run runs/table/fake/first-0"
    )
    assert len(started()) == 4
    assert fake(ROWS, "run", "fake", "--seeds", 0, 1)[:2] == (0, "")
    assert len(started()) == 4
    # What was run but not kept is read from its folder; what diverged is tried again if asked.
    Path("docs/results/fake.json").unlink()
    assert fake(ROWS, "run", "fake", "--seeds", 0)[0] == 0
    assert len(started()) == 4
    assert fake(ROWS, "run", "fake", "--seeds", 1, "--again")[0] == 0
    assert len(started()) == 5
    assert entries()["first", 1] == kept["first", 1]


def test_a_divergence_stays_in_the_table_and_is_not_run_again(fake):
    fake(ROWS, "run", "fake", "--seeds", 0, 1)
    before = len(started())
    fake(ROWS, "run", "fake", "--seeds", 1, "--rows", "second: other")
    assert len(started()) == before
    assert fake(ROWS, "render")[0] == 0
    page = Path("docs/results/RESULTS.md").read_text()
    assert "| first | 1.50 ± 0.71 | 0.75 ± 0.35 | 2 |" in page
    assert "| second: other | 3 | 1.5 | 1 (and 1 diverged) |" in page
    assert "| beside | 3.0 ± 1.4 | - | 2 |" in page
    assert "seed 1 diverged: flows: loss became non-finite at step 3" in page
    assert "nothing" not in page
    assert Path("docs/results/fake.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("refused --share 1", 2, "row, seed 0: no such thing (see runs/table/fake/row-0.log)"),
        ("full --share 1", 1, "row, seed 0: no space left"),
    ],
)
def test_what_is_no_divergence_stops_the_table(flags, code, message, fake):
    found, _, err = fake(group(Row("row", flags, "own")), "run", "fake", "--seeds", 0)
    assert (found, err.count("\n")) == (code, 1)
    assert message in err
    assert not Path("docs/results/fake.json").exists()


def test_a_generator_is_made_for_each_seed_and_shared_unless_one_is_given(fake):
    rows = group(
        Row("row", "small --share 1.0", "own"),
        generator="fake_rows small --share 0",
        home="vae",
    )
    assert fake(rows, "run", "fake", "--seeds", 0, 1)[0] == 0
    assert [line.split()[-1] for line in started()] == [
        "runs/table/vae-0",
        "runs/table/vae-1",
        "runs/table/fake/row-0",
        "runs/table/fake/row-1",
    ]
    assert "--generator runs/table/vae-1" in entries()["row", 1]["command"]
    assert fake(rows, "run", "fake", "--seeds", 2, "--generator", "mine")[0] == 0
    assert "--generator mine" in entries()["row", 2]["command"]
    assert len(started()) == 5


TWO = pytest.mark.skipif(len(workers.available_cores()) < 2, reason="each of two has a core")


@TWO
def test_rows_are_run_side_by_side_and_kept_by_seed(fake):
    rows = group(
        *(Row(f"row {place}", f"meeting --share {place}", "own") for place in range(2)),
        generator="fake_rows small --share 0",
        home="vae",
    )
    # The first row of all waits until another one is there.
    assert fake(rows, "run", "fake", "--seeds", 1, 0, "--at-once", 2)[0] == 0
    assert len(entries()) == 4
    assert fake(rows, "render")[0] == 0
    page = Path("docs/results/RESULTS.md").read_text()
    assert "- row 1: `python -m fake_rows meeting --share 1 --generator runs/table/vae-0" in page
    assert "on a generator of each seed by `python -m fake_rows small --share 0`" in page


@TWO
def test_one_that_is_refused_stops_those_beside_it(fake):
    rows = group(Row("waits", "waiting --share 1"), Row("refused", "refused --share 1"))
    begun = time.monotonic()
    code, _, err = fake(rows, "run", "fake", "--seeds", 0, "--at-once", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "refused, seed 0: no such thing" in err
    assert time.monotonic() - begun < 30
    assert not Path("docs/results/fake.json").exists()


def test_what_came_of_tasks_is_taken_up_one_after_the_other_where_they_were_called():
    """Two threads that parse flags at once may fail: `ast.parse` of Python 3.11 counts for both."""
    tasks = [partial(lambda n: (n, get_ident()), n) for n in range(4)]
    taken = []
    workers.Workers(2).each(tasks, lambda ended: taken.append((*ended, get_ident())))
    assert {n for n, _, _ in taken} == {*range(4)}
    assert all(there != here == get_ident() for _, there, here in taken)


def test_an_error_in_taking_up_is_raised():
    with pytest.raises(ZeroDivisionError):
        workers.Workers(1).each([lambda: 0], lambda n: 1 / n)


def test_the_cores_are_dealt_out():
    assert workers.shares({4, 5, 6, 7}, 2) == [{4, 5}, {6, 7}]
    assert workers.shares({0, 1, 2}, 1) == [{0, 1, 2}]


def test_numbers_of_other_flags_than_a_row_has_now_are_refused(fake):
    rows = group(Row("row", "small --share 1.0", "own"), Row("beside", of="row"))
    assert fake(rows, "run", "fake", "--seeds", 0)[0] == 0
    assert fake(rows, "render")[0] == 0
    other = group(Row("row", "small --share 1.0 --more 2", "own"), Row("beside", of="row"))
    code, _, err = fake(other, "render")
    assert (code, err.count("\n")) == (2, 1)
    assert "fake: row, seed 0, was run by other flags than it has now" in err
    assert "python -m experiments.table run fake --seeds 0 --rows 'row'" in err


@pytest.fixture
def preset(fake, monkeypatch):
    """Makes the preset of settled rows another one."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def change(settings=""):
        Path("settled_rows.py").write_text(SETTLED.replace("Config())", f"Config({settings}))"))
        sys.modules.pop("settled_rows", None)
        meanings.forget()

    change()
    yield change
    change()


def settled():
    return group(Row("row", "small --share 2.0"), Row("beside", of="row"))._replace(
        module="settled_rows", generator="settled_rows small", home="vae"
    )


def test_numbers_of_another_preset_than_now_are_refused_and_run_again(fake, preset):
    assert fake(settled(), "run", "fake", "--seeds", 0)[0] == 0
    kept = json.loads(Path("docs/results/fake.json").read_text())
    assert kept["settings"] == {
        "share": 2.0,
        "steps": 3,
        "generator.share": 0.0,
        "generator.steps": 3,
    }
    assert fake(settled(), "render")[0] == 0
    preset("steps=4")
    code, _, err = fake(settled(), "render")
    assert (code, err.count("\n")) == (2, 1)
    assert "was run by other settings than its flags mean now (steps 3, now 4, generator.st" in err
    # Nor is a folder of such a run taken for one of now.
    code, _, err = fake(settled(), "run", "fake", "--seeds", 0)
    assert (code, err.count("\n")) == (2, 1)
    assert "runs/table/fake/row-0 was run with other settings than its row has now" in err
    assert fake(settled(), "run", "fake", "--seeds", 0, "--root", "again")[0] == 0
    assert fake(settled(), "render")[0] == 0
    # What a setting is that came later, no earlier run says.
    found = json.loads(Path("docs/results/fake.json").read_text())
    del found["settings"]["steps"]
    Path("docs/results/fake.json").write_text(json.dumps(found))
    preset("steps=5")
    code, _, err = fake(settled(), "render")
    assert "mean now (generator.steps 4, now 5)" in err


def test_settings_that_differ_between_rows_are_kept_with_each(fake, preset):
    rows = settled()
    rows = rows._replace(rows=(*rows.rows, Row("other", "small --share 2.0 --steps 7")))
    assert fake(rows, "run", "fake", "--seeds", 0)[0] == 0
    kept = json.loads(Path("docs/results/fake.json").read_text())
    assert [entry["settings"] for entry in kept["entries"]] == [{"steps": 3}] * 2 + [{"steps": 7}]
    assert "steps" not in kept["settings"]
    assert fake(rows, "render")[0] == 0


def test_of_a_generator_that_was_given_nothing_is_asked(fake, preset):
    assert fake(settled(), "run", "fake", "--seeds", 0, 1, "--generator", "mine")[0] == 0
    preset("steps=3, share=9.0")
    assert fake(settled(), "render")[0] == 0
    assert "on one generator by `python" in Path("docs/results/RESULTS.md").read_text()


def test_a_column_of_several_groups_is_shown_side_by_side(tmp_path, monkeypatch):
    measures = {"share": Measure("share"), **STRAIGHTNESS}
    kinds = {name: GROUP._replace(title=name, measures=measures) for name in ("one", "two")}
    kinds_of = {"straight": "one", "folded": "two"}
    side = Across("Both", kinds_of, ("share",), {"ours": "a"}, "Notes.")
    monkeypatch.setattr(table_page, "GROUPS", kinds)
    monkeypatch.setattr(table_page, "ACROSS", {"both": side})
    for name, (share, straight) in {"one": (0.9, 0.75), "two": (0.25, 0.5)}.items():
        found = [
            {"label": "a", "seed": 0, "status": "done", "command": "", "values": {"share": share}},
            {"label": f"of {name}", "seed": 0, "status": "done", "command": "", "values": {}},
        ]
        found[0]["values"] |= {STRAIGHT: straight, TURNING: 1.0 - straight}
        (tmp_path / f"{name}.json").write_text(json.dumps({"entries": found}))
    assert {tmp_path / "both.png", tmp_path / "both-straightness.png"} < {
        *table_page.render(str(tmp_path))
    }
    page = (tmp_path / "RESULTS.md").read_text()
    assert "| straight (0.75, 0.25): share | folded (0.5, 0.5): share |" in page
    assert "| a | 0.9 | 0.25 |" in page
    assert "| of two | - | - |" in page
    found = {name: {"a": read_entries(tmp_path / f"{name}.json")[:1]} for name in kinds}
    assert table_page.against_straightness(side, found) == {
        "ours": {"straight": [(0.75, 0.9)], "folded": [(0.5, 0.25)]}
    }
    # One alone has nothing beside it.
    (tmp_path / "two.json").unlink()
    assert tmp_path / "both.png" not in table_page.render(str(tmp_path))


@pytest.mark.parametrize("name", ACROSS)
def test_what_is_shown_side_by_side_is_there_in_each_group(name):
    for other in ACROSS[name].groups.values():
        assert {*ACROSS[name].columns, *STRAIGHTNESS} <= {*GROUPS[other].measures}
        labels = {row.label for row in GROUPS[other].rows}
        assert len(labels & COMMON) == len(COMMON)
        assert {*ACROSS[name].followed.values()} <= labels | {"re-encoded truth", *TAUGHT}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run"], "name at least one group"),
        (["run", "fakes"], "unknown group 'fakes' (did you mean 'fake'?)"),
        (["run", "fake", "--at-once", 0], "at_once must lie in [1, "),
        (["run", "fake", "--rows", "frist"], "unknown row of fake 'frist' (did you mean 'first'?)"),
        (["render"], "has no numbers of any group"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(argv, message, fake):
    code, _, err = fake(ROWS, *argv)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not started()


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_is_of_rows_with_names_and_folders_of_their_own(name):
    found = GROUPS[name]
    labels = [row.label for row in found.rows]
    assert len(set(labels)) == len(labels)
    own = {row.label for row in found.rows if not row.of}
    assert {row.of for row in found.rows if row.of} <= own
    assert {*found.figure} <= {*found.measures}
    folders = [job.folder for job in table.jobs(table.Run(groups=(name,)), name)]
    assert len(set(folders)) == len(folders) == 3 * len(own)


@pytest.mark.parametrize("name", GROUPS)
def test_every_flag_of_a_group_is_one_of_its_experiment(name):
    """Parsed once for each flag and preset, which is quicker than once a row."""
    seen = set()
    for job in table.jobs(table.Run(groups=(name,), seeds=(0,)), name):
        preset = job.command[3]
        new = {(preset, word) for word in job.command if word.startswith("--")} - seen
        if new:
            assert complaint(job.command) is None
        seen |= new


def test_numbers_are_found_where_a_measure_says():
    metrics = {"rows": [{"at": "a", "x": 1.0}, {"at": "a", "x": 3.0}, {"at": "b", "x": None}]}
    assert table.find(metrics, Measure("x", "rows", {"at": "a"}), "") == 2.0
    assert table.find(metrics, Measure("x", "rows", {"at": "b"}), "") is None
    assert table.find(metrics, Measure("x", "nowhere"), "") is None


@pytest.mark.slow
def test_a_run_that_is_stopped_with_the_table_saves_its_step(tmp_path):
    path = tmp_path / "job"
    toy = ["python", "-m", "tests.experiments.toy", "--sleep", "0.1", "--run", str(path)]
    argv = [sys.executable, "-c", STOPPED, json.dumps(toy), str(path)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    while not (path / "metrics.jsonl").exists():  # one row a second
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.decode().count("\n")) == (143, 1)
    steps = [int(step.name) for step in (path / "checkpoints" / "line").iterdir()]
    assert max(steps) % 7, "the last one is not one of those that are saved in any case"


STOPPED = """
import json, pathlib, sys
from experiments.results import table
from experiments.results.workers import Workers
from experiments.runtime.cli import main
def run(config):
    job = table.Job("toy", 0, pathlib.Path(sys.argv[2]), json.loads(sys.argv[1]))
    workers = Workers(1)
    workers.each([lambda: workers.run(job)], print)
sys.exit(main(run, table.PRESETS, ["run"]))
"""
