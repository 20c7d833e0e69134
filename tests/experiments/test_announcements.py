import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments.runtime import announcements, progress, tables
from experiments.runtime.announcements import announced
from experiments.runtime.run_dir import Folder
from tests.experiments import toy

ROOT = Path(__file__).parents[2]


def python(code, **kwargs):
    return subprocess.run(
        [sys.executable, *code], capture_output=True, text=True, cwd=ROOT, check=False, **kwargs
    )


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(announcements, "MOMENT", 0.05)


def test_what_takes_long_is_announced_while_it_is_under_way(hasty, capsys):
    with announced("counting sheep"):
        time.sleep(0.6)
        assert capsys.readouterr().out == "counting sheep ...\n"
    time.sleep(0.1)
    assert capsys.readouterr().out == ""


def test_what_is_over_at_once_is_not_worth_a_line(hasty, capsys):
    for _ in range(20):
        with announced("blinking"):
            pass
    with pytest.raises(KeyError), announced("failing"):
        raise KeyError
    time.sleep(0.2)
    assert capsys.readouterr().out == ""


def test_what_a_run_computes_and_draws_is_announced_by_its_file(hasty, tmp_path, capsys):
    folder = Folder(tmp_path)

    def slow(made):
        time.sleep(0.6)
        return made

    folder.remember("scores/sheep", lambda: slow(1))
    tables.save_figures(folder, {"sheep": lambda: slow(Figure())})
    assert capsys.readouterr().out.splitlines() == [
        "computing scores/sheep.json ...",
        "drawing sheep.png ...",
    ]
    folder.remember("scores/sheep", lambda: slow(1))
    assert capsys.readouterr().out == ""


def test_compiling_is_announced_before_it_starts(call, tmp_path):
    lines = call(toy, "--run", tmp_path / "run")[1].splitlines()
    assert lines[0] == "line: step 0 of 40, compiling"
    assert lines[1].startswith("line: step 0 of 40, compiled in ")


def test_long_imports_are_announced(tmp_path):
    (tmp_path / "jax.py").write_text("import time\ntime.sleep(3)\nraise SystemExit(3)")
    env = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-m", "experiments.train_vae"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = {
        out: subprocess.Popen([*command, *words], cwd=ROOT, env=env, **pipes)
        for words, out in (([], f"{announcements.IMPORTS} ...\n"), (["--help"], ""))
    }
    for out, process in started.items():
        found = process.communicate(timeout=60)
        assert (process.returncode, found[0]) == (3, out), found[1]


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def test_the_time_left_does_not_count_compilation_in(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with progress.progress("steps", 0, 100) as told:
        told(0, "compiling")
        clock.now += 500  # which it takes
        told(0, "compiled")
        clock.now += 1
        told(1, "first")
        clock.now += 20
        told(11, "later")  # 10 steps in 20 s
        clock.now += 178
        told(100, "done")
    assert capsys.readouterr().out.splitlines() == [
        "steps: step 0 of 100, compiling",
        "steps: step 0 of 100, compiled",
        "steps: step 11 of 100, later, 178 s left",
        "steps: step 100 of 100, done",
    ]


def test_a_new_beginning_is_told_at_once_and_progress_now_and_then(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with progress.progress("scores", 0, 3) as told:
        told(0, "a")
        for done in (1, 1, 2):
            clock.now += 1
            told(done, f"{done}")
    assert capsys.readouterr().out.splitlines() == [
        "scores: step 0 of 3, a",
        "scores: step 1 of 3, 1",
    ]


ALARM = """
import experiments, jax, numpy as np, jax.numpy as jnp
many = np.random.rand(10_000)  # XLA sums its windows, one number after the other, while it compiles
window = lambda: jax.lax.reduce_window(jnp.asarray(many), 0.0, jax.lax.add, (400,), (1,), "SAME")
jax.jit(lambda: window().sum())()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("level", "alarms"), [({}, 0), ({"TF_CPP_MIN_LOG_LEVEL": "1"}, 2)])
def test_alarms_of_xla_reach_only_who_asks_for_them(level, alarms):
    hidden = {"JAX_DISABLE_MOST_OPTIMIZATIONS", "TF_CPP_MIN_LOG_LEVEL"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    found = python(["-c", ALARM], env=env | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | level)
    assert found.returncode == 0
    assert found.stderr.count("slow_operation_alarm") == alarms
    assert bool(found.stderr) == bool(alarms)
