"""The file of a generator: what is written is read, and what is damaged is named."""

import json
import pickle
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from latent_flows.generators import load_generator, rbf
from latent_flows.generators.rbf import StdNetwork
from latent_flows.generators.stored import (
    StoredGenerator,
    StoredStd,
    load_bytes,
    restore_generator,
    to_bytes,
)
from latent_flows.generators.vae import VAE
from latent_flows.geometry import ensemble_pullback
from tests.generators.small_nets import GANS, filled, small_net_of_a_vae

SHAPE = (8, 8, 3)
NETS = {type(net).__name__: net for net in GANS} | {
    f"VAE, {decoder}, {likelihood}": small_net_of_a_vae(decoder, likelihood, SHAPE)
    for decoder, likelihood in (
        ("mlp", "bernoulli"),
        ("conv", "gaussian"),
        ("broadcast", "discretised_logistic"),
    )
}


def both_stds(seed=0):
    codes = np.random.default_rng(seed).normal(size=(20, 2)).astype(np.float32)
    network = StdNetwork(SHAPE, width=4, depth=1)
    params = network.init(jax.random.key(seed), jnp.zeros(2))
    return {
        "rbf": StoredStd(rbf.init_rbf(codes, SHAPE, centres=3)),
        "network": StoredStd(params, width=4, depth=1),
    }


@pytest.mark.parametrize("name", NETS)
def test_every_architecture_comes_back_to_the_bit(name):
    net = NETS[name]
    stds = both_stds() if isinstance(net, VAE) else {}
    kept = StoredGenerator(net, filled(net), name, "sprites", (1, 2), (("zoom", 0.5),), stds)
    back = load_bytes(to_bytes(kept))
    assert (back.net, back.name, back.dataset) == (net, name, "sprites")
    assert (back.labels, back.augment) == ((1, 2), (("zoom", 0.5),))
    assert back.noise_std.keys() == stds.keys()
    arrays = ((one.variables, one.noise_std) for one in (kept, back))
    jax.tree.map(np.testing.assert_array_equal, *arrays)
    assert to_bytes(back) == to_bytes(kept)


def test_a_vae_with_both_deviations_is_the_same_after_the_file():
    net = NETS["VAE, conv, gaussian"]
    kept = StoredGenerator(net, filled(net), "a VAE", "sprites", noise_std=both_stds())
    before, after = restore_generator(kept), restore_generator(load_bytes(to_bytes(kept)))
    z = jnp.array([0.3, -0.4])
    x = after(z)
    np.testing.assert_array_equal(x, before(z))
    np.testing.assert_array_equal(after.encode(x), before.encode(x))
    np.testing.assert_array_equal(after.log_likelihood(x, z), before.log_likelihood(x, z))
    assert {*after.noise_std} == {"rbf", "network"}
    for kind, std in after.noise_std.items():
        assert std(z).shape == SHAPE
        np.testing.assert_array_equal(std(z), before.noise_std[kind](z))
    np.testing.assert_array_equal(after.first_layer, before.first_layer)
    mean, _ = net.apply(kept.variables, x, method=net.encode)
    np.testing.assert_allclose(after.encode(x)[0], mean, rtol=1e-5, atol=1e-6)


def test_a_file_holds_no_code(monkeypatch):
    """Nothing in it is unpickled."""

    def forbidden(*args, **kwargs):
        raise AssertionError("unpickled")

    content = to_bytes(StoredGenerator(NETS["SNGAN"], filled(NETS["SNGAN"]), "a GAN"))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    assert load_bytes(content).name == "a GAN"


# --- what is damaged ---


def changed(content, *, model=None, arrays=None, header=None):
    """A file with other entries in its header, or other arrays."""
    length = int.from_bytes(content[:8], "little")
    texts = json.loads(content[8 : 8 + length])["__metadata__"]
    entries, found = json.loads(texts["model"]), safetensors.load(content)
    for change, what in ((model, entries), (arrays, found)):
        if change is not None:
            change(what)
    texts = {**texts, "model": json.dumps(entries), **(header or {})}
    return safetensors.save(found, {k: v for k, v in texts.items() if v is not None})


def each(change):
    """Changes every array."""
    return lambda arrays: arrays.update({name: change(array) for name, array in arrays.items()})


