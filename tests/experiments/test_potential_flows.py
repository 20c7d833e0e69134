"""Potential flows from the command line to the pictures, and their loss for every setting."""

import itertools
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.potential_flows import scores as flow_scores
from experiments.potential_flows import train as potential_flows
from experiments.potential_flows import traverse
from experiments.potential_flows.config import Config, Flows, Weights
from experiments.potential_flows.flow_space import (
    initial,
    load_run,
    load_space,
    measured_factors,
)
from experiments.runtime import cli
from experiments.runtime.training import Training
from latent_flows import data, pde
from latent_flows.generators import load_generator
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.stored import (
    StoredGenerator,
    load_bytes,
    restore_generator,
    to_bytes,
)
from latent_flows.generators.vae import VAE, VAEConfig
from tests.experiments.small_generators import small_vae

ROOT = Path(__file__).parents[2]
FLAGS = shlex.split(
    "digits --flows.count 2 --flows.horizon 2 --flows.width 8 "
    "--flows.depth 1 --flows.codes 64 --flows.bank 32 --flows.frame identity --training.steps 4 "
    "--training.warmup 0 --training.batch-size 16 --training.log-every 2 "
    "--training.checkpoint-every 2 --scores.starts 4 --scores.pairs 20 --scores.fractions 0.2 "
    "--scores.seeds 1 --scores.vp-steps 5"
)
NUMBERS = ("config.json", "metrics.json", "metrics.jsonl")


