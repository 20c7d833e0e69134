import contextlib
import dataclasses
import errno
import json
import re
import sys
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generators.train_vae import Objective
from experiments.results import table
from experiments.runtime import cli, parsing, tables
from experiments.runtime.cli import Failure, UsageError
from experiments.runtime.training import Training
from latent_flows import calculus
from tests.experiments import toy

MODULE = "tests.experiments.toy"


@pytest.fixture(autouse=True)
def _no_setup(monkeypatch):
    monkeypatch.setattr(cli, "setup", lambda: None)


def call(capsys, *argv, run=lambda config: None):
    run.__module__ = MODULE
    code = cli.main(run, toy.PRESETS, argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def raising(error):
    def run(config):
        raise error

    return run


def test_the_first_preset_is_the_default(capsys):
    seen = []
    assert call(capsys, run=seen.append)[0] == 0
    assert call(capsys, "long", "--training.batch-size", "16", run=seen.append)[0] == 0
    assert seen[0] == toy.PRESETS["small"][1]
    assert seen[1].training == Training(steps=100_000, batch_size=16)


def test_help_lists_the_presets(capsys):
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    assert "  small  A few steps. (the default)\n  long   Many steps.\n" in out
    assert f"usage: python -m {MODULE} [PRESET]" in out


def test_help_of_a_preset_shows_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as stopped:
        call(capsys, "long", "--help")
    assert stopped.value.code in (0, None)
    out = capsys.readouterr().out
    for flag in cli.flags(toy.PRESETS["long"][1]):
        assert flag in out
    assert "(default: 100000)" in out
    assert "(default: 0.001)" in out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["smal"],
            "unknown preset 'smal' (did you mean 'small'?); expected one of 'long', 'small'",
        ),
        (["--steps", "3"], "unknown flag --steps; did you mean --training.steps?"),
        (["--file", "x"], "unknown flag --file; --help lists the flags"),
        (
            ["--training.lerning_rate=3"],
            "unknown flag --training.lerning_rate; did you mean --training.learning-rate?",
        ),
        (["--zzzzzz"], "unknown flag --zzzzzz; --help lists the flags"),
        (
            ["--dim", "4", "long"],
            "unexpected argument 'long' (a preset comes before the flags)",
        ),
        (["--training.steps", "three"], "--training.steps takes INT, not 'three'"),
        (["--training.steps"], "--training.steps needs a value"),
        (
            ["--training.decay", "cosin"],
            "unknown value of --training.decay 'cosin' (did you mean 'cosine'?); "
            "expected one of 'cosine', 'none'",
        ),
        (["--training.steps", "0"], "training: steps must be at least 1, got 0"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(capsys, argv, line):
    assert call(capsys, *argv) == (2, "", f"error: {line}\n")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no\n such thing"), 2, "error: no such thing"),
        (Failure("it broke"), 1, "error: it broke"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/a"),
            1,
            "error: no space left on the device: /runs/a",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/runs/a"),
            1,
            "error: the file system is read-only: /runs/a",
        ),
    ],
)
def test_an_expected_error_is_one_line(capsys, error, code, line):
    assert call(capsys, run=raising(error)) == (code, "", line + "\n")


def test_a_full_disk_is_recognised_inside_other_errors(capsys):
    def run(config):
        try:
            raise ValueError('Failed to write "/runs/a/d": No space left on device [28]')
        except ValueError as error:
            raise RuntimeError("could not save") from error

    code, _, err = call(capsys, run=run)
    assert code == 1
    assert err == "error: no space left on the device: /runs/a/d\n"


def begun(path, *files):
    """The folder of a toy's run, with some files in it."""
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    (path / "config.json").write_text(json.dumps({"experiment": MODULE}))
    return "--run", str(path)


