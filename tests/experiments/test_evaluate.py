"""The command that evaluates runs: what it writes and prints, and what it refuses."""

import json
import math
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluate import evaluate
from experiments.evaluate.scores import SCORES
from experiments.flow_vae import config as flow_vae_config
from experiments.flow_vae import model as flow_vae_model
from experiments.generators import train_gan, train_vae
from experiments.potential_flows import config as flow_config
from experiments.potential_flows.flags import Flows
from experiments.runtime import checkpoints
from experiments.runtime.run_dir import open_folder
from experiments.runtime.training import Training
from latent_flows.data import sprites
from latent_flows.generators.vae import VAEConfig

pytestmark = pytest.mark.usefixtures("compile_quickly")

TINY = VAEConfig(latent_dim=3, encoder="mlp", decoder="mlp", width=1, depth=1)
SMALL = [
    *("--sizes.codes", 400, "--sizes.images", 8, "--sizes.iwae-samples", 2, "--sizes.trees", 1),
    *("--sizes.tree-codes", 400, "--sizes.points", 60, "--sizes.batch", 4),
]
ENCODED = ["mig", "dci", "sap", "modularity", "beta_vae", "factor_vae"]


def save(path, phase, params, steps=1, total=1):
    with checkpoints.open_manager(path / "checkpoints" / phase) as manager:
        checkpoints.save(manager, steps, {"params": params, "total": total})
        manager.wait_until_finished()


def vae_run(path, data, **settings):
    """A finished run of train_vae, as far as the command reads it, with parameters of chance."""
    config = train_vae.Config(run=str(path), data=data, vae=TINY, **settings)
    path = open_folder(path, config).path
    vae = train_vae.model(config, train_vae.load(config, "test"))
    save(path, train_vae.PHASE, train_vae.initial(vae, jax.random.key(0)))
    return path


@pytest.fixture(scope="module")
def sprites_run(tmp_path_factory):
    return vae_run(tmp_path_factory.mktemp("sprites") / "run", "sprites", image_size=16)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return vae_run(tmp_path_factory.mktemp("digits") / "run", "digits")


@pytest.fixture
def call(call):
    """Calls the command: exit code, stdout, stderr."""
    return partial(call, evaluate)


def refused(result, *words):
    code, out, err = result
    assert code == 2
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert "Scores" not in out


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def stored(path):
    return json.loads((path / evaluate.RESULT).read_text())


@pytest.mark.slow
def test_a_vae_of_sprites_has_all_scores_of_codes_and_nothing_else_changes(
    sprites_run, call, monkeypatch
):
    before = contents(sprites_run)
    code, out, err = call(sprites_run, *SMALL)
    assert (code, err) == (0, "")
    found = stored(sprites_run)
    after = contents(sprites_run)
    assert after.pop(sprites_run / evaluate.RESULT)
    assert after == before

    scores = found["scores"]
    assert list(scores) == ["elbo", "iwae", *ENCODED]
    assert set(found["not_applicable"]) == set(SCORES) - set(scores)
    assert scores["elbo"]["images"] == scores["iwae"]["images"] == 8
    # Before training a pixel is a coin; the divergence costs something.
    assert -256 < scores["elbo"]["mean"] < 0
    assert abs(scores["iwae"]["mean"] + 256 * math.log(2)) < 20
    assert 0 <= scores["mig"] < 0.5
    assert np.shape(scores["dci"]["importance"]) == (3, 5)
    for name in ("disentanglement", "completeness", "informativeness"):
        assert 0 <= scores["dci"][name] <= 1
    for name in ("beta_vae", "factor_vae"):
        assert 0 <= scores[name]["accuracy"] <= 1
    assert found["experiment"] == "experiments.train_vae"
    assert found["settings"]["sizes"]["codes"] == 400
    assert all(name in out for name in SCORES)
    assert "no traversals" in " ".join(out.split())

    # What is there is kept, as long as the settings are the same.
    failing = {name: score._replace(compute=None) for name, score in SCORES.items()}
    monkeypatch.setattr(evaluate, "SCORES", failing)
    assert call(sprites_run, *SMALL)[0] == 0
    assert stored(sprites_run) == found
    with pytest.raises(TypeError):
        call(sprites_run, *SMALL, "--seed", 1)


