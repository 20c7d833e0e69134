"""Drawing a run again: what is drawn, and what is refused."""

import json
import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.potential_flows import traverse
from experiments.potential_flows.config import Config, Flows
from experiments.potential_flows.families import potential_network
from experiments.potential_flows.flow_space import FlowSpace
from experiments.runtime.run_dir import open_folder
from latent_flows import coordinates, potentials
from latent_flows.generators import freeze
from latent_flows.generators.load import REFERENCE, reference
from latent_flows.generators.spec import GeneratorSpec
from tests.experiments.small_generators import small_vae

CONFIG = Config(flows=Flows(count=2, horizon=3, width=4, depth=1))


def picture(z):
    """An image of 4 x d pixels."""
    return jnp.tile(z, (4, 1))[..., None]


def space(starts, encode=None):
    low, high = jnp.min(starts, axis=0), jnp.max(starts, axis=0)
    dim = starts.shape[1]
    frozen = freeze(picture, dim, encode=encode)
    return FlowSpace(frozen, coordinates.identity(dim), picture, starts, low, high)


def test_the_start_is_a_code_that_is_extreme_on_no_axis_while_there_are_any():
    starts = jnp.stack([jnp.arange(20.0), jnp.arange(20.0) * 7 % 20], axis=1)
    low, high = jnp.quantile(starts, jnp.array([0.1, 0.9]), axis=0)
    inside = [z for z in starts if bool(jnp.all((z >= low) & (z <= high)))]
    assert 0 < len(inside) < len(starts)
    for place, z in enumerate(inside):
        np.testing.assert_array_equal(traverse.representative(space(starts), place), z)
    # Asked for more than that, it takes them from a wider range, in the end from all.
    np.testing.assert_array_equal(traverse.representative(space(starts), 19), starts[19])
    for outside in (-1, 20):
        with pytest.raises(ValueError, match=rf"start must be in \[0, 20\), got {outside}"):
            traverse.representative(space(starts), outside)


def test_rows_are_named_after_the_factor_that_a_flow_changes(tmp_path):
    folder = open_folder(tmp_path / "run", CONFIG)
    assert traverse.row_labels(folder, CONFIG) == ["0", "1"]
    rows = [{"method": "random"}, {"method": "potentials", "winners": ["size", "x"]}]
    folder.write_json("metrics.json", {"comparison": rows})
    assert traverse.row_labels(folder, CONFIG) == ["0: size", "1: x"]
    folder.write_json("metrics.json", {"comparison": [{"method": "potentials"}]})
    assert traverse.row_labels(folder, CONFIG) == ["0", "1"]


def test_a_folder_without_a_run_is_one_line_and_code_2(tmp_path, call):
    path = tmp_path / "nothing"
    code, out, err = call(traverse, path)
    assert (code, out, err) == (2, "", f"error: {path / 'config.json'} does not exist\n")
    assert not path.exists()


