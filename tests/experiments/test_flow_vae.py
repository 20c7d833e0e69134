"""VAEs trained with flows: densities in closed form, what a run leaves, what is refused."""

import json
import shlex
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.flow_vae import config as flow_vae_config
from experiments.flow_vae import scores as flow_vae_scores
from experiments.flow_vae import train as flow_vae
from experiments.flow_vae.config import Config, Fields, Scores
from experiments.runtime import cli
from experiments.runtime.training import Training
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives.flow_vae import WITH_FLOW, FlowVAEObjective

FLAGS = shlex.split(
    "digits --factors rotation hue --frames 3 --vae.latent-dim 2 --vae.width 1 --vae.depth 1 "
    "--fields.width 4 --fields.depth 1 --fields.steps 1 --training.steps 4 --training.warmup 0 "
    "--training.batch-size 4 --training.log-every 1 --training.checkpoint-every 2 "
    "--objective.warmup 2 --scores.images 3 --scores.sequences 2 --scores.samples 2 "
    "--scores.steps 1"
)


def tiny(kind, **objective):
    return Config(
        data="digits",
        factors=("rotation", "brightness"),
        frames=3,
        vae=VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=1, depth=1),
        fields=Fields(width=4, depth=1, steps=1),
        objective=FlowVAEObjective(kind=kind, warmup=0, **objective),
        training=Training(batch_size=4),
        scores=Scores(images=4, sequences=2, samples=2, steps=1),
    )


@pytest.fixture(scope="module")
def digits():
    return flow_vae_config.load(tiny("vae"), "test")


# --- losses ---


@pytest.mark.parametrize(
    "kind",
    [
        "factor-vae",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("vae", "tc-vae", *WITH_FLOW)),
    ],
)
def test_every_kind_sees_the_same_images_and_every_network_gets_a_gradient(kind, digits, key):
    config = tiny(kind)
    model = flow_vae_config.build(config, digits)
    params = jax.jit(model.init)(key)
    if "potentials" in params:
        params["potentials"] = jax.tree.map(lambda leaf: leaf + 0.1, params["potentials"])
    batch = {"example": jnp.asarray(digits.dataset.examples(np.arange(4))["example"])}

    def loss(params, config):
        step = jnp.array(9)
        return flow_vae.loss(
            model, config.objective, config.fields.steps, digits, params, key, step, batch
        )

    (value, terms), slope = jax.jit(
        jax.value_and_grad(lambda params: loss(params, config), has_aux=True)
    )(params)
    norms = {
        name: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(part)))
        for name, part in slope.items()
    }
    assert np.isfinite(float(value))
    if kind == "hamilton-jacobi":
        assert norms.pop("coefficients") == 0  # its equation has none
    assert all(np.isfinite(norm) and norm > 0 for norm in norms.values()), norms
    # A Bernoulli's mean is fitted from the same images in each kind: the first codes are equal.
    reference = flow_vae_config.build(tiny("vae"), digits)
    own = {"vae": params["vae"]}
    expected = jax.jit(
        lambda params: flow_vae.loss(
            reference, tiny("vae").objective, 1, digits, params, key, jnp.array(9), batch
        )
    )(own)
    assert float(terms["reconstruction"]) == pytest.approx(
        float(expected[1]["reconstruction"]), rel=1e-4
    )


# --- a run ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    path = tmp_path_factory.mktemp("flow_vae") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(flow_vae.run, flow_vae.PRESETS, [*FLAGS, "--run", str(path)]) == 0
    return path


@pytest.mark.slow
def test_pictures_come_without_scores_which_the_same_command_adds(
    whole, tmp_path, call, monkeypatch
):
    path = Path(shutil.copytree(whole, tmp_path / "run"))
    for file in (path / "metrics.json", *path.glob("*.png")):
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(flow_vae_scores, "measure", None)
        code, out, err = call(flow_vae, *FLAGS, "--no-scores", "--run", path)
        assert (code, err) == (0, "")
        assert "sequences.png" in out
        assert not (path / "metrics.json").exists()
    assert call(flow_vae, *FLAGS, "--run", path)[0] == 0
    assert (path / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_pictures(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    objective = FlowVAEObjective()
    for row in rows:
        rise = min(1, (row["step"] + 1) / 2)
        total = 0.5 * row["reconstruction"] + 0.5 * row["transport"] + rise * row["kl"]
        total += objective.mismatch * row["matching"] + objective.residual * row["residual"]
        assert row["loss"] == pytest.approx(total / 192, rel=1e-4)
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["test_images"] == 3
    assert metrics["equivariance"] == metrics["equivariance_flow"] > 0
    assert [row["factor"] for row in metrics["factors"]] == ["rotation", "hue"]
    for name in ("plain", "transformed", "plain_given", "transformed_given", "sequence"):
        assert metrics[f"iwae_{name}"] < 0
    for picture in ("sequences.png", "losses_vae.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--objective.kind", "flows"], "unknown objective.kind 'flows' (did you mean 'flow'?)"),
        (["--factors", "rotatoin"], "unknown factor of digits 'rotatoin' (did you mean 'rotation'"),
        (["--training.batch-size", "49"], "must be a multiple of the 3 factors"),
        (["--training.batch-size", "3000"], "a batch of 3000 is more than the 1437 examples"),
        (["--train-images", "9000"], "train_images (9000) is more than the 1437 examples"),
        (["--fields.pde", "wav"], "unknown fields.pde 'wav' (did you mean 'wave'?)"),
        (["--fields.count", "2"], "fields.count must be 3, one a factor, got 2"),
        (["--scores.samples", "0"], "scores.samples must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call):
    code, out, err = call(flow_vae, "digits", *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()