@pytest.mark.slow
def test_an_evaluation_that_was_interrupted_goes_on(sprites_run, call, tmp_path, monkeypatch):
    run = shutil.copytree(sprites_run, tmp_path / "run")
    (run / evaluate.RESULT).unlink(missing_ok=True)

    def stop(material):
        raise KeyboardInterrupt

    broken = SCORES | {"sap": SCORES["sap"]._replace(compute=stop)}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "SCORES", broken)
        assert call(run, *SMALL, "--scores", "mig", "sap")[0] == 130
    assert list(stored(run)["scores"]) == ["mig"]
    code, out, _ = call(run, *SMALL, "--scores", "sap", "mig")
    assert code == 0
    assert "mig: mutual" not in out
    assert list(stored(run)["scores"]) == ["mig", "sap"]
    assert "dci" not in out


def test_labels_are_no_factors(digits_run, call):
    code, out, _ = call(digits_run, *SMALL[2:])
    assert code == 0
    found = stored(digits_run)
    assert list(found["scores"]) == ["elbo", "iwae"]
    assert all("digits has no ground-truth factors" in found["not_applicable"][s] for s in ENCODED)
    assert "labels of classes are none" in " ".join(out.split())
    refused(call(digits_run, "--scores", "elbo", "mig"), "mig cannot be computed", "digits has no")


@pytest.mark.slow
def test_more_samples_than_there_are_and_fewer_than_it_takes_are_refused(
    digits_run, sprites_run, call
):
    refused(
        call(digits_run, "--scores", "elbo", "--sizes.images", 361),
        "--sizes.images 361 is more than the 360 held-out images of digits",
    )
    refused(
        call(sprites_run, "--scores", "mig", "--sizes.codes", 10**6),
        "--sizes.codes 1000000 is more than the 73",
    )
    refused(
        call(sprites_run, "--scores", "mig", "--sizes.codes", 60), "samples", "take more samples"
    )
    refused(
        call(sprites_run, "--scores", "factor_vae", "--sizes.points", 4, *SMALL[:2]),
        "train must be at least 5, got 3",
    )
    refused(call(sprites_run, "--sizes.trees", 0), "sizes.trees must be at least 1, got 0")


@pytest.mark.slow
def test_folders_that_cannot_be_evaluated_are_refused(sprites_run, call, tmp_path):
    refused(call(tmp_path / "nowhere"), "nowhere", "does not exist")
    (tmp_path / "README.md").write_text("# Title")
    refused(call(tmp_path / "README.md"), "README.md is a file, not a run folder")
    refused(call(sprites_run, "--scores", "migg"), "unknown score 'migg' (did you mean 'mig'?)")
    refused(call(sprites_run, "--seed", -1), "seed must not be negative, got -1")

    def spoilt(name, change):
        run = shutil.copytree(sprites_run, tmp_path / name)
        content = json.loads((run / "config.json").read_text())
        change(content)
        (run / "config.json").write_text(json.dumps(content))
        return run

    run = spoilt("newer", lambda c: c["config"].update(colour="red"))
    refused(call(run), "newer was made by another version of experiments.train_vae", "colour")
    run = spoilt("other", lambda c: c.update(experiment="experiments.land"))
    refused(call(run), "a run of experiments.land", "nothing to evaluate", "experiments.train_vae")
    run = spoilt("empty", lambda c: None)
    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    refused(call(run), "holds no checkpoint of 'vae'")
    assert contents(run) == before
    run = spoilt("wider", lambda c: c["config"]["vae"].update(latent_dim=4))
    refused(call(run), "holds another model")


