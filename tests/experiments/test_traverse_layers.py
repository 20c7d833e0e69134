"""Drawing what moves in a run of any kind, in all layers of a StyleGAN2 or in some of them."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import traverse
from experiments.directions.config import Config as Directions
from experiments.export import export
from experiments.learnt import factors
from experiments.learnt.factors import Steered
from experiments.learnt.flows import Followed, Starts
from experiments.page import contents as pages
from experiments.page.contents import Wish, contents
from experiments.page.grid import picture_name
from experiments.potential_flows.config import Config as Flows
from experiments.potential_flows.traverse import Drawing
from experiments.runtime.run_dir import open_folder
from experiments.steer.config import Config as Steer
from latent_flows import coordinates
from latent_flows.directions.model import DirectionModel
from latent_flows.export import Directions as Learnt
from latent_flows.generators import GeneratorSpec, load_generator, stored
from latent_flows.generators.load import GENERATOR, REFERENCE, reference
from latent_flows.generators.stylegan2 import generator
from tests.experiments.small_generators import small_stylegan2, small_vae

UP = jnp.array([0.0, 1.0, 0.0])


def about(config, gan, space="w"):
    """A run folder about a StyleGAN2."""
    run = open_folder(config.run, config).path
    spec = GeneratorSpec(str(gan), space=space)
    (run / REFERENCE).write_text(json.dumps(reference(spec, 0, run)))
    return run


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    gan = small_stylegan2(tmp_path_factory.mktemp("runs") / "gan")
    return gan, load_generator(GeneratorSpec(str(gan), space="w"))


@pytest.fixture
def gan(loaded, monkeypatch):
    gan, frozen = loaded
    monkeypatch.setattr(pages, "of_run", lambda run: frozen)
    return gan


@pytest.fixture
def directions_run(tmp_path, gan, monkeypatch):
    """One straight direction in W, along the second axis."""
    config = Directions(
        run=str(tmp_path / "ways"), transformations=("zoom",), ts=(0.5,), losses=("mse",)
    )
    line = jnp.array([-1.0, 0.0, 1.0])
    model = DirectionModel(UP, line, line, line[::2], *jnp.ones(2))
    monkeypatch.setattr(factors, "learnt_directions", lambda run: Learnt(("zoom",), (model,)))
    np.save(tmp_path / "z.npy", np.array([[0.3, -0.4, 0.1], [0.0, 0.2, -0.5]]))
    return about(config, gan)


def styled(gan, starts, ends, moved):
    """Images whose moved layers have the styles of the ends, all others those of the starts."""
    kept = stored.read(gan / GENERATOR)
    styles = jnp.tile(starts[:, None], (1, 4, 1)).at[:, moved].set(ends[:, None])
    return np.asarray(_images(kept.net, kept.variables, styles))


@partial(jax.jit, static_argnums=0)
def _images(net, variables, styles):
    image = generator(net, variables, space="w+")
    return jax.vmap(lambda w: (image(w.ravel()) + 1) / 2)(styles)


@pytest.mark.slow
def test_a_direction_moves_the_layers_that_are_named_by_the_amount_and_no_others(
    directions_run, gan, tmp_path
):
    wish = Wish(1, 1, str(tmp_path / "z.npy"), first=1, stretch=2.0, layers="1-2")
    found = contents(str(directions_run), wish)
    z = jnp.array([0.0, 0.2, -0.5])
    amounts = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(found.moves[0].places, amounts)
    expected = styled(gan, jnp.tile(z, (3, 1)), z + amounts[:, None] * UP, jnp.array([1, 2]))
    np.testing.assert_allclose(found.samples[0, 0], expected, atol=1e-5)
    assert found.starts == ["z 2"]
    assert found.about.endswith("Layers 1-2 alone are moved.")


@pytest.mark.slow
def test_a_flow_moves_the_layers_that_are_named_and_no_others(tmp_path, gan, monkeypatch):
    run = about(Flows(run=str(tmp_path / "flows")), gan)
    z0 = jnp.array([0.3, -0.4, 0.1])
    moving = Followed(
        ("0",),
        "flow",
        "fields",
        1.0,
        lambda speed, t, z: speed * UP,
        jnp.array([2.0]),
        coordinates.identity(3),
        False,
        None,
        lambda count: Starts(z0[None], "draw"),
        dict,
    )
    monkeypatch.setattr(pages, "read", lambda run, generator: moving)
    found = contents(str(run), Wish(1, 1, "", layers="0"))
    ends = z0 + jnp.array([-2.0, 0.0, 2.0])[:, None] * UP
    expected = styled(gan, jnp.tile(z0, (3, 1)), ends, jnp.array([0]))
    np.testing.assert_allclose(found.samples[0, 0], expected, atol=1e-4)


@pytest.mark.slow
def test_what_is_steered_moves_the_layers_that_are_named_and_no_others(tmp_path, gan, monkeypatch):
    config = Steer(
        run=str(tmp_path / "steer"), transformations=("brightness",), ts=(0.1,), hold=("nothing",)
    )
    run = about(config, gan)
    moving = Steered(config, {"brightness": 0.1}, {}, {})
    monkeypatch.setattr(pages, "read", lambda run, generator: moving)
    monkeypatch.setattr(pages.steer_scores, "tabulated", lambda *_: {})
    z0 = jnp.array([0.3, -0.4, 0.1])
    np.save(tmp_path / "z.npy", z0)
    led = []
    lead = pages.lead
    monkeypatch.setattr(pages, "lead", lambda *args: led.append(lead(*args)) or led[-1])
    found = contents(str(run), Wish(1, 1, str(tmp_path / "z.npy"), layers="3"))
    ends = jnp.insert(led[0].zs[0], 1, z0, axis=0)
    expected = styled(gan, jnp.tile(z0, (3, 1)), ends, jnp.array([3]))
    np.testing.assert_allclose(found.samples[0, 0], expected, atol=1e-5)
    assert found.missing is None


def test_the_command_draws_a_run_of_directions_beside_its_other_pictures(
    directions_run, tmp_path, call
):
    flags = ("--latent", tmp_path / "z.npy", "--start", 1, "--layers", "0, 2-3")
    code, out, err = call(traverse, directions_run, *flags)
    assert (code, err) == (0, "")
    drawn = {"traversals_z_1_layers_0_2-3.png", "traversals_z_1_layers_0_2-3.gif"}
    assert {file.name for file in directions_run.glob("*.[pg][ni][gf]")} == drawn
    assert all(name in out for name in drawn)


def test_a_page_moves_some_layers(directions_run, tmp_path, call):
    page = tmp_path / "page.html"
    flags = ("--page", page, "--latent", tmp_path / "z.npy", "--frames", 1, "--layers", "1")
    code, _, err = call(export, directions_run, *flags)
    assert (code, err) == (0, "")
    assert "Layers 1 alone are moved." in page.read_text()


def test_layers_that_there_are_not_are_refused_in_one_line(directions_run, tmp_path, call):
    other = about(Directions(run=str(tmp_path / "other")), small_vae(tmp_path / "vae"), "z")
    for module, run, flags, words in [
        (traverse, directions_run, ("--layers", "4"), "names layer 4, and there are 4: 0 to 3"),
        (traverse, directions_run, ("--layers", "3-1"), "--layers must be numbers and ranges"),
        (traverse, other, ("--layers", "1"), "--layers 1 is of a StyleGAN2; "),
        (traverse, directions_run, ("--latent", tmp_path / "z.npy", "--start", 2), "--start 2"),
        (export, directions_run, ("--layers", "1"), "--layers is of the page"),
    ]:
        code, _, err = call(module, run, *flags)
        assert (code, err.count("\n")) == (2, 1), err
        assert words in err


def test_pictures_are_called_after_what_is_drawn():
    assert picture_name(Drawing("runs/x")) == "traversals"
    assert picture_name(Drawing("runs/x", latent="a/cat.npy")) == "traversals_cat"
    assert picture_name(Drawing("runs/x", layers="2-4")) == "traversals_layers_2-4"
