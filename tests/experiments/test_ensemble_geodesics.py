"""Shortest paths of several decoders: what is measured of them, and of which codes."""

import json
import shlex

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generators import train_vae
from experiments.latent_oddity import ensemble_geodesics, geodesics
from experiments.latent_oddity.paths import Paths
from latent_flows.generators import freeze
from tests.experiments.test_train_vae import FLAGS

SMALL = shlex.split(
    "digits --codes 40 --geodesics.pairs 3 --geodesics.segments 4 --geodesics.off 5 "
    "--geodesics.shown 2 --geodesics.strips 1 --geodesics.neighbours 4 --classifier.steps 2 "
    "--classifier.batch-size 16"
)


def test_paths_are_compared_with_straight_lines_in_the_expected_metric():
    # Members differ by z, so that they disagree the more the farther out.
    both = freeze(lambda z: 2 * z, 2, members=lambda z: jnp.stack([z, 3 * z]))
    line = np.linspace([0.0, 0.0], [1.0, 0.0], 5, dtype=np.float32)
    bent = np.stack([line[:, 0], [0, 1, 1, 1, 0]], axis=1).astype(np.float32)
    paths = {
        name: Paths(points[None], np.array([True]), {})
        for name, points in {"ensemble": bent, "euclidean": line}.items()
    }
    found, straight = ensemble_geodesics.measure(both, paths)
    assert found["of_straight"] == pytest.approx(2 * np.sqrt(1 + 1 / 16) + 0.5, rel=0.03)
    assert straight["of_straight"] == 1
    assert found["disagreement"] > straight["disagreement"] > 0


@pytest.mark.slow
def test_an_ensemble_is_measured_by_the_claims_of_the_paper(tmp_path, call):
    ensemble = ("--vae.decoders", 2, "--run", tmp_path / "vae")
    assert call(train_vae, *FLAGS, "--vae.latent-dim", 2, *ensemble)[0] == 0
    words = (*SMALL, "--generator", tmp_path / "vae", "--run", tmp_path / "run")
    code, out, err = call(geodesics, *words)
    assert (code, err) == (0, "")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    (volume,) = metrics["volume"]
    assert volume["deviation"] == "ensemble of decoders"
    assert 0 <= volume["far_above"] <= 1
    shortest, straight = metrics["paths"]
    assert (shortest["path"], straight["path"]) == ("geodesic", "straight line")
    assert shortest["length_ensemble"] <= straight["length_ensemble"] * (1 + 1e-5)
    assert {"gap", "lowest_confidence", "of_straight", "disagreement"} <= {*shortest}
    # The same command prints it again, and computes nothing.
    assert call(geodesics, *words)[:2] == (0, out[out.index("Paths between") :])
