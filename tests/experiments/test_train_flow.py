"""The flow-matching generator's experiment from its command line to its pictures."""

import json
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluate import evaluate
from experiments.generators import prior_flow, train_flow
from experiments.generators.train_flow import PHASE
from experiments.runtime import cli
from latent_flows.generators import GeneratorSpec, load_generator
from tests.experiments.small_generators import small_gan, small_vae

STEPS = shlex.split(
    "--training.steps 4 --training.warmup 1 --training.batch-size 8 --training.log-every 2 "
    "--training.checkpoint-every 2 --classifier.steps 3 --classifier.batch-size 8 --samples 40 "
    "--ode-steps 2"
)
SMALL = [*STEPS, *shlex.split("--network.widths 2 3 --network.width 4 --network.depth 1")]
FLAGS = ["sprites", "--image-size", "12", *SMALL]
FILES = ("config.json", "metrics.json", "metrics.jsonl", "generator.safetensors")


def made(path, *flags):
    """The folder of a run with these flags."""
    words = [str(word) for word in (*flags, "--run", path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(train_flow.run, train_flow.PRESETS, words) == 0
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    """A run on images, whose network is a U-Net."""
    return made(tmp_path_factory.mktemp("flow") / "run", *FLAGS)


@pytest.fixture(scope="module")
def of_codes(tmp_path_factory, compile_quickly):
    """A run on the codes of a VAE, whose network is small."""
    path = tmp_path_factory.mktemp("flow")
    vae = small_vae(path / "vae", "digits", latent_dim=2)
    return made(path / "run", "mnist-codes", "--generator", vae, *SMALL, "--codes", 100)


def steps(run, phase):
    """Those whose numbers a run has kept."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["phase"] == phase]


def check_results(run, phase):
    """A run has its numbers and pictures."""
    assert steps(run, phase) == [0, 2, 3]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["frechet"] > metrics["frechet_of_training_images"] >= 0
    assert metrics["samples"] == 40
    for picture in ("samples.png", f"losses_{phase}.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_leaves_a_generator_numbers_and_pictures(whole):
    check_results(whole, PHASE)
    found = load_generator(whole)
    assert (found.event_shape, found.latent_dim) == ((12, 12, 1), 144)
    assert (found.dataset, found.encode) == ("sprites", None)
    z = found.prior(jax.random.key(0))
    other = load_generator(GeneratorSpec(str(whole), steps=9, solver="heun"))
    assert 0 < jnp.abs(jax.jit(found.decode)(z) - jax.jit(other.decode)(z)).max() < 0.1


@pytest.mark.parametrize("run", ["of_codes", "whole"])
@pytest.mark.slow
def test_its_distance_is_a_score_of_evaluate(run, request, call):
    code, out, _ = call(evaluate, request.getfixturevalue(run), "--scores", "frechet")
    assert code == 0
    assert "distance of samples from held-out data" in out


@pytest.mark.slow
def test_a_run_goes_on_from_a_checkpoint_to_the_same_bytes(whole, tmp_path, call):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    shutil.rmtree(path / "checkpoints" / PHASE / "4")
    for file in ("metrics.json", "generator.safetensors"):
        (path / file).unlink()
    assert call(train_flow, *FLAGS, "--run", path)[0] == 0
    for name in FILES:
        # Rows of the classifier come first where they were there already.
        lines = [sorted((run / name).read_bytes().splitlines()) for run in (path, whole)]
        assert lines[0] == lines[1], name


def test_the_codes_of_a_vae_are_learnt_and_decoded(of_codes, tmp_path, call):
    check_results(of_codes, prior_flow.PHASE)
    found = load_generator(of_codes)
    assert (found.latent_dim, found.event_shape, found.encode) == (2, (8, 8, 1), None)
    assert found.name == "flow of the VAE of digits"
    assert found.dataset == "digits"
    # It is a flow already.
    flags = ("mnist-codes", "--generator", of_codes, *SMALL, "--run", tmp_path / "again")
    code, _, err = call(train_flow, *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert "which has no encoder: a run of train_vae is needed" in err


@pytest.mark.slow
def test_vectors_are_learnt_and_compared_by_their_moments(tmp_path, call, compile_quickly):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", (50 + 9 * rng.normal(size=(200, 3))).astype(np.float32))
    run = tmp_path / "run"
    code, _, err = call(train_flow, "vectors", "--data", tmp_path / "x.npy", *SMALL, "--run", run)
    assert code == 0, err
    assert steps(run, PHASE) == [0, 2, 3]
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 < metrics["frechet_of_vectors"] < 2
    assert (run / "losses_flow.png").exists()
    assert not (run / "samples.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["spritez"], "unknown preset 'spritez' (did you mean 'sprites'?)"),
        (["--network.widths", "0"], "network.widths must be at least 1, got (0,)"),
        (["--network.patch", "70"], "network.patch (70) is more than the pixels of sprites"),
        (["--average", "1"], "average must lie in [0, 1), got 1.0"),
        (["--ode-steps", "0", "--solver", "euler"], "euler cannot choose its steps"),
        (["--solver", "eular"], "did you mean 'euler'?"),
        (["--samples", "1"], "samples must be at least 2, got 1"),
        (["--training.batch-size", "10000000"], "a batch of"),
        (["--generator", "nowhere"], "--generator nowhere is no run folder of train_vae"),
        (["--generator", "jax.numpy:sin"], "jax.numpy:sin is no run folder of train_vae"),
        (["--generator", "{vae}", "--data", "sprites"], "is learnt on its own data: leave out"),
        (["--generator", "{gan}"], "is an SNGAN, which has no encoder: a run of train_vae"),
        (["--generator", "{vae}", "--codes", "20"], "raise --codes, or lower --training.batch"),
        (["--generator", ""], "no data are named"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call):
    made = {"vae": "", "gan": ""}
    if any("{" in word for word in flags):
        made = {
            "vae": small_vae(tmp_path / "vae", latent_dim=2), "gan": small_gan(tmp_path / "gan")
        }  # fmt: skip
    preset = [] if flags[0] == "spritez" else ["sprites"]
    words = [word.format(**made) for word in flags]
    code, out, err = call(train_flow, *preset, *words, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()
