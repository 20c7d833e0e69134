"""Loading a generator: from run folders, from those about one, from functions; what is refused."""

import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import GeneratorSpec, draw_latents, load_generator
from latent_flows.generators.load import GENERATOR, REFERENCE, is_function, reference
from latent_flows.generators.spec import prior
from latent_flows.generators.stored import StoredGenerator, to_bytes
from tests.experiments.small_generators import small_gan, small_vae
from tests.generators.small_nets import SMALL_BIGGAN, SMALL_STYLEGAN2, filled


def about(place, spec, seed=0, experiment="experiments.directions"):
    """A run folder of an experiment on a generator."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps({"experiment": experiment, "config": {}}))
    (place / REFERENCE).write_text(json.dumps(reference(spec, seed, place)))
    return place


def test_the_generator_of_a_trained_vae_has_all_that_is_known_of_it(tmp_path):
    found = load_generator(small_vae(tmp_path / "vae", "digits", stds=("rbf", "network")))
    assert (found.name, found.dataset) == ("the VAE of digits", "digits")
    assert (found.latent_dim, found.event_shape) == (3, (8, 8, 1))
    z = found.prior(jax.random.key(0))
    x = found(z)
    mean, std = found.encode(x)
    assert mean.shape == std.shape == (3,)
    assert found.log_likelihood(x, z) < 0
    assert {kind: std(z).shape for kind, std in found.noise_std.items()} == {
        "rbf": (8, 8, 1),
        "network": (8, 8, 1),
    }
    assert found.first_layer.shape == (16, 3)


def test_the_generator_of_a_trained_gan_is_taken_from_its_run(tmp_path):
    found = load_generator(str(small_gan(tmp_path / "gan", "mnist", latent_dim=3)))
    assert (found.latent_dim, found.event_shape, found.encode) == (3, (8, 8, 1), None)
    assert (found.dataset, dict(found.noise_std)) == ("mnist", {})
    assert found.first_layer.shape == (64, 3)


@pytest.mark.parametrize(
    ("name", "low", "high", "norm"),
    [
        ("normal", -np.inf, np.inf, np.sqrt(8)),
        ("truncated", -0.7, 0.7, np.sqrt(8 * 0.155)),
        ("sphere", -np.sqrt(8), np.sqrt(8), np.sqrt(8)),
        ("uniform", -1, 1, np.sqrt(8 / 3)),
    ],
)
def test_latents_are_those_of_the_prior(name, low, high, norm, key):
    latents = draw_latents(prior(GeneratorSpec(prior=name, truncation=0.7), 8), key, 2000)
    assert latents.shape == (2000, 8)
    assert (low <= latents).all()
    assert (latents <= high).all()
    np.testing.assert_allclose(np.sqrt((latents**2).sum(1).mean()), norm, rtol=0.02)
    np.testing.assert_allclose(latents.mean(0), 0, atol=0.1)
    if name == "sphere":
        np.testing.assert_allclose(jnp.linalg.norm(latents, axis=1), norm, rtol=1e-5)


def test_settings_reach_the_generator_of_a_run(tmp_path):
    gan = small_gan(tmp_path / "gan", latent_dim=200)
    spec = GeneratorSpec(str(gan), prior="sphere", dtype="bfloat16", recompute=True)
    found = load_generator(spec)
    norm = float(jnp.linalg.norm(found.prior(jax.random.key(0))))
    assert norm == pytest.approx(np.sqrt(200), rel=1e-5)
    assert jnp.dtype(jnp.bfloat16) in {leaf.dtype for leaf in jax.tree.leaves(found.decode)}
    assert found(jnp.ones(200)).dtype == jnp.float32


# --- runs about a generator ---


def test_a_run_stands_for_its_generator_and_so_does_a_run_about_that(tmp_path):
    gan = small_gan(tmp_path / "gan")
    first = about(tmp_path / "first", GeneratorSpec(str(gan), prior="uniform"))
    second = about(tmp_path / "second", GeneratorSpec(str(first)))
    z = jnp.ones(4)
    for run in (first, second):
        found = load_generator(run)
        np.testing.assert_array_equal(found(z), load_generator(gan)(z))
        assert abs(found.prior(jax.random.key(0))).max() <= 1
    # The second does not need the first.
    shutil.rmtree(first)
    assert load_generator(second).name == "an SNGAN"
    with pytest.raises(ValueError, match=r"second is a run that has its own generator; leave out"):
        load_generator(GeneratorSpec(str(second), prior="normal", truncation=2.0))


@pytest.mark.parametrize(
    "net",
    [pytest.param(SMALL_BIGGAN, marks=pytest.mark.slow), SMALL_STYLEGAN2],
    ids=["a class", "a space"],
)
def test_a_run_keeps_the_class_and_the_space_that_it_was_about(net, tmp_path):
    home = small_gan(tmp_path / "gan")
    (home / GENERATOR).write_bytes(to_bytes(StoredGenerator(net, filled(net), "net")))
    settings = {} if net is SMALL_BIGGAN else {"space": "w+", "truncation": 0.5}
    run = about(tmp_path / "run", GeneratorSpec(str(home), **settings), seed=7)
    found, given = load_generator(run), load_generator(GeneratorSpec(str(home), **settings), seed=7)
    assert (found.name, found.latent_dim) == (given.name, given.latent_dim)
    z = given.prior(jax.random.key(1))
    np.testing.assert_array_equal(jax.jit(found.decode)(z), jax.jit(given.decode)(z))


OWN = """
import jax.numpy as jnp

