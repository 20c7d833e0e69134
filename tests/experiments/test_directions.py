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
from small_generators import small_gan, small_vae

from experiments.directions import config as config_of
from experiments.directions import learn, scores
from experiments.directions import subject as subject_module
from experiments.directions import train as directions
from experiments.directions.config import Config, Control, Inversion
from experiments.directions.subject import load_images, subject_of
from experiments.generators import spec
from experiments.runtime import cli
from experiments.runtime.run_dir import open_folder
from latent_flows import data
from latent_flows.directions import transformations
from latent_flows.directions.losses import LOSSES
from latent_flows.directions.transformations import TRANSFORMATIONS, registered
from latent_flows.generators import GeneratorSpec

FLAGS = shlex.split(
    "digits --transformations zoom --ts 0.2 --losses mse "
    "--inversion.count 5 --inversion.amounts 1 --inversion.steps 2 "
    "--fit.steps 3 --fit.width 4 --control.starts 3 --control.amounts 1 --control.candidates 1"
)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A VAE of digits that has learnt nothing."""
    return small_vae(tmp_path_factory.mktemp("generators") / "vae")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly, vae):
    path = tmp_path_factory.mktemp("directions") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        flags = [*FLAGS, "--generator", str(vae), "--run", str(path)]
        assert cli.main(directions.run, directions.PRESETS, flags) == 0
    return path


@pytest.fixture
def again(call, vae):
    """Calls the command that made the whole run, with more flags."""
    return partial(call, directions, *FLAGS, "--generator", vae)


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_pictures(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    ours = ["linear", "nonlinear", "linear, one shot"]
    assert [row["method"] for row in metrics["fitted"]] == ours
    untrained = ["steered", "SeFa", "GANSpace", "random direction", "latent coordinate"]
    assert [row["method"] for row in metrics["control"]] == [*ours, *untrained]
    for row in metrics["control"]:
        assert row["r2"] <= 1
        assert 0 <= row["reach"] <= 2 * 0.2
        assert row["leakage"] == max(v for k, v in row.items() if k.startswith("leakage_"))
    assert [row["inversion"] for row in metrics["inversion"]] == ["mse", "one shot"]
    assert metrics["together"] == []  # of one
    for picture in ("control", "inversions", "traversals_zoom"):
        assert (whole / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_pictures_come_without_scores_which_the_same_command_adds(
    whole, tmp_path, again, monkeypatch
):
    path = Path(shutil.copytree(whole, tmp_path / "run"))
    for file in (path / "metrics.json", *path.glob("*.png")):
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(scores, "measure", None)
        code, out, err = again("--no-scores", "--run", path)
        assert (code, err) == (0, "")
        assert "traversals_zoom.png" in out
        assert not {"metrics.json", "control.png"} & {file.name for file in path.iterdir()}
    assert again("--run", path)[0] == 0
    assert (path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert (path / "control.png").exists()


@pytest.mark.slow
def test_a_finished_run_returns_at_once(whole, again, monkeypatch):
    monkeypatch.setattr(directions, "subject_of", lambda *_: pytest.fail("was called"))
    code, out, err = again("--run", whole)
    assert (code, err) == (0, "")
    assert "latent coordinate" in out
    assert "inversions.png" in out


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_what_it_has(whole, tmp_path, again):
    path = Path(shutil.copytree(whole, tmp_path / "copy"))
    for name in ("inversions.png", "control.png", "metrics.json"):
        (path / name).unlink()
    lost = path / "scores" / "control_linear_zoom.json"
    lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in path.glob("*/*.json")}
    code, _, err = again("--run", path)
    assert code == 0, err
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert lost.exists()
    assert (path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


@pytest.mark.slow
def test_another_run_takes_the_generator_of_a_run(whole, vae, tmp_path):
    config = Config(generator=str(whole), run=str(tmp_path / "run"))
    first, second = spec.load(replace(config, generator=str(vae))), spec.load(config)
    assert second.dataset == "digits"
    zs = jnp.linspace(-1.0, 1.0, second.latent_dim)
    np.testing.assert_array_equal(second(zs), first(zs))


OWN = """
import jax.numpy as jnp


def blob(z):
    place = z / 8
    y, x = jnp.mgrid[-0.5:0.5:16j, -0.5:0.5:16j]
    square = (x - place[0]) ** 2 + (y - place[1]) ** 2
    return jnp.exp(-square / 0.02)[..., None]


