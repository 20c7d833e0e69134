"""What runs have learnt, read once for the explorer and the page: a slider for each flow."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.explore import sliders
from experiments.explore.explored import load_explored
from experiments.explore.session import Session
from experiments.flow_vae import config as flow_vae_config
from experiments.flow_vae.train import stored
from experiments.generators.kept_frame import FRAME, kept_frame, read_frame
from experiments.learnt import flows
from experiments.learnt.reader import read
from experiments.page.contents import Wish, contents
from experiments.potential_flows import config as flow_config
from experiments.potential_flows import flow_space
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import Folder, open_folder
from experiments.runtime.training import Training
from experiments.supervised_flows import config as guided_config
from latent_flows import coordinates
from latent_flows.coordinates import AffineCoordinates
from latent_flows.generators import GeneratorSpec, load_generator
from latent_flows.generators.load import GENERATOR, REFERENCE, reference
from latent_flows.generators.stored import to_bytes
from latent_flows.generators.vae import VAEConfig
from latent_flows.objectives.flow_vae import FlowVAEObjective
from tests.experiments.front_doors import front
from tests.experiments.small_generators import small_vae

pytestmark = pytest.mark.usefixtures("compile_quickly")

TILTED = AffineCoordinates(jnp.array([0.1, -0.2, 0.3]), jnp.array([[1.0, 2], [0, 1], [1 / 3, 0]]))


def explored(run):
    spec = GeneratorSpec(str(run))
    return load_explored(run.name, str(run), load_generator(spec), spec, codes=40, seed=0)


@pytest.fixture
def guided_run(tmp_path, monkeypatch):
    """A run of guided flows, as far as it is read: parameters as they were at the start."""
    vae = small_vae(tmp_path / "vae", "sprites", size=16)
    config = guided_config.Config(
        run=str(tmp_path / "guided"),
        sequences=guided_config.Sequences(factors=("x", "scale"), horizon=4),
        flows=guided_config.Flows(width=4, depth=1),
    )
    home = tmp_path / "guided"
    known = {REFERENCE: reference(GeneratorSpec(str(vae)), 0, home)}
    kept_frame(open_folder(home, config, given=known), 3, lambda: TILTED)
    monkeypatch.setattr(flows, "restore", lambda run, phase, init: init(jax.random.key(0)))
    return home


def flow_vae_run(path, monkeypatch, kind="flow", factors=("rotation", "brightness")):
    """A run of flow_vae, as far as it is read."""
    config = flow_vae_config.Config(
        run=str(path),
        data="digits",
        factors=factors,
        frames=3,
        vae=VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=1, depth=1),
        fields=flow_vae_config.Fields(width=4, depth=1),
        objective=FlowVAEObjective(kind=kind, warmup=0),
    )
    sequences = flow_vae_config.load(config, "train")
    model = flow_vae_config.build(config, sequences)
    params = jax.jit(model.init)(jax.random.key(0))
    folder = open_folder(path, config)
    folder.write_bytes(GENERATOR, to_bytes(stored(config, model, params, sequences)))
    monkeypatch.setattr(flows, "restore", lambda run, phase, init: params)
    return path


def flow_names(explored):
    return [control.name for control in explored.controls if control.group == sliders.FLOWS]


@pytest.mark.slow
def test_guided_flows_have_a_slider_a_factor_and_a_page(guided_run):
    found = explored(guided_run)
    assert flow_names(found) == ["flow x", "flow scale"]
    assert found.learnt.horizon == 4
    session = Session(found)
    before = session.seen.latent
    session.quick({"do": "slide", "index": 0, "amount": 3.0})
    moved = session.seen.latent - before
    assert np.abs(moved).max() > 1e-4
    # The flow lives in the frame: nothing moves across its span.
    basis = np.asarray(TILTED.basis)
    across = np.cross(basis[:, 0], basis[:, 1])
    assert abs(moved @ across) < 1e-5
    assert "potential scale" in session.hello()["shades"]
    shown = contents(str(guided_run), Wish(2, 1, ""))
    assert [move.name for move in shown.moves] == ["Flow x", "Flow scale"]
    assert shown.starts == ["held-out code 1", "held-out code 2"]
    assert np.ptp(shown.samples[0, 0], axis=0).max() > 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("flow", ["flow rotation", "flow brightness"]),
        pytest.param("sparse", ["flow 0", "flow 1"], marks=pytest.mark.slow),
    ],
)
def test_the_flows_of_a_flow_vae_have_sliders_on_its_own_generator(
    tmp_path, monkeypatch, kind, names
):
    run = flow_vae_run(tmp_path / "run", monkeypatch, kind)
    found = explored(run)
    assert flow_names(found) == names
    assert found.codes.are_data
    before = found.codes.latents[0]
    moved = found.at(before, [2.0, *np.zeros(len(found.controls) - 1)])
    assert np.abs(moved.latent - before).max() > 1e-6
    if kind == "flow":
        assert [move.name for move in contents(str(run), Wish(1, 1, "")).moves] == [
            "Flow rotation",
            "Flow brightness",
        ]


def test_a_vae_without_flows_has_none_and_coloured_sequences_have_no_codes(tmp_path, monkeypatch):
    plain = flow_vae_run(tmp_path / "plain", monkeypatch, "beta-vae")
    assert read(str(plain), load_generator(plain)) is None
    with pytest.raises(UsageError, match=r"experiments\.flow_vae, in which nothing moves"):
        contents(str(plain), Wish(1, 1, ""))
    coloured = flow_vae_run(tmp_path / "coloured", monkeypatch, factors=("rotation", "hue"))
    generator = load_generator(coloured)
    assert (generator.event_shape, generator.dataset) == ((8, 8, 3), None)
    assert flows.of_flow_vae(str(coloured), generator).starts(2).word == "draw"


# --- the frame ---


def test_a_frame_is_found_once_and_read_back_to_the_bit(tmp_path):
    folder, calls = Folder(tmp_path), []
    for _ in range(2):
        kept = kept_frame(folder, 3, lambda: calls.append(0) or TILTED)
    assert calls == [0]
    assert kept.basis.dtype == TILTED.basis.dtype
    np.testing.assert_array_equal(kept.basis, TILTED.basis)
    np.testing.assert_array_equal(kept.origin, TILTED.origin)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"origin": [0, 0, 0]},
        {"origin": [0, 0], "basis": [[1], [0]]},
        {"origin": [0, 0, 0], "basis": [[1], [0]]},
        {"origin": [0, 0, 0], "basis": [[1], [0], [None]]},
        {"origin": [0, 0, "x"], "basis": [[1], [0], [0]]},
    ],
)
def test_a_damaged_frame_is_named_and_can_be_removed(tmp_path, content):
    (tmp_path / FRAME).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"frame\.json .*remove it"):
        read_frame(tmp_path, 3)


def test_a_run_that_kept_its_frame_is_read_without_its_data(tmp_path, monkeypatch):
    vae = small_vae(tmp_path / "vae")
    settings = flow_config.Flows(count=2, width=4, depth=1, codes=40, bank=0, frame="visible")
    taken = Training(batch_size=4)
    config = flow_config.Config(run=str(tmp_path / "flows"), flows=settings, training=taken)
    known = {REFERENCE: reference(GeneratorSpec(str(vae)), 0, tmp_path / "flows")}
    folder = open_folder(config.run, config, given=known)
    generator = load_generator(vae)
    data = flow_space.training_data(settings, generator)
    made = flow_space.load_space(settings, 0, generator, data, folder=folder)
    monkeypatch.setattr(flow_space, "restore", lambda run, phase, init: {"potentials": 0})
    read_back = flow_space.load_run(config.run, generator)[2]
    np.testing.assert_array_equal(read_back.starts, made.starts)
    monkeypatch.setattr(flow_space, "load_data", None)
    monkeypatch.setattr(coordinates, "visible_axes", None)
    _, lean, _ = flow_space.load_flows(config.run, generator)
    np.testing.assert_array_equal(lean.frame.basis, made.frame.basis)


@pytest.mark.slow
def test_runs_of_guided_and_flow_vae_are_explored_as_they_are_left(tmp_path, call):
    vae = small_vae(tmp_path / "sprites", "sprites", size=16)
    small = ["--training.steps", 2, "--training.batch-size", 4, "--no-scores"]
    run = tmp_path / "guided"
    flags = ["--sequences.count", 6, "--sequences.horizon", 4, "--flows.width", 4]
    flags += ["--flows.depth", 1, "--generator", vae, "--starts", 3]
    flags += ["--flows.frame", "identity"]
    code, _, err = call(front("guided"), "sprites", *flags, *small, "--run", run)
    assert code == 0, err
    assert flow_names(explored(run)) == ["flow x", "flow y", "flow scale"]
    run = tmp_path / "flow-vae"
    flags = ["--factors", "rotation", "zoom", "--vae.width", 1, "--fields.width", 4]
    code, _, err = call(front("flow_vae"), "digits", *flags, *small, "--run", run)
    assert code == 0, err
    assert flow_names(explored(run)) == ["flow rotation", "flow zoom"]
    (run / GENERATOR).unlink()  # as a run of before has none
    code, _, err = call(front("flow_vae"), "digits", *flags, *small, "--run", run)
    assert code == 0, err
    assert (run / GENERATOR).exists()


def test_the_density_of_codes_is_that_of_scipy_which_takes_a_second_to_import():
    from scipy.stats import gaussian_kde

    from experiments.explore.shading import _density

    random = np.random.default_rng(0)
    codes = random.normal(size=(60, 2)) @ np.array([[1.0, 0.3], [0.0, 2.0]])
    points = random.normal(size=(20, 2))
    np.testing.assert_allclose(_density(codes, points), gaussian_kde(codes.T)(points.T), rtol=1e-6)
    line = np.linspace(0, 1, 9)[:, None] * np.ones(2)
    assert np.isnan(_density(line, points)).all()
