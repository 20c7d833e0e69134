"""The import of weights: from a file to a run folder and back, and all that it refuses."""

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import get_type_hints

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments.generators import import_weights
from experiments.runtime import cli
from latent_flows.generators import GeneratorSpec, load_generator, stored
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.stylegan2 import generator, key_names, mean_w
from latent_flows.generators.weights import from_state_dict, read_state_dict
from tests.generators.recorded_arrays import PROGGAN, STYLEGAN2, Recorded

PROGGAN_FLAGS = ("proggan-128", "--network.channels", 6, 5, 4, "--network.latent-dim", 7)
STYLEGAN2_FLAGS = (
    *("stylegan2-256", "--network.resolution", 16, "--network.latent-dim", 6),
    *("--network.mapping-layers", 3, "--network.channels", 5, 4, 3, "--mean-samples", 64),
)

pytestmark = pytest.mark.usefixtures("compile_quickly")


def save(path, state, prefix=""):
    arrays = {prefix + name: np.ascontiguousarray(value) for name, value in state.items()}
    safetensors.numpy.save_file(arrays, path)
    return path


@pytest.fixture
def weights(tmp_path):
    return save(tmp_path / "weights.safetensors", Recorded("proggan_16").state)


def importing(call, flags, weights, run, *more):
    return call(import_weights, *flags, "--weights", weights, "--run", run, "--samples", 2, *more)


def imported(run):
    """The network in a run folder, and its variables."""
    found = stored.read(run / GENERATOR)
    return found.net, found.variables


def test_what_was_imported_makes_the_published_images(call, weights, tmp_path):
    run = tmp_path / "run"
    code, out, err = importing(call, PROGGAN_FLAGS, weights, run)
    assert (code, err) == (0, "")
    assert "every key has its place" in out
    files = {"config.json", "metrics.json", "samples.png", GENERATOR}
    assert files <= set(os.listdir(run))
    recorded = Recorded("proggan_16")
    parts = json.loads((run / "metrics.json").read_text())["parts"]
    assert sum(part["keys"] for part in parts) == len(recorded.state)
    assert sum(part["numbers"] for part in parts) == sum(v.size for v in recorded.state.values())

    net, variables = imported(run)
    assert net == PROGGAN
    image = jax.jit(net.apply)(variables, recorded["z"][0])
    np.testing.assert_allclose(image, recorded["image"][0], rtol=0, atol=1e-4)
    shown = jax.jit(load_generator(run).decode)(recorded["z"][0])
    np.testing.assert_allclose(shown, (recorded["image"][0] + 1) / 2, rtol=0, atol=1e-4)

    # The same command again changes nothing, other weights are refused.
    assert importing(call, PROGGAN_FLAGS, weights, run)[0] == 0
    save(weights, {k: v + 1 for k, v in recorded.state.items()})
    code, _, err = importing(call, PROGGAN_FLAGS, weights, run)
    assert code == 2
    assert "holds other weights; choose another --run" in err


@pytest.mark.slow
def test_a_stylegan2_without_its_mean_gets_an_estimate(call, tmp_path):
    state = Recorded("stylegan2_16").state
    path = save(tmp_path / "weights.safetensors", state, prefix="g_ema.")
    assert importing(call, STYLEGAN2_FLAGS, path, tmp_path / "run")[0] == 0
    net, variables = imported(tmp_path / "run")
    expected = from_state_dict(STYLEGAN2, key_names(STYLEGAN2), state)
    mean = mean_w(STYLEGAN2, expected, jax.random.key(0), samples=64)
    np.testing.assert_allclose(variables["statistics"]["mean_w"], mean, atol=1e-5)
    assert generator(net, variables, truncation=0.5)(np.ones(6, np.float32)).shape == (16, 16, 3)


def test_the_mean_in_the_file_is_kept(call, tmp_path):
    recorded = Recorded("stylegan2_16")
    state = {f"g_ema.{k}": v for k, v in recorded.state.items()} | {"latent_avg": recorded["mean"]}
    path = save(tmp_path / "weights.safetensors", state)
    assert importing(call, STYLEGAN2_FLAGS, path, tmp_path / "run")[0] == 0
    _, variables = imported(tmp_path / "run")
    np.testing.assert_array_equal(variables["statistics"]["mean_w"], recorded["mean"])


ADA = Path(__file__).parents[1] / "generators" / "recorded" / "ada_grey_of_classes.pkl"


def test_a_pickle_of_stylegan2_ada_says_itself_what_it_is(call, tmp_path):
    run = tmp_path / "run"
    code, out, err = importing(call, ("stylegan2-256",), ADA, run)
    assert (code, err) == (0, "")
    read = out.partition(f"read off {ADA}: ")[2].partition("\n")[0]
    for setting in (
        *("resolution 8 (the preset has 256)", "mapping_layers 3 (the preset has 8)"),
        *("image_channels 1 (the preset has 3)", "classes 3 (the preset has 0)", "clamp 1.5"),
    ):
        assert setting in read
    recorded = np.load(ADA.with_suffix(".npz"))
    frozen = load_generator(GeneratorSpec(str(run), label=int(recorded["labels"][1])))
    image = jax.jit(frozen.decode)(recorded["z"][1])
    np.testing.assert_allclose(image, (recorded["image"][1] + 1) / 2, atol=1e-4)