blob.latent_dim = 2
"""


@pytest.fixture(scope="module")
def moved(tmp_path_factory, compile_quickly):
    """A run on a generator of one's own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(OWN)
    flags = shlex.split(
        "gan --transformations translate_x --ts 0.05 --losses mse "
        "--inversion.count 16 --inversion.amounts 1 --inversion.steps 40 --fit.steps 300 "
        "--control.starts 8 --control.amounts 2 --control.candidates 1 --generator.prior uniform"
    )
    own = ["--generator.path", f"{folder / 'own.py'}:blob", "--run", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(directions.run, directions.PRESETS, [*flags, *own]) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_generator_of_ones_own_learns_to_move(moved, tmp_path):
    metrics = json.loads((moved / "metrics.json").read_text())
    assert metrics["control"][0]["method"] == "linear"
    assert metrics["control"][0]["r2"] > 0.95
    # Nothing here meets the latent linearly.
    assert "SeFa" not in {row["method"] for row in metrics["control"]}
    assert (moved / "inversions.png").exists()
    # Its run stands for the generator in another one.
    again = Config(generator=str(moved), run=str(tmp_path / "again"))
    assert spec.load(again).name.endswith("own.py:blob")


@pytest.mark.slow
def test_what_was_learnt_can_be_taken_out_of_a_run(moved, tmp_path, call):
    from experiments.export import export

    assert call(export, moved, "--npy", tmp_path / "ways.npy")[0] == 0
    ways = np.load(tmp_path / "ways.npy")
    np.testing.assert_allclose(ways, [[1, 0]], atol=0.1)


def loaded(config):
    generator = spec.load(config)
    return subject_of(config, generator, load_images(config, generator))


def test_draws_take_the_place_of_codes(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = GeneratorSpec(path=f"{tmp_path / 'own.py'}:blob", prior="sphere")
    config = Config(source=own, inversion=Inversion(count=8), control=Control(starts=4))
    subject = loaded(config)
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


@pytest.mark.parametrize(("size", "bounded"), [(16, True), (None, False)])
def test_a_gan_of_sprites_is_measured_as_sprites_if_it_makes_images_of_their_shape(
    size, bounded, tmp_path, monkeypatch
):
    monkeypatch.setattr(subject_module, "SURVEYED", 200)
    # An SNGAN of two blocks makes 16 pixels, and of one of the digits' kind 8.
    data_of = "sprites" if size else "digits"
    features = (4, 4, 4) if size else (4, 4)
    config = Config(
        generator=str(small_gan(tmp_path / "gan", data_of, features=features)),
        inversion=Inversion(count=5),
        control=Control(starts=3),
    )
    subject = loaded(config)
    assert subject.bounded == bounded
    assert (subject.is_valid is data.measures("sprites").is_valid) == bounded
    if bounded:
        # Of the data, not of what it makes yet: a quarter of the frame on either side is free.
        np.testing.assert_allclose([subject.low[0], subject.high[0]], [0.25, 0.75], atol=0.05)
        assert subject.name == "sprites"
    else:
        assert subject.name == "an SNGAN"


def test_a_vae_starts_from_codes_of_its_data_as_it_saw_them(vae):
    config = Config(generator=str(vae), inversion=Inversion(count=5), control=Control(starts=3))
    subject = loaded(config)
    assert (subject.starts.shape, subject.held_out.shape) == ((5, 3), (3, 3))
    assert subject.name == "digits"
    assert not subject.bounded


def test_a_new_transformation_is_asked_for_by_its_name_and_measured(monkeypatch, vae):
    entries, apply = {}, {}
    for name, kept in (("_entries", entries), ("_apply", apply)):
        kept.update(getattr(transformations, name))
        monkeypatch.setattr(transformations, name, kept)

    @registered(reach=0.3, factor=data.ImageFactor("glare", "stops", lambda image: image.max()))
    def glare(image, t):
        return image * jnp.exp2(t), jnp.ones(image.shape[:2])

    monkeypatch.setattr(transformations, "TRANSFORMATIONS", apply)
    for module in (transformations, config_of):
        monkeypatch.setattr(module, "ENTRIES", entries)
    config = Config(
        generator=str(vae),
        transformations=("glare", "zoom"),
        inversion=Inversion(count=5),
        control=Control(starts=3),
    )
    assert config_of.reach(config) == {"glare": 0.3, "zoom": 0.4}
    assert [factor.name for factor in loaded(config).factors] == ["x", "y", "size", "glare"]


def test_help_names_every_transformation_and_loss(capsys):
    with pytest.raises(SystemExit):
        cli.main(directions.run, directions.PRESETS, ["sprites", "--help"])
    said = capsys.readouterr().out
    # Those of the library: other tests register some of their own.
    home = transformations.__name__
    names = [name for name, apply in TRANSFORMATIONS.items() if apply.__module__ == home]
    assert len(names) > 5
    assert all(name in said for name in (*names, *LOSSES))


NO_IMAGES = """
import jax.numpy as jnp
def vector(z):
    return 2 * z

vector.latent_dim = 3

def tiny(z):
    return 0.5 + 0.1 * jnp.tanh(z)[:, None, None]

tiny.latent_dim = 3
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vector", "own.py:vector makes samples of shape (3,)"),
        ("tiny", "less than 4 pixels a side"),
    ],
)
def test_a_generator_without_images_is_refused_before_anything_is_written(
    name, message, tmp_path, call
):
    (tmp_path / "own.py").write_text(NO_IMAGES)
    own = f"{tmp_path / 'own.py'}:{name}"
    code, _, err = call(directions, "--generator", own, "--run", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


def test_the_generator_of_a_preset_is_made_by_a_command(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for preset, made in (("sprites", "train_vae sprites"), ("gan", "train_gan sprites")):
        for quick in ([], ["--quick"]):
            code, _, err = call(directions, preset, *quick)
            assert code == 2
            assert " ".join([f"python -m experiments.{made}", *quick]) in err
    assert not (tmp_path / "runs").exists()


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
        (["--generator", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, vae, tmp_path, call):
    given = ["--generator", vae, *flags, "--run", tmp_path / "run"]
    code, out, err = call(directions, "digits", *given)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


def test_arrays_are_computed_once(tmp_path):
    config = Config(run=str(tmp_path / "run"))
    folder = open_folder(config.run, config)
    first = {"a": jnp.array([1.0, jnp.inf]), "b": jnp.arange(3)}
    for things in (first, jax.tree.map(jnp.zeros_like, first)):
        found = learn.remembered(folder, "things", lambda things=things: things)
        np.testing.assert_array_equal(found["a"], [1.0, jnp.nan])
        np.testing.assert_array_equal(found["b"], jnp.arange(3))
        assert found["b"].dtype == jnp.arange(3).dtype
