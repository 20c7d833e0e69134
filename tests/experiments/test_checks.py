"""What cannot be done is refused before anything is computed, and before a folder is made."""

import importlib

import jax
import pytest

from experiments.generators import train_vae
from experiments.runtime.run_dir import open_folder
from tests.experiments.front_doors import front
from tests.experiments.small_generators import small_vae

OWN = ["gan", "--generator.path", "tests.experiments.test_checks:picture"]
STDS = ("rbf", "network")


def picture(z):
    return jax.numpy.full((8, 8, 1), jax.nn.sigmoid(z[0]))


picture.latent_dim = 1


def leaving(z):
    raise SystemExit(3)


leaving.latent_dim = 2


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    home = tmp_path_factory.mktemp("generators")
    return {
        "digits": small_vae(home / "digits"),
        "tiny": small_vae(home / "tiny", size=4),
        "wide": small_vae(home / "wide", latent_dim=9),
        "plane": small_vae(home / "plane", latent_dim=2, stds=STDS),
        "surface": small_vae(home / "surface", "surface", latent_dim=2, stds=STDS),
    }


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it trains")

    rooms = ("averaged", "train_vae", "train_gan")
    for name in ("runtime.training", *(f"generators.{room}" for room in rooms)):
        module = importlib.import_module(f"experiments.{name}")
        for function in ("fit", "advance"):
            monkeypatch.setattr(module, function, refuse, raising=False)


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("potential_flows", [*OWN, "--seed", "-1"], "seed must not be negative, got -1"),
        ("potential_flows", ["demo", "--seed", "-1"], "seed must not be negative, got -1"),
        ("train_vae", ["digits", "--image-size", "3"], "image_size must be at least 4 pixels"),
        ("train_gan", ["sprites", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("train_flow", ["sprites", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("flow_vae", ["digits", "--image-size", "1"], "image_size must be at least 4 pixels"),
        (
            "potential_flows",
            ["digits", "--generator", "{tiny}", "--flows.classifier", "lenet"],
            "lenet needs images of at least 8 pixels a side",
        ),
        (
            "potential_flows",
            ["digits", "--flows.codes", "16", "--flows.bank", "16", "--training.batch-size", "12",
             "--generator", "{wide}"],
            "flows.codes: 16 codes are too few to find up to 9 components, which takes 18",
        ),
        (
            "potential_flows",
            ["digits", "--flows.codes", "4096", "--flows.bank", "4096", "--training.batch-size",
             "1800", "--generator", "{digits}"],
            "training.batch_size (1800) is more than the 1437 codes of digits to draw from",
        ),
        (
            "potential_flows",
            [*OWN, "--scores.pairs", "4", "--scores.fractions", "0.99"],
            "scores.fractions leave nothing of 4 pairs to score: 0.99",
        ),
        ("potential_flows", [*OWN, "--scores.short", "-1"], "[0, 1], got -1.0\n"),
        (
            "potential_flows",
            [*OWN, "--scores.fractions", "0.1", "1"],
            "must lie in (0, 1), got scores.fractions 1.0\n",
        ),
        (
            "clustering",
            ["surface", "--clustering.clusters", "100000", "--generator", "{surface}"],
            "clustering.clusters (100000) is more than the 300 points",
        ),
        (
            "clustering",
            ["surface", "--codes", "16", "--clustering.clusters", "17", "--generator", "{surface}"],
            "clustering.clusters (17) is more than the 16 points",
        ),
        (
            "land",
            ["surface", "--fit.components", "301", "--generator", "{surface}"],
            "fit.components: 301 are more than the 300 codes that they are fitted to",
        ),
        (
            "land",
            ["digits", "--fit.components", "0", "--fit.points", "8", "--generator", "{plane}"],
            "fit.components: 10 are more than the 8 codes",
        ),
        (
            "geodesics",
            ["surface", "--geodesics.neighbours", "16", "--codes", "16",
             "--generator", "{surface}"],
            "geodesics.neighbours (16) must be less than the 16 training codes",
        ),
        ("import_weights", ["sngan-mnist", "--seed", "-1"], "seed must be at least 0, got -1"),
        ("table", ["run", "joint-sprites", "--seeds", "-1"], "a seed must not be negative"),
    ],
)  # fmt: skip
def test_it_is_one_line_before_anything_is_made(name, argv, message, generators, call, tmp_path):
    path = tmp_path / "run"
    place = ["--root", path, "--results", path] if name == "table" else ["--run", path]
    code, _, err = call(front(name), *(word.format(**generators) for word in argv), *place)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "argv", "flag"),
    [
        ("potential_flows", ["digits", "--generator", "{digits}", "--training.batch-size", "32"],
         "--training.batch-size"),
        ("geodesics", ["surface", "--generator", "{surface}"], "--classifier.batch-size"),
        ("train_gan", ["sprites", "--training.batch-size", "63"], "--classifier.batch-size"),
        ("train_flow", ["sprites", "--training.batch-size", "63"], "--classifier.batch-size"),
        ("train_vae", ["digits"], "--training.batch-size"),
    ],
)  # fmt: skip
def test_batches_of_all_phases_are_held_against_the_devices(
    name, argv, flag, generators, call, tmp_path, monkeypatch
):
    device = jax.local_devices()[0]
    monkeypatch.setattr(jax, "devices", lambda *_: [device] * 3)
    path = tmp_path / "run"
    code, _, err = call(front(name), *(word.format(**generators) for word in argv), "--run", path)
    assert (code, err.count("\n")) == (2, 1), err
    assert "cannot be split evenly over 3 devices" in err
    assert err.rstrip().endswith(f"as {flag}")
    assert not path.exists()


@pytest.mark.parametrize("name", ["potential_flows", "directions", "land", "geodesics", "guided"])
def test_a_generator_that_is_not_finished_is_refused_before_a_folder_is_made(name, call, tmp_path):
    data = "sprites" if name == "guided" else "digits"
    made = train_vae.Config(run=str(tmp_path / "vae"), data=data)
    (open_folder(made.run, made).path / "checkpoints").mkdir()
    argv = [data, "--generator", made.run, "--run", tmp_path / "run"]
    code, _, err = call(front(name), *argv)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{made.run} holds no generator.safetensors: its training was not finished" in err
    assert not (tmp_path / "run").exists()


def test_a_function_that_leaves_the_program_is_a_line(call, tmp_path):
    path = "tests.experiments.test_checks:leaving"
    argv = ["gan", "--generator.path", path, "--run", tmp_path / "run"]
    code, _, err = call(front("potential_flows"), *argv)
    assert (code, err.count("\n")) == (2, 1)
    assert "fails on a latent of shape (2,): RuntimeError: it calls SystemExit(3)" in err