def numbers(path):
    return {name: (path / name).read_bytes() for name in NUMBERS}


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The run folder of a VAE of digits."""
    return small_vae(tmp_path_factory.mktemp("generators") / "vae")


@pytest.fixture(scope="module")
def flags(digits):
    """Of a small run on it."""
    return [*FLAGS, "--generator", str(digits)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, flags, compile_quickly):
    path = tmp_path_factory.mktemp("flows") / "run"
    flags = [*flags, "--run", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        assert cli.main(potential_flows.run, potential_flows.PRESETS, flags) == 0
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_run_leaves_its_settings_numbers_and_pictures(whole):
    settings = json.loads((whole / "config.json").read_text())["config"]
    assert settings["flows"]["count"] == 2
    assert "run" not in settings
    assert [(row["phase"], row["step"]) for row in rows(whole)] == [
        ("flows", step) for step in (0, 2, 3)
    ]
    for name in ("traversals", "landscapes", "losses_flows"):
        assert (whole / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (whole / "traversals.gif").read_bytes().startswith(b"GIF8")
    assert [*whole.glob("tensorboard/flows/events.out.tfevents.*")]
    assert load_generator(whole).dataset == "digits", "the run tells which generator it was about"


def test_the_loss_is_the_weighted_sum_of_its_terms(whole):
    weights = vars(potential_flows.PRESETS["digits"][1].weights)
    for row in rows(whole):
        if row["phase"] == "flows":
            assert "avoided" not in row, "nothing was to be avoided"
            total = sum(weight * row[name] for name, weight in weights.items() if name in row)
            assert row["loss"] == pytest.approx(total, rel=1e-4)
            assert 0 <= row["accuracy"] <= 1


def test_every_method_is_measured_at_the_length_of_the_flows(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    target = np.median(metrics["potentials"]["length"])
    comparison = metrics["comparison"]
    assert [(row["method"], row["displacement"]) for row in comparison] == [
        (method, length)
        for method in ("potentials", "random directions", "latent coordinates")
        for length in ("long", "short")
    ]
    for row in comparison:
        assert 0 <= row["vp@20%"] <= 1
        if row["method"] != "potentials":
            share = 1 if row["displacement"] == "long" else 0.25
            # The scale is found on 4 of the starting points, which are all here.
            assert row["length"] == pytest.approx(share * target, rel=0.02)
    assert metrics["generator"]["test_images"] == 360  # all that are held out
    assert metrics["potentials"]["solved"] == 1


def test_factors_that_are_asked_for_are_measured_in_units_of_what_the_generator_makes(
    untrained, monkeypatch
):
    frozen, dataset = untrained
    space = load_space(replace(SMALL.flows, starts="prior"), 0, frozen, dataset)
    assert measured_factors((), space.frozen) is None
    known = measured_factors(("size", "x"), space.frozen)
    assert known.factor_names == ("size", "x")
    monkeypatch.setattr(flow_scores, "SURVEYED", 10)
    images = flow_scores.surveyed(Config(), space, None)
    np.testing.assert_allclose(images, jax.vmap(space.generator)(space.starts[:10]), rtol=1e-5)


def test_a_finished_run_returns_at_once(copy, flags, call, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("was called")

    for module, name in ((potential_flows, "load_space"), (traverse, "draw")):
        monkeypatch.setattr(module, name, fail)
    before, stamp = numbers(copy), (copy / "traversals.gif").stat().st_mtime_ns
    code, out, err = call(potential_flows, *flags, "--run", copy)
    assert (code, err) == (0, "")
    assert "latent coordinates" in out
    assert "traversals.png" in out
    assert numbers(copy) == before
    assert (copy / "traversals.gif").stat().st_mtime_ns == stamp


def unmeasured(copy):
    """Takes the scores, and the pictures, of a run away."""
    shutil.rmtree(copy / "scores", ignore_errors=True)
    for file in (copy / "metrics.json", *copy.glob("*.png"), *copy.glob("*.gif")):
        file.unlink()


def test_pictures_come_without_scores_and_once(copy, flags, call, monkeypatch):
    unmeasured(copy)
    monkeypatch.setattr(flow_scores, "measure", None)
    monkeypatch.setattr(traverse, "landscapes", lambda *_: Figure())
    for _ in range(2):
        code, out, err = call(potential_flows, *flags, "--no-scores", "--run", copy)
        assert (code, err) == (0, "")
        assert "traversals.png" in out
        assert not (copy / "metrics.json").exists()
        monkeypatch.setattr(traverse, "draw", None)


def test_the_same_command_adds_scores_to_pictures(whole, copy, flags, call, monkeypatch):
    (copy / "metrics.json").unlink()

    def measure(folder, *_):
        found = json.loads((whole / "metrics.json").read_text())
        folder.write_json("metrics.json", found)
        return found

    monkeypatch.setattr(flow_scores, "measure", measure)
    monkeypatch.setattr(traverse, "draw", lambda *_: [])  # the pictures are there
    code, out, err = call(potential_flows, *flags, "--run", copy)
    assert (code, err) == (0, "")
    assert "latent coordinates" in out
    assert numbers(copy) == numbers(whole)
    code, out, err = call(potential_flows, *flags, "--no-scores", "--run", copy)
    assert (code, err) == (0, "")
    assert "latent coordinates" in out, "what is measured is shown"


class Crash(Exception):
    pass


@pytest.mark.slow
def test_a_run_that_broke_off_ends_as_one_that_did_not(whole, copy, flags, call, monkeypatch):
    # As a kill in the middle of training leaves it ...
    shutil.rmtree(copy / "checkpoints" / "flows" / "4")
    for file in (*copy.glob("*.png"), copy / "traversals.gif", copy / "metrics.json"):
        file.unlink()
    # Two scores stay, to save time; the others show whether training ends the same.
    for file in (copy / "scores").iterdir():
        if file.stem not in ("potentials", "potentials_long"):
            file.unlink()
    # ... and then another, in the middle of the scores.
    measure, left = flow_scores.measure_method, iter([True, True])

    def some(*args):
        if not next(left, False):
            raise Crash
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(flow_scores, "measure_method", some)
        with pytest.raises(Crash):
            call(potential_flows, *flags, "--run", copy)
    assert len([*(copy / "scores").iterdir()]) == 4
    assert not (copy / "metrics.json").exists()
    drawn = []
    monkeypatch.setattr(traverse, "draw", lambda *args: drawn.append(args) or [])
    assert call(potential_flows, *flags, "--run", copy)[0] == 0
    assert len(drawn) == 1
    assert numbers(copy) == numbers(whole)


@pytest.mark.slow
def test_a_finished_run_can_be_drawn_again(copy, call):
    before, grid = numbers(copy), (copy / "traversals.png").read_bytes()
    code, out, _ = call(traverse, copy, "--start", "3", "--stretch", "2.0")
    assert code == 0
    assert "traversals.png" in out
    assert numbers(copy) == before
    assert (copy / "traversals.png").read_bytes() != grid
    code, _, err = call(traverse, copy, "--start", "64")
    assert (code, err) == (2, "error: start must be in [0, 64), got 64\n")


def test_a_folder_with_other_settings_is_refused_and_the_fields_are_listed(copy, flags, call):
    before = numbers(copy)
    code, _, err = call(potential_flows, *flags, "--flows.pde", "heat", "--seed", 1, "--run", copy)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a run with other settings (" in err
    assert "flows.pde: wave -> heat" in err
    assert "seed: 0 -> 1" in err
    assert numbers(copy) == before


VECTORS = ["gan", "--generator", "jax.numpy:sin", "--generator.latent-dim", "3"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["demmo"], "unknown preset 'demmo' (did you mean 'demo'?)"),
        (["--flows.pde", "waves"], "unknown pde 'waves' (did you mean 'wave'?)"),
        (["--flows.solver", "eular"], "(did you mean 'euler'?)"),
        (["--flows.count", "1"], "flows.count must be at least 2, got 1"),
        (["--flows.horizon", "1"], "flows.horizon must be at least 2, got 1"),
        (["--flows.bank", "-1"], "flows.bank must be at least 0, got -1"),
        (["--flows.bank", "9999"], "flows.bank (9999) is more than flows.codes"),
        (["--flows.pace", "0"], "error: flows.pace must be positive, got 0"),
        (["--training.batch-size", "61"], "(61) must be a multiple of flows.count (4)"),
        (["--training.batch-size", "5000"], "(5000) is more than the"),
        (["--weights.residual", "-1"], "weights.residual must be at least 0, got -1"),
        (["--scores.seeds", "0"], "scores.seeds must be at least 1, got 0"),
        (["--scores.short", "2"], "scores.short must lie in [0, 1], got 2.0"),
        (["--flows.cuont", "3"], "unknown flag --flows.cuont; did you mean --flows.count?"),
        (["--generator", "nowhere"], "generator nowhere does not exist: name a run folder"),
        (["demo"], "with `python -m experiments.train_vae sprites-apart`, or name another by"),
        (["demo", "--quick"], "`python -m experiments.train_vae sprites-apart --quick`"),
        (["gan"], "make it with `python -m experiments.train_gan sprites`"),
        (["sngan-mnist"], "`python -m experiments.import_weights sngan-mnist --weights FILE`"),
        (["sngan-mnist", "--quick"], "import_weights sngan-mnist --weights FILE`"),
        (
            [*VECTORS, "--flows.classifier", "lenet"],
            "flows.classifier lenet sees images [h, w, c], and jax.numpy:sin makes samples of "
            "shape (3,): leave it out",
        ),
        (["--generator", "jax.numpy:sin", "--generator.path", "x.py:y"], "name two generators"),
        (["--scores.factors", "x", "x"], "scores.factors must differ, got x, x"),
        (
            [*VECTORS, "--scores.factors", "x"],
            "scores.factors are measured on images [h, w, c], and jax.numpy:sin makes samples of "
            "shape (3,): leave them out",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(potential_flows, *flags, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--generator.prior", "sphere"], "are for a generator without an encoder"),
        (["--scores.factors", "x", "sise"], "unknown factor 'sise' (did you mean 'size'?)"),
        (["--scores.steered"], "name them, as --scores.factors x y size"),
        (["--scores.taught", "gradient"], "scores.steered and scores.taught need factors that"),
        (["--flows.codes", "1500", "--training.batch-size", "1450", "--flows.bank", "0"], "1437"),
    ],
)
def test_what_a_generator_cannot_give_is_one_line_and_code_2(flag, message, flags, tmp_path, call):
    code, out, err = call(potential_flows, *flags, *flag, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


def test_data_that_are_not_there_are_named_before_anything_is_written(
    tmp_path, digits, monkeypatch, call
):
    stored = load_bytes((digits / GENERATOR).read_bytes())._replace(dataset="mnist")
    (tmp_path / GENERATOR).write_bytes(to_bytes(stored))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    named = ["--generator", tmp_path, "--run", tmp_path / "run"]
    code, _, err = call(potential_flows, "mnist", *named)
    assert (code, err.count("\n")) == (2, 1)
    assert "tfds build mnist" in err
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_run_is_about_the_same_generator(whole, flags, tmp_path, call):
    """--generator may name any run on the generator, also once both have moved."""
    moved = Path(shutil.copytree(whole, tmp_path / "moved"))
    config, _, space, _ = load_run(moved)
    assert config.generator == load_run(whole)[0].generator
    np.testing.assert_array_equal(space.starts, load_run(whole)[2].starts)
    assert load_generator(moved).event_shape == (8, 8, 1)


def test_the_earlier_flags_of_renamed_weights_go_on_working(digits):
    earlier = shlex.split("--weights.stillness 0.5 --weights.pace 2 --weights.inconsistency 3")
    now = shlex.split("--weights.variation 0.5 --weights.speed 2 --weights.consistency 3")
    one, other = (
        cli.parse(potential_flows.PRESETS, ["digits", *given], "x", None)
        for given in (earlier, now)
    )
    assert one == other
    assert (one.weights.variation, one.weights.speed, one.weights.consistency) == (0.5, 2, 3)


def test_help_tells_every_equation_that_there_is(capsys):
    with pytest.raises(SystemExit):
        cli.parse(potential_flows.PRESETS, ["demo", "--help"], "x", None)
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, equation in pde.EQUATIONS.items():
        assert (name if equation is None else f"{name}: {equation.about}") in told


SMALL = Config(
    flows=Flows(count=2, horizon=2, width=4, depth=1, codes=64, bank=4, frame="identity"),
    weights=Weights(speed=1.0, outside=1.0, sparsity=1.0, overlap=1.0, consistency=1.0),
    training=Training(batch_size=4),
)


@pytest.fixture(scope="module")
def untrained(compile_quickly):
    """A VAE of codes so narrow that components are found, and digits."""
    dataset = data.load("digits")
    vae = VAE(VAEConfig(3, encoder="mlp", decoder="mlp", width=2, depth=1), (8, 8, 1))
    params = jax.jit(vae.init)(jax.random.key(0), jnp.zeros((8, 8, 1)))
    narrow = jnp.array([0.0, 0.0, 0.0, -2.0, -2.0, -2.0])
    params["params"]["posterior"]["bias"] = narrow
    return restore_generator(StoredGenerator(vae, params, "a VAE", "digits")), dataset


@pytest.mark.parametrize("frame", ["ica", "identity"])
@pytest.mark.parametrize("starts", ["posterior", "prior"])
def test_starting_points_are_coordinates_of_latents(untrained, frame, starts):
    flows = replace(SMALL.flows, frame=frame, starts=starts)
    space = load_space(flows, SMALL.seed, *untrained)
    assert space.starts.shape == (64, 3)
    beyond = (space.starts < space.low) | (space.starts > space.high)
    assert 0 < beyond.mean() < 0.05
    image = space.generator(space.starts[0])
    assert image.shape == (8, 8, 1)
    if frame == "ica" and starts == "posterior":
        # Codes have unit variance along their components, but for the posterior's noise.
        assert (jnp.std(space.starts, axis=0) >= 0.9).all()


COVERING = [("heat", "free", 4)]
REST = [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in itertools.product(pde.EQUATIONS, ("exact", "free", "static"), (0, 4))
    if case not in COVERING
]


@pytest.mark.parametrize(("pde", "start", "bank"), COVERING + REST)
def test_the_loss_is_finite_and_its_gradient_reaches_everything(untrained, pde, start, bank):
    config = replace(SMALL, flows=replace(SMALL.flows, pde=pde, initial=start, bank=bank))
    space = load_space(config.flows, config.seed, *untrained)
    params = jax.jit(partial(initial, config.flows, space))(jax.random.key(1))
    dataset = potential_flows.latents(config, space)
    batch = dataset.examples(np.arange(4))
    assert ("metric" in batch) == (bank > 0)
    value_and_grad = jax.value_and_grad(partial(potential_flows.loss, config, space), has_aux=True)
    (total, terms), gradient = jax.jit(value_and_grad)(params, jax.random.key(2), 0, batch)
    assert jnp.isfinite(total)
    assert all(jnp.isfinite(term) for term in terms.values())
    assert ("sparsity" in terms) == (bank > 0)
    assert (terms["initial"] > 0) == (start == "free")
    assert (terms["residual"] > 0) == (pde != "none")
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all(), path
    # An equation has a coefficient only where it has two terms to weigh against each other.
    weighed = pde == "fokker_planck" or (pde in ("wave", "heat") and start != "static")
    for group, part in gradient.items():
        # Where a coefficient cancels, compiled programs leave its rounding.
        reached = any(bool(jnp.any(jnp.abs(leaf) > 1e-6)) for leaf in jax.tree.leaves(part))
        assert reached == (group != "coefficients" or weighed), group


@pytest.mark.slow
@pytest.mark.parametrize("bank", [0, 4])
def test_making_few_images_at_once_changes_no_number(untrained, bank):
    results = []
    for at_once in (0, 3):
        settings = replace(SMALL.flows, initial="free", bank=bank, at_once=at_once)
        config = replace(SMALL, flows=settings)
        space = load_space(config.flows, config.seed, *untrained)
        params = jax.jit(partial(initial, config.flows, space))(jax.random.key(1))
        batch = potential_flows.latents(config, space).examples(np.arange(4))
        value = partial(potential_flows.loss, config, space)
        gradient = jax.jit(jax.value_and_grad(value, has_aux=True))
        results.append(gradient(params, jax.random.key(2), 0, batch))
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def start(path, flags, compiling, **more):
    options = {name.upper(): str(value) for name, value in compiling.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.potential_flows", *flags, "--run", str(path)],
        cwd=ROOT,
        env=os.environ | options | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "reached",
    [
        "checkpoints/flows/2",
        "scores/random_directions_long.json",
        "metrics.json",
        "landscapes.png",
    ],
)
def test_a_run_killed_at_any_point_ends_as_one_that_was_not(
    whole, flags, compiling, tmp_path, reached
):
    path, wait = tmp_path / "run", random.uniform(0.0, 0.3)
    process = start(path, flags, compiling)
    while not (path / reached).exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(wait)
    process.kill()
    process.communicate()
    again = start(path, flags, compiling)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert numbers(path) == numbers(whole), wait
    assert not [*path.rglob(".partial-*")]


@pytest.mark.slow
def test_eight_devices_see_the_losses_that_one_sees(whole, flags, compiling, tmp_path):
    eight = start(
        tmp_path / "run", flags, compiling, XLA_FLAGS="--xla_force_host_platform_device_count=8"
    )
    _, err = eight.communicate()
    assert eight.returncode == 0, err
    for one, other in zip(rows(whole), rows(tmp_path / "run"), strict=True):
        assert one["phase"] == other["phase"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.slow
def test_another_seed_gives_other_numbers(whole, flags, tmp_path, call):
    assert call(potential_flows, *flags, "--seed", 1, "--run", tmp_path / "run")[0] == 0
    assert numbers(whole)["metrics.json"] != numbers(tmp_path / "run")["metrics.json"]


FEW = shlex.split(
    "--training.steps 2 --training.warmup 0 --training.batch-size 32 --flows.codes 64 "
    "--flows.bank 32 "
    "--scores.starts 4 --scores.pairs 40 --scores.seeds 1 --scores.fractions 0.5 "
    "--flows.frame identity"
)


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR names no MNIST")
@pytest.mark.parametrize("preset", ["mnist", "mnist-paper"])
def test_the_presets_of_mnist_run(preset, tmp_path, call):
    size = ["--flows.count", "4"] + (["--flows.bank", "0"] if preset == "mnist-paper" else [])
    vae = small_vae(tmp_path / "vae", "mnist", latent_dim=16)
    named = ["--generator", vae, "--run", tmp_path / "run"]
    code, _, err = call(potential_flows, preset, *FEW, *size, *named)
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["potentials"]["solved"] > 0
    assert len(metrics["comparison"]) == 6
