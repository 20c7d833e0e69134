import dataclasses
import runpy
import sys
from typing import Annotated, ClassVar

import pytest
import tyro

from experiments.generators.spec import Usual
from experiments.runtime import cli, defaults
from tests.experiments.front_doors import front

EXPERIMENTS = (
    "train_vae", "train_gan", "train_flow", "potential_flows", "directions", "guided", "flow_vae",
    "geodesics", "clustering", "land", "random_walk", "retraining",
)  # fmt: skip
EACH = pytest.mark.parametrize("name", EXPERIMENTS)


def parsed(name, *argv):
    """The configuration of a command line."""
    return cli.parse(front(name).PRESETS, [str(word) for word in argv], name, None)


@EACH
def test_every_training_can_be_made_short_by_one_flag(name):
    for preset, (_, config) in front(name).PRESETS.items():
        for setting in getattr(config, "PHASES", ()):
            found = dict(defaults.leaves(parsed(name, preset, f"--{setting}.steps", 1)))
            assert (found[f"{setting}.steps"], found[f"{setting}.warmup"] <= 1) == (1, True)


@EACH
def test_every_preset_has_a_quick_run_in_a_folder_of_its_own(name):
    for preset, (_, usual) in front(name).PRESETS.items():
        quick = parsed(name, preset, "--quick")
        assert quick.run == f"{usual.run}-quick"
        before, after = dict(defaults.leaves(usual)), dict(defaults.leaves(quick))
        for setting in getattr(usual, "PHASES", ()):
            assert after[f"{setting}.steps"] <= min(before[f"{setting}.steps"], 300)
        assert getattr(quick, "measure", False) is False
        for same in {"seed", "data"} & {*before}:
            assert after[same] == before[same]


@EACH
def test_a_quick_run_is_about_the_generator_of_a_quick_run(name):
    for preset, (_, usual) in front(name).PRESETS.items():
        generator = getattr(usual, "generator", None)
        if isinstance(generator, Usual):
            quick, wanted = parsed(name, preset, "--quick").generator, generator.quick()
            assert (quick, quick.command) == (wanted, wanted.command)
            if generator.command.startswith("train_"):
                assert wanted == f"{generator}-quick"
            assert parsed(name, preset, "--quick", "--generator", "mine").generator == "mine"


@EACH
def test_a_quick_run_has_small_settings_of_that_experiment_only(name):
    for _, config in front(name).PRESETS.values():
        assert {*config.QUICK} <= {*dict(defaults.leaves(config))}


def test_flags_win_over_quick_settings():
    found = parsed(
        "potential_flows", "digits", "--training.steps", 700, "--quick", "--run", "here", "--scores"
    )
    assert (found.training.steps, found.run, found.measure) == (700, "here", True)


def test_small_settings_never_make_a_preset_larger():
    assert parsed("train_vae", "sprites", "--quick").vae.latent_dim == 6
    assert parsed("potential_flows", "demo", "--quick").flows.bank == 128


def test_a_flag_of_another_name_than_its_setting_is_read_as_well():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        path: str = ""
        count: int = 1

    @dataclasses.dataclass(frozen=True)
    class Config:
        QUICK: ClassVar = {"source.count": 0}

        run: str = "runs/x"
        source: Annotated[Inner, tyro.conf.arg(name="generator")] = Inner()

    quick = cli.parse({"a": ("", Config())}, ["--quick", "--generator.path", "x"], "a", None)
    assert quick == Config("runs/x-quick", Inner("x", 0))
    given = cli.parse({"a": ("", Config())}, ["--quick", "--generator.count=7"], "a", None)
    assert given.source.count == 7


def test_quick_is_for_experiments_that_have_it(call):
    summary = front("summary")
    code, _, err = call(summary, "--quick", "runs/x")
    assert (code, err.count("\n")) == (2, 1)
    assert "unknown flag --quick" in err


@pytest.mark.parametrize("name", ["guided", "supervised_flows", "geodesics", "invert", "explore"])
def test_help_names_the_command_that_was_asked(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    assert ended.value.code in (0, None)
    assert f"usage: python -m experiments.{name} [" in capsys.readouterr().out


def test_help_tells_of_quick_runs(capsys):
    module = front("guided")
    assert cli.main(module.run, module.PRESETS, ["--help"]) == 0
    assert "--quick makes small whatever other flags do not name" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(module.run, module.PRESETS, ["swing", "--help"])
    out = capsys.readouterr().out
    assert "--quick makes small" in out
    assert "--scores, --no-scores" in out


@pytest.mark.parametrize(
    ("name", "argv", "follows"),
    [
        ("potential_flows", ["--flows.count", 7], {"training.batch_size": 56}),
        ("potential_flows", ["--flows.bank", 32], {"training.batch_size": 32}),
        ("potential_flows", ["--flows.bank=32", "--flows.count=5"], {"training.batch_size": 30}),
        ("potential_flows", ["--flows.codes", 50], {"flows.bank": 50, "training.batch_size": 48}),
        ("potential_flows", ["--quick", "--flows.bank", 600], {"flows.codes": 600}),
        ("potential_flows", ["--training.batch-size", 63], {"flows.count": 3}),
        (
            "potential_flows",
            ["--training.batch_size", 2048],
            {"flows.count": 4, "flows.bank": 2048, "flows.codes": 4096},
        ),
        ("train_vae", ["--training.steps", 20], {"training.warmup": 20, "objective.delay": 0}),
        (
            "train_vae",
            ["--training.steps", 2500],
            {"objective.delay": 500, "objective.warmup": 2000},
        ),
        ("flow_vae", ["--factors", "scale", "hue", "rotation", "x", "y"],
         {"training.batch_size": 45}),
        ("flow_vae", ["--train-images", 10], {"training.batch_size": 9}),
        ("train_gan", ["--adversarial.critic-steps", 5], {"training.batch_size": 60}),
        ("train_gan", ["--adversarial.critic-steps", 100], {"training.batch_size": 100}),
        ("directions", ["digits", "--transformations", "rotate"], {"ts": ()}),
        ("directions", ["digits", "--transformations", "zoom", "--ts", "0.3"], {"ts": (0.3,)}),
        ("geodesics", ["--codes", 16, "--geodesics.pairs", 3], {"geodesics.neighbours": 10}),
        ("guided", ["--training.steps", 3, "--training.batch-size", 2], {"training.steps": 3}),
    ],
)  # fmt: skip
def test_what_is_not_given_follows_what_is(name, argv, follows):
    found = dict(defaults.leaves(parsed(name, *argv)))
    assert {key: found[key] for key in follows} == follows


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--flows.count", 7, "--training.batch-size", 20], "must be a multiple of flows.count"),
        (
            ["--training.steps", 30, "--training.warmup", 9000],
            "warmup must lie in [0, steps=30], got 9000",
        ),
        (["--flows.bank", 64, "--flows.codes", 32], "flows.bank (64) is more than flows.codes"),
        (["--training.steps", 0], "steps must be at least 1"),
        (["--training.steps", "few"], "--training.steps takes INT, not 'few'"),
        (["--quick", "--flows.count", 7, "--training.batch-size", 20], "must be a multiple of"),
    ],
)
def test_flags_that_do_not_fit_each_other_are_still_one_line(call, argv, message):
    module = front("potential_flows")
    code, out, err = call(module, "demo", *argv)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@EACH
def test_flags_that_change_nothing_leave_the_preset_as_it_is(name):
    for preset, (_, config) in front(name).PRESETS.items():
        assert parsed(name, preset) == config
