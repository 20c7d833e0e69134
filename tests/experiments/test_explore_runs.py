"""What the explorer makes of runs: a slider for all that each has learnt."""

import json

import numpy as np
import pytest

from experiments.explore import sliders
from experiments.explore.explored import load_explored
from experiments.explore.session import Session
from latent_flows.generators import GeneratorSpec, load_generator
from tests.experiments.front_doors import front
from tests.experiments.small_generators import small_gan, small_vae

pytestmark = pytest.mark.usefixtures("compile_quickly")


def explored(run):
    spec = GeneratorSpec(str(run))
    return load_explored(run.name, str(run), load_generator(spec), spec, codes=40, seed=0)


def groups(explored):
    return [*dict.fromkeys(control.group for control in explored.controls)]


def test_a_vae_has_codes_by_number_coloured_by_label_and_is_steered(tmp_path):
    found = explored(small_vae(tmp_path / "vae"))
    assert groups(found) == [sliders.STEERED, sliders.AXES]
    assert (found.codes.are_data, "label" in found.codes.colours) == (True, True)
    session = Session(found)
    number = int(found.codes.numbers[3])
    session.quick({"do": "code", "number": number})
    np.testing.assert_allclose(session.seen.latent, found.codes.latents[3], atol=1e-5)
    with pytest.raises(ValueError, match="examples are numbered from 0 to"):
        session.quick({"do": "code", "number": 10**9})


def test_of_scenes_each_factor_has_a_slider_and_of_sprites_transformations(tmp_path):
    scenes, sprites = (
        load_generator(small_vae(tmp_path / name, dataset=name, size=32))
        for name in ("scenes", "sprites")
    )
    (part,) = sliders.usual_steering(scenes)
    names = ["floor hue", "wall hue", "object hue", "scale", "orientation"]
    assert [control.name for control in part.controls] == names
    hue, scale = part.controls[0], part.controls[3]
    assert (hue.unit, hue.reach, hue.good) == ("turns", 0.5, (-0.5, 0.5))
    assert scale.good == (0.75, 1.25)
    assert np.isfinite(scale.value(np.zeros(3, np.float32)))
    found = [control.name for part in sliders.usual_steering(sprites) for control in part.controls]
    assert found == ["translate x", "translate y", "zoom object", "brightness"]


def test_a_gan_has_draws_of_its_prior_and_truncation(tmp_path):
    found = explored(small_gan(tmp_path / "gan"))
    session = Session(found)
    assert session.hello()["truncates"]
    assert session.hello()["codes"] == 0
    first = session.quick({"do": "random", "number": 5})[0]
    again = session.quick({"do": "random", "number": 5})[0]
    assert first["points"].shape == (40, 2)
    np.testing.assert_array_equal(first["mark"], again["mark"])


@pytest.mark.slow
def test_two_runs_on_one_generator_refuse_each_others_links(tmp_path):
    one, other = (explored(small_vae(tmp_path / name, seed=k)) for k, name in enumerate("ab"))
    moved = explored(small_vae(tmp_path / "elsewhere", seed=0))
    assert one.identity != other.identity
    assert one.identity == moved.identity


def test_a_run_that_is_not_finished_is_one_line_and_code_2(tmp_path, call):
    pytest.importorskip("panel")
    small_vae(tmp_path / "vae")
    (tmp_path / "flows").mkdir()
    config = {"flows": {"frame": "identity", "count": 2, "width": 4, "depth": 1}}
    config |= {"training": {"batch_size": 8}}
    header = {"experiment": "experiments.potential_flows", "config": config}
    (tmp_path / "flows" / "config.json").write_text(json.dumps(header))
    spec = GeneratorSpec(str(tmp_path / "vae"))
    from latent_flows.generators.load import REFERENCE, reference

    known = reference(spec, 0, tmp_path / "flows")
    (tmp_path / "flows" / REFERENCE).write_text(json.dumps(known))
    code, _, err = call(front("explore"), tmp_path / "flows", "--port", 0)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds no checkpoint of 'flows'; train it there first" in err


@pytest.mark.slow
def test_a_run_of_potential_flows_has_a_slider_a_flow_and_its_potentials_shade(tmp_path, call):
    vae = small_vae(tmp_path / "vae")
    run = tmp_path / "flows"
    settings = ["--generator", vae, "--run", run, "--flows.count", 2, "--flows.frame", "identity"]
    code, _, err = call(front("potential_flows"), "digits", "--quick", *settings)
    assert code == 0, err
    found = explored(run)
    flows = [control for control in found.controls if control.group == sliders.FLOWS]
    assert [control.name for control in flows] == ["flow 0", "flow 1"]
    session = Session(found)
    before = session.seen.latent
    session.quick({"do": "slide", "index": 1, "amount": 3.0})
    assert np.abs(session.seen.latent - before).max() > 0
    session.look_differently({"shade": "potential 1", "time": 2.0})
    *_, last = session.shades()
    assert np.isfinite(last["shade"].values).all()


@pytest.mark.slow
def test_runs_of_directions_and_of_steering_have_their_own_sliders(tmp_path, call):
    vae = small_vae(tmp_path / "vae", "digits")
    for name, preset, groups_wanted in (
        ("directions", "digits", [sliders.STRAIGHT, sliders.CURVED, sliders.STEERED, sliders.AXES]),
        ("steer", "sprites", [sliders.STEERED, sliders.AXES]),
    ):
        run = tmp_path / name
        flags = ["--transformations", "translate_x", "--ts", "0.1"]
        code, _, err = call(
            front(name), preset, "--quick", "--generator", vae, "--run", run, *flags
        )
        assert code == 0, err
        found = explored(run)
        assert groups(found) == groups_wanted
        session = Session(found)
        before = session.seen.latent
        session.quick({"do": "slide", "index": 0, "amount": 0.05})
        assert np.abs(session.seen.latent - before).max() > 0
        assert found.controls[0].unit == "image widths"
