"""Several processes and other numbers of devices: the same losses, and one that writes."""

import dataclasses
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.runtime import multihost
from experiments.runtime.training import restore
from tests.experiments import toy
from tests.experiments.test_train_vae import FLAGS
from tests.experiments.test_training import CONFIG, Crash, command, environment, rows, train

ROOT = Path(__file__).parents[2]
EIGHT = "--xla_force_host_platform_device_count=8"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def members(argv, count=2, **more):
    """Processes of one run, on loopback."""
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environment(
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES=str(count),
                JAX_PROCESS_ID=str(index),
                **more,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finish(found):
    """Exit code, stdout and stderr of each."""
    outputs = [member.communicate(timeout=300) for member in found]
    return [(member.returncode, *out) for member, out in zip(found, outputs, strict=True)]


def assert_close(one, other, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), one, other)


def assert_rows_close(one, other, rel=1e-5):
    for a, b in zip(one, other, strict=True):
        assert a.pop("phase") == b.pop("phase")
        assert a == pytest.approx(b, rel=rel, abs=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, train(path)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_and_the_first_writes(whole, tmp_path):
    path = tmp_path / "run"
    (first, out, err), (second, silent, _) = finish(members(command(path)))
    assert (first, second) == (0, 0), err
    assert "step 40 of 40" in out
    assert silent == ""
    assert_close(restore(path, "line", toy.init(3)), whole[1])
    assert_rows_close(rows(path), rows(whole[0]))
    assert len([*path.glob("tensorboard/line/events.out.*")]) == 1


@pytest.mark.slow
def test_what_one_process_began_two_can_end(whole, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Crash):
        train(path, crash_at=20)
    (first, _, err), (second, *_) = finish(members(command(path)))
    assert (first, second) == (0, 0), err
    assert_close(restore(path, "line", toy.init(3)), whole[1])
    assert_rows_close(rows(path), rows(whole[0]))


@pytest.mark.slow
def test_what_eight_devices_began_one_can_end(whole, tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        command(path, "--sleep", "0.05"),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(XLA_FLAGS=EIGHT),
    )
    assert any(b"compiled" in line for line in iter(process.stdout.readline, b""))
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    params = train(path, dataclasses.replace(CONFIG, sleep=0.05))
    assert_close(params, whole[1])
    assert_rows_close(rows(path), rows(whole[0]))


@pytest.mark.slow
def test_what_one_device_began_eight_can_end(whole, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Crash):
        train(path, crash_at=20)
    subprocess.run(command(path), check=True, cwd=ROOT, env=environment(XLA_FLAGS=EIGHT))
    assert_close(restore(path, "line", toy.init(3)), whole[1])
    assert_rows_close(rows(path), rows(whole[0]))


@pytest.mark.slow
def test_where_the_first_process_fails_all_do(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "letter.txt").touch()
    (first, _, err), (second, _, other) = finish(members(command(path)))
    assert (first, second) == (2, 1)
    assert "holds no config.json" in err
    assert "Traceback" not in err + other


def vae(path, compiling, count=1, **more):
    options = {name.upper(): str(value) for name, value in compiling.items()}
    options["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    argv = [sys.executable, "-m", "experiments.train_vae", *FLAGS, "--run", str(path)]
    if count > 1:
        return finish(members(argv, count, **options, **more))
    done = subprocess.run(
        argv, cwd=ROOT, env=environment(**options, **more), capture_output=True, check=False
    )
    return [(done.returncode, done.stdout, done.stderr)]


@pytest.mark.slow
def test_a_vae_has_the_same_losses_on_eight_devices_and_in_two_processes(compiling, tmp_path):
    runs = {
        "one": vae(tmp_path / "one", compiling),
        "eight": vae(tmp_path / "eight", compiling, XLA_FLAGS=EIGHT),
        "two": vae(tmp_path / "two", compiling, 2),
    }
    for name, ends in runs.items():
        assert all(end[0] == 0 for end in ends), (name, ends)
    for name in ("eight", "two"):
        assert_rows_close(rows(tmp_path / name), rows(tmp_path / "one"), rel=1e-4)
        metrics = [
            json.loads((tmp_path / folder / "metrics.json").read_text()) for folder in (name, "one")
        ]
        assert metrics[0] == pytest.approx(metrics[1], rel=1e-3)


@pytest.mark.parametrize(
    "given", ["127.0.0.1:1 2", "127.0.0.1:1 2 2", "127.0.0.1:1 two 0", "'' 2 0"]
)
def test_an_environment_that_is_no_sense_is_refused(given, monkeypatch):
    values = [*shlex.split(given), ""][:3]
    for name, value in zip(multihost.VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="need an address host:port, their number"):
        multihost.join()


def test_alone_nothing_is_shared(monkeypatch):
    for name in multihost.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    multihost.join()
    assert multihost.is_first()
    assert not multihost.several()
    assert not os.environ.get("JAX_NUM_PROCESSES")
    with pytest.raises(KeyError):
        multihost.together(lambda: {}["nothing"])


def test_a_private_copy_holds_no_checkpoints(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "line").mkdir(parents=True)
    (run / "scores").mkdir()
    (run / "scores" / "a.json").write_text("1")
    (run / ".lock").touch()
    copy = multihost.private_copy(run)
    found = sorted(str(file.relative_to(copy)) for file in copy.rglob("*"))
    assert found == ["scores", "scores/a.json"]
