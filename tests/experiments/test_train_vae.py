"""The VAE's experiment from its command line to its pictures."""

import json
import os
import re
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.flow_vae import train as flow_vae
from experiments.generators import train_gan, train_vae
from experiments.generators.bounds import measure
from experiments.generators.train_vae import Config, Objective
from experiments.runtime import cli
from experiments.runtime.run_dir import read_config
from experiments.runtime.training import restore
from latent_flows import data
from latent_flows._transforms import in_chunks
from latent_flows.generators import load_generator
from latent_flows.generators.stored import StoredGenerator, restore_generator
from latent_flows.objectives import log_normal

FLAGS = shlex.split(
    "digits --vae.latent-dim 3 --vae.width 2 --vae.depth 1 --training.steps 6 "
    "--training.warmup 0 --training.batch-size 16 --training.log-every 2 "
    "--training.checkpoint-every 2 --test-images 20 --iwae-samples 4"
)


def files(path):
    return {
        name: (path / name).read_bytes()
        for name in ("config.json", "metrics.json", "metrics.jsonl", "generator.safetensors")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    path = tmp_path_factory.mktemp("vae") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(train_vae.run, train_vae.PRESETS, [*FLAGS, "--run", str(path)]) == 0
    return path


def test_a_run_leaves_its_settings_numbers_and_pictures(whole):
    config = json.loads((whole / "config.json").read_text())
    assert config["experiment"] == "experiments.train_vae"
    assert config["config"]["training"]["steps"] == 6
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 2, 4, 5]
    pixels = 64
    for row in rows:
        assert row["phase"] == "vae"
        # The weights rise over 50 steps, or all that there are.
        rise = (row["step"] + 1) / 6
        total = row["reconstruction"] + rise * (row["kl"] + row["total_correlation"])
        assert row["loss"] == pytest.approx(total / pixels, rel=1e-4)
        # Fresh codes hardly depend on each other, whatever the estimate for training says.
        assert 0 <= row["total_correlation_gaussian"] < 2
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["test_images"] == 20
    # At its start a VAE knows little more than that a pixel is a coin.
    assert -pixels < metrics["elbo"] <= metrics["iwae"] + 0.5 < 0
    for picture in ("reconstructions.png", "losses_vae.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")
    assert [*whole.glob("tensorboard/vae/events.out.tfevents.*")]


def test_weights_are_zero_until_the_delay_is_over_and_rise_after_it(whole):
    config = read_config(whole, Config)
    vae = train_vae.model(config, train_vae.load(config, "test"))
    params = vae.init(jax.random.key(0), jnp.zeros(vae.image_shape))
    batch = {"image": jax.random.uniform(jax.random.key(1), (4, *vae.image_shape))}
    objective = Objective(total_correlation=3.0, delay=2, warmup=4)

    def weight(step):
        total, terms = train_vae.loss(vae, objective, params, jax.random.key(2), step, batch)
        bound = total * batch["image"][0].size - terms["reconstruction"]
        return bound / (terms["kl"] + 3.0 * terms["total_correlation"])

    found = [float(weight(step)) for step in (0, 1, 2, 3, 5, 9)]
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.5, 1, 1], atol=1e-4)


def test_the_run_folder_holds_the_generator_that_was_trained(whole):
    config = read_config(whole, Config)
    vae = train_vae.model(config, train_vae.load(config, "test"))
    params = restore(whole, train_vae.PHASE, lambda key: train_vae.initial(vae, key))
    found, z = load_generator(whole), jnp.ones(3)
    image = found(z)
    np.testing.assert_allclose(image, vae.apply(params, z, method=vae.decode), atol=1e-6)
    np.testing.assert_allclose(
        found.encode(image), vae.apply(params, image, method=vae.encode), atol=1e-6
    )
    assert (found.name, found.dataset, found.labels) == ("the VAE of digits", "digits", ())


@pytest.mark.slow
def test_two_runs_of_one_seed_are_identical_and_of_two_are_not(whole, tmp_path, call):
    assert call(train_vae, *FLAGS, "--run", tmp_path / "same")[0] == 0
    assert files(tmp_path / "same") == files(whole)
    assert call(train_vae, *FLAGS, "--seed", 1, "--run", tmp_path / "other")[0] == 0
    same, other = files(whole), files(tmp_path / "other")
    assert all(same[name] != other[name] for name in same)