@pytest.mark.parametrize("file", ["checkpoints/line/7/default", "scores/a.json", "result.json"])
def test_where_something_is_saved_a_full_disk_and_ctrl_c_say_so(capsys, tmp_path, file):
    argv = begun(tmp_path / "run", file)
    full = OSError(errno.ENOSPC, "No space left on device", "/runs/a")
    assert call(capsys, *argv, run=raising(full))[2] == (
        "error: no space left on the device: /runs/a; "
        "the same command goes on from the last checkpoint\n"
    )
    assert call(capsys, *argv, run=raising(KeyboardInterrupt())) == (
        130,
        "",
        "interrupted: progress is saved; to go on, run: "
        f"python -m {MODULE} --run {tmp_path / 'run'}\n",
    )


@pytest.mark.parametrize(
    "file", ["metrics.jsonl", ".lock", "tensorboard/line/events", "checkpoints/line/7.tmp/default"]
)
def test_what_a_run_writes_before_it_gets_anywhere_is_nothing_saved(capsys, tmp_path, file):
    argv = begun(tmp_path / "run", file)
    _, _, err = call(capsys, *argv, run=raising(KeyboardInterrupt()))
    assert err.startswith("interrupted: nothing was saved yet; to start again, run: ")


def test_the_progress_of_another_experiment_is_not_what_is_saved(capsys, tmp_path):
    argv = begun(tmp_path / "run", "result.json")
    (tmp_path / "run" / "config.json").write_text('{"experiment": "experiments.train_vae"}')
    _, _, err = call(capsys, *argv, run=raising(KeyboardInterrupt()))
    assert err.startswith("interrupted: nothing was saved yet; ")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--seed", "-1"], "--seed: a seed must not be negative, got -1"),
        (["--seed", str(2**32)], "--seed must lie in [0, 4294967295], got 4294967296"),
        (["--seed", str(2**63)], f"--seed must lie in [0, 4294967295], got {2**63}"),
        (["--seed", "9" * 20], f"--seed must lie in [0, 4294967295], got {'9' * 20}"),
        (["--dim", str(2**31)], "--dim must lie in [-2147483648, 2147483647], got 2147483648"),
        (
            ["--training.batch-size", "1" + 30 * "0"],
            "--training.batch-size must lie in [-2147483648, 2147483647], got 1" + 30 * "0",
        ),
    ],
)
def test_whole_numbers_that_no_array_holds_are_refused_with_their_flag(capsys, argv, line):
    assert call(capsys, *argv, run=raising(AssertionError)) == (2, "", f"error: {line}\n")
    seen = []
    assert call(capsys, "--seed", str(2**32 - 1), run=seen.append)[0] == 0
    assert seen[0].seed == 2**32 - 1


def test_each_of_several_seeds_is_looked_at(capsys):
    code = cli.main(lambda config: None, table.PRESETS, ["run", "x", "--seeds", "0", "-3"])
    assert code == 2
    assert capsys.readouterr().err == "error: --seeds: a seed must not be negative, got -3\n"


@pytest.mark.parametrize(
    ("allocate", "asked"),
    [
        (lambda: np.zeros(2**50), "8 PiB"),
        (lambda: jax.block_until_ready(jnp.zeros((2**46,), jnp.uint8) + 1), "64 TiB"),
        (lambda: bytearray(2**62), None),
        (lambda: np.zeros((2**40, 2**40)), None),
    ],
    ids=["numpy", "jax", "python", "beyond any index"],
)
def test_memory_that_is_not_there_is_one_line_and_code_1(capsys, allocate, asked):
    code, out, err = call(capsys, run=lambda config: allocate())
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("error: out of memory")
    assert "lower what is large" in err
    if asked:
        assert re.search(f": ({asked}) asked for", err), err


def test_a_shortage_of_memory_is_recognised_inside_other_errors(capsys):
    def run(config):
        try:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 3221225472 bytes.")
        except RuntimeError as error:
            raise ValueError("could not solve") from error

    code, _, err = call(capsys, run=run)
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: out of memory: 3 GiB asked for; lower what is large")


def test_a_file_of_the_wrong_kind_is_one_line(capsys, tmp_path):
    for act in (lambda config: tmp_path.read_text(), lambda config: (tmp_path / "a").read_text()):
        code, out, err = call(capsys, run=act)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert f"error: {tmp_path}" in err
        assert "cannot be used: " in err


