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

from experiments import export
from experiments.directions import factors
from experiments.directions import scores as direction_scores
from experiments.directions import train as directions
from experiments.directions.config import (
    Config,
    Control,
    Inversion,
    Subject,
    supplied,
    supplied_subject,
)
from experiments.generators import vae_runs
from experiments.generators.spec import Source
from experiments.runtime import cli
from experiments.runtime.run_dir import open_folder, read_config
from latent_flows._transforms import closure_convert
from latent_flows.data import sprites
from latent_flows.directions import transformation
from latent_flows.directions.model import DirectionModel

FLAGS = shlex.split(
    "digits --vae.latent-dim 3 --vae.width 2 --vae.depth 1 --vae-training.steps 3 "
    "--vae-training.warmup 0 --vae-training.batch-size 16 --vae-objective.augment "
    # Of augmented data only sizes that they have would be asked, and a grey image has none.
    "--vae-objective.augment-ts --transformations zoom "
    "--ts 0.2 --losses mse --inversion.count 5 --inversion.amounts 1 --inversion.steps 2 "
    "--fit.steps 3 --fit.width 4 --control.starts 3 --control.amounts 1 --control.candidates 1"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    path = tmp_path_factory.mktemp("directions") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(directions.run, directions.PRESETS, [*FLAGS, "--run", str(path)]) == 0
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
def test_pictures_come_without_scores_which_the_same_command_adds(
    whole, tmp_path, call, monkeypatch
):
    path = Path(shutil.copytree(whole, tmp_path / "run"))
    for file in (path / "metrics.json", *path.glob("*.png")):
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(directions, "measure", None)
        code, out, err = call(directions, *FLAGS, "--no-scores", "--run", path)
        assert (code, err) == (0, "")
        assert "traversals_zoom.png" in out
        assert not {"metrics.json", "control.png"} & {file.name for file in path.iterdir()}
    assert call(directions, *FLAGS, "--run", path)[0] == 0
    assert (path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert (path / "control.png").exists()


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
    home, settings = vae_runs.source(config)
    assert home == whole
    assert settings.data == first.data == "digits"
    assert settings.vae == first.vae


OWN = """
import jax.numpy as jnp


def blob(z):
    place = z / 8
    y, x = jnp.mgrid[-0.5:0.5:16j, -0.5:0.5:16j]
    square = (x - place[0]) ** 2 + (y - place[1]) ** 2
    return jnp.exp(-square / 0.02)[..., None]


blob.latent_dim = 2
"""


@pytest.mark.slow
def test_a_generator_of_ones_own_learns_to_move(tmp_path, call):
    (tmp_path / "own.py").write_text(OWN)
    flags = shlex.split(
        "gan --transformations translate_x --ts 0.05 --losses mse "
        "--inversion.count 16 --inversion.amounts 1 --inversion.steps 40 --fit.steps 300 "
        "--control.starts 8 --control.amounts 2 --control.candidates 1 --generator.prior uniform"
    )
    own = ["--generator.path", f"{tmp_path / 'own.py'}:blob", "--run", tmp_path / "run"]
    code, _, err = call(directions, *flags, *own)
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["control"][0]["method"] == "linear"
    assert metrics["control"][0]["r2"] > 0.95
    # Nothing here meets the latent linearly.
    assert "SeFa" not in {row["method"] for row in metrics["control"]}
    assert (tmp_path / "run" / "inversions.png").exists()
    # Its run stands for the generator in another one.
    again = Config(generator=str(tmp_path / "run"), run=str(tmp_path / "again"))
    assert supplied(again).name.endswith("own.py:blob")
    # What was learnt can be taken out of it.
    assert call(export, tmp_path / "run", "--npy", tmp_path / "ways.npy")[0] == 0
    ways = np.load(tmp_path / "ways.npy")
    np.testing.assert_allclose(ways, [[1, 0]], atol=0.1)


def test_draws_take_the_place_of_codes(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = Source(path=f"{tmp_path / 'own.py'}:blob", prior="sphere")
    config = Config(source=own, inversion=Inversion(count=8), control=Control(starts=4))
    subject = supplied_subject(config, supplied(config))
    assert (subject.starts.shape, subject.held_out.shape) == ((8, 2), (4, 2))
    assert not (subject.starts[:4] == subject.held_out).any()
    for zs in (subject.starts, subject.held_out):
        np.testing.assert_allclose(jnp.linalg.norm(zs, axis=1), np.sqrt(2), rtol=1e-5)
    assert subject.radius == pytest.approx(np.sqrt(2), rel=1e-5)
    # The barycentre goes as far as the latent takes it.
    reach = np.sqrt(2) / 8
    for low, high in zip(subject.low[:2], subject.high[:2], strict=True):
        assert 0.5 - 1.1 * reach < low < 0.5 - 0.8 * reach
        assert 0.5 + 0.8 * reach < high < 0.5 + 1.1 * reach
    assert not subject.bounded


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--generator.prior", "sphere"], "are for a generator without an encoder"),
        (["--generator.path", "none.py:f"], "none.py does not exist"),
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


def blob(z):
    """A generator whose latent is the centre and the size of a Gaussian."""
    ticks = (jnp.arange(32) + 0.5) / 32 - 0.5
    square = (ticks[None, :] - z[0]) ** 2 + (ticks[:, None] - z[1]) ** 2
    return jnp.exp(-square / (2 * (0.06 * jnp.exp2(z[2])) ** 2))[..., None]


@pytest.fixture
def blobs(key):
    held_out = 0.05 * jax.random.normal(key, (6, 3))
    names = factors.measurable(("translate_x", "translate_y", "zoom"))
    low, high = np.full(3, -0.2), np.full(3, 0.2)
    generator = closure_convert(blob, 3)
    return Subject(generator, None, held_out, held_out, 1.0, "blobs", names, low, high, 0.0, False)


def straight(direction, slope=1.0):
    knots = jnp.linspace(-1.0, 1.0, 3)
    return DirectionModel(jnp.array(direction), knots, slope * knots, knots[:2], *jnp.ones(2))


CONFIG = Config(ts=(0.1, 0.1, 0.2), control=Control(amounts=4))


@pytest.mark.slow
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
