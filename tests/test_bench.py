"""All benchmarks end in one table, which keeps what is finished."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bench, matmul
from benchmarks.bench import Measured
from benchmarks.command import MismatchError, command, write_json
from benchmarks.laplacian import Config, main
from benchmarks.ratio import Ratio, compared
from benchmarks.suite import Benchmark, Settings, UnfinishedError, in_process, run
from benchmarks.turns import patient_turns, turns

MACHINE = {"device": "cpu", "cores": 2}
FIRST, SECOND = Benchmark("first", ("--size", "2"), 1.0), Benchmark("second", (), 1.0)
ROW = Ratio("a step", "torch", "s", 0.5, 1.0, 2.0, 1.9, 2.2, 3)


class Measure:
    """Writes one ratio for each benchmark, and remembers which ran."""

    def __init__(self, ratio=2.0, fails=()):
        self.ratio, self.fails, self.ran = ratio, fails, []

    def __call__(self, one, file, seconds):
        assert seconds > 0
        self.ran.append(one.name)
        if one.name in self.fails:
            raise UnfinishedError("failed with exit code 1")
        row = ROW._replace(name=one.name, ratio=self.ratio)
        write_json(file, {"config": {}, "rows": [], "ratios": [row._asdict()]})


@pytest.fixture
def settings(tmp_path):
    return Settings(out=str(tmp_path / "bench"))


def bench_all(settings, measure, suite=(FIRST, SECOND)):
    return run(settings, suite, measure, MACHINE)


def table(settings):
    with open(f"{settings.out}/bench.json") as file:
        return json.load(file)


def test_the_ratios_of_all_benchmarks_are_in_one_table(settings):
    assert bench_all(settings, Measure()) == 0
    found = table(settings)
    assert [(row["benchmark"], row["ratio"]) for row in found["ratios"]] == [
        ("first", 2.0),
        ("second", 2.0),
    ]
    assert found["machine"] == MACHINE
    with open(f"{settings.out}/bench.md") as file:
        assert "| second | second | torch | 0.5 | 1 | s | 2 | 1.9 to 2.2 | 3 |" in file.read()
    assert {*os.listdir(settings.out)} == {"bench.json", "bench.md", "first.json", "second.json"}


def test_what_is_finished_is_kept_and_what_failed_is_tried_again(settings, capsys):
    assert bench_all(settings, Measure(fails=["second"])) == 1
    assert table(settings)["missing"] == {"second": "failed with exit code 1"}
    assert "the same command goes on" in capsys.readouterr().err
    second = Measure()
    assert bench_all(settings, second) == 0
    assert second.ran == ["second"]
    assert table(settings)["missing"] == {}


def test_other_flags_another_machine_or_again_measure_anew(settings):
    bench_all(settings, Measure())
    changed = Measure()
    bench_all(settings, changed, (FIRST._replace(flags=()), SECOND))
    assert changed.ran == ["first"]
    elsewhere = Measure()
    run(settings, (FIRST, SECOND), elsewhere, MACHINE | {"cores": 3})
    assert elsewhere.ran == ["first", "second"]
    again = Measure()
    run(replace(settings, again=True), (FIRST, SECOND), again, MACHINE | {"cores": 3})
    assert again.ran == ["first", "second"]


def test_what_is_not_asked_for_stays_in_the_table(settings):
    assert bench_all(replace(settings, benchmarks=("second",)), Measure()) == 0
    assert table(settings)["missing"] == {"first": "not measured yet"}
    first = Measure()
    assert bench_all(replace(settings, benchmarks=("first",)), first) == 0
    assert first.ran == ["first"]
    assert [row["benchmark"] for row in table(settings)["ratios"]] == ["first", "second"]


def test_a_second_run_says_which_ratios_left_their_spread(settings, capsys):
    bench_all(settings, Measure())
    bench_all(replace(settings, again=True), Measure(ratio=2.1))
    assert "2 of 2 ratios lie within" in capsys.readouterr().out
    bench_all(replace(settings, again=True), Measure(ratio=9.0))
    said = capsys.readouterr().out
    assert "0 of 2 ratios lie within" in said
    assert "outside: first, against torch: 9" in said


def test_nothing_is_begun_after_the_time_is_over(settings):
    late = replace(settings, minutes=1e-9)
    measure = Measure()
    assert bench_all(late, measure) == 1
    assert measure.ran == []
    assert "not begun within" in table(late)["missing"]["first"]


def test_what_needs_a_missing_package_is_left_out_in_one_line(settings, capsys):
    needy = SECOND._replace(needs=("no_such_package",))
    assert bench_all(settings, Measure(), (FIRST, needy)) == 0
    assert "second is left out: no_such_package not installed" in capsys.readouterr().out
    assert "second" in table(settings)["missing"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"benchmarks": ("frist",)}, "did you mean 'first'?"),
        ({"minutes": 0.0}, "--minutes must be positive"),
        ({"out": "/dev/null/bench"}, "cannot be written"),
    ],
)
def test_a_wrong_setting_is_one_line(settings, capsys, flags, message):
    with pytest.raises(SystemExit) as stopped:
        bench_all(replace(settings, **flags), Measure())
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_a_benchmark_that_does_not_end_is_ended_with_what_it_started(tmp_path, monkeypatch):
    # A program that leaves a child behind which holds a file open for as long as it lives.
    left = tmp_path / "left"
    child = f"import time; open({str(left)!r}, 'w').write('x'); time.sleep(60)"
    script = tmp_path / "slow.py"
    script.write_text(
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(UnfinishedError, match="before the time was over"):
        in_process(FIRST, tmp_path / "found.json", 2.0)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(pid)


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(tmp_path):
    words = [sys.executable, "-m", "benchmarks", "laplacian", "--out", str(tmp_path)]
    # Deaf to Ctrl-C, as what a script starts in the background is.
    words = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "[1/1] laplacian" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == (
        "interrupted: what is finished is kept, and the same command goes on with the rest\n"
    )


@pytest.mark.slow
def test_a_real_benchmark_ends_in_the_table(settings):
    flags = ("--dims", "2", "--widths", "4", "--repeats", "3", "--no-gradient", "--samples", "1")
    assert run(settings, (Benchmark("laplacian", flags, 5.0),)) == 0
    found = table(settings)["ratios"]
    assert [row["against"] for row in found] == ["hessian", "hutchinson, 1"]
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in found)
    assert all(row["turns"] == 3 for row in found)


def test_a_benchmark_gives_its_rows_as_data(tmp_path, monkeypatch, capsys):
    file = tmp_path / "found.json"
    flags = [
        "--dims",
        "2",
        "--widths",
        "4",
        "--repeats",
        "3",
        "--no-gradient",
        "--samples",
        "1",
        "--batch",
        "2",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["laplacian", *flags, str(file)])
    with pytest.raises(SystemExit) as ended:
        command(main, None, Config)
    assert ended.value.code == 0
    found = json.loads(file.read_text())
    assert found["config"]["dims"] == [2]
    assert [row["method"] for row in found["rows"]] == ["hessian", "forward", "hutchinson, 1"]
    assert [row["against"] for row in found["ratios"]] == ["hessian", "hutchinson, 1"]
    assert "times forward" in capsys.readouterr().out


def test_a_file_in_no_folder_is_refused_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["laplacian", "--json", "/no/such/folder/found.json"])
    with pytest.raises(SystemExit) as ended:
        command(main, None, Config)
    assert ended.value.code == 2
    assert "there is no folder /no/such/folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("no\nsuch size"), 2), (MismatchError("no\nsuch size"), 1)]
)
def test_what_cannot_be_measured_is_one_line(error, code, monkeypatch, capsys):
    def refuse(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["laplacian"])
    with pytest.raises(SystemExit) as ended:
        command(refuse, None, Config)
    assert ended.value.code == code
    assert capsys.readouterr().err == "error: no such size\n"


def test_sides_take_turns_and_the_first_one_is_not_counted():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    found = turns(sides, (), 3, least=0.0)
    assert order == ["a", "b"] * 4
    assert [len(taken) for taken in found.values()] == [3, 3]


def test_what_is_over_at_once_is_called_often_in_a_turn():
    calls = []
    ticks = iter(np.arange(100) / 8)
    found = turns({"": lambda: calls.append(1)}, (), 2, least=0.5, clock=lambda: next(ticks))
    # A tick of an eighth of a second: one call not counted, then two turns of five.
    assert len(calls) == 1 + 2 * 5
    assert found[""] == pytest.approx([1 / 40, 1 / 40])


def test_slow_sides_take_at_least_three_turns():
    sides = {"slow": lambda: time.sleep(0.02)}
    assert len(patient_turns(sides, 9, 0.0)["slow"]) == 3
    assert len(patient_turns(sides, 4, 60.0)["slow"]) == 4


def test_a_ratio_is_that_of_the_same_turn_and_not_of_medians():
    # The machine is ten times slower in the second turn, which meets both.
    [row] = compared("a step", {"us": [1.0, 10.0, 1.0], "them": [3.0, 30.0, 3.0]}, ours="us")
    assert (row.ratio, row.low, row.high) == (3.0, 3.0, 3.0)


def test_a_ratio_is_outside_only_of_what_was_stated_of_the_same():
    other = ROW._replace(name="another step")
    assert bench.outside([ROW], [ROW._replace(ratio=2.15), other._replace(ratio=9.0)]) == []
    assert bench.outside([ROW], [ROW._replace(ratio=2.3)]) == [ROW._replace(ratio=2.3)]


def test_the_page_names_what_is_missing():
    text = bench.page(MACHINE, [Measured("steps", [ROW], 9.0)], {"gan_step": "not measured yet"})
    assert "- missing: gan_step, not measured yet" in text


def test_operations_of_products_count_loops_as_often_as_they_go_round():
    a = jnp.ones((4, 4))
    once = 2 * 4**3

    def loop(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(a @ x), None), x, length=5)[0]

    assert matmul.operations(loop, a) == 5 * once
    assert matmul.operations(jax.jit(jax.grad(lambda x: loop(x).sum())), a) == 10 * once
    assert matmul.operations(jax.vmap(lambda x: a @ x), jnp.ones((3, 4))) == 3 * 2 * 4**2


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_operations_of_convolutions_are_those_of_their_kernels(strides):
    image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))

    def convolve(image):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            image, kernel, strides, "SAME", dimension_numbers=layout
        )

    pixels = 64 // (strides[0] * strides[1])
    forward = 2 * 2 * pixels * 5 * 3 * 9
    assert matmul.operations(convolve, image) == forward
    # Back to the image it is as much again.
    both = matmul.operations(jax.grad(lambda image: convolve(image).sum()), image)
    assert both == pytest.approx(2 * forward)


def test_a_product_reaches_its_own_rate():
    product = matmul.Product(64)
    share = matmul.share_of_product("itself", product.operations, [2.0, 4.0], product, [2.0, 4.0])
    assert (share.ratio, share.low, share.high) == (1.0, 1.0, 1.0)
    assert "100% (100% to 100%)" in matmul.said(share)
    assert matmul.operations(jnp.matmul, *product.matrices) == product.operations
