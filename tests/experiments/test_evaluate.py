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
from experiments.evaluate.readers import Evaluated
from experiments.evaluate.scores import SCORES, lacks
from experiments.flow_vae import config as flow_vae_config
from experiments.generators.spec import open_study
from experiments.potential_flows import flow_space
from experiments.potential_flows.config import Config as FlowConfig
from experiments.potential_flows.flags import Flows
from experiments.runtime import checkpoints
from experiments.runtime.run_dir import open_folder
from experiments.runtime.training import Training
from latent_flows.data import sprites
from latent_flows.generators import GeneratorSpec, freeze
from latent_flows.generators import stored as stored_generators
from latent_flows.generators.load import GENERATOR, REFERENCE, reference
from latent_flows.generators.prior_flow import init_prior_flow
from latent_flows.generators.vae import VAEConfig
from tests.experiments.small_generators import small_gan, small_vae

pytestmark = pytest.mark.usefixtures("compile_quickly")

TINY = VAEConfig(latent_dim=3, encoder="mlp", decoder="mlp", width=1, depth=1)
SMALL = [
    *("--sizes.codes", 400, "--sizes.images", 8, "--sizes.iwae-samples", 2, "--sizes.trees", 1),
    *("--sizes.tree-codes", 400, "--sizes.points", 60, "--sizes.batch", 4),
    *("--sizes.classifier-steps", 20, "--sizes.paths", 10),
]
ENCODED = ["mig", "dci", "sap", "modularity", "beta_vae", "factor_vae"]


def save(path, phase, params, steps=1, total=1):
    with checkpoints.open_manager(path / "checkpoints" / phase) as manager:
        checkpoints.save(manager, steps, {"params": params, "total": total})
        manager.wait_until_finished()


@pytest.fixture(scope="module")
def sprites_run(tmp_path_factory):
    return small_vae(tmp_path_factory.mktemp("sprites") / "run", "sprites", size=16)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return small_vae(tmp_path_factory.mktemp("digits") / "run", "digits")


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
    assert list(scores) == ["elbo", "iwae", *ENCODED, "ppl"]
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
    assert list(found["scores"]) == ["elbo", "iwae", "confident", "ppl"]
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

    run = shutil.copytree(sprites_run, tmp_path / "other")
    header = {"experiment": "experiments.summary", "config": {}}
    (run / "config.json").write_text(json.dumps(header))
    (run / GENERATOR).unlink()
    refused(call(run), "other holds no generator and was about none")
    (run / "checkpoints" / "vae").mkdir(parents=True)
    refused(call(run), "its training was not finished", "or it was made by version 0.1.0")
    run = shutil.copytree(sprites_run, tmp_path / "damaged")
    (run / GENERATOR).write_bytes((run / GENERATOR).read_bytes()[:-5])
    before = contents(run)
    refused(call(run), f"damaged/{GENERATOR} is truncated, corrupt or no safetensors file")
    assert contents(run) == before


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["flow", "normal"])
def test_of_labelled_images_a_classifier_is_sure_of_a_share_of_the_draws(call, tmp_path, prior):
    run = small_vae(tmp_path / "run")
    if prior == "flow":
        codes = np.random.default_rng(0).normal(size=(50, 3))
        flow = init_prior_flow(jax.random.key(0), codes, width=2, depth=1, steps=1)
        kept = stored_generators.read(run / GENERATOR)
        content = stored_generators.to_bytes(kept._replace(prior_flow=flow))
        (run / GENERATOR).write_bytes(content)
    flags = ("--scores", "confident", "--sizes.images", 200, "--sizes.classifier-steps", 100)
    before = {*contents(run)}
    code, _, err = call(run, *flags)
    assert code == 0, err
    assert {*contents(run)} - before == {run / evaluate.RESULT}
    shares = stored(run)["scores"]["confident"]
    # A flow is told beside draws from a normal distribution.
    others = {"prior", "posterior", "held_out_images", "accuracy", "images"}
    assert {*shares} - others == ({"normal"} if prior == "flow" else set())
    # What has learnt nothing makes no digit; the classifier knows some of the real ones.
    assert max(shares["prior"], shares["posterior"]) < 0.05
    assert 0.0 < shares["held_out_images"] < shares["accuracy"] <= 1.0
    assert shares["images"] == 200
    refused(call(run, "--sizes.classifier-steps", 0), "classifier_steps must be at least")


