"""Steering from the command line to the pictures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_generators import small_vae

from experiments.steer import compared, scores
from experiments.steer import train as steer
from latent_flows import traversals
from latent_flows.data.image_factors import SIZE, ImageFactor
from latent_flows.directions.transformations import ENTRIES
from latent_flows.evaluation.image_control import Subject
from latent_flows.generators import freeze

FLAGS = [
    *("--transformations", "translate_x", "--ts", "0.1", "--starts", "2", "--amounts", "1"),
    *("--candidates", "1", "--blur", "1"),
]


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A VAE of digits that has learnt nothing."""
    return small_vae(tmp_path_factory.mktemp("generators") / "vae")


def test_a_run_leaves_its_numbers_and_pictures(call, compile_quickly, vae, tmp_path):
    run = tmp_path / "run"
    words = ["folded", *FLAGS, "--generator", vae, "--run", run]
    code, out, _ = call(steer, *words)
    assert code == 0
    assert (run / "steered_translate_x.png").stat().st_size > 1000
    rows = json.loads((run / "metrics.json").read_text())["methods"]
    methods = [row["method"] for row in rows]
    assert methods[:3] == ["steered", "steered, moments held", "line: mean of the field"]
    assert all(0 <= row["fits"] <= 1 for row in rows)
    assert {"line: SeFa", "line: GANSpace"} < set(methods)
    assert all(0 <= row["overlap"] <= 1 for row in rows if row["overlap"] is not None)
    assert "steered, moments held" in out
    before = (run / "metrics.json").read_bytes()
    assert call(steer, *words)[0] == 0
    assert (run / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hold", "moment"], "did you mean 'moments'?"),
        (["--transformations", "zoom", "--ts", "1", "2"], "one value for each of the 1"),
        (["--transformations", "hue"], "needs 3 channels"),
        (["--damping", "0"], "damping must be positive"),
        (["--starts", "1"], "starts must be at least 2"),
        (["--distil.forms", "gradiant"], "did you mean 'gradient'?"),
        (
            ["--transformations", "rotate", "--distil.forms", "dual frame"],
            "the dual frame is of attributes",
        ),
        (["--generator", "jax.numpy:sin", "--generator.latent-dim", "3"], "images"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_nothing_is_written(
    call, vae, tmp_path, flags, message
):
    run = tmp_path / "run"
    code, _, err = call(steer, "folded", "--generator", vae, *flags, "--run", run)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not run.exists()


def test_what_leaves_the_frame_is_not_asked():
    """Of a spot and of one that fills the frame, which cannot be made larger."""

    def spot(z):
        ticks = (jnp.arange(48) + 0.5) / 48 - 0.5
        square = ticks[None, :] ** 2 + ticks[:, None] ** 2
        return jnp.exp(-square / (2 * (0.08 * jnp.exp2(z[0])) ** 2))[..., None]

    generator = freeze(spot, 1)
    starts = jnp.array([[0.0], [1.0]])
    subject = Subject(
        generator.decode, None, starts, starts, 3.0, "spots", (SIZE,),
        lambda image: jnp.array(True), np.array([-9.0]), np.array([9.0]), 0.0, False,
    )  # fmt: skip
    config = steer.Config(transformations=("zoom_object",), ts=(1.0,), amounts=1)
    ts = scores.amounts_of(config, "zoom_object")
    row = scores._row(
        config, subject, "zoom_object", scores.Led(starts[:, None] + ts[:, None], None)
    )
    assert (row["fits"], row["count"]) == (0.75, 3)
    assert row["r2"] > 0.99


def test_every_preset_asks_for_transformations_that_there_are():
    for _, config in steer.PRESETS.values():
        assert set(config.transformations) <= set(ENTRIES)
        assert len(config.ts) == len(config.transformations)


@pytest.mark.slow
def test_fields_are_taught_to_networks_and_both_are_measured(call, compile_quickly, vae, tmp_path):
    run = tmp_path / "run"
    forms = ["free field", "gradient", "gradient and solenoidal", "dual frame"]
    small = ["--distil.width", "8", "--distil.depth", "1", "--distil.bank", "8"]
    words = [
        *("folded", *FLAGS, "--generator", vae, "--run", run, *small),
        *("--distil.forms", *forms, "--training.steps", "2", "--training.batch-size", "2"),
    ]
    code = call(steer, *words)[0]
    assert code == 0
    found = json.loads((run / "metrics.json").read_text())
    methods = {row["method"] for row in found["methods"]}
    expected = {*forms, "dual frame, moments held"}
    assert {f"distilled: {form}" for form in expected} < methods
    fields = {row["field"]: row for row in found["fields"]}
    assert fields["gradient"]["asymmetry"] < 1e-3 < fields["exact"]["asymmetry"]
    assert 0 < fields["free field"]["passes"] < fields["exact"]["passes"]
    before = (run / "metrics.json").read_bytes()
    assert call(steer, *words)[0] == 0
    assert (run / "metrics.json").read_bytes() == before


@pytest.mark.slow
def test_what_other_runs_learnt_is_led_beside_and_told_its_slope(key):
    """Of a plane of brightness: of two lines the one that changes light, whatever its unit."""
    look = ImageFactor("light", "", lambda image: image.mean())
    generator = freeze(lambda z: jnp.full((8, 8, 1), 0.5) + 0.05 * z[0] + 0.0 * z[1], 2)
    starts = jax.random.normal(key, (16, 2))
    subject = Subject(
        generator.decode, None, starts, starts[:3], 3.0, "plane", (look,),
        lambda image: jnp.array(True), np.array([0.0]), np.array([1.0]), 0.0, False,
    )  # fmt: skip
    move = traversals.motion(traversals.constant, jnp.array([[0.0, 1.0], [-3.0, 0.0]]))
    lines = compared.Candidates("lines", move, (0, 1), (1.0, 1.0))
    ts = np.array([-0.1, 0.1], np.float32)
    kept = compared._found(subject, lines, {"brightness": 0}, {"brightness": ts})["brightness"]
    assert kept["which"] == 1
    assert kept["slope"] == pytest.approx(-0.15, rel=1e-3)
    assert kept["explained"] == pytest.approx(1.0, abs=1e-3)
    change = kept["zs"] - np.asarray(subject.held_out)[:, None]
    np.testing.assert_allclose(change[:, :, 0], np.tile(ts / 0.05, (3, 1)), rtol=1e-2)
    np.testing.assert_allclose(change[:, :, 1], 0, atol=1e-5)


def test_a_run_about_another_generator_or_that_learnt_nothing_is_not_compared(call, vae, tmp_path):
    other = small_vae(tmp_path / "other", seed=1)
    words = ["folded", *FLAGS, "--generator", vae, "--run", tmp_path / "run", "--compare"]
    for compared_run, message in [
        (other, "is about another generator"),
        (vae, "nothing in it that was learnt"),
        (tmp_path / "nowhere", "nowhere"),
    ]:
        code, _, err = call(steer, *words, compared_run)
        assert (code, err.count("\n")) == (2, 1), err
        assert message in err
        assert not (tmp_path / "run").exists()
