import dataclasses
import gc
import json
from typing import ClassVar

import pytest

from experiments.generators import train_vae
from experiments.runtime import cli, extension
from experiments.runtime.run_dir import open_folder
from tests.experiments import toy
from tests.experiments.front_doors import front

SHORT = ("--training.steps", "41")
CONFIG = toy.Config(training=dataclasses.replace(toy.TRAINING, steps=41))


@pytest.fixture
def line(call, tmp_path):
    """Runs the toy in one folder: exit code, stdout, stderr."""

    def run(*argv, folder="run"):
        return call(toy, "--run", tmp_path / folder, *argv)

    return run


def content(path):
    """The files of a run that say what came out."""
    return {
        name: (path / name).read_text() for name in ("result.json", "metrics.jsonl", "config.json")
    }


def refused(found, message):
    code, _, err = found
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err


def test_a_finished_run_goes_on_to_what_a_longer_one_has_to_the_bit(line, tmp_path):
    assert line(*SHORT)[0] == 0
    code, out, err = line("--training.steps", 80)
    assert (code, err) == (0, "")
    assert "'line' goes on from step 41; what was made of it is made anew" in out
    assert line("--training.steps", 80, folder="whole")[0] == 0
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    header = json.loads((tmp_path / "run/config.json").read_text())
    assert header["config"]["training"]["steps"] == 80


def test_warm_up_alone_does_not_keep_a_run_from_going_on(line, tmp_path):
    warm = ("--training.warmup", 7)
    for steps in (20, 30):
        assert line(*warm, "--training.steps", steps)[0] == 0
    assert line(*warm, "--training.steps", 30, folder="whole")[0] == 0
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_schedule_that_falls_to_its_end_cannot_go_on_and_says_why(line, tmp_path):
    cosine = ("--training.decay", "cosine")
    assert line(*cosine, "--training.steps", 20)[0] == 0
    before = content(tmp_path / "run")
    refused(
        line(*cosine, "--training.steps", 30),
        "its step size falls along a cosine to zero at step 20, and in a run of 30 steps would be "
        "another from the start; choose another --run, or --training.decay none in one",
    )
    assert content(tmp_path / "run") == before
    assert line(*cosine, "--training.steps", 20)[0] == 0


def test_fewer_steps_than_are_taken_are_one_line(line, tmp_path):
    assert line(*SHORT)[0] == 0
    before = content(tmp_path / "run")
    refused(
        line("--training.steps", 10),
        "'line' has taken 41 of its 41 steps already, so it cannot end at --training.steps 10",
    )
    assert content(tmp_path / "run") == before


def test_a_run_that_differs_in_more_than_its_length_is_another(line):
    assert line(*SHORT)[0] == 0
    refused(line("--training.steps", 80, "--dim", 4), "holds a run with other settings (dim: 3")


def test_a_run_that_was_stopped_may_end_later_or_earlier_than_it_was_to(line, tmp_path):
    assert line(*SHORT)[0] == 0
    path = tmp_path / "cut"
    assert line("--training.steps", 14, folder="cut")[0] == 0
    header = json.loads((path / "config.json").read_text())
    header["config"]["training"]["steps"] = 60
    (path / "config.json").write_text(json.dumps(header))
    assert line(*SHORT, folder="cut")[0] == 0
    assert content(path)["result.json"] == content(tmp_path / "run")["result.json"]


