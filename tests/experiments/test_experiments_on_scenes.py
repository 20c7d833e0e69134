"""What the experiments make of scenes: hues go round, and attributes are steered by themselves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_generators import small_vae

from experiments.generators.bounds import measure
from experiments.potential_flows.scores import reencoding
from experiments.steer import train as steer
from latent_flows import data
from latent_flows.data import ImageFactor, Measures, scenes
from latent_flows.evaluation.comparison import dominated_factors
from latent_flows.evaluation.traversals import Traversal
from latent_flows.generators import GeneratorSpec, load_generator

SIZE = 16


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A VAE of scenes that has learnt nothing."""
    return small_vae(tmp_path_factory.mktemp("generators") / "vae", "scenes", size=SIZE)


def test_a_hue_that_passes_red_is_what_a_traversal_changes():
    # One pixel that holds the values themselves.
    values = [lambda image, k=k: image[0, 0, k] for k in range(2)]
    measures = Measures(
        (ImageFactor("hue", "turns", values[0], period=1.0), ImageFactor("x", "", values[1]))
    )
    samples = jnp.array([[0.95, 0.5], [0.1, 0.6]])[None, None, :, None, None]
    nothing = jnp.zeros((1, 1))
    parts = {name: samples if name == "samples" else nothing for name in Traversal._fields}
    parts["ok"] = jnp.ones((1, 1), bool)
    found = dominated_factors(Traversal(**parts), measures, jnp.ones(2))
    assert found["winners"] == ["hue"]
    assert found["signs"] == [1.0]
    np.testing.assert_allclose(found["changes"], [[0.15, 0.1]], atol=1e-6)


def test_what_is_seen_of_drawn_data_is_measured_on_them():
    drawn = data.DRAWN["scenes"]
    assert set(drawn.shown) <= set(drawn.names) & set(scenes.MEASURES.factor_names)
    assert len(drawn.spans) == len(drawn.grid) == len(drawn.names)


@pytest.mark.slow
def test_a_vae_of_scenes_is_measured_by_its_error_and_its_factors(vae):
    generator = load_generator(GeneratorSpec(str(vae)))
    test = data.load("scenes", split="test", size=SIZE)
    found = measure(generator, test, count=40, samples=2, noise=0.0, seed=0)
    assert {f"linear_r2_{name}" for name in data.DRAWN["scenes"].shown} < set(found)
    assert 0 < found["rmse"] < 1
    assert "iou" not in found
    family = reencoding(generator, data.DRAWN["scenes"], 3)
    assert family.starts.shape == (5, 3, 6)
    assert jax.eval_shape(family.generator, family.starts[0, 0]).shape == (SIZE, SIZE, 3)


@pytest.mark.slow
def test_attributes_are_steered_and_compared_with_lines(call, compile_quickly, vae, tmp_path):
    run = tmp_path / "run"
    words = ["scenes", "--generator", vae, "--run", run, "--starts", "2", "--amounts", "1"]
    words += ["--candidates", "1", "--attributes", "wall_hue", "scale"]
    code, out, _ = call(steer, *words)
    assert code == 0
    for name in ("attribute_wall_hue", "attribute_scale", "attributes"):
        assert (run / f"{name}.png").stat().st_size > 1000
    rows = json.loads((run / "metrics.json").read_text())["attributes"]
    assert next(row["method"] for row in rows) == "steered, others held"
    assert {row["attribute"] for row in rows} == {"wall_hue", "scale"}
    assert out.count("wall_hue") > 1  # in the table, and the name of the picture


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--attributes", "wal_hue"], "did you mean 'wall_hue'?"),
        (["--attributes", "scale", "scale"], "attributes must differ"),
        (["--attribute-share", "0.5"], "attribute_share must lie in (0, 0.5)"),
    ],
)
def test_wrong_attributes_are_one_line_and_nothing_is_written(call, vae, tmp_path, flags, message):
    run = tmp_path / "run"
    code, _, err = call(steer, "scenes", "--generator", vae, *flags, "--run", run)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not run.exists()
