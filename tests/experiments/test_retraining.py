"""Experiments on ensembles of decoders: geodesics among them, and what training again changes."""

import json
import shlex

import numpy as np
import pytest

from experiments.latent_oddity import geodesics, retraining
from experiments.latent_oddity.retraining import Config, summary, variation
from tests.experiments.small_generators import small_vae

FEW = shlex.split("--codes 40 --geodesics.pairs 3 --geodesics.segments 4 --geodesics.strips 1")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    return small_vae(tmp_path_factory.mktemp("vae") / "run", latent_dim=2, decoders=3)


@pytest.mark.slow
def test_geodesics_of_an_ensemble_need_no_deviation(ensemble, tmp_path, call):
    code, out, err = call(
        geodesics, "digits", "--generator", ensemble, *FEW, "--run", tmp_path / "run"
    )
    assert code == 0, err
    assert "disagreement" in out
    path, line = json.loads((tmp_path / "run" / "metrics.json").read_text())["paths"]
    assert (path["path"], line["path"]) == ("geodesic", "straight line")
    assert path["length"] <= 1.001 * line["length"]
    assert path["disagreement"] > 0
    for picture in ("latent", "strips"):
        assert (tmp_path / "run" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("decoders", "flags", "message"),
    [
        (1, ["--decoders", "one"], "the VAE of digits has one decoder, and --decoders one and"),
        (1, ["--decoders", "both"], "both"),
        (3, ["--decoders", "mean"], "has no deviation of its noise (rbf and network)"),
        (
            3,
            ["--decoders", "independent", "--geodesics.features", "numpy:ravel"],
            "--geodesics.features and --decoders independent exclude each other",
        ),
    ],
)
def test_what_an_ensemble_is_not_asked_for_is_one_line_and_code_2(
    decoders, flags, message, tmp_path, call
):
    vae = small_vae(tmp_path / "vae", latent_dim=2, decoders=decoders)
    run = tmp_path / "run"
    code, _, err = call(geodesics, "digits", "--generator", vae, *FEW, *flags, "--run", run)
    assert code == 2
    assert message in err
    assert not run.exists()


def test_the_variation_is_the_deviation_over_the_mean_of_each_pair():
    lengths = np.array([[1.0, 2.0, 5.0], [3.0, 2.0, 15.0], [2.0, 2.0, 10.0]])
    np.testing.assert_allclose(variation(lengths), [0.5, 0, 0.5])
    ones = {"converged": np.ones(3)}
    found = [
        {"Euclidean": {"length": row}, "2 decoders": {"length": 1 + 0 * row, **ones}}
        for row in lengths
    ]
    for one, row in zip(found, lengths, strict=True):
        free = {"length": row, "root_energy": 2 + 0 * row, **ones}
        one["2 decoders, independent draws"] = free
    euclidean, other, *free = summary(found)["distances"]
    assert [row["distance"] for row in free] == [
        "2 decoders, independent draws",
        "2 decoders, independent draws, by energy",
        "2 decoders, independent draws, plus a constant",
    ]
    assert [row["variation"] for row in free[:2]] == pytest.approx([1 / 3, 0])
    # Nothing is added where draws add nothing.
    assert free[2]["variation"] == pytest.approx(free[0]["variation"])
    spread = np.std([2, 2, 10], ddof=1) / np.mean([1, 0, 5])
    assert euclidean["told_apart"] == pytest.approx(spread)
    assert euclidean["variation"] == pytest.approx(1 / 3)
    assert (other["variation"], other["converged"]) == (0, 1)
    assert other["less_than_euclidean"] == pytest.approx(1 / 3)
    assert other["its_standard_error"] == pytest.approx(np.std([0.5, 0, 0.5], ddof=1) / 3**0.5)


def test_a_constant_lowers_the_variation_of_distances_and_tells_none_apart():
    lengths = np.random.default_rng(0).uniform(1, 3, size=(5, 8))
    assert variation(lengths + 10).mean() < variation(lengths).mean() / 3
    assert retraining.told_apart(lengths + 10) == pytest.approx(retraining.told_apart(lengths))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--members", 1, 9], "members must lie in [1, vae.decoders = 8], got (1, 9)"),
        (["--members", 0], "members must lie in [1, vae.decoders = 8], got (0,)"),
        (["--members", 2, 2], "members must hold each value once, got (2, 2)"),
        (["--retrainings", 101], "retrainings must be at most 100, got 101"),
        (["--retrainings", 1], "retrainings must be at least 2, got 1"),
        (["--training.batch-size", 5000], "training.batch_size (5000) is more than the 1437 ex"),
    ],
)
def test_what_cannot_be_retrained_is_one_line_and_code_2(flags, message, tmp_path, call):
    code, _, err = call(retraining, "digits", *flags, "--run", tmp_path / "run")
    assert code == 2
    assert message in err
    assert not (tmp_path / "run").exists()


def test_no_two_retrainings_of_any_runs_share_a_seed():
    seeds = [
        retraining.seed_of(Config(seed=seed, retrainings=4), place)
        for seed in range(3)
        for place in range(4)
    ]
    assert len({*seeds}) == len(seeds)


SMALL = shlex.split(
    "digits --retrainings 2 --pairs 3 --segments 4 --vae.width 2 --vae.decoders 2 --members 1 2 "
    "--training.steps 4 --training.warmup 0 --deviation.training.steps 2 "
    "--deviation.training.warmup 0 --deviation.codes 60 --deviation.centres 4"
)


@pytest.mark.slow
def test_a_run_compares_distances_and_goes_on_where_it_was_stopped(tmp_path, call, monkeypatch):
    code, out, err = call(retraining, *SMALL, "--run", tmp_path)
    assert code == 0, err
    assert "Coefficient of variation of 3 distances over 2 retrainings" in out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    names = [row["distance"] for row in metrics["distances"]]
    drawn = "2 decoders, independent draws"
    ways = [drawn, f"{drawn}, by energy", f"{drawn}, plus a constant"]
    assert names == ["Euclidean", "1 decoder", "2 decoders", *ways, "RBF"]
    for picture in ("variation", "map"):
        assert (tmp_path / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    for name in ("metrics", "distances-1"):
        (tmp_path / f"{name}.json").unlink()
    code, _, err = call(retraining, *SMALL, "--run", tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
