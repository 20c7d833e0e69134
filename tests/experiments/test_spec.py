"""How an experiment names its generator, and what it writes of it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from experiments.generators import spec
from experiments.generators.spec import Flags, Usual
from latent_flows.generators import GeneratorSpec
from tests.experiments.small_generators import small_gan, small_vae


@dataclass(frozen=True)
class Config:
    """An experiment that looks at its generator."""

    QUICK: ClassVar = {}

    run: str = "run"
    seed: int = 0
    generator: str = ""
    """Run folder or function."""
    source: Flags = field(default_factory=GeneratorSpec)
    """How it is used."""


def look(config):
    found = spec.load(config)
    spec.open_study(config)
    print(f"{found.name}, latents of {found.latent_dim}")


USUAL = {"usual": ("a preset", Config(generator=Usual("runs/vae-digits", "train_vae digits")))}
FREE = {"free": ("no generator", Config())}


@pytest.fixture
def study(call, tmp_path, monkeypatch):
    """Calls the experiment in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("def plane(z):\n    return 2 * z\n")

    def run(presets, *argv):
        return call(SimpleNamespace(run=look, PRESETS=presets), *argv)

    return run


OWN = ("--generator.path", "own.py:plane", "--generator.latent-dim", 3)


def test_a_run_a_function_and_the_generator_of_a_run_are_named_by_one_flag(study):
    small_gan("runs/gan")
    assert study(FREE, "--generator", "runs/gan", "--run", "a")[1] == "an SNGAN, latents of 4\n"
    assert study(FREE, "--generator", "a", "--run", "b")[1] == "an SNGAN, latents of 4\n"
    assert study(FREE, *OWN, "--run", "c")[1] == "own.py:plane, latents of 3\n"
    function = ("--generator", "own.py:plane", "--generator.latent-dim", 3)
    assert study(FREE, *function, "--run", "d")[1] == "own.py:plane, latents of 3\n"
    assert spec.of_run("d").event_shape == (3,)


def test_a_run_writes_the_generator_itself_and_where_that_is_from_there(study, tmp_path):
    small_gan("runs/gan")
    flags = ("--generator", "runs/gan", "--generator.prior", "sphere", "--seed", 5)
    assert study(FREE, *flags, "--run", "runs/first")[0] == 0
    assert study(FREE, "--generator", "runs/first", "--run", "second")[0] == 0
    for run, near in (("runs/first", "../gan"), ("second", "../runs/gan")):
        written = json.loads((tmp_path / run / "generator.json").read_text())
        assert written["spec"]["path"] == str(tmp_path / "runs/gan")
        assert (written["spec"]["prior"], written["seed"]) == ("sphere", 5)
        assert written["near"] == {"path": near}
    config = json.loads((tmp_path / "second" / "config.json").read_text())["config"]
    assert config["generator"] == "runs/first"


def test_a_preset_says_how_to_make_its_generator_and_takes_it_once_it_is_there(study):
    code, out, err = study(USUAL)
    assert (code, out, err) == (
        2,
        "",
        "error: the generator of this preset, runs/vae-digits, is not there yet: make it with "
        "`python -m experiments.train_vae digits`, or name another by --generator\n",
    )
    assert "`python -m experiments.train_vae digits --quick`" in study(USUAL, "--quick")[2]
    assert not Path("run").exists()
    small_vae("runs/vae-digits")
    assert study(USUAL)[1] == "the VAE of digits, latents of 3\n"
    small_vae("runs/vae-digits-quick", latent_dim=2)
    assert study(USUAL, "--quick")[1] == "the VAE of digits, latents of 2\n"


def test_a_generator_of_ones_own_takes_the_place_of_a_presets(study):
    assert study(USUAL, *OWN)[1] == "own.py:plane, latents of 3\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "no generator is named: give --generator and the run folder of train_vae, train_gan"),
        (
            ("--generator", "R", *OWN),
            "--generator R and --generator.path own.py:plane name two generators; leave one of",
        ),
        (("--generator", "nowhere"), "generator nowhere does not exist: name a run folder"),
        (("--generator", "own.py"), "generator own.py names no function: write own.py:FUNCTION"),
        (("--generator", "own.py:plain"), "own.py has no 'plain'; did you mean 'plane'?"),
        (("--generator", "own.py:plane"), "own.py:plane: give generator.latent_dim"),
        ((*OWN, "--generator.range", 1, 0), "generator.range must be black and white, got (1"),
        ((*OWN, "--generator.truncation", 0), "generator.truncation must be positive, got 0.0"),
        ((*OWN, "--generator.checkpoint", "."), "generator.checkpoint: "),
        ((*OWN, "--generator.space", "w"), "generator.space and generator.label are for publish"),
        ((*OWN, "--generator.layers", "0-1"), "own.py:plane has no layers that take a style"),
        ((*OWN, "--generator.layers", "7-4"), "generator.layers must be numbers and ranges from 0"),
        ((*OWN, "--generator.base", -1), "generator.base must be at least 0, got -1"),
        ((*OWN, "--generator.pth", "x"), "did you mean --generator.path?"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, study):
    code, out, err = study(FREE, *flags)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not Path("run").exists()
