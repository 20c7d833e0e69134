"""Directions from the command line to the pictures, and the measures that judge them."""

import json
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import command, direction_scores, directions, factors
from experiments.direction_config import Config, Control, Subject, source
from experiments.folder import open_folder, read_config
from latent_flows.data import sprites
from latent_flows.directions import transformation
from latent_flows.directions.model import DirectionModel

FLAGS = shlex.split(
    "digits --vae.latent-dim 3 --vae.width 2 --vae.depth 1 --vae-training.steps 3 "
    "--vae-training.warmup 0 --vae-training.batch-size 16 --transformations zoom "
    "--ts 0.2 --losses mse --inversion.count 5 --inversion.amounts 1 --inversion.steps 2 "
    "--fit.steps 3 --fit.width 4 --control.starts 3 --control.amounts 1 --control.candidates 1"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    path = tmp_path_factory.mktemp("directions") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "setup", lambda: None)
        assert command.main(directions.run, directions.PRESETS, [*FLAGS, "--run", str(path)]) == 0
    return path


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_pictures(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    ours = ["linear", "nonlinear", "linear, one shot"]
    assert [row["method"] for row in metrics["fitted"]] == ours
    untrained = ["SeFa", "GANSpace", "random direction", "latent coordinate"]
    assert [row["method"] for row in metrics["control"]] == [*ours, *untrained]
    for row in metrics["control"]:
        assert row["r2"] <= 1
        assert 0 <= row["reach"] <= 2 * 0.2
        assert row["leakage"] == max(v for k, v in row.items() if k.startswith("leakage_"))
    assert [row["inversion"] for row in metrics["inversion"]] == ["mse", "one shot"]
    assert metrics["together"] == []  # of one
    for picture in ("control", "inversions", "traversals_zoom", "losses_vae"):
        assert (whole / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_finished_run_returns_at_once(whole, call, monkeypatch):
    monkeypatch.setattr(directions, "load_subject", lambda *_: pytest.fail("was called"))
    code, out, err = call(directions, *FLAGS, "--run", whole)
    assert (code, err) == (0, "")
    assert "latent coordinate" in out
    assert "inversions.png" in out


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_what_it_has(whole, tmp_path, call, monkeypatch):
    path = Path(shutil.copytree(whole, tmp_path / "copy"))
    for name in ("inversions.png", "control.png", "metrics.json"):
        (path / name).unlink()
    lost = path / "scores" / "control_linear_zoom.json"
    lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in path.glob("*/*.json")}
    code, _, err = call(directions, *FLAGS, "--run", path)
    assert code == 0, err
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert lost.exists()
    assert (path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


@pytest.mark.slow
def test_another_run_takes_the_generator_and_the_data(whole, tmp_path):
    first = read_config(whole, Config)
    config = Config(generator=str(whole), run=str(tmp_path / "run"))
    home, settings = source(config)
    assert home == whole
    assert settings.data == first.data == "digits"
    assert settings.vae == first.vae


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--transformations", "hue", "--ts", "0.1"], "hue needs 3 channels (colour), got 1"),
        (["--transformations", "zom", "--ts", "0.1"], "did you mean 'zoom'?"),
        (["--losses", "msee"], "did you mean 'mse'?"),
        (["--losses", "mse", "mse"], "losses must differ"),
        (["--ts", "0.1"], "ts must have one value for each of the 3 transformations, got 1"),
        (["--ts", "0.1", "-1", "0.1"], "ts must be positive"),
        (["--inversion.count", "4", "--fit.drop", "0.5"], "too few trajectories"),
        (["--inversion.count", "2000"], "inversion.count (2000) is more than the 1437 examples"),
        (["--control.starts", "1"], "control.starts must be at least 2, got 1"),
        (["--generator", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call):
    code, out, err = call(directions, "digits", *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "t"),
    [("translate_x", 0.125), ("translate_y", -0.1), ("zoom", 0.3), ("brightness", -0.7)],
)
@pytest.mark.parametrize("data", ["sprites", "digits"])
def test_a_transformation_by_t_raises_its_factor_by_t_and_no_other_position(kind, t, data):
    image = 0.9 * sprites.render(sprites.Factors(2, 0.8, 0.4, 0.5, 0.5))
    names = factors.measurable((kind,))
    look = partial(factors.measure, data, names)
    moved, _ = transformation(kind)(image, t)
    change = dict(zip(names, look(moved) - look(image), strict=True))
    own = factors.NAMES[kind]
    assert change.pop(own) == pytest.approx(t, abs=0.01)
    for name in {"x", "y"} - {own}:
        assert change[name] == pytest.approx(0, abs=0.01)


def test_sharp_edges_are_sharper_than_blurred_ones_whatever_their_length():
    # Edges that lie equally between pixels: the first where one ends.
    scales = (np.array([4, 8]) / 64 / sprites.SQUARE).tolist()
    small, large = (sprites.render(sprites.Factors(0, scale, 0.0, 0.5, 0.5)) for scale in scales)
    sharp = direction_scores.sharpness
    assert sharp(large) == pytest.approx(float(sharp(small)), rel=0.1)
    blurred = jax.image.resize(
        jax.image.resize(large, (16, 16, 1), "linear"), large.shape, "linear"
    )
    assert sharp(blurred) < 0.6 * sharp(large)


class Blob:
    """A decoder whose latent is the centre and the size of a Gaussian, hashable as flax's are."""

    config = None

    def decode(self, z):
        ticks = (jnp.arange(32) + 0.5) / 32 - 0.5
        square = (ticks[None, :] - z[0]) ** 2 + (ticks[:, None] - z[1]) ** 2
        return jnp.exp(-square / (2 * (0.06 * jnp.exp2(z[2])) ** 2))[..., None]

    def apply(self, params, z, method):
        return method(z) if params is None else method(params @ z)


@pytest.fixture
def blobs(key):
    held_out = 0.05 * jax.random.normal(key, (6, 3))
    names = factors.measurable(("translate_x", "translate_y", "zoom"))
    low, high = np.full(3, -0.2), np.full(3, 0.2)
    return Subject(Blob(), None, held_out, held_out, 1.0, "blobs", names, low, high, 0.0, False)


def straight(direction, slope=1.0):
    knots = jnp.linspace(-1.0, 1.0, 3)
    return DirectionModel(jnp.array(direction), knots, slope * knots, knots[:2], *jnp.ones(2))


CONFIG = Config(ts=(0.1, 0.1, 0.2), control=Control(amounts=4))


def test_a_true_direction_has_perfect_control(blobs):
    for name, axis in zip(CONFIG.transformations, np.eye(3), strict=True):
        row = direction_scores.control(CONFIG, blobs, name, straight(axis)).row
        assert row["r2"] > 0.999
        assert row["placed_r2"] > 0.999
        assert row["leakage"] < 0.01
        assert row["reach"] == pytest.approx(2 * {"zoom": 0.2}.get(name, 0.1))


def test_a_direction_that_goes_too_far_has_a_short_reach(blobs):
    # Twice as far as asked: the error is the amount itself, which may be a tenth of the range.
    row = direction_scores.control(CONFIG, blobs, "translate_x", straight([1.0, 0, 0], 0.5)).row
    assert row["reach"] == pytest.approx(0.04, abs=0.001)
    assert row["r2"] == pytest.approx(0.75, abs=0.01)


def test_what_else_a_direction_changes_is_leakage(blobs):
    model = straight([0.6, 0.8, 0.0], 0.6)
    row = direction_scores.control(CONFIG, blobs, "translate_x", model).row
    assert row["r2"] > 0.999
    # y moves by 4/3 of what x is asked for; its range is 0.4.
    asked = np.linspace(-0.1, 0.1, 5)
    assert row["leakage_y"] == pytest.approx(4 / 3 * asked.std() / 0.4, rel=0.02)
    assert row["leakage_size"] < 0.01


def test_two_factors_at_once(blobs):
    models = straight([1.0, 0.0, 0.0]), straight([0.6, 0.8, 0.0], 1.0)
    config = replace(CONFIG, transformations=("translate_x", "translate_y"), ts=(0.1, 0.1))
    # The second model moves x as well: together they still do what each is asked as it sees it.
    row = direction_scores.together(config, blobs, config.transformations, models)
    assert row["first_r2"] > 0.999
    assert row["second_r2"] < 0.9


def test_a_direction_is_told_its_slope(blobs):
    model = direction_scores.line(Config(), [0.0, 1.0], 0.5)
    assert model(jnp.array([3.0, 8.0])) == pytest.approx(4.0)
    assert model.inverse(2.0) == pytest.approx(4.0)


def test_arrays_are_computed_once(tmp_path):
    config = Config(run=str(tmp_path / "run"))
    folder = open_folder(config.run, config)
    first = {"a": jnp.array([1.0, jnp.inf]), "b": jnp.arange(3)}
    for things in (first, jax.tree.map(jnp.zeros_like, first)):
        found = directions.remembered(folder, "things", lambda things=things: things)
        np.testing.assert_array_equal(found["a"], [1.0, jnp.nan])
        np.testing.assert_array_equal(found["b"], jnp.arange(3))
        assert found["b"].dtype == jnp.arange(3).dtype
