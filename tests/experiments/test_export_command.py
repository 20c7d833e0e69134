"""The command that takes what was learnt out of a run: what it writes, and what it refuses."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.directions.config import Config, Fit, Inversion
from experiments.directions.learn import LINEAR, NONLINEAR
from experiments.export import export
from experiments.potential_flows import config as flow_config
from experiments.potential_flows import flow_space
from experiments.potential_flows.config import Flows
from experiments.potential_flows.families import potential_network
from experiments.runtime.run_dir import Folder, open_folder
from experiments.steer import config as steer_config
from latent_flows import coordinates, directions, onnx_program, potentials
from latent_flows import export as files
from latent_flows.directions.model import fit_potential
from latent_flows.directions.trajectories import Trajectories
from latent_flows.generators import GeneratorSpec, freeze, load_generator, rbf
from latent_flows.generators.load import REFERENCE, reference
from latent_flows.geometry.metrics import stochastic_pullback
from tests.experiments.small_generators import small_gan, small_vae

KINDS = ("zoom", "hue")


@pytest.fixture(scope="module")
def straight():
    """The numbers of a straight direction in three dimensions, as a run keeps them."""
    knots = [-1.0, 0.0, 1.0]
    return [[0.6, 0.0, 0.8], knots, [-2.0, 0.0, 1.0], [-2.0, 1.0], 0.9, 0.95]


@pytest.fixture
def run(tmp_path, straight):
    """A finished run of directions, as far as the command reads it."""
    config = Config(
        run=str(tmp_path / "run"),
        transformations=KINDS,
        losses=("mse",),
        inversion=Inversion(count=5, amounts=1),
        fit=Fit(knots=3, width=2, drop=0.0),
    )
    path = open_folder(config.run, config).path
    folder = Folder(path)
    found = Trajectories(
        np.zeros((2, 5, 3)), np.zeros((2, 5, 2, 3)), np.ones((2, 2)), np.zeros((2, 5, 2))
    )
    folder.write_json("trajectories/mse.json", list(found))
    shapes = jax.eval_shape(
        lambda: fit_potential(
            jax.random.key(0), Trajectories(*(jnp.asarray(leaf[0]) for leaf in found)), width=2
        )
    )
    curved = [np.full(leaf.shape, 0.5) for leaf in jax.tree.leaves(shapes)]
    for kind in KINDS:
        folder.write_json(f"models/{LINEAR}_{kind}.json", straight)
        folder.write_json(f"models/{NONLINEAR}_{kind}.json", curved)
    folder.write_json("metrics.json", {})
    return path


@pytest.fixture
def call(call):
    """Calls the command: exit code, stdout, stderr."""
    return partial(call, export)


def refused(result, *words):
    code, _, err = result
    assert code == 2
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err


def test_the_directions_of_a_run(run, call, tmp_path, straight):
    file, vectors = tmp_path / "ways.safetensors", tmp_path / "ways.npy"
    code, out, _ = call(run, "--to", file, "--npy", vectors)
    assert code == 0
    assert all(kind in out for kind in KINDS)
    learnt = files.load(file)
    assert learnt.names == (*KINDS, *KINDS)
    for model in learnt.models[:2]:
        for got, wanted in zip(jax.tree.leaves(model), straight, strict=True):
            np.testing.assert_array_equal(got, np.float32(wanted))
    for model in learnt.models[2:]:
        assert all(np.all(leaf == 0.5) for leaf in jax.tree.leaves(model))
    np.testing.assert_array_equal(np.load(vectors), np.float32([straight[0]] * 2))


@pytest.mark.slow
def test_potentials_move_in_the_frame_of_their_run(call, tmp_path, monkeypatch):
    config = flow_config.Config(flows=Flows(count=2, width=2, depth=1, horizon=2))
    net = potential_network(config.flows)
    params = {
        "potentials": potentials.init_stack(net, jax.random.key(0), 2, 2),
        "coefficients": jnp.array([0.0, 1.0]),
    }
    frame = coordinates.AffineCoordinates(jnp.ones(3), jnp.eye(3)[:, :2])
    loaded = (config, None, SimpleNamespace(frame=frame), params)
    monkeypatch.setattr(flow_space, "load_run", lambda path: loaded)
    open_folder(tmp_path / "run", config)
    file, function = tmp_path / "flows.safetensors", tmp_path / "flows.jaxexport"
    assert call(tmp_path / "run", "--to", file)[0] == 0
    learnt = files.load(file)
    assert learnt.net == net
    np.testing.assert_array_equal(learnt.frame.basis, frame.basis)
    np.testing.assert_allclose(learnt.coefficients, 0.1 + jax.nn.softplus(jnp.array([0.0, 1.0])))
    # The function can be made of the file as well.
    assert call(file, "--function", function, "--platforms", "cpu")[0] == 0
    move = jax.export.deserialize(bytearray(function.read_bytes())).call
    z = jnp.array([0.5, -1.0, 2.0])
    got = move(jnp.int32(1), jnp.float32(2.0), z)
    np.testing.assert_allclose(got, files.motion(learnt)(1, 2.0, z), atol=1e-6)
    assert got[2] == z[2]


@pytest.mark.slow
def test_what_cannot_be_exported_is_refused_in_one_line(run, call, tmp_path, straight):
    file = tmp_path / "file"
    refused(call(tmp_path / "nowhere", "--to", file), "nowhere", "does not exist")
    refused(call(run, "--to", tmp_path / "no" / "file"), "folder that does not exist")
    refused(call(run, "--function", file, "--platforms", "cdua"), "'cdua'", "'cuda'")
    assert not file.exists()
    content = files.to_bytes(frame_of_two())
    file.write_bytes(content[:-7])
    refused(call(file), str(file), "truncated")
    newer = content.replace(b'"version":"1"', b'"version":"9"')
    assert newer != content
    file.write_bytes(newer)
    refused(call(file), "version 9", "up to 1")
    file.write_bytes(content)
    refused(call(file, "--npy", tmp_path / "npy"), "straight directions")


@pytest.mark.parametrize("flag", ["--to", "--function", "--npy", "--onnx"])
@pytest.mark.parametrize("name", ["config.json", "metrics.json", "models", "models/new", ".lock"])
def test_no_file_of_a_run_is_overwritten(run, call, tmp_path, flag, name):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused(call(run, flag, run / name), flag)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_is_written_beside_the_runs_own_files_is_fine(run, call):
    assert call(run, "--npy", run / "ways.npy")[0] == 0
    assert call(run, "--npy", run / "ways.npy")[0] == 0


def test_one_place_for_two_files_or_for_what_is_read_is_refused(run, call, tmp_path):
    file = tmp_path / "file"
    refused(call(run, "--to", file, "--npy", tmp_path / "." / "file"), "--to and --npy name the")
    assert not file.exists()
    content = files.to_bytes(frame_of_two())
    file.write_bytes(content)
    refused(call(file, "--function", file), "--function", "is the file that is read")
    refused(call(file, "--to", tmp_path), "is a folder; name a file")
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"# Title", b"\0" * 64])
def test_a_file_of_something_else_is_refused(call, tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    refused(call(tmp_path / "README.md", "--to", tmp_path / "out"), "README.md is truncated")


def frame_of_two():
    """Potentials that nobody has trained."""
    net = potentials.PotentialNet(width=2, depth=1)
    params = potentials.init_stack(net, jax.random.key(0), 2, 2)
    return files.Potentials(net, params, coordinates.identity(2), jnp.ones(2))


@pytest.mark.parametrize("missing", ["trajectories/mse.json", "models/nonlinear_hue.json"])
def test_a_run_that_was_not_finished_is_refused_and_left_alone(run, call, tmp_path, missing):
    (run / missing).unlink()
    before = sorted(run.rglob("*"))
    refused(call(run, "--to", tmp_path / "file"), missing, "not finished")
    assert sorted(run.rglob("*")) == before
    assert not (tmp_path / "file").exists()


def test_a_run_without_scores_is_finished_once_all_is_learnt(run, call, tmp_path):
    call(run, "--to", tmp_path / "scored")
    (run / "metrics.json").unlink()  # as a run leaves it that measures nothing, such as --quick
    code, _, err = call(run, "--to", tmp_path / "file", "--npy", tmp_path / "ways.npy")
    assert code == 0, err
    np.testing.assert_allclose(np.load(tmp_path / "ways.npy")[0], [0.6, 0.0, 0.8], atol=1e-6)
    assert (tmp_path / "file").read_bytes() == (tmp_path / "scored").read_bytes()


def test_an_onnx_program_without_its_extra_is_refused_before_anything_is_read(
    call, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_program.importlib.util, "find_spec", lambda name: None)
    result = call(tmp_path / "no run", "--onnx", tmp_path / "file.onnx")
    refused(result, "this needs jax2onnx: pip install 'latent-flows[onnx]'")


def test_a_run_is_an_onnx_program_that_moves_latents_as_its_function_does(run, call, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    file, learnt = tmp_path / "ways.onnx", tmp_path / "ways.safetensors"
    code, out, err = call(run, "--onnx", file, "--to", learnt)
    assert code == 0, err
    assert f"{file}: {file.stat().st_size} bytes" in out
    session = onnxruntime.InferenceSession(file)
    z = np.float32([[0.1, 0.2, -0.3], [0.5, 0.0, 0.1]])
    for k, t in ((0, 0.5), (3, -0.25)):
        (moved,) = session.run(
            None, {"k": np.asarray(k, np.int32), "t": np.asarray(t, np.float32), "z": z}
        )
        expected = jax.vmap(partial(files.motion(files.load(learnt)), k, t))(z)
        np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_steering_leaves_as_a_program_alone(call, tmp_path, monkeypatch):
    config = steer_config.Config(transformations=("brightness",), ts=(0.2,))
    frozen = freeze(lambda z: jnp.tile(z[:1], (3, 3, 1)), 2)
    monkeypatch.setattr(export, "of_run", lambda run: frozen)
    run = open_folder(tmp_path / "run", config).path
    made = []
    monkeypatch.setattr(export, "program", lambda found: made.append(found) or b"program")
    monkeypatch.setattr(onnx_program, "require", lambda: None)
    refused(call(run, "--to", tmp_path / "file"), "--to is for what was learnt", "--onnx")
    refused(call(run, "--function", tmp_path / "file"), "--function is for what was learnt")
    refused(call(run, "--npy", tmp_path / "file"), "straight directions")
    code, out, _ = call(run, "--onnx", tmp_path / "file")
    assert (code, (tmp_path / "file").read_bytes()) == (0, b"program")
    assert "brightness" in out
    z = jnp.array([0.4, 0.1])
    moved = jax.jit(made[0].steering)(0, 0.2, z)
    expected = directions.transformation("brightness")(frozen(z), 0.2)[0]
    np.testing.assert_allclose(frozen(moved), expected, atol=0.01)


def test_a_run_of_another_kind_is_refused(run, call, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    config = other / "config.json"
    config.write_text(config.read_text().replace("experiments.directions", "experiments.train_gan"))
    refused(call(other, "--to", tmp_path / "file"), "experiments.train_gan", "nothing to export")


@pytest.mark.parametrize("make", [small_gan, small_vae])
def test_a_generator_of_no_fitted_noise_has_no_metric_that_was_learnt(tmp_path, call, make):
    run = make(tmp_path / "run")
    refused(call(run, "--to", tmp_path / "m.safetensors"), "nothing was learnt")
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.slow
def test_the_metric_of_a_generator_with_fitted_noise_comes_with_its_function(tmp_path, call):
    """Of its own run folder, and of that of a run which was about it."""
    generator = small_vae(tmp_path / "vae", latent_dim=2, stds=("rbf",))
    run = open_folder(tmp_path / "run", flow_config.Config()).path
    config = run / "config.json"
    config.write_text(config.read_text().replace("potential_flows", "geodesics"))
    (run / REFERENCE).write_text(json.dumps(reference(GeneratorSpec(str(generator)), 0, run)))
    contents = []
    for k, source in enumerate((generator, run)):
        file, function = tmp_path / f"{k}.safetensors", tmp_path / f"{k}.jaxexport"
        code, out, _ = call(source, "--to", file, "--function", function, "--platforms", "cpu")
        assert code == 0
        assert "RBF deviation" in out
        contents.append((files.load(file), function.read_bytes()))
    (params, program), (same, _) = contents
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(one, other)
    frozen, z = load_generator(generator), jnp.array([0.5, -1.0])
    expected = stochastic_pullback(frozen.decode, partial(rbf.std, params))(z)
    got = jax.export.deserialize(bytearray(program)).call(z)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