KERNEL = "variables/params/dense/kernel"
DAMAGED = {
    "another format": ({"header": {"format": "latent_flows"}}, "none of a latent_flows generator"),
    "newer": ({"header": {"version": "4"}}, "version 4 of the layout, and this"),
    "no version": ({"header": {"version": None}}, "version nothing of the layout"),
    "a version in other digits": ({"header": {"version": "¹"}}, "version ¹ of the layout"),
    "no model": ({"header": {"model": None}}, "its header makes no sense (KeyError: 'model')"),
    "a model cut short": ({"header": {"model": '{"a'}}, "makes no sense (JSONDecodeError"),
    "a model without end": ({"header": {"model": "[" * 10**5}}, "makes no sense (RecursionError"),
    "another architecture": (
        {"model": lambda m: m.update(architecture="SNGN")},
        "unknown architecture 'SNGN' (did you mean 'SNGAN'?)",
    ),
    "no settings": ({"model": lambda m: m.update(settings=None)}, "makes no sense (AttributeError"),
    "a new setting": ({"model": lambda m: m["settings"].update(colour=1)}, "argument 'colour'"),
    "a setting of another kind": (
        {"model": lambda m: m["settings"].update(latent_dim="7")},
        "its header makes no sense (TypeError: ",
    ),
    "labels that are none": ({"model": lambda m: m.update(labels=["a"])}, "makes no sense (Value"),
    "amounts that are none": (
        {"model": lambda m: m.update(augment=[["zoom"]])},
        "its header makes no sense (ValueError: not enough values",
    ),
    "another size": (
        {"model": lambda m: m["settings"].update(latent_dim=7)},
        f"its arrays are not those of SNGAN: {KERNEL} is float32 (3, 32), expected float32 (7, 32)",
    ),
    "an array less": ({"arrays": lambda a: a.pop(KERNEL)}, f"SNGAN: {KERNEL} is missing"),
    "no arrays": ({"arrays": dict.clear}, "is missing"),
    "whole numbers": ({"arrays": each(lambda x: x.astype(np.int32))}, "is int32 (2,), expected"),
}
"""Changes of the file of an SNGAN, and what the message says."""


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_makes_no_sense_is_one_line(kind, tmp_path):
    change, message = DAMAGED[kind]
    net = NETS["SNGAN"]
    content = changed(to_bytes(StoredGenerator(net, filled(net), "a GAN")), **change)
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message follows
        load_bytes(content)
    assert message in str(error.value)
    file = tmp_path / "generator.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011, the message follows
        load_generator(tmp_path / "generator.safetensors")
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["rbf", "network"])
def test_a_deviation_that_does_not_fit_is_named(kind):
    net = NETS["VAE, mlp, bernoulli"]
    kept = StoredGenerator(net, filled(net), "a VAE", noise_std=both_stds())
    first = {"rbf": "noise_std/rbf/log_weights", "network": "noise_std/network/params/Dense_0/bias"}

    def cut(arrays):
        arrays[first[kind]] = arrays[first[kind]][:-1].copy()

    with pytest.raises(ValueError, match=f"not those of VAE: {first[kind]} is float32"):
        load_bytes(changed(to_bytes(kept), arrays=cut))


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_named(kept, tmp_path):
    content = to_bytes(StoredGenerator(NETS["SNGAN"], filled(NETS["SNGAN"]), "a GAN"))[:kept]
    with pytest.raises(ValueError, match="truncated, corrupt or no safetensors file"):
        load_bytes(content)
    (tmp_path / "generator.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text('{"experiment": "experiments.train_gan"}')
    with pytest.raises(ValueError, match=r"generator\.safetensors is truncated, corrupt or no"):
        load_generator(tmp_path)


def test_a_file_of_something_else_is_named(tmp_path):
    safetensors.save_file({"w": np.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="a safetensors file, but none of a latent_flows gen"):
        load_generator(tmp_path / "other.safetensors")
    (tmp_path / "README.md").write_text("# Title")
    with pytest.raises(ValueError, match=r"README.md is truncated, corrupt or no safetensors"):
        load_generator(tmp_path / "README.md")


@pytest.mark.parametrize(
    ("number", "message"),
    [(0.0, "makes the same sample of every latent"), (np.nan, "makes samples that are not finite")],
)
@pytest.mark.parametrize("name", ["SNGAN", "VAE, mlp, bernoulli"])
def test_a_generator_of_no_use_is_refused(name, number, message, tmp_path):
    net = NETS[name]
    flat = jax.tree.map(lambda leaf: jnp.full_like(leaf, number), filled(net))
    file = tmp_path / "generator.safetensors"
    file.write_bytes(to_bytes(StoredGenerator(net, flat, name)))
    with pytest.raises(ValueError, match=f"^{name} {message}"):
        load_generator(file)


@pytest.mark.slow
def test_several_decoders_come_back_and_earlier_versions_are_told_of_them():
    plain = NETS["VAE, mlp, bernoulli"]
    net = VAE(replace(plain.config, decoders=3), SHAPE)
    content = to_bytes(StoredGenerator(net, filled(net), "an ensemble"))
    assert safe_header(content)["version"] == "3"
    back = load_bytes(content)
    assert back.net == net
    found, z = restore_generator(back), jnp.array([0.3, -0.4])
    assert found.members(z).shape == (3, *SHAPE)
    np.testing.assert_allclose(found(z), found.members(z).mean(0), rtol=1e-6)
    assert ensemble_pullback(found)(z).shape == (2, 2)
    # One decoder is written as ever, without a word of how many there are.
    content = to_bytes(StoredGenerator(plain, filled(plain), "one"))
    assert safe_header(content)["version"] == "1"
    assert "decoders" not in json.loads(safe_header(content)["model"])["settings"]
    alone = restore_generator(load_bytes(content))
    with pytest.raises(ValueError, match="one has one decoder, and an ensemble needs"):
        ensemble_pullback(alone)


def safe_header(content):
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def test_a_network_that_no_file_holds_is_named():
    with pytest.raises(ValueError, match="unknown generator 'object'"):
        restore_generator(StoredGenerator(object(), {}, "of another kind"))
