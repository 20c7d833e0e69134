"""Averages over runs: what belongs together, and what is refused."""

import json
import statistics
from pathlib import Path

import pytest

from experiments.results import summary


def folder(path, metrics, experiment="experiments.toy"):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"experiment": experiment, "config": {}}))
    if metrics is not None:
        (path / "metrics.json").write_text(json.dumps(metrics))
    return str(path)


def test_rows_are_matched_by_their_words_and_numbers_averaged():
    runs = [
        [
            {"method": "a", "at": "long", "x": 1.0, "who": ["p"]},
            {"method": "b", "at": "long", "x": 0},
        ],
        [{"method": "b", "at": "long", "x": 4}, {"method": "a", "at": "long", "x": 3.0, "who": []}],
        [{"method": "a", "at": "long", "x": 8.0}, {"method": "b", "at": "long", "x": 5}],
    ]
    deviation = statistics.stdev([1.0, 3.0, 8.0])
    assert summary.average(runs) == [
        {"method": "a", "at": "long", "x": f"4 ± {deviation:.4g}"},
        {"method": "b", "at": "long", "x": f"3 ± {statistics.stdev([0, 4, 5]):.4g}"},
    ]


def test_what_one_run_lacks_is_left_out():
    with_y = [{"method": "a", "x": 1.0, "y": 1.0}, {"method": "b", "x": 1.0}]
    without = [{"method": "a", "x": 1.0, "y": None}]
    assert summary.average([with_y, without]) == [{"method": "a", "x": "1 ± 0"}]


def test_the_tables_of_runs_are_printed(tmp_path, capsys):
    runs = [
        folder(tmp_path / str(i), {"generator": {"elbo": -100.0 - i}, "rows": [{"m": "a", "x": i}]})
        for i in range(2)
    ]
    summary.run(summary.Config(tuple(runs)))
    printed = capsys.readouterr().out
    assert "-100.5 ± 0.7071" in printed
    assert "0.5 ± 0.7071" in printed


@pytest.mark.parametrize(
    ("makes", "message"),
    [
        ([{"x": 1}], "at least two run folders, got 1"),
        ([{"x": 1}, None], "has no metrics.json; run it to its end first"),
    ],
)
def test_what_cannot_be_averaged_is_refused(tmp_path, makes, message):
    runs = tuple(folder(tmp_path / str(i), metrics) for i, metrics in enumerate(makes))
    with pytest.raises(summary.UsageError, match=message):
        summary.run(summary.Config(runs))


@pytest.mark.parametrize("again", ["a", "a/", "../x/a", "link"])
def test_one_run_is_not_two(tmp_path, again, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    folder(tmp_path / "x" / "a", {"x": 1})
    (tmp_path / "x" / "link").symlink_to(tmp_path / "x" / "a")
    with pytest.raises(summary.UsageError, match=f"a and {again} are one run"):
        summary.run(summary.Config(("a", again)))


def test_a_copy_of_a_run_is_named_as_such(tmp_path, capsys):
    runs = tuple(folder(tmp_path / name, {"x": 1}) for name in "ab")
    for run in runs:
        content = {"experiment": "experiments.toy", "config": {"seed": 0}}
        (Path(run) / "config.json").write_text(json.dumps(content))
    summary.run(summary.Config(runs))
    assert capsys.readouterr().err == (
        f"warning: {runs[0]} and {runs[1]} have the same settings and seed: their deviation says "
        "nothing\n"
    )


@pytest.mark.parametrize("content", ["[1, 2]", "null", "", "nonsense"])
def test_metrics_that_are_no_object_are_one_line(tmp_path, content):
    runs = tuple(folder(tmp_path / name, {"x": 1}) for name in "ab")
    (tmp_path / "b" / "metrics.json").write_text(content)
    with pytest.raises(summary.UsageError, match=r"b/metrics.json (holds|is no JSON)"):
        summary.run(summary.Config(runs))


def test_runs_of_several_experiments_are_refused(tmp_path):
    runs = (
        folder(tmp_path / "a", {"x": 1}),
        folder(tmp_path / "b", {"x": 1}, "experiments.other"),
    )
    with pytest.raises(summary.UsageError, match="several experiments"):
        summary.run(summary.Config(runs))


def test_only_the_measures_asked_for_are_shown(tmp_path, capsys):
    metrics = {"methods": [{"method": "a", "x": 1.0, "y": 7.25}], "other": [{"of": "b", "z": 3.0}]}
    runs = tuple(folder(tmp_path / name, metrics) for name in "pq")
    summary.run(summary.Config(runs, measures=("x",)))
    shown = capsys.readouterr().out
    assert "methods" in shown
    assert "1 ± 0" in shown
    assert "7.25" not in shown
    assert "other" not in shown
    with pytest.raises(ValueError, match="unknown measure 'w'"):
        summary.run(summary.Config(runs, measures=("w",)))