def test_a_run_that_was_not_finished_is_refused(sprites_run, call, tmp_path):
    run = shutil.copytree(sprites_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    config = train_vae.Config(run=str(run), data="sprites", image_size=16, vae=TINY)
    vae = train_vae.model(config, train_vae.load(config, "test"))
    save(run, "vae", train_vae.initial(vae, jax.random.key(0)), steps=3, total=7)
    refused(call(run, "--scores", "mig"), "at step 3 of 7")


@pytest.fixture
def flows_run(sprites_run, tmp_path, monkeypatch):
    """A finished run of potential_flows, whose flows move sprites along x, and up in the image."""
    config = flow_config.Config(
        run=str(tmp_path / "flows"),
        generator=str(sprites_run),
        flows=Flows(count=2, horizon=2, family="linear"),
    )
    path = open_folder(config.run, config).path
    own = {"method": "learnt lines", "length": 3.0, "vp@10%": 0.75, "share": 0.9, "sign": 1.0}
    metrics = {
        "potentials": {"length": [2.0, 4.0]},
        "comparison": [
            {"displacement": "long", **own},
            {"displacement": "short", **own, "vp@10%": 0.5},
            {"displacement": "long", **own, "method": "random directions", "vp@10%": 0.1},
        ],
    }
    (path / "metrics.json").write_text(json.dumps(metrics))

    def generator(z):
        return sprites.render(sprites.Factors(1.0, 1.0, 0.0, *z), size=16)

    subject = SimpleNamespace(
        generator=generator, starts=0.3 + 0.2 * jnp.eye(2)[jnp.arange(5) % 2], metric=None
    )
    one = flow_config.initial(config, subject_like(subject), jax.random.key(0))["potentials"]
    # All that matters is which way they point, not how fast.
    one["params"]["direction"] = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    params = {"potentials": one}
    loaded = (config, train_vae.load(train_vae.Config(data="sprites"), "train"), subject, params)
    monkeypatch.setattr(flow_config, "load_run", lambda run: loaded)
    return path


def subject_like(subject):
    return SimpleNamespace(starts=subject.starts, image_shape=(16, 16, 1))


@pytest.mark.slow
def test_flows_have_scores_of_their_own_beside_those_of_their_vae(flows_run, call):
    names = ["elbo", "mig", "vp", "share", "path_length", "correlation"]
    before = contents(flows_run)
    code, out, _ = call(flows_run, *SMALL, "--scores", *names)
    assert code == 0
    assert contents(flows_run).keys() - before.keys() == {flows_run / evaluate.RESULT}
    scores = stored(flows_run)["scores"]
    assert list(scores) == names
    assert scores["vp"] == {"vp@10% long": 0.75, "vp@10% short": 0.5}
    assert scores["share"] == {"share": 0.9, "sign": 1.0}
    assert scores["path_length"] == {"mean": 3.0, "each": [2.0, 4.0]}
    found = scores["correlation"]
    assert found["attributes"] == ["x", "y", "size", "elongation"]
    for method in ("pearson", "spearman"):
        signed = np.array(found[method]["signed"])
        assert signed[0, 0] == pytest.approx(1, abs=1e-3)
        assert signed[1, 1] == pytest.approx(-1, abs=1e-3)
    assert found["counted"] == [1, 1]
    assert "1.00 (1.00)" in out
    assert "-1.00 (1.00)" in out


@pytest.mark.slow
def test_flows_that_were_not_measured_lack_only_what_needs_it(flows_run, call):
    (flows_run / "metrics.json").unlink()
    refused(call(flows_run, "--scores", "vp"), "no metrics.json; run it to its end first")
    assert call(flows_run, *SMALL, "--scores", "correlation")[0] == 0


@pytest.mark.slow
def test_a_gan_has_what_it_measured_and_no_codes(call, tmp_path):
    path = open_folder(tmp_path / "gan", train_gan.Config(run=str(tmp_path / "gan"))).path
    (path / "metrics.json").write_text(
        json.dumps({"samples": 9, "frechet": 0.5, "frechet_of_training_images": 0.1})
    )
    code, out, _ = call(path)
    assert code == 0
    assert stored(path)["scores"] == {
        "frechet": {"frechet": 0.5, "frechet_of_training_images": 0.1}
    }
    assert "has no encoder" in " ".join(out.split())
    refused(call(path, "--scores", "iwae"), "iwae cannot be computed", "has no encoder")


@pytest.mark.slow
def test_a_vae_with_flows_is_a_vae_with_an_equivariance_error(call, tmp_path):
    config = flow_vae_config.Config(
        run=str(tmp_path / "run"),
        data="sprites",
        image_size=16,
        factors=("x", "y"),
        frames=2,
        vae=TINY,
        training=Training(batch_size=2),
    )
    path = open_folder(config.run, config).path
    model = flow_vae_model.build(config, flow_vae_config.load(config, "test"))
    params = jax.jit(partial(flow_vae_model.initial, model))(jax.random.key(0))
    save(path, flow_vae_config.PHASE, params)
    names = ["elbo", "mig", "equivariance"]
    refused(call(path, *SMALL, "--scores", *names), "no sequences with known factors")
    (path / "metrics.json").write_text(
        json.dumps({"equivariance": 2.0, "equivariance_still": 3.0, "iwae_plain": -1.0})
    )
    assert call(path, *SMALL, "--scores", *names)[0] == 0
    scores = stored(path)["scores"]
    assert scores["equivariance"] == {"equivariance": 2.0, "still": 3.0}
    assert 0 <= scores["mig"] < 0.5
    assert -1000 < scores["elbo"]["mean"] < 0