def test_a_flag_that_contradicts_the_weights_is_refused_by_its_name(call, tmp_path):
    flags = ("stylegan2-256", "--network.mapping-layers", 4)
    code, _, err = importing(call, flags, ADA, tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "--network.mapping-layers says 4, and the weights in" in err
    assert "are of 3; leave the flag out" in err
    assert not (tmp_path / "run").exists()


def test_what_the_weights_do_not_say_is_said_with_the_flag(call, tmp_path):
    state = read_state_dict(ADA, key="G_ema")
    state |= {k: v + np.nan for k, v in state.items() if k == "synthesis.b4.const"}
    path = save(tmp_path / "weights.safetensors", state)
    code, out, err = importing(call, ("stylegan2-256",), path, tmp_path / "run")
    assert code == 2
    assert "does not say clamp: it is taken for None, and --network.clamp says otherwise" in out
    assert "not finite in synthesis.b4.const" in err


# What is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(call, weights, tmp_path, bad):
    state = Recorded("proggan_16").state
    name = next(iter(state))
    for broken in ({k: np.full_like(v, bad) for k, v in state.items()}, dict(state)):
        broken[name] = broken[name].copy()
        broken[name].flat[0] = bad
        save(weights, broken)
        code, _, err = importing(call, PROGGAN_FLAGS, weights, tmp_path / "run")
        assert (code, err.count("\n")) == (2, 1), err
        assert f"{weights} holds numbers that are not finite in {name}" in err
        assert not (tmp_path / "run").exists()


def test_weights_that_make_one_image_alone_are_refused(call, weights, tmp_path):
    state = Recorded("proggan_16").state
    save(weights, {k: np.zeros_like(v) for k, v in state.items()})
    code, _, err = importing(call, PROGGAN_FLAGS, weights, tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1), err
    assert f"{weights} makes the same sample of every latent" in err
    assert not (tmp_path / "run").exists()


class Command:
    """A pickle of it makes a folder when it is loaded as pickles usually are."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def bad_files(tmp_path, weights):
    """Name -> (file, what the message says)."""
    pickled = tmp_path / "pickled.pth"
    pickled.write_bytes(pickle.dumps(Command(tmp_path / "trap")))
    archived = tmp_path / "archived.pt"
    with zipfile.ZipFile(archived, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"weight": Command(tmp_path / "trap")}))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-9])
    return {
        "missing": (tmp_path / "nothing.pt", "does not exist"),
        "pickle": (pickled, "refused"),
        "archive": (archived, "refused"),
        "truncated": (cut, "truncated"),
        "none": ("", "--weights must name"),
    }


@pytest.mark.parametrize("kind", ["missing", "pickle", "archive", "truncated", "none"])
def test_a_bad_file_is_one_line_and_nothing_is_written(call, weights, tmp_path, kind):
    path, message = bad_files(tmp_path, weights)[kind]
    before = sorted(tmp_path.rglob("*"))
    code, _, err = importing(call, PROGGAN_FLAGS, path, tmp_path / "run")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (
            ("proggan-128", "--network.channels", 6, 5, "--network.latent-dim", 7),
            ["left over: features.4.conv.weight [4, 5, 3, 3]", "[3, 4, 1, 1], expected [3, 5, 1"],
        ),
        (
            ("proggan-128", "--network.channels", 6, 5, 4, 3, "--network.latent-dim", 7),
            ["missing: features.6.conv.weight [3, 4, 3, 3]", "[3, 4, 1, 1], expected [3, 3, 1"],
        ),
        (STYLEGAN2_FLAGS, ["missing: input.input [1, 5, 4, 4]", "left over: features.0.conv"]),
        (("biggan-128",), ["missing: linear.weight", "left over: features.0.conv"]),
        (("sngan-mnist",), ["missing: model.0.weight", "left over: features.0.conv"]),
    ],
    ids=["lower", "higher", "stylegan2", "biggan", "sngan"],
)
def test_weights_of_another_network_are_told_apart(call, weights, tmp_path, flags, lines):
    code, _, err = importing(call, flags, weights, tmp_path / "run")
    assert code == 2
    for line in lines:
        assert line in err
    assert len(err.splitlines()) <= 10
    assert not (tmp_path / "run").exists()


def test_wrong_flags_are_refused(call, weights, tmp_path):
    code, _, err = importing(call, PROGGAN_FLAGS, weights, tmp_path / "run", "--samples", 0)
    assert (code, err) == (2, "error: samples must be at least 1, got 0\n")
    flags = ("stylegan2-256", "--network.resolution", 48)
    code, _, err = importing(call, flags, weights, tmp_path / "run")
    assert code == 2
    assert "resolution must be a power of two from 8 to 1024, got 48" in err
    code, _, err = importing(call, ("stylegan3",), weights, tmp_path / "run")
    assert code == 2
    assert "unknown preset 'stylegan3' (did you mean 'stylegan2-" in err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_experiment_is_not_written_to(call, weights, tmp_path):
    header = '{"experiment": "experiments.train_vae", "config": {}}'
    (tmp_path / "config.json").write_text(header)
    code, _, err = importing(call, PROGGAN_FLAGS, weights, tmp_path)
    assert code == 2
    assert "experiment: experiments.train_vae -> experiments.import_weights" in err
    assert not (tmp_path / GENERATOR).exists()


@pytest.mark.parametrize("preset", ["sngan-mnist", "biggan-128", "proggan-1024", "stylegan2-256"])
def test_every_setting_of_a_network_is_explained(preset, capsys):
    with pytest.raises(SystemExit):
        cli.main(import_weights.run, import_weights.PRESETS, [preset, "--help"])
    shown = capsys.readouterr().out
    settings = import_weights.PRESETS[preset][1].network
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        assert hint.__metadata__[0].help.endswith("."), name
    assert "--network.latent-dim" in shown
    assert "imensions" in shown.partition("--network.latent-dim")[2]