def test_a_value_that_the_library_rejects_is_one_line_and_code_2(capsys):
    def run(config):
        calculus.laplacian(lambda z: z @ z, method="exact")

    code, _, err = call(capsys, run=run)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_mistake_in_the_code_keeps_its_traceback(capsys):
    with pytest.raises(ValueError, match="invalid literal"):
        call(capsys, run=lambda config: int("three"))
    with pytest.raises(KeyError):
        call(capsys, run=lambda config: {}["a"])


def test_what_is_refused_is_told_from_a_slip(capsys):
    refused = "objective.augment_ts must hold one positive number for each of the 1 "
    code, _, err = call(capsys, run=lambda config: Objective(augment=("zoom",)))
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {refused}")
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        call(capsys, run=lambda config: tables.with_times([{}, {}], [{}]))
    with pytest.raises(ValueError, match="cannot reshape"):
        call(capsys, run=lambda config: np.zeros(3).reshape(2, 2))


@dataclasses.dataclass(frozen=True)
class Several:
    labels: tuple[int, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    size: int | None = None
    fast: bool = False
    kinds: tuple[Literal["flat", "round"], ...] = ()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--labels", "1", "x"], "--labels takes [INT [INT ...]], not '1 x'"),
        (["--labels=x"], "--labels takes [INT [INT ...]], not 'x'"),
        (["--pair", "1"], "--pair needs a value"),
        (["--pair", "1", "x"], "--pair takes FLOAT FLOAT, not '1 x'"),
        (["--size", "big"], "--size takes {None}|INT, not 'big'"),
        (["--fast", "yes"], "unexpected argument 'yes' (a preset comes before the flags)"),
        (
            ["--kinds", "flat", "rund"],
            "unknown value of --kinds 'rund' (did you mean 'round'?); "
            "expected one of 'flat', 'round'",
        ),
    ],
)
def test_a_value_that_a_flag_does_not_take_is_named_with_what_it_takes(capsys, argv, line):
    code = cli.main(lambda config: None, {"one": ("", Several())}, argv)
    assert (code, capsys.readouterr().err) == (2, f"error: {line}\n")


def test_what_is_missing_is_named(capsys):
    @dataclasses.dataclass(frozen=True)
    class Needs:
        home: str

    assert cli.main(lambda config: None, Needs, []) == 2
    assert capsys.readouterr().err == "error: --home is missing; --help tells what it is\n"


def test_where_tyro_does_not_tell_what_is_wrong_it_says_so_itself(capsys, monkeypatch):
    def of_another_form(*_):
        raise AttributeError("display_name")

    for name, other in (("_refuse", of_another_form), ("on_parse_error", contextlib.nullcontext)):
        monkeypatch.setattr(parsing, name, other)
        for argv in (["--dim", "x"], ["--dimm", "3"], ["--training.steps", "0"]):
            with pytest.raises(SystemExit) as stopped:
                call(capsys, *argv)
            assert stopped.value.code == 2
            assert argv[0].rpartition(".")[2].strip("-") in capsys.readouterr().err


def test_ctrl_c_tells_how_to_start_again(capsys):
    argv = ["small", "--run", "runs/my run"]
    assert call(capsys, *argv, run=raising(KeyboardInterrupt())) == (
        130,
        "",
        "interrupted: nothing was saved yet; to start again, run: "
        f"python -m {MODULE} small --run 'runs/my run'\n",
    )


def test_flags_are_those_that_the_parser_takes():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        fast_mode: bool = True

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner()

    presets = {"only": ("", Outer())}
    *_, off = cli.flags(Outer())
    assert off == "--inner.no-fast-mode"
    assert cli.parse(presets, [off], MODULE, None) == Outer(Inner(fast_mode=False))


def test_argv_defaults_to_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["toy", "--dim", "7"])
    seen = []
    assert cli.main(lambda config: seen.append(config.dim), toy.PRESETS) == 0
    assert seen == [7]
