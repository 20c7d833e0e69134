"""What cannot be done is refused before anything is computed, and before a folder is made."""

import importlib

import jax
import pytest

OWN = ["gan", "--generator.path", "tests.experiments.test_checks:picture"]


def picture(z):
    return jax.numpy.full((8, 8, 1), jax.nn.sigmoid(z[0]))


picture.latent_dim = 1


def leaving(z):
    raise SystemExit(3)


leaving.latent_dim = 2


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("it trains")

    for name in ("experiments.runtime.training", "experiments.train_vae", "experiments.train_gan"):
        module = importlib.import_module(name)
        for function in ("fit", "advance"):
            monkeypatch.setattr(module, function, refuse, raising=False)


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("potential_flows", [*OWN, "--seed", "-1"], "seed must not be negative, got -1"),
        ("potential_flows", ["demo", "--seed", "-1"], "seed must not be negative, got -1"),
        ("potential_flows", ["demo", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("train_vae", ["digits", "--image-size", "3"], "image_size must be at least 4 pixels"),
        ("train_gan", ["sprites", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("flow_vae", ["digits", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("guided", ["sprites", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("directions", ["digits", "--image-size", "1"], "image_size must be at least 4 pixels"),
        ("land", ["digits", "--image-size", "1"], "image_size must be at least 4 pixels"),
        (
            "potential_flows",
            ["digits", "--image-size", "4", "--flows.classifier", "lenet"],
            "lenet needs images of at least 8 pixels a side",
        ),
        (
            "potential_flows",
            ["digits", "--flows.codes", "16", "--flows.bank", "16", "--training.batch-size", "12",
             "--vae.latent-dim", "9"],
            "flows.codes: 16 codes are too few to find up to 9 components, which takes 18",
        ),
        (
            "potential_flows",
            ["digits", "--flows.codes", "4096", "--flows.bank", "4096", "--training.batch-size",
             "1800"],
            "training.batch_size (1800) is more than the 1437 codes of digits to draw from",
        ),
        (
            "potential_flows",
            [*OWN, "--scores.pairs", "4", "--scores.fractions", "0.99"],
            "scores.fractions leave nothing of 4 pairs to score: 0.99",
        ),
        ("potential_flows", [*OWN, "--scores.short", "0"], "(0, 1), got scores.short 0.0\n"),
        (
            "potential_flows",
            [*OWN, "--scores.fractions", "0.1", "1"],
            "must lie in (0, 1), got scores.fractions 1.0\n",
        ),
        (
            "clustering",
            ["surface", "--clustering.clusters", "100000"],
            "clustering.clusters (100000) is more than the 300 points",
        ),
        (
            "clustering",
            ["surface", "--codes", "16", "--clustering.clusters", "17"],
            "clustering.clusters (17) is more than the 16 points",
        ),
        (
            "land",
            ["surface", "--fit.components", "301"],
            "fit.components: 301 are more than the 300 codes that they are fitted to",
        ),
        (
            "land",
            ["digits", "--fit.components", "0", "--fit.points", "8"],
            "fit.components: 10 are more than the 8 codes",
        ),
        (
            "geodesics",
            ["surface", "--geodesics.neighbours", "16", "--codes", "16"],
            "geodesics.neighbours (16) must be less than the 16 training codes",
        ),
        ("import_weights", ["sngan-mnist", "--seed", "-1"], "seed must be at least 0, got -1"),
        ("table", ["run", "joint-sprites", "--seeds", "-1"], "a seed must not be negative"),
    ],
)  # fmt: skip
def test_it_is_one_line_before_anything_is_made(name, argv, message, call, tmp_path):
    module = importlib.import_module(f"experiments.{name}")
    path = tmp_path / "run"
    place = ["--root", path, "--results", path] if name == "table" else ["--run", path]
    code, _, err = call(module, *argv, *place)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "preset", "flag"),
    [
        ("potential_flows", "digits", "--vae-training.batch-size"),
        ("geodesics", "surface", "--classifier.batch-size"),
        ("train_gan", "sprites", "--classifier.batch-size"),
        ("train_vae", "digits", "--training.batch-size"),
    ],
)
def test_batches_of_all_phases_are_held_against_the_devices(
    name, preset, flag, call, tmp_path, monkeypatch
):
    device = jax.local_devices()[0]
    monkeypatch.setattr(jax, "devices", lambda *_: [device] * 3)
    module = importlib.import_module(f"experiments.{name}")
    flags = {
        "potential_flows": ["--training.batch-size", "30"],
        "train_gan": ["--training.batch-size", "63"],
    }
    argv = [preset, *flags.get(name, ()), "--run", tmp_path / "run"]
    code, _, err = call(module, *argv)
    assert (code, err.count("\n")) == (2, 1), err
    assert "cannot be split evenly over 3 devices" in err
    assert err.rstrip().endswith(f"as {flag}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["potential_flows", "directions", "land", "geodesics", "guided"])
def test_a_generator_that_is_not_finished_is_refused_before_a_folder_is_made(name, call, tmp_path):
    from experiments.generators import train_vae
    from experiments.runtime.run_dir import open_folder

    data = "sprites" if name == "guided" else "digits"
    preset = {"guided": "sprites", "potential_flows": "digits", "directions": "digits"}
    size = 16 if name == "guided" else None
    made = train_vae.Config(run=str(tmp_path / "vae"), data=data, image_size=size)
    open_folder(made.run, made)
    module = importlib.import_module(f"experiments.{name}")
    argv = [preset.get(name, "digits"), "--generator", made.run, "--run", tmp_path / "run"]
    code, _, err = call(module, *argv)
    assert (code, err.count("\n")) == (2, 1), err
    assert "holds no checkpoint of 'vae'" in err
    assert not (tmp_path / "run").exists()


def test_a_function_that_leaves_the_program_is_a_line(call, tmp_path):
    from experiments.potential_flows import train as potential_flows

    path = "tests.experiments.test_checks:leaving"
    code, _, err = call(potential_flows, "gan", "--generator.path", path, "--run", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "fails on a latent of shape (2,): RuntimeError: it calls SystemExit(3)" in err
