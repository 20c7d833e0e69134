import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from experiments.runtime import checkpoints, training
from experiments.runtime.cli import Failure, UsageError, disk_trouble
from experiments.runtime.run_dir import open_folder
from experiments.runtime.training import Training, fit, optimizer, restore
from tests.experiments import toy
from tests.rest_slow import rest_slow

ROOT = Path(__file__).parents[2]
CONFIG = toy.Config()


class Crash(Exception):
    pass


def train(path, config=CONFIG, *, crash_at=None, **changes):
    def batches(start, sharding):
        for step, batch in enumerate(toy.batches(config)(start, sharding), start):
            if step == crash_at:
                raise Crash
            yield batch

    arguments = {
        "init": toy.init(config.dim),
        "loss": toy.loss(config.explode),
        "batches": batches,
        "config": config.training,
        "seed": config.seed,
    } | changes
    return fit(open_folder(path, config), "line", **arguments)


def rows(path):
    path = path / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, train(path)


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_what_was_learnt_is_bound_to_no_device(whole):
    """A program that has seen other arrays serves it, and is not compiled again."""
    assert not any(leaf.committed for leaf in jax.tree.leaves(whole[1]))
    assert not any(leaf.committed for leaf in jax.tree.leaves(train(whole[0])))
    double = jax.jit(lambda w: 2 * w)
    for w in (jnp.ones(CONFIG.dim), whole[1]["w"]):
        double(w)
    assert double._cache_size() == 1


def steps(path):
    return sorted(int(p.name) for p in (path / "checkpoints" / "line").iterdir())


def environment(**more):
    return os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | more


def command(path, *flags):
    return [sys.executable, "-m", "tests.experiments.toy", "--run", str(path), *flags]


def test_two_runs_are_identical_to_the_bit(whole, tmp_path):
    assert_same(train(tmp_path / "run"), whole[1])
    assert rows(tmp_path / "run") == rows(whole[0])


def test_rows_hold_the_values_that_a_step_saw(whole):
    logged = rows(whole[0])
    assert [row["step"] for row in logged] == [*range(0, 40, 3)]
    params = toy.init(3)(jax.random.split(jax.random.fold_in(jax.random.key(0), _crc("line")))[0])
    assert logged[0]["size"] == pytest.approx(float(jnp.sum(params["w"] ** 2)), rel=1e-6)
    for row in logged:
        assert row["loss"] == pytest.approx(row["fit"] + 1e-3 * row["size"], rel=1e-6)
    assert logged[-1]["loss"] < logged[0]["loss"]


def _crc(text):
    import zlib

    return zlib.crc32(text.encode())


@pytest.mark.parametrize("crash_at", rest_slow([1, 8, 39], every=2))
def test_a_run_that_broke_off_ends_as_one_that_did_not(whole, tmp_path, crash_at):
    path = tmp_path / "run"
    with pytest.raises(Crash):
        train(path, crash_at=crash_at)
    assert_same(train(path), whole[1])
    assert rows(path) == rows(whole[0])


def test_a_finished_phase_is_returned_without_compiling(copy, whole):
    def fail(*_):
        raise AssertionError("was called")

    assert_same(train(copy, loss=fail, batches=fail), whole[1])


def test_only_the_newest_checkpoints_are_kept(whole):
    assert steps(whole[0]) == [28, 35, 40]


def damage_truncate(step):
    for file in step.rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)


def damage_flip(step):
    for file in (step / "default").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def damage_half_written(step):
    shutil.rmtree(step / "default" / "d")


def damage_empty(step):
    shutil.rmtree(step / "default")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_flip, damage_half_written, damage_empty]
)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(whole, copy, capsys, damage):
    path = copy / "checkpoints" / "line"
    damage(path / "40")
    (path / "41.orbax-checkpoint-tmp").mkdir()
    assert_same(train(copy), whole[1])
    assert rows(copy) == rows(whole[0])
    assert capsys.readouterr().err == (
        f"warning: {path}: damaged checkpoint at step 40 removed; going back to step 35\n"
    )
    assert steps(copy) == [28, 35, 40]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_a_good_checkpoint_training_starts_anew(whole, copy, capsys):
    path = copy / "checkpoints" / "line"
    for step in path.iterdir():
        damage_truncate(step)
    assert_same(train(copy), whole[1])
    assert rows(copy) == rows(whole[0])
    assert capsys.readouterr().err == (
        f"warning: {path}: damaged checkpoint at step 40, 35, 28 removed; "
        "no good one is left, starting anew\n"
    )