def test_the_path_length_of_a_generator_is_seen_through_a_network_of_ones_own(
    call, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_eyes.py").write_text("def twice(x):\n    return 2 * x.ravel()\n")
    gan = small_gan(tmp_path / "gan")
    found = []
    for features in ((), ("--features", "own_eyes:twice")):
        code, out, err = call(gan, "--scores", "ppl", "--sizes.paths", 10, *features)
        assert code == 0, err
        assert "perceptual path length" in " ".join(out.split())
        found.append(stored(gan)["scores"]["ppl"])
    assert found[1]["mean"] == pytest.approx(4 * found[0]["mean"], rel=1e-4)
    refused(call(gan, "--features", "own_eyes:none"), "--features", "none")
    refused(call(gan, "--scores", "frechet", "--features", "own_eyes:twice"))


def test_data_without_labels_have_no_classifier(sprites_run, call):
    refused(call(sprites_run, "--scores", "confident"), "no images with labels of classes")


@pytest.mark.slow
def test_any_run_about_a_generator_is_evaluated_as_that_generator(sprites_run, call, tmp_path):
    run = tmp_path / "geodesics"
    run.mkdir()
    header = {"experiment": "experiments.geodesics", "config": {}}
    (run / "config.json").write_text(json.dumps(header))
    (run / REFERENCE).write_text(json.dumps(reference(GeneratorSpec(str(sprites_run)), 0, run)))
    assert call(run, *SMALL, "--scores", "mig")[0] == 0
    assert call(sprites_run, *SMALL, "--scores", "mig")[0] == 0
    assert stored(run)["scores"]["mig"] == stored(sprites_run)["scores"]["mig"]
    assert stored(run)["experiment"] == "experiments.geodesics"
    refused(call(run, "--scores", "vp"), "a run of experiments.geodesics has no traversals")


def test_a_generator_that_says_nothing_of_its_noise_has_no_bounds(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "run").mkdir()
    header = {"experiment": "experiments.directions", "config": {}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(header))
    kept = reference(GeneratorSpec("own.py:linear"), 0, tmp_path / "run")
    (tmp_path / "run" / REFERENCE).write_text(json.dumps(kept))
    refused(call("run", "--scores", "elbo"), "the generator says nothing of the noise")
    refused(call("run", "--scores", "mig"), "digits has no ground-truth factors")


OWN = """
import jax.numpy as jnp
from latent_flows.generators import freeze

linear = freeze(
    lambda z: 0.5 + jnp.broadcast_to(z[:, None, None], (8, 8, 1)) / 9,
    8,
    encode=lambda x: (x.mean((1, 2)), jnp.ones(8)),
    dataset="digits",
)
"""


@pytest.fixture
def flows_run(sprites_run, tmp_path, monkeypatch):
    """A finished run of potential_flows, whose flows move sprites along x, and up in the image."""
    config = FlowConfig(
        run=str(tmp_path / "flows"),
        generator=str(sprites_run),
        flows=Flows(count=2, horizon=2, family="linear"),
    )
    path = open_study(config).path
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

    frozen = freeze(generator, 2, dataset="sprites")
    starts = 0.3 + 0.2 * jnp.eye(2)[jnp.arange(5) % 2]
    space = SimpleNamespace(
        frozen=frozen, generator=generator, starts=starts, metric=None, spread=None
    )
    one = flow_space.initial(config.flows, space, jax.random.key(0))["potentials"]
    # All that matters is which way they point, not how fast.
    one["params"]["direction"] = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    params = {"potentials": one}
    loaded = (config, None, space, params)
    monkeypatch.setattr(flow_space, "load_run", lambda run: loaded)
    return path


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
    path = small_gan(tmp_path / "gan", "sprites")
    (path / "metrics.json").write_text(
        json.dumps({"samples": 9, "frechet": 0.5, "frechet_of_training_images": 0.1})
    )
    code, out, _ = call(path, "--sizes.paths", 10)
    assert code == 0
    scores = stored(path)["scores"]
    assert list(scores) == ["ppl", "frechet"]
    assert scores["frechet"] == {"frechet": 0.5, "frechet_of_training_images": 0.1}
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
    model = flow_vae_config.build(config, flow_vae_config.load(config, "test"))
    params = jax.jit(model.init)(jax.random.key(0))
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


def test_what_is_measured_on_images_is_not_asked_of_vectors():
    vectors = Evaluated("run", "x", generator=freeze(lambda z: z, 2), paths=lambda: None)._replace(
        metrics={}
    )
    pictures = vectors._replace(generator=freeze(lambda z: jnp.zeros((8, 8, 1)) + z[0], 2))
    assert "makes none" in lacks(vectors, SCORES["correlation"])
    assert lacks(pictures, SCORES["correlation"]) is None
