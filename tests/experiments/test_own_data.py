"""Learning from a folder of images, or a file of arrays, by its path."""

import json
import shlex
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.flow_vae import train as flow_vae
from experiments.generators import train_gan, train_vae
from experiments.generators.classifier import labels
from experiments.generators.training_data import load_data, settled
from experiments.potential_flows import train as potential_flows
from experiments.runtime import cli
from experiments.runtime.run_dir import read_config
from latent_flows import data
from latent_flows.generators import GeneratorSpec, load_generator
from latent_flows.generators.load import REFERENCE, reference
from latent_flows.generators.stored import load_bytes

SMALL = shlex.split(
    "--vae.latent-dim 3 --vae.width 2 --vae.depth 1 --vae.encoder mlp --vae.decoder mlp "
    "--training.steps 4 --training.warmup 0 --training.batch-size 8 --training.log-every 2 "
    "--training.checkpoint-every 2 --test-images 4 --iwae-samples 4"
)


def fill(folder, count=24, *, channels=(), seed=0):
    """Saves images of several sizes in two subfolders."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9 + i % 3, 10, *channels), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory, compile_quickly):
    """A folder with the images, and the run of a VAE that learnt them, which are never changed."""
    home = tmp_path_factory.mktemp("world")
    fill(home / "photos")
    flags = ["images", *SMALL, "--data.crop", "pad", "--data.size", "8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        patch.chdir(home)
        words = [*flags, "--data", "photos", "--run", "vae"]
        assert cli.main(train_vae.run, train_vae.PRESETS, words) == 0
    return home


@pytest.fixture
def copy(world, tmp_path):
    return Path(shutil.copytree(world, tmp_path / "world"))


def test_a_run_knows_where_its_data_are_and_how_they_are_read(world):
    config = read_config(world / "vae", train_vae.Config)
    assert config.data == str(world / "photos")
    assert (config.image_size, config.reading.crop, config.reading.on_error) == (8, "pad", "refuse")
    generator = load_generator(world / "vae")
    assert generator.dataset == str(world / "photos")
    assert dict(generator.reading) == {"crop": "pad", "colour": "own", "on_error": "refuse"}
    assert generator.name == "the VAE of photos/"
    assert generator.event_shape == (8, 8, 1)
    for part in ("train", "test"):
        rows = np.arange(2)
        found = load_data(generator, part).examples(rows)["image"]
        expected = data.load(world / "photos", split=part, size=8, crop="pad").examples(rows)
        np.testing.assert_array_equal(found, expected["image"])
    assert json.loads((world / "vae" / "metrics.json").read_text())["test_images"] >= 1


def test_the_folder_of_images_is_left_as_it_was(world):
    files = [path for path in (world / "photos").rglob("*") if path.is_file()]
    assert len(files) == 24
    assert {path.suffix for path in files} == {".png"}


def test_the_same_command_goes_on_from_any_working_folder(copy, call, monkeypatch):
    monkeypatch.chdir(copy / "photos")
    (copy / "vae" / "metrics.json").unlink()
    words = ["images", *SMALL, "--data.crop", "pad", "--image-size", 8, "--run", copy / "vae"]
    config = json.loads((copy / "vae" / "config.json").read_text())
    config["config"]["data"] = str(copy / "photos")
    (copy / "vae" / "config.json").write_text(json.dumps(config))
    assert call(train_vae, *words, "--data", "../photos/../photos")[0] == 0
    assert (copy / "vae" / "metrics.json").exists()


def test_a_generator_keeps_its_colours_and_size_as_other_images_are_added(copy):
    generator = load_generator(GeneratorSpec(str(copy / "vae"), data=str(copy / "photos")))
    before = {part: load_data(generator, part) for part in ("train", "test")}
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(copy / "photos" / "a" / "zz.png")
    after = {part: load_data(generator, part) for part in ("train", "test")}
    assert {found.image_shape for found in after.values()} == {(8, 8, 1)}
    assert sum(d.length for d in after.values()) == sum(d.length for d in before.values()) + 1


def test_moved_data_are_one_line_that_names_the_flag_and_the_flag_mends_it(copy, call, tmp_path):
    gone, home = str(copy / "gone"), copy / "moved"
    (copy / "photos").rename(home)
    flags = shlex.split(
        "digits --flows.count 2 --flows.codes 16 --flows.bank 8 --training.batch-size 8"
    )
    flags += ["--generator", copy / "vae", "--run", tmp_path / "flows"]
    code, _, err = call(potential_flows, *flags, "--generator.data", gone)
    assert (code, err.count("\n")) == (2, 1)
    assert f"are not at {gone} any more: put them back, or say where" in err
    assert "by --generator.data PATH" in err
    assert not (tmp_path / "flows").exists()
    spec = GeneratorSpec(str(copy / "vae"), data=str(home))
    found = load_generator(spec)
    assert load_data(found, "train").length + load_data(found, "test").length == 24
    # Who is about a run with this flag finds them, also where all are moved together.
    (copy / "flows").mkdir()
    (copy / "flows" / REFERENCE).write_text(json.dumps(reference(spec, 0, copy / "flows")))
    assert load_generator(copy / "flows").dataset == str(home)
    copy.rename(tmp_path / "elsewhere")
    again = load_generator(tmp_path / "elsewhere" / "flows")
    assert again.dataset == str(tmp_path / "elsewhere" / "moved")
    other = GeneratorSpec(str(tmp_path / "elsewhere" / "flows"), data="digits")
    assert load_generator(other).dataset == "digits"


def test_a_generator_of_ones_own_can_be_told_its_data(world):
    found = load_generator(GeneratorSpec("jax.numpy:sin", latent_dim=3, data=str(world / "photos")))
    assert found.dataset == str(world / "photos")
    assert load_generator(GeneratorSpec("jax.numpy:sin", latent_dim=3, data="digits")).dataset == (
        "digits"
    )


def refused(call, module, *words):
    code, out, err = call(module, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


def test_wrong_data_are_one_line_before_anything_is_made(world, tmp_path, call):
    run = ("--run", tmp_path / "run")
    said = refused(call, train_vae, "images", *run)
    assert "no data are named: give --data and the path of a folder of images" in said
    said = refused(call, train_vae, "images", "--data", tmp_path / "none", *run)
    assert f"there is no folder of images, and no file, at {tmp_path / 'none'}" in said
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refused(call, train_vae, "--data", tmp_path / "empty", *run)
    photos = world / "photos"
    said = refused(call, train_vae, "--data", photos, *run)
    assert "3 sizes, from 9 x 10 to 11 x 10 pixels: give the size to bring them to" in said
    said = refused(call, train_vae, "--data", photos, "--data.size", 8, *run)
    assert "lower the batch size" in said
    said = refused(call, train_vae, "--data", photos, "--run", photos / "run")
    assert "lies inside the images of --data" in said
    said = refused(call, train_vae, "digits", "--data.on-error", "skip", *run)
    assert "on_error is for folders of images and files of your own; digits is none" in said
    said = refused(call, train_vae, "--data.crop", "center", *run)
    assert "did you mean 'centre'" in said
    assert not (tmp_path / "run").exists()
    assert not (photos / "run").exists()


def test_a_broken_image_is_refused_or_skipped_by_a_flag(copy, tmp_path, call):
    broken = copy / "photos" / "a" / "00.png"
    broken.write_bytes(broken.read_bytes()[:60])
    flags = ["images", *SMALL, "--image-size", 8, "--data", copy / "photos"]
    said = refused(call, train_vae, *flags, "--run", tmp_path / "run")
    assert "1 file cannot be read as an image (a/00.png: " in said
    assert "--data.on-error skip" in said
    words = (*flags, "--run", tmp_path / "run", "--data.on-error", "skip")
    with pytest.warns(UserWarning, match=r"1 file cannot be read and left out .*a/00.png: "):
        code = call(train_vae, *words)[0]
    assert code == 0
    with pytest.warns(UserWarning, match=r"a/00.png"):
        found = load_data(load_generator(tmp_path / "run"), "train")
    assert found.length + load_data(load_generator(tmp_path / "run"), "test").length == 23


def test_a_gan_and_flows_of_a_folder_start_and_say_what_is_wrong(world, tmp_path, call):
    run = ("--run", tmp_path / "run")
    for module in (train_gan, flow_vae):
        assert "3 sizes" in refused(call, module, "mnist", "--data", world / "photos", *run)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 5)))
    said = refused(call, train_gan, "mnist", "--data", tmp_path / "x.npy", *run)
    assert "(5,)" in said
    said = refused(call, flow_vae, "mnist", "--data", tmp_path / "x.npy", *run)
    assert "sequences transform images [h, w, c]; x.npy holds examples of shape (5,)" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_array_of_images_is_learnt_with_its_labels(tmp_path, call):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    kinds = np.arange(40) % 2
    np.savez(tmp_path / "cells.npz", image=images, label=kinds, factors=rng.normal(size=(40, 2)))
    flags = ["digits", *SMALL, "--data", tmp_path / "cells.npz", "--labels", 1]
    assert call(train_vae, *flags, "--run", tmp_path / "run")[0] == 0
    generator = load_generator(tmp_path / "run")
    found = load_data(generator, "train")
    assert {*found.labels.tolist()} == {1}
    assert found.length < 20
    config = read_config(tmp_path / "run", train_vae.Config)
    assert settled(config).data == str(tmp_path / "cells.npz")


@pytest.mark.slow
def test_vectors_are_learnt_standardised_and_drawn_as_lines(tmp_path, call):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 6)) * [1, 1, 1, 1, 1, 1000] + 50
    vectors[:, 4] = 3.0
    np.save(tmp_path / "x.npy", vectors)
    small = shlex.split(
        "vectors --vae.latent-dim 2 --vae.width 2 --vae.depth 1 --training.steps 6 "
        "--training.warmup 0 --training.batch-size 8 --test-images 4 --iwae-samples 4"
    )
    words = [*small, "--data", tmp_path / "x.npy", "--run", tmp_path / "run"]
    code, _, err = call(train_vae, *words)
    assert (code, err) == (0, "")
    generator = load_generator(tmp_path / "run")
    assert generator.event_shape == (6,)
    train = load_data(generator, "train")
    known = np.asarray(train.examples(np.arange(train.length))["image"])
    made = np.asarray(jax.vmap(generator)(jax.random.normal(jax.random.key(0), (50, 2))))
    # Hardly trained, and yet of the size of the data, each number by itself.
    assert (np.abs(made.mean(0) - known.mean(0)) < 3 * known.std(0) + 5).all()
    saved = load_bytes((tmp_path / "run" / "generator.safetensors").read_bytes()).variables
    np.testing.assert_allclose(saved["params"]["centre"], known.mean(0), rtol=1e-5)
    spread = np.where(known.std(0) > 0, known.std(0), 1)
    np.testing.assert_allclose(saved["params"]["spread"], spread, rtol=1e-3)
    assert (tmp_path / "run" / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    run = ("--run", tmp_path / "other")
    batch = ("--training.batch-size", 8)
    said = refused(call, train_vae, "digits", "--data", tmp_path / "x.npy", *batch, *run)
    assert "(6,), which are no images" in said
    assert "--vae.likelihood gaussian" in said
    said = refused(call, train_vae, *words[:-1], tmp_path / "other", "--data.size", 8)
    assert "vectors, which have neither a size nor colours" in said
    moved = ("--objective.augment", "zoom", "--objective.augment-ts", 0.2)
    said = refused(call, train_vae, *words[:-1], tmp_path / "other", *moved)
    assert "objective.augment transforms images, and x.npy holds vectors" in said


def test_factors_without_a_shape_are_no_classes_of_a_classifier():
    assert labels({"factors": np.ones((5, 2))}) is None
    assert labels({"factors": np.ones((5, 2)), "label": np.arange(5)}).tolist() == [0, 1, 2, 3, 4]
    sprites = data.load("sprites", size=8).examples(jnp.arange(3))
    assert labels(sprites).shape == (3,)