def test_a_run_of_another_experiment_is_one_line_and_code_2(tmp_path, call):
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "experiments.train_vae"}))
    code, _, err = call(traverse, tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a run of experiments.train_vae, not of experiments.potential_flows" in err


def test_a_run_without_its_checkpoints_is_one_line_and_code_2(tmp_path, call):
    config = replace(CONFIG, flows=replace(CONFIG.flows, frame="identity"))
    run = open_folder(tmp_path / "run", config).path
    code, _, err = call(traverse, run)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no generator and was about none" in err
    spec = GeneratorSpec(str(small_vae(tmp_path / "vae")))
    (run / REFERENCE).write_text(json.dumps(reference(spec, 0, run)))
    code, _, err = call(traverse, run)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no checkpoint of 'flows'; train it there first" in err


@pytest.mark.parametrize("stretch", ["nan", "inf", "0", "-1"])
def test_a_stretch_that_makes_no_sense_names_its_flag(tmp_path, call, stretch):
    code, _, err = call(traverse, tmp_path / "run", "--stretch", stretch)
    assert code == 2
    assert err.startswith("error: --stretch must be positive and finite, got ")


def test_a_run_folder_that_is_read_only_is_drawn_elsewhere(tmp_path, call, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    code, _, err = call(traverse, tmp_path / "run")
    assert code == 2
    assert err == f"error: {tmp_path / 'run'} cannot be written to; draw elsewhere: --to FOLDER\n"


def test_pictures_do_not_go_into_another_run_or_a_file(tmp_path, call):
    (tmp_path / "config.json").write_text("{}")
    code, _, err = call(traverse, "runs/x", "--to", tmp_path)
    assert (code, err) == (2, f"error: --to {tmp_path} is a run folder; choose another\n")
    code, _, err = call(traverse, "runs/x", "--to", tmp_path / "config.json")
    assert (code, err) == (2, f"error: --to {tmp_path / 'config.json'} is a file, not a folder\n")
    (tmp_path / "config.json").write_text('{"experiment": "experiments.train_vae"}')
    code, _, err = call(traverse, "runs/x", "--to", tmp_path / "pictures")
    inside = tmp_path / "pictures"
    line = f"error: --to {inside} lies in the run folder {tmp_path}; choose another\n"
    assert (code, err) == (2, line)


def small(tmp_path):
    """A run of two potentials on a generator of one number, begun, and what it draws."""
    config = replace(CONFIG, run=str(tmp_path / "run"))
    net = potential_network(CONFIG.flows)
    params = {"potentials": potentials.init_stack(net, jax.random.key(0), 2, 1)}
    starts = jnp.linspace(-1.0, 1.0, 24)[:, None]
    return open_folder(config.run, config), config, space(starts), params


@pytest.mark.slow
def test_a_latent_of_one_number_has_every_picture(tmp_path):
    folder, config, there, params = small(tmp_path)
    assert traverse.draw(folder, config, there, params) == []
    assert sorted(file.name for file in folder.path.glob("*.[pg]*")) == [
        "landscapes.png",
        "traversals.gif",
        "traversals.png",
    ]
    assert traverse.is_drawn(folder, config)


@pytest.mark.slow
def test_pictures_can_be_drawn_elsewhere(tmp_path, monkeypatch):
    folder, config, there, params = small(tmp_path)
    loaded = lambda path: (config, None, there, params)  # noqa: E731
    monkeypatch.setattr(traverse, "load_run", loaded)
    monkeypatch.setattr(traverse, "landscapes", lambda *_: Figure())
    drawing = traverse.Drawing(config.run, to=str(tmp_path / "new" / "pictures"))
    assert traverse.run(drawing) is None
    assert not [*folder.path.glob("*.[pg]*")]
    assert len([*(tmp_path / "new" / "pictures").iterdir()]) == 3


def test_a_latent_of_ones_own_has_pictures_of_its_own_beside_those_of_the_run(
    tmp_path, monkeypatch, call
):
    folder, config, there, params = small(tmp_path)
    loaded = lambda path: (config, None, there, params)  # noqa: E731
    monkeypatch.setattr(traverse, "load_run", loaded)
    seen = []
    draw = lambda samples, **_: seen.append(samples) or Figure()  # noqa: E731
    monkeypatch.setattr(traverse.plots, "traversal_grid", draw)
    np.save(tmp_path / "cat.npy", np.array([[0.1], [0.7]]))
    flags = (config.run, "--latent", tmp_path / "cat.npy")
    run, folder = folder.path, None  # which is held until nobody has it
    assert call(traverse, *flags, "--start", 1)[0] == 0
    names = sorted(file.name for file in run.glob("*.[pg]*"))
    assert names == ["traversals_cat_1.gif", "traversals_cat_1.png"]
    middle = seen[0].shape[1] // 2
    np.testing.assert_allclose(seen[0][:, middle], [picture(jnp.array([0.7]))] * 2, atol=1e-6)
    code, _, err = call(traverse, *flags, "--start", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds 2 latents, of which --start 2 is none" in err
    np.save(tmp_path / "cat.npy", np.zeros(3))
    code, _, err = call(traverse, *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert "latents of 3 numbers, and those of this generator have 1" in err


def test_a_landscape_that_fails_does_not_take_the_others_along(tmp_path, monkeypatch, capsys):
    folder, config, there, params = small(tmp_path)
    monkeypatch.setattr(traverse, "landscapes", lambda *_: np.zeros(2) + np.zeros(3))
    assert traverse.draw(folder, config, there, params) == ["landscapes.png"]
    assert sorted(file.name for file in folder.path.glob("*.[pg]*")) == [
        "traversals.gif",
        "traversals.png",
    ]
    assert not traverse.is_drawn(folder, config), "the next run tries again"
    assert capsys.readouterr().err.startswith("error: landscapes.png could not be drawn (ValueErr")


def encode(x):
    """The code of an image, as good as known."""
    return x[0, :, 0], 1e-3 * jnp.ones(x.shape[1])


@pytest.mark.parametrize(
    ("starts", "encode", "said"),
    [
        pytest.param("posterior", None, "from draws from the prior", marks=pytest.mark.slow),
        pytest.param("prior", encode, "from draws from the prior", marks=pytest.mark.slow),
        ("posterior", encode, "from codes of data"),
    ],
)
def test_a_landscape_speaks_of_codes_where_there_are_some(tmp_path, starts, encode, said):
    _, config, there, params = small(tmp_path)
    there = space(there.starts, encode)
    config = replace(config, flows=replace(config.flows, starts=starts))
    figure = traverse.landscapes(config, there, params, ["a", "b"])
    caption = " ".join(figure._supxlabel.get_text().split())
    assert f"trajectories {said}, projected" in caption
    assert ("codes" in caption) == (said == "from codes of data")