@pytest.mark.parametrize(
    ("explode", "last"),
    [
        (17, "the last good checkpoint is step 14 ({path}/14)"),
        (14, "the last good checkpoint is step 14 ({path}/14)"),
        (13, "the last good checkpoint is step 7 ({path}/7)"),
        (0, "there is no checkpoint yet"),
    ],
)
def test_the_first_nan_stops_the_run_and_no_checkpoint_holds_it(tmp_path, explode, last):
    config = dataclasses.replace(CONFIG, explode=explode)
    with pytest.raises(Failure) as error:
        train(tmp_path / "run", config)
    path = tmp_path / "run" / "checkpoints" / "line"
    assert str(error.value) == (
        f"line: loss became non-finite at step {explode}: term 'fit' is nan; "
        f"{last.format(path=path)}; "
        "try a smaller --training.learning-rate or --training.clip in a new --run"
    )
    found = checkpoints.newest(path)
    assert (found.step is not None) == (explode >= 7)
    assert all(np.isfinite(value).all() for value in found.flat.values())
    assert [row["step"] for row in rows(tmp_path / "run")] == [*range(0, explode, 3)]


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    def loss(params, key, step, batch):
        return jnp.sum(jnp.sqrt(params["w"] * 0.0)), {}

    with pytest.raises(Failure, match=r"step 0: the gradient's norm is (nan|inf); there is no"):
        train(tmp_path / "run", loss=loss)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (jnp.sum, r"must return \(scalar, dict of scalars\), got \(\)"),
        (lambda w: (w, {}), r"must return \(scalar, dict of scalars\), got \(\(3,\), \{\}\)"),
        (lambda w: (jnp.sum(w), {"loss": 1.0}), "a term of the loss cannot be called loss"),
    ],
)
def test_a_loss_of_another_form_is_refused(tmp_path, result, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", loss=lambda params, *_: result(params["w"]))


def test_batches_of_another_size_or_too_few(tmp_path):
    def short(start, sharding):
        yield {"x": np.zeros((8, 3), np.float32), "y": np.zeros(8, np.float32)}
        yield {"x": np.zeros((7, 3), np.float32), "y": np.zeros(7, np.float32)}

    with pytest.raises(ValueError, match=r"entry 'x' has shape \(7, 3\), expected \(8, ...\)"):
        train(tmp_path / "a", batches=short)
    with pytest.raises(Failure, match=r"the batches ended before step 1$"):
        train(tmp_path / "b", batches=lambda *args: [next(short(*args))])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_double_precision_resumes_in_double_precision(tmp_path):
    with pytest.raises(Crash):
        train(tmp_path / "run", crash_at=20)
    params = train(tmp_path / "run")
    assert jax.tree.map(lambda x: x.dtype, params) == {"w": jnp.float64, "b": jnp.float64}
    assert_same(train(tmp_path / "whole"), params)
    assert_same(restore(tmp_path / "run", "line", toy.init(3)), params)


def test_restore_gives_what_fit_gave(whole):
    assert_same(restore(whole[0], "line", toy.init(3)), whole[1])


def test_restore_refuses_what_is_not_there_unfinished_or_another_model(whole, tmp_path):
    with pytest.raises(UsageError) as error:
        restore(tmp_path, "line", toy.init(3))
    assert str(error.value) == f"{tmp_path} holds no checkpoint of 'line'; train it there first"
    with pytest.raises(UsageError, match=r"params/w is float32\[3\], expected float32\[4\]$"):
        restore(whole[0], "line", toy.init(4))
    with pytest.raises(UsageError, match=r"params/c float32\[2\] is missing$"):
        restore(whole[0], "line", lambda key: {"c": jnp.zeros(2)})
    with pytest.raises(Crash):
        train(tmp_path / "run", crash_at=10)
    with pytest.raises(UsageError, match=r"is at step 7 of 40; run it to its end first$"):
        restore(tmp_path / "run", "line", toy.init(3))


def test_restoring_does_not_touch_the_other_folder(copy):
    damage_truncate(copy / "checkpoints" / "line" / "40")
    before = sorted(copy.rglob("*"))
    with pytest.raises(UsageError, match="at step 35 of 40"):
        restore(copy, "line", toy.init(3))
    assert sorted(copy.rglob("*")) == before


def test_a_checkpoint_is_no_view_of_memory_that_the_next_step_overwrites(tmp_path):
    value = jnp.zeros(1 << 20)
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.save(manager, 1, {"x": value})
        for _ in range(20):
            value = step(value)
    assert not checkpoints.newest(tmp_path).flat["x"].any()


def test_trees_survive_flattening():
    tree = {"a": [np.ones(2), np.zeros((0, 3))], "b": (jnp.bfloat16(2), np.int32(1))}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)
    assert_same(checkpoints.unflatten(checkpoints.flatten(tree), like, "here"), tree)