def finished(path, kind, *phases, steps=20):
    """The files of a finished run, as far as their names go."""
    for phase in phases:
        (path / "checkpoints" / phase / str(steps)).mkdir(parents=True)
        (path / "tensorboard" / phase).mkdir(parents=True)
    (path / "scores").mkdir(parents=True)
    for name in ("metrics.json", "scores/a.json", "a.png", "b.gif", "config.json", "notes.txt"):
        (path / name).write_text("{}")
    rows = [{"phase": phase, "step": step} for phase in phases for step in (0, steps - 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(**steps):
    known = {f"{name}.steps": value for name, value in steps.items()}
    return (
        known
        | {f"{name}.decay": "none" for name in steps}
        | dict.fromkeys((f"{name}.log_every" for name in steps), 50)
    )


def names(path):
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


class Chain:
    PHASES: ClassVar = {"first": ("one",), "second": ("two", "three")}


def test_phases_that_are_made_of_a_longer_one_are_trained_anew(tmp_path):
    finished(tmp_path, Chain, "zero", "one", "two", "three")
    for name in ("given.json", "made.bin", "scores/given.json"):
        (tmp_path / name).write_text("{}")
    old = settings(first=20, second=20)
    plan = extension.planned(tmp_path, Chain, old, old | {"first.steps": 30})
    assert plan is not None
    assert (dict(plan.longer), plan.stale) == ({"one": (20, 19)}, ("two", "three"))
    forgotten = []
    keep = extension.begun({"given": ["given.json"]})
    extension.carry_out(
        tmp_path, plan, lambda *row: forgotten.append(row), keep=keep, made=("made.bin",)
    )
    assert {child.name for child in (tmp_path / "checkpoints").iterdir()} == {"one", "zero"}
    assert {child.name for child in (tmp_path / "tensorboard").iterdir()} == {"one", "zero"}
    assert sorted(forgotten) == [("one", 19), ("three", 0), ("two", 0)]
    assert names(tmp_path) == {"config.json", "given.json", "metrics.jsonl", "notes.txt"}


def test_earlier_phases_stay_when_a_later_one_goes_on(tmp_path):
    finished(tmp_path, Chain, "one", "two", "three")
    old = settings(first=20, second=20)
    plan = extension.planned(tmp_path, Chain, old, old | {"second.steps": 30})
    assert plan is not None
    assert ([*plan.longer], plan.stale) == (["two", "three"], ())


@dataclasses.dataclass(frozen=True)
class Making(toy.Config):
    MADE: ClassVar = ("made.bin",)


def test_what_was_made_of_a_shorter_run_is_gone_until_it_is_made_anew(tmp_path):
    given = {"given.json": {"from": "elsewhere"}}
    folder = open_folder(tmp_path / "run", Making(training=toy.TRAINING), given=given)
    (folder.path / "checkpoints" / "line" / "40").mkdir(parents=True)
    for name in ("made.bin", "mine.bin", "result.json"):
        folder.write_bytes(name, b"{}")
    del folder
    gc.collect()
    opened = open_folder(tmp_path / "run", Making(training=CONFIG.training), given=given)
    assert names(opened.path) == {".lock", "config.json", "given.json", "mine.bin"}
    assert opened.read_json("config.json")["given"] == ["given.json"]


def test_a_later_phase_that_is_trained_anew_may_have_any_length_and_schedule(tmp_path):
    finished(tmp_path, Chain, "one", "two", "three")
    old = settings(first=20, second=20, classifier=20) | {"second.decay": "cosine"}
    plan = extension.planned(tmp_path, Chain, old, old | {"first.steps": 30, "second.steps": 5})
    assert plan is not None
    assert plan.stale == ("two", "three")


@pytest.mark.parametrize(
    "name",
    [
        "train_vae", "train_gan", "train_flow", "potential_flows", "directions", "guided",
        "flow_vae", "geodesics", "clustering", "land", "random_walk", "retraining",
    ],
)  # fmt: skip
def test_every_training_of_an_experiment_belongs_to_phases(name):
    _, config = next(iter(front(name).PRESETS.values()))
    trained = {
        flag.removeprefix("--").removesuffix(".steps").replace("-", "_")
        for _, flag, *_ in cli.settings(config)
        if flag.endswith(".batch-size")
        for flag in [flag.replace("batch-size", "steps")]
    }
    assert trained == {*getattr(config, "PHASES", ())}


def test_the_length_of_a_phase_that_was_not_begun_is_free(tmp_path):
    old = settings(training=20) | {"training.decay": "cosine"}
    plan = extension.planned(tmp_path, train_vae.Config, old, old | {"training.steps": 5})
    assert plan == extension.Extension({}, ())
