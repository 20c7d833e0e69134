"""Experiments on a generator of one's own: the page about it, and what every experiment refuses."""

import json
import re
import shlex
from pathlib import Path

import pytest

from experiments.directions import train as directions
from experiments.latent_oddity import clustering, geodesics
from experiments.potential_flows import train as potential_flows
from experiments.potential_flows import traverse
from experiments.runtime import cli
from experiments.supervised_flows import train as guided

ROOT = Path(__file__).parents[2]
FLAGS = shlex.split(
    "gan --flows.count 2 --flows.horizon 2 --flows.width 4 --flows.depth 1 --flows.codes 32 "
    "--flows.bank 16 --training.steps 2 --training.warmup 0 --training.batch-size 8 "
    "--training.log-every 1 --training.checkpoint-every 2 --scores.starts 4 --scores.pairs 20 "
    "--scores.fractions 0.2 --scores.seeds 1 --scores.vp-steps 5"
)
OWN = """
import jax.numpy as jnp

def sized(z):
    return jnp.full((4, 4, 1), 0.5) + 0.01 * z[0]

sized.latent_dim = 10**6

def great(z):
    return jnp.ones((100_000, 100_000, 3)) * z[0]
"""


@pytest.fixture(autouse=True)
def _quick(compile_quickly):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    """The flows of the generator that the documentation begins with."""
    folder = tmp_path_factory.mktemp("own")
    page = (ROOT / "docs" / "generators.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (folder / "blob.py").write_text(block[1], encoding="utf-8")
    flags = [*FLAGS, "--generator.path", f"{folder / 'blob.py'}:blob", "--run", folder / "run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        presets, words = potential_flows.PRESETS, [str(flag) for flag in flags]
        assert cli.main(potential_flows.run, presets, words) == 0
    return folder


@pytest.mark.slow
def test_the_generator_of_the_documentation_is_traversed_and_measured(whole):
    assert len((whole / "blob.py").read_text().splitlines()) <= 15
    metrics = json.loads((whole / "run" / "metrics.json").read_text())
    assert "generator" not in metrics  # no encoder, so no bound
    assert metrics["potentials"]["solved"] == 1
    found = [row["method"] for row in metrics["comparison"] if row["displacement"] == "long"]
    assert found == [
        "potentials",
        "random directions",
        "latent coordinates",
        "GANSpace",
        "most visible axes",
    ]
    for row in metrics["comparison"]:
        assert 0 <= row["vp@20%"] <= 1
        assert row["length"] > 0
    for name in ("traversals", "landscapes", "losses_flows"):
        assert (whole / "run" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_flows_of_any_generator_can_be_drawn_again(whole, call):
    before = (whole / "run" / "traversals.png").read_bytes()
    assert call(traverse, whole / "run", "--start", "3")[0] == 0
    assert (whole / "run" / "traversals.png").read_bytes() != before


@pytest.mark.slow
def test_flows_can_be_learnt_again_on_the_generator_of_earlier_ones(whole, tmp_path, call):
    flags = [*FLAGS, "--generator", whole / "run", "--run", tmp_path / "run"]
    assert call(potential_flows, *flags)[0] == 0
    first, second = (json.loads((p / "run/metrics.json").read_text()) for p in (whole, tmp_path))
    assert first["comparison"] == second["comparison"]


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (
            ("--generator.path", "own.py:sized"),
            (
                "latents of 1000000 numbers with 1024 matrices of their size takes at least",
                "GiB are free; take a generator of fewer latent dimensions, or lower --flows.codes",
            ),
        ),
        (
            ("--generator.path", "own.py:great", "--generator.latent-dim", "2"),
            (
                "a few samples of own.py:great (4 of (100000, 100000, 3)) takes at least 447 GiB",
                "GiB are free; make them smaller",
            ),
        ),
    ],
    ids=["latents", "images"],
)
def test_what_is_too_large_for_the_memory_is_refused_at_once(
    flags, messages, tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    code, out, err = call(potential_flows, "gan", *flags, "--run", "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert all(message in err for message in messages), err
    assert not Path("run").exists()


EXPERIMENTS = [potential_flows, directions, guided, geodesics, clustering]


@pytest.mark.parametrize("module", EXPERIMENTS, ids=lambda module: module.__name__)
@pytest.mark.parametrize("path", ["README.md", "README.md/x", "empty", "nowhere"])
def test_a_generator_that_is_no_run_folder_is_one_line(module, path, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("# Title")
    Path("empty").mkdir()
    code, out, err = call(module, "--generator", path, "--run", "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert path in err
    assert not Path("run").exists()


@pytest.mark.parametrize("module", EXPERIMENTS, ids=lambda module: module.__name__)
def test_two_generators_are_one_too_many(module, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    path = ("--generator.path", "own.py:good", "--generator.latent-dim", "3")
    code, out, err = call(module, "--generator", "R", *path, "--run", "run")
    assert (code, out) == (2, "")
    assert err == (
        "error: --generator R and --generator.path own.py:good name two generators; leave one of "
        "them out\n"
    )
    assert not Path("run").exists()
