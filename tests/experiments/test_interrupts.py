"""Signals that stop a run: at every moment of its life, by one line and the shell's exit code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import indent

import pytest

from experiments.runtime import interrupts

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
EACH = pytest.mark.parametrize("number", CODES)
TWICE = """import ctypes
take, lock = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
take(lock)
take(lock)"""
HASHED = "import hashlib\nhashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
SLOW = TWICE if sys.platform == "linux" else HASHED
"""A call in which Python hears of no signal, as in the compiler: on Linux one that takes no time of
the processor, for a lock that is never given back."""


@pytest.fixture(autouse=True)
def hears_of_its_terminal():
    """A process inherits what is ignored: this one may have been started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def start(*argv, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
    )


def program(body, *argv):
    """A process that runs an experiment of the given body, which prints a line when it is ready."""
    lines = [
        "import sys, time",
        "from experiments.runtime.cli import main",
        "from tests.experiments import toy",
        "def run(config):",
        *("    " + line for line in body.splitlines()),
        "sys.exit(main(run, toy.PRESETS))",
    ]
    process = start("-c", "\n".join(lines), *argv)
    process.stdout.readline()
    return process


def stop(process, *numbers, pause=0.5):
    for i, number in enumerate(numbers):
        time.sleep(pause if i else 0.1)
        process.send_signal(number)
    begun = time.monotonic()
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err, time.monotonic() - begun


@EACH
def test_during_the_imports_it_is_one_line(tmp_path, number):
    (tmp_path / "jax.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)")
    process = start("-m", "experiments.train_vae", "digits", "--seed", 3, PYTHONPATH=str(tmp_path))
    assert process.stdout.readline() == "importing\n"
    code, _, err, _ = stop(process, number)
    assert code == CODES[number]
    assert err == (
        "interrupted: nothing was saved yet; to start again, run: "
        "python -m experiments.train_vae digits --seed 3\n"
    )


def test_an_exception_that_a_callback_swallows_is_raised_again():
    process = program(
        "class Callback:\n"
        "    def __del__(self):\n"
        "        print('in', flush=True)\n"
        "        time.sleep(60)\n"
        "Callback()\n"
        "time.sleep(60)"
    )
    code, _, err, seconds = stop(process, signal.SIGTERM)
    assert (code, err.count("\n")) == (143, 1)
    assert err.startswith("interrupted: nothing was saved yet; to start again, run: ")
    assert seconds < 20


def test_an_exception_that_a_library_turns_into_its_own_is_still_an_interrupt():
    process = program(
        "try:\n"
        "    print('in', flush=True)\n"
        "    time.sleep(60)\n"
        "except BaseException as error:\n"
        "    raise RuntimeError('callback failed') from error"
    )
    code, _, err, _ = stop(process, signal.SIGINT)
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("interrupted: ")


def test_where_python_hears_of_nothing_the_process_ends_all_the_same():
    process = program(f"print('in', flush=True)\n{SLOW}")
    code, _, err, seconds = stop(process, signal.SIGINT)
    assert (code, err.count("\n")) == (130, 1)
    assert interrupts.PATIENCE - 1 < seconds < 30


def test_a_second_ctrl_c_stops_at_once_also_where_a_step_is_waited_for():
    process = program(
        f"from experiments import interrupts\nwith interrupts.deferred():\n"
        f"    print('in', flush=True)\n{indent(SLOW, '    ')}"
    )
    code, _, err, seconds = stop(process, signal.SIGINT, signal.SIGINT)
    assert (code, err.count("\n")) == (130, 1)
    assert seconds < interrupts.PATIENCE - 1


@pytest.mark.slow
def test_what_is_sent_twice_lets_the_run_put_its_things_in_order():
    # A shell, and a terminal that is closed.
    process = program(
        "try:\n"
        "    print('in', flush=True)\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    time.sleep(1)\n"
        "    print('in order', flush=True)"
    )
    code, out, _, _ = stop(process, signal.SIGHUP, signal.SIGHUP)
    assert (code, out) == (129, "in order\n")


def test_two_that_come_together_are_one():
    process = program(
        "from experiments import interrupts\n"
        "with interrupts.deferred() as asked:\n"
        "    print('in', flush=True)\n"
        "    asked.wait()\n"
        "    time.sleep(1)\n"
        "    print('saved', flush=True)"
    )
    code, out, _, _ = stop(process, signal.SIGINT, signal.SIGINT, pause=0.02)
    assert (code, out) == (130, "saved\n")


def test_before_the_first_step_nothing_is_said_to_be_saved(tmp_path):
    path = tmp_path / "run"
    process = start("-m", "tests.experiments.toy", "--run", path, "--sleep", "60")
    while not (path / "tensorboard" / "line").exists():  # it waits for the first batch
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    code, _, err, _ = stop(process, signal.SIGTERM)
    assert code == 143
    assert err == (
        "interrupted: nothing was saved yet; to start again, run: "
        f"python -m tests.experiments.toy --run {path} --sleep 60\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")
def test_a_run_whose_terminal_is_closed_saves_the_step_just_done(tmp_path):
    import pty

    path = tmp_path / "run"
    argv = [sys.executable, "-m", "tests.experiments.toy", "long", "--run", str(path)]
    starter = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", starter, *argv])
    seen = b""
    while b"steps/s" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert [step.name for step in (path / "checkpoints" / "line").iterdir()]


def test_the_handlers_of_a_process_that_goes_on_are_put_back():
    before = [signal.getsignal(number) for number in interrupts.STOPS]
    interrupts.enter(lambda: "")
    assert signal.getsignal(signal.SIGTERM) != before[1]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.arrived() == 143
    interrupts.leave()
    assert [signal.getsignal(number) for number in interrupts.STOPS] == before
    assert not interrupts.is_asked()


def test_what_is_ignored_by_nohup_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupts.enter(lambda: "")
        signal.raise_signal(signal.SIGHUP)
        interrupts.leave()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