def test_a_full_disk_during_a_checkpoint_is_recognised(tmp_path, monkeypatch):
    def full(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED") as error:
        train(tmp_path / "run")
    assert disk_trouble(error.value) == "no space left on the device"
    assert disk_trouble(OSError(errno.ENOENT, "No such file")) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"warmup": 11, "steps": 10}, r"warmup must lie in \[0, steps=10\], got 11"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"b1": 1.0}, r"b1 must lie in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must lie in \[0, 1\), got -0.1"),
        ({"clip": -1.0}, "clip must be at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Training(**change)


def rates(config):
    # Adam moves by the step size exactly when the gradient is constant.
    method, state, rates = optimizer(config), None, []
    state = method.init(jnp.zeros(()))
    for _ in range(config.steps):
        change, state = method.update(jnp.ones(()), state)
        rates.append(-float(change))
    return np.array(rates)


def test_the_step_size_rises_linearly_and_falls_along_a_cosine():
    config = Training(steps=20, warmup=5, decay="cosine", learning_rate=0.1)
    rise = 0.1 * np.arange(5) / 5
    fall = 0.1 * (1 + np.cos(np.pi * np.arange(15) / 15)) / 2
    np.testing.assert_allclose(rates(config), np.concatenate([rise, fall]), rtol=1e-3, atol=1e-6)
    plain = Training(steps=5, learning_rate=0.1)
    np.testing.assert_allclose(rates(plain), 0.1, rtol=1e-3)
    warm = Training(steps=20, warmup=5, learning_rate=0.1)
    np.testing.assert_allclose(
        rates(warm), np.concatenate([rise, np.full(15, 0.1)]), rtol=1e-3, atol=1e-6
    )


def test_a_step_is_adam_on_the_clipped_gradient(tmp_path):
    config = dataclasses.replace(
        CONFIG, training=Training(steps=1, batch_size=8, clip=0.01, learning_rate=0.1)
    )
    gradient = jnp.array([3.0, 4.0, 0.0])
    params = train(
        tmp_path / "run",
        config,
        init=lambda key: jnp.zeros(3),
        loss=lambda params, *_: (params @ gradient, {}),
    )
    method = optax.adam(0.1)
    expected, _ = method.update(0.01 * gradient / 5, method.init(jnp.zeros(3)))
    np.testing.assert_allclose(params, expected, rtol=1e-5)
    assert rows(tmp_path / "run")[0]["grad_norm"] == pytest.approx(5.0)


def wait_for_steps(process):
    """Reads what a toy says until its program is compiled and steps are taken."""
    assert any(b"compiled" in line for line in iter(process.stdout.readline, b""))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(whole, tmp_path):
    path, generator = tmp_path / "run", random.Random(time.time_ns())
    moments = [generator.uniform(0.0, 0.5) for _ in range(2)]
    for moment in moments:
        process = subprocess.Popen(
            command(path, "--sleep", "0.02"), stdout=subprocess.PIPE, cwd=ROOT, env=environment()
        )
        wait_for_steps(process)
        time.sleep(moment)
        process.kill()
        process.communicate()
    slow = dataclasses.replace(CONFIG, sleep=0.02)
    assert_same(train(path, slow, batches=toy.batches(CONFIG)), whole[1])
    assert rows(path) == rows(whole[0]), moments


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != signal.SIGINT)) for n in CODES],
)
def test_ctrl_c_saves_the_step_just_done(whole, tmp_path, number):
    path = tmp_path / "run"
    process = subprocess.Popen(
        command(path, "--sleep", "0.3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    wait_for_steps(process)
    time.sleep(0.1)
    process.send_signal(number)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == CODES[number]
    assert err == (
        "interrupted: progress is saved; to go on, run: python -m tests.experiments.toy "
        f"--run {path} --sleep 0.3\n"
    )
    assert 0 < steps(path)[-1] < 40
    slow = dataclasses.replace(CONFIG, sleep=0.3)
    assert_same(train(path, slow, batches=toy.batches(CONFIG)), whole[1])
    assert rows(path) == rows(whole[0])


def test_ctrl_c_saves_between_two_checkpoints(whole, tmp_path):
    before = signal.getsignal(signal.SIGINT)  # ignored, in a background job of a shell

    def batches(start, sharding):
        for step, batch in enumerate(toy.batches(CONFIG)(start, sharding), start):
            if step == 10:
                signal.raise_signal(signal.SIGINT)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", batches=batches)
    assert steps(tmp_path / "run") == [7, 10]
    assert signal.getsignal(signal.SIGINT) is before
    assert_same(train(tmp_path / "run"), whole[1])
    assert rows(tmp_path / "run") == rows(whole[0])


def test_eight_devices_learn_what_one_learns(whole, tmp_path):
    env = environment(XLA_FLAGS="--xla_force_host_platform_device_count=8")
    subprocess.run(command(tmp_path / "run"), check=True, cwd=ROOT, env=env)
    params = restore(tmp_path / "run", "line", toy.init(3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, whole[1])
    for one, eight in zip(rows(whole[0]), rows(tmp_path / "run"), strict=True):
        assert one.pop("phase") == eight.pop("phase")
        assert one == pytest.approx(eight, rel=1e-5)


def test_a_batch_that_cannot_be_split_is_refused(tmp_path, monkeypatch):
    device = jax.local_devices()[0]
    monkeypatch.setattr(jax, "devices", lambda: [device] * 3)
    with pytest.raises(UsageError) as error:
        train(tmp_path / "run")
    assert str(error.value) == (
        "a batch of 8 cannot be split evenly over 3 devices; "
        "choose a multiple of 3 as --training.batch-size"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_disk_that_takes_no_more_is_one_line_and_code_1(tmp_path):
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"sys.argv = ['toy', '--run', {str(tmp_path / 'run')!r}, '--dim', '100000']\n"
        "runpy.run_module('tests.experiments.toy', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the file is larger than the system allows: ")
    assert done.stderr.count("\n") == 1


def test_the_loop_looks_at_every_step(tmp_path):
    # One bad step between two rows and two checkpoints, with fewer steps left than the lag.
    config = dataclasses.replace(
        CONFIG,
        explode=37,
        training=Training(steps=39, batch_size=8, log_every=100, checkpoint_every=100),
    )
    assert training.LAG > 1
    with pytest.raises(Failure, match="at step 37: term 'fit' is nan; there is no checkpoint"):
        train(tmp_path / "run", config)


def test_a_phase_whose_checkpoints_are_damaged_is_said_to_be_so(whole, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(whole[0], path)
    kept = steps(path)
    newest, *others = sorted((path / "checkpoints" / "line").iterdir(), key=lambda p: -int(p.name))
    shutil.rmtree(newest / "default")
    with pytest.raises(UsageError) as error:
        restore(path, "line", toy.init(3))
    good = f"at step 40 is damaged, the last good one is at step {kept[-2]} of 40"
    assert good in str(error.value)
    for folder in others:
        shutil.rmtree(folder / "default")
    with pytest.raises(UsageError) as error:
        restore(path, "line", toy.init(3))
    assert "every checkpoint of 'line' is damaged (step 28, 35, 40)" in str(error.value)
    assert "train it there first" not in str(error.value)
    assert "run the command that made the folder" in str(error.value)