@pytest.mark.slow
def test_a_truncated_checkpoint_falls_back_to_the_one_before(whole, tmp_path, call):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    for file in (path / "checkpoints" / "vae" / "6").rglob("*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 2)
    (path / "metrics.json").unlink()
    code, _, err = call(train_vae, *FLAGS, "--run", path)
    assert code == 0
    assert "damaged checkpoint at step 6 removed; going back to step 4" in err
    assert files(path) == files(whole)


def test_a_loss_that_explodes_names_its_step_and_keeps_the_last_good_state(tmp_path, call):
    path = tmp_path / "run"
    flags = ["--training.learning-rate", "1e30", "--training.checkpoint-every", 1, "--run", path]
    code, _, err = call(train_vae, *FLAGS, *flags)
    assert code == 1
    assert err.count("\n") == 1
    match = re.match(r"error: vae: loss became non-finite at step (\d+): term '(\w+)' is ", err)
    assert match, err
    assert match[2] in ("reconstruction", "kl", "total_correlation")
    good = int(re.search(r"the last good checkpoint is step (\d+)", err)[1])
    assert 0 < good <= int(match[1])
    assert (path / "checkpoints" / "vae" / str(good)).is_dir()
    assert not (path / "metrics.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["digitz"], "unknown preset 'digitz' (did you mean 'digits'?)"),
        (["--data", "digit"], "no data set is called 'digit'; did you mean digits"),
        (["digits", "--vae.latent-dim", "0"], "vae latent_dim must be at least 1, got 0"),
        (["digits", "--vae.decoder", "brodcast"], "did you mean 'broadcast'?"),
        (
            ["digits", "--training.batch-size", "2000"],
            "a batch of 2000 is more than the 1437 examples of digits",
        ),
        (["digits", "--training.batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["digits", "--training.steps", "0"], "steps must be at least 1, got 0"),
        (["digits", "--objective.beta", "-1"], "objective.beta must be at least 0, got -1"),
        (["digits", "--objective.decoded", "300"], "objective.decoded (300) is more than"),
        (["digits", "--test-images", "0"], "test_images must be at least 1, got 0"),
        (["digits", "--image-size", "0"], "size must be a positive number of pixels, got 0"),
        (["digits", "--seed", "-1"], "seed must not be negative, got -1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call):
    code, out, err = call(train_vae, *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert message in err


def held(monkeypatch, shape, **lengths):
    """Makes random images of one shape the data set of every run."""
    sets = {
        split: data.from_arrays(
            "pictures",
            split=split,
            image=np.random.default_rng(0).integers(0, 256, (length, *shape), np.uint8),
        )
        for split, length in lengths.items()
    }
    monkeypatch.setattr(data, "load_part", lambda name, part, *, size: sets[part])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "held_out"),
    [((9, 5, 4), 1), ((12, 8, 4), 5), ((8, 20, 3), 1), ((9, 5, 1), 17)],
    ids=str,
)
def test_a_run_on_images_of_any_sides_alpha_or_few_held_out_ends_with_its_pictures(
    tmp_path, monkeypatch, call, compile_quickly, shape, held_out
):
    held(monkeypatch, shape, train=32, test=held_out)
    kind = ("--vae.encoder", "conv", "--vae.decoder", "conv", "--training.steps", 1)
    code, _, err = call(train_vae, *FLAGS, *kind, "--run", tmp_path)
    assert code == 0, err
    assert json.loads((tmp_path / "metrics.json").read_text())["test_images"] == held_out
    assert (tmp_path / "reconstructions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("experiment", [train_vae, train_gan])
def test_images_that_cannot_be_drawn_are_refused_before_training(
    tmp_path, monkeypatch, call, experiment
):
    held(monkeypatch, (8, 8, 5), train=200, test=20)
    code, _, err = call(experiment, "mnist", "--run", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "images of pictures must have 1 or 3 channels, last, or 4 with alpha" in err
    assert "(8, 8, 5)" in err
    assert not (tmp_path / "run").exists()


def test_a_gan_needs_two_images_to_be_compared_with(tmp_path, monkeypatch, call):
    held(monkeypatch, (8, 8, 1), train=200, test=1)
    code, _, err = call(train_gan, "mnist", "--run", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "pictures holds out 1 example, samples are compared with at least 2" in err


def test_a_data_set_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch, call):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    code, _, err = call(train_vae, "mnist", "--run", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert f"mnist is not prepared in {tmp_path / 'nowhere'}" in err
    assert "tfds build mnist" in err
    assert "`sprites`, which needs no data" in err
    assert not (tmp_path / "run").exists()


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="warmup"):
        Objective(warmup=-1)
    with pytest.raises(ValueError, match="delay"):
        Objective(delay=-1)
    with pytest.raises(ValueError, match="iwae_samples must be at least 1, got 0"):
        Config(iwae_samples=0)


def test_ground_truth_is_measured_where_there_is_one(key):
    config = Config(image_size=16)
    test = train_vae.load(config, "test")
    vae = train_vae.model(config, test)
    params = jax.jit(lambda key: train_vae.initial(vae, key))(key)
    generator = restore_generator(StoredGenerator(vae, params, "a VAE", "sprites"))
    found = measure(generator, test, count=12, samples=2, noise=0.02, seed=0)
    assert set(found) == {
        *("test_images", "elbo", "iwae", "iou", "valid_posterior", "valid_prior"),
        *("linear_r2_x", "linear_r2_y", "linear_r2_scale"),
    }
    assert all(np.isfinite(value) for value in found.values())
    # A decoder that was never trained paints everything grey.
    assert 0 < found["iou"] < 0.5
    assert found["valid_prior"] == 0


def test_a_function_of_many_points_is_compiled_once_for_each_shape():
    weights, traced = jnp.arange(3.0), []

    def scaled(x):
        traced.append(x.shape)
        return weights * x

    chunked = in_chunks(scaled, size=2)
    for points in (jnp.ones((5, 3)), jnp.zeros((5, 3)), jnp.ones((7, 3)), jnp.ones((2, 1))):
        np.testing.assert_array_equal(chunked(points), weights * points)
    assert traced == [(3,), (1,)]


# --- the flow prior ---

FLOW = shlex.split(
    "--prior flow --prior-flow.training.steps 4 --prior-flow.training.batch-size 16 "
    "--prior-flow.codes 64 --prior-flow.width 8 --prior-flow.depth 1 --prior-flow.steps 2"
)


@pytest.fixture(scope="module")
def with_flow(tmp_path_factory, whole):
    """The run once it has gone on with a flow prior."""
    path = shutil.copytree(whole, tmp_path_factory.mktemp("vae") / "flow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(train_vae.run, train_vae.PRESETS, [*FLAGS, *FLOW, "--run", str(path)]) == 0
    return path


@pytest.mark.slow
def test_a_flow_prior_is_that_of_the_generator_that_the_run_leaves(whole, with_flow):
    plain, found = load_generator(whole), load_generator(with_flow)
    key, z = jax.random.key(3), jnp.array([0.1, -0.2, 0.3])
    np.testing.assert_array_equal(found(z), plain(z))
    np.testing.assert_array_equal(plain.prior(key), jax.random.normal(key, (3,)))
    assert not jnp.allclose(found.prior(key), plain.prior(key))
    np.testing.assert_allclose(plain.log_prior(z), log_normal(z), atol=1e-5)
    assert jnp.isfinite(found.log_prior(z))
    metrics = json.loads((with_flow / "metrics.json").read_text())
    assert metrics.pop("elbo_prior_flow") < 0
    assert metrics == json.loads((whole / "metrics.json").read_text())
    rows = [json.loads(line) for line in (with_flow / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "prior_flow"] == [0, 3]
    assert (with_flow / "samples.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_finished_run_gets_a_flow_prior_afterwards(whole, tmp_path, call):
    path = tmp_path / "run"
    shutil.copytree(whole, path)
    code, out, _ = call(train_vae, *FLAGS, *FLOW, "--run", path)
    assert code == 0
    assert f"{path}: goes on with prior flow; what was made before is made anew" in out
    with_flow = tmp_path / "flow"
    assert call(train_vae, *FLAGS, *FLOW, "--run", with_flow)[0] == 0
    assert files(path) == files(with_flow)
    code, _, err = call(train_vae, *FLAGS, "--run", path)
    assert code == 2
    assert "prior: flow -> normal" in err
    assert files(path) == files(with_flow)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prior-flow.codes", 20], "learns from 20 codes, and needs 256"),
        (["--prior-flow.codes", 1], "prior_flow.codes must be at least 2, got 1"),
        (["--prior-flow.steps", -1], "prior_flow.steps must be at least 0, got -1"),
        (["--prior-flow.steps", 0, "--prior-flow.solver", "euler"], "euler cannot choose its"),
        (["--prior-flow.solver", "tsit6"], "did you mean 'tsit5'?"),
    ],
)
def test_a_flow_prior_that_cannot_be_is_one_line_and_code_2(flags, message, tmp_path, call):
    code, out, err = call(train_vae, *FLAGS, "--prior", "flow", *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_of_several_decoders_leaves_an_ensemble(tmp_path, call):
    code, _, err = call(train_vae, *FLAGS, "--vae.decoders", 3, "--run", tmp_path)
    assert code == 0, err
    generator = load_generator(str(tmp_path))
    z = jnp.array([0.3, -0.4, 1.0])
    assert generator.members(z).shape == (3, 8, 8, 1)
    np.testing.assert_allclose(generator(z), generator.members(z).mean(0), rtol=1e-5)
    assert len({*np.asarray(generator.members(z))[:, 0, 0, 0].tolist()}) == 3
    assert json.loads((tmp_path / "metrics.json").read_text())["elbo"] < 0


def test_each_example_trains_one_decoder_and_each_decoder_as_many():
    shares = train_vae.equal_shares(jax.random.key(0), 12, 4)
    assert shares.shape == (3, 4)
    assert sorted(shares.ravel().tolist()) == [*range(12)]
    # Where a batch cannot be shared out, each example comes up as often as any other.
    keys = jax.random.split(jax.random.key(1), 3000)
    many = jax.vmap(lambda key: train_vae.equal_shares(key, 4, 3))(keys)
    counts = np.bincount(np.asarray(many).ravel(), minlength=4) / len(keys)
    np.testing.assert_allclose(counts, 6 / 4, atol=0.05)


def test_an_ensemble_is_of_train_vae_alone(tmp_path, call):
    code, _, err = call(flow_vae, "--vae.decoders", 2, "--run", tmp_path / "run")
    assert code == 2
    assert "vae.decoders must be 1 here, got 2: ensembles are of train_vae" in err