def scaled(params, z):
    return params["gain"] * jnp.ones((4, 4, 1)) + 0.01 * z.sum()
"""


def test_a_function_and_its_checkpoint_are_found_from_anywhere(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "own.py").write_text(OWN)
    np.savez(home / "params.npz", gain=np.float32(0.25))
    monkeypatch.chdir(home)
    spec = GeneratorSpec("own.py:scaled", checkpoint="params.npz", latent_dim=2)
    run = about(home / "runs" / "flows", spec)
    monkeypatch.chdir("/")
    np.testing.assert_allclose(load_generator(run)(jnp.ones(2)), 0.27, rtol=1e-6)
    # All of it can be moved.
    shutil.move(home, tmp_path / "moved")
    found = load_generator(tmp_path / "moved" / "runs" / "flows")
    np.testing.assert_allclose(found(jnp.ones(2)), 0.27, rtol=1e-6)


def test_folders_that_are_moved_together_find_each_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_vae("runs/vae")
    run = about(Path("runs/flows"), GeneratorSpec("runs/vae"))
    image = load_generator(run)(jnp.ones(3))
    Path("runs").rename("elsewhere")
    np.testing.assert_array_equal(load_generator("elsewhere/flows")(jnp.ones(3)), image)
    # And a run that is moved alone finds the generator where that was.
    Path("elsewhere").rename("runs")
    Path("away/from/here").mkdir(parents=True)
    shutil.move("runs/flows", "away/from/here/flows")
    np.testing.assert_array_equal(load_generator("away/from/here/flows")(jnp.ones(3)), image)


def test_a_generator_that_is_gone_is_named(tmp_path):
    gan = small_gan(tmp_path / "gan")
    run = about(tmp_path / "run", GeneratorSpec(str(gan)))
    (gan / GENERATOR).unlink()
    with pytest.raises(ValueError, match=r"the generator of .*run is gone: .*gan holds no gene"):
        load_generator(run)
    shutil.rmtree(gan)
    with pytest.raises(ValueError, match=r"gan does not exist: name a run folder"):
        load_generator(run)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"spec": {}, "seed": 0, "near": {}}',
        '{"spec": {"path": "a", "range": [0, 1]}, "seed": "x", "near": {}}',
        '{"spec": {"path": "a", "range": [1, 0]}, "seed": 0, "near": {}}',
        '{"spec": {"path": "a", "range": [0, 1], "colour": 1}, "seed": 0, "near": {}}',
        '{"spec": {"path": "a", "range": [0, 1]}, "seed": 0, "near": null}',
        '{"spec": {"path": 3, "range": [0, 1]}, "seed": 0, "near": {}}',
        "[" * 10**5,
    ],
)
def test_a_reference_that_makes_no_sense_is_one_line(content, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / REFERENCE).write_text(content)
    with pytest.raises(ValueError, match=r"generator\.json does not say which gen") as error:
        load_generator(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_about_itself_is_about_nothing(tmp_path):
    spec = {"path": str(tmp_path), "range": [0, 1]}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / REFERENCE).write_text(json.dumps({"spec": spec, "seed": 0, "near": {}}))
    with pytest.raises(ValueError, match=r"is gone: .* holds no generator"):
        load_generator(tmp_path)


# --- what is refused ---


def folder(place, *names):
    for name in names:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return place


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "no generator is named: give a run folder, package.module:function or file.py:func"),
        ("nowhere", "generator nowhere does not exist: name a run folder"),
        ("x" * 3000, "does not exist: name a run folder"),
        ("own.py", "names no function: write own.py:FUNCTION"),
        ("README.md", "README.md is truncated, corrupt or no safetensors file"),
        ("README.md/x", "README.md/x does not exist"),
        ("empty", "empty holds no generator: it is no run folder"),
        ("old", f"old holds no {GENERATOR}: its training was not finished (the same command goes"),
        ("other", f"other holds no generator and was about none: there is no {GENERATOR}"),
    ],
)
def test_what_is_no_generator_is_named(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path, "README.md", "own.py", "other/config.json", "other/metrics.json")
    folder(tmp_path, "old/config.json", "old/checkpoints/vae/3/default/d")
    os.mkdir("empty")
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message follows
        load_generator(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_the_first_version_says_how_to_get_a_generator(tmp_path):
    folder(tmp_path, "checkpoints/vae/3400/default/d")
    header = {"experiment": "experiments.flow_config", "version": "0.1.0", "config": {}}
    (tmp_path / "config.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"it was made by version 0\.1\.0 \(make it anew\)"):
        load_generator(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"), [("latent_dim", 2), ("checkpoint", "a.npz"), ("range", (-1.0, 1.0))]
)
def test_what_belongs_to_a_function_is_refused_for_a_run(setting, value, tmp_path):
    spec = GeneratorSpec(str(small_gan(tmp_path / "gan")), **{setting: value})
    with pytest.raises(ValueError, match=f"generator.{setting} belongs to a function of your own"):
        load_generator(spec)


@pytest.mark.parametrize("setting", [{"prior": "sphere"}, {"space": "w"}, {"label": 1}])
def test_a_vae_has_its_own_prior_and_one_space(setting, tmp_path):
    spec = GeneratorSpec(str(small_vae(tmp_path / "vae")), **setting)
    with pytest.raises(ValueError, match="are for a generator without an encoder, and the VAE of"):
        load_generator(spec)


def test_a_colon_may_be_part_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_gan("runs:gan")
    assert not is_function("runs:gan")
    assert load_generator("runs:gan").name == "an SNGAN"
