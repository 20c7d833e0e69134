"""The GAN's experiment from its command line to its pictures."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.generators import train_gan
from experiments.generators.train_gan import PHASE, Config, initial, model
from experiments.runtime import cli
from experiments.runtime.run_dir import read_config
from experiments.runtime.training import restore
from latent_flows import data
from latent_flows.generators import load_generator

ROOT = Path(__file__).parents[2]
FLAGS = shlex.split(
    "sprites --image-size 16 --networks.latent-dim 3 --networks.generator 3 3 3 "
    "--networks.discriminator 3 --adversarial.critic-steps 2 "
    "--training.steps 4 --training.batch-size 8 --training.log-every 2 "
    "--training.checkpoint-every 2 --classifier.steps 3 --classifier.batch-size 8 --samples 40"
)


def files(path):
    return {
        name: (path / name).read_bytes()
        for name in ("config.json", "metrics.json", "metrics.jsonl")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    path = tmp_path_factory.mktemp("gan") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(train_gan.run, train_gan.PRESETS, [*FLAGS, "--run", str(path)]) == 0
    return path


def test_a_run_leaves_its_settings_numbers_and_pictures(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["phase"] == PHASE]
    assert [row["step"] for row in rows] == [0, 2, 3]
    for row in rows:
        # No mean of hinges is smaller than the hinge of the mean.
        least = max(0, 1 - row["score_of_data"]) + max(0, 1 + row["score_of_samples"])
        assert row["loss"] >= least - 1e-5
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["frechet"] > metrics["frechet_of_training_images"] >= 0
    assert 1 / 3 <= metrics["confidence"] <= 1
    assert metrics["samples"] == 40
    for picture in ("samples.png", "losses_gan.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")


def test_the_averaged_generator_can_be_restored_and_makes_images(whole):
    config = read_config(whole, Config)
    net = model(config, data.load(config.data, size=config.image_size))
    variables = restore(whole, PHASE, lambda key: initial(net, key))
    image = jax.jit(net.apply)(variables, jnp.ones(3))
    assert image.shape == (16, 16, 1)
    # What the run folder holds is that generator.
    found = load_generator(whole)
    np.testing.assert_allclose(found(jnp.ones(3)), (image + 1) / 2, atol=1e-6)
    assert (found.name, found.dataset, found.encode) == (
        "SNGAN trained on sprites",
        "sprites",
        None,
    )
    fresh = jax.jit(lambda key: initial(net, key))(jax.random.key(0))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), variables, fresh)
    assert all(jax.tree.leaves(moved["batch_stats"]))


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bytes(whole, tmp_path, call):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "checkpoints" / PHASE / "4")
    shutil.rmtree(path / "checkpoints" / "classifier")
    (path / "metrics.json").unlink()
    assert call(train_gan, *FLAGS, "--run", path)[0] == 0
    assert files(path) == files(whole)
    pictures = ("samples.png", "losses_gan.png")
    assert all((path / p).read_bytes() == (whole / p).read_bytes() for p in pictures)


@pytest.mark.slow
def test_a_killed_run_started_again_ends_as_one_that_was_not(tmp_path):
    flags = [*FLAGS, "--training.steps", "60", "--training.checkpoint-every", "5"]

    def start(path):
        words = [sys.executable, "-m", "experiments.train_gan", *flags, "--run", str(path)]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ)

    assert start(tmp_path / "whole").wait() == 0
    killed = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    folder = tmp_path / "killed" / "checkpoints" / PHASE
    while not any(folder.glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "metrics.json").exists()
    assert start(tmp_path / "killed").wait() == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_smaller_images_get_a_black_margin():
    canvas = train_gan.to_canvas(jnp.full((2, 3, 4, 1), 0.75), 8)
    assert canvas.shape == (2, 8, 8, 1)
    np.testing.assert_array_equal(canvas[:, 2:5, 2:6], np.full((2, 3, 4, 1), 0.5))
    assert float((canvas == -1).mean()) == 1 - 12 / 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["spritez"], "unknown preset 'spritez' (did you mean 'sprites'?)"),
        (["--image-size", "64"], "images of (64, 64) pixels, networks.generator makes 32"),
        (
            ["--training.batch-size", "7", "--adversarial.critic-steps", "2"],
            "must be a multiple of adversarial.critic_steps (2)",
        ),
        (["--networks.generator", "0"], "networks.generator must be widths of at least 1"),
        (["--networks.latent-dim", "0"], "networks.latent_dim must be at least 1, got 0"),
        (["--adversarial.average", "1"], "adversarial.average must lie in [0, 1), got 1.0"),
        (["--adversarial.critic-steps", "0"], "critic_steps must be at least 1, got 0"),
        (["--samples", "1"], "samples must be at least 2, got 1"),
        (["--seed", "-1"], "seed must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call):
    preset = [] if flags[0] == "spritez" else ["sprites"]
    code, out, err = call(train_gan, *preset, *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()
