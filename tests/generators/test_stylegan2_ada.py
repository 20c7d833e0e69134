"""The networks of stylegan2-ada-pytorch: read from their pickles, and what they make."""

import argparse
import collections
import datetime
import functools
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import GeneratorSpec, stylegan2, stylegan2_checkpoint
from latent_flows.generators.pretrained import published
from latent_flows.generators.stored import StoredGenerator, load_bytes, to_bytes
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.stylegan2_checkpoint import fitted, sought
from latent_flows.generators.weights import (
    Checkpoint,
    from_state_dict,
    read_checkpoint,
    read_state_dict,
)
from tests.generators.recorded_arrays import STYLEGAN2, Recorded

RECORDED = Path(__file__).parent / "recorded"
PRESET = stylegan2.PRESETS["stylegan2-1024"]
COLOUR = StyleGAN2(16, latent_dim=6, mapping_layers=2, channels=(5, 5, 4))
GREY = StyleGAN2(
    8,
    latent_dim=5,
    mapping_layers=3,
    channels=(5, 4),
    image_channels=1,
    classes=3,
    style_dim=4,
    clamp=1.5,
)
NETS = {"ada_colour": COLOUR, "ada_grey_of_classes": GREY}


def loaded(name):
    found = read_checkpoint(RECORDED / f"{name}.pkl", names=sought())
    fit = fitted(PRESET, found)
    return fit.net, from_state_dict(fit.net, fit.table, found.state)


@pytest.fixture(scope="module", params=NETS)
def network(request):
    return request.param, *loaded(request.param), np.load(RECORDED / f"{request.param}.npz")


def test_size_depth_channels_latents_and_classes_are_read_off_the_weights(network):
    name, net, _, _ = network
    assert net == NETS[name]


def test_images_are_those_of_the_code_that_was_pickled(network):
    _, net, variables, recorded = network

    @jax.jit
    def images(z, label):
        w = net.apply(variables, z, label, method=net.to_w)
        make = functools.partial(net.apply, variables, w, method=net.from_w)
        free = net.clone(clamp=None).apply(variables, w, method=net.from_w)
        return w, make(), make(truncation=0.6), make(noise="none"), free

    for i, z in enumerate(recorded["z"]):
        label = jnp.asarray(recorded["labels"][i]) if net.classes else None
        found = images(z, label)
        names = ("w", "image", "image_truncated", "image_without_noise")
        for key, value in zip(names, found[:4], strict=True):
            np.testing.assert_allclose(value, recorded[key][i], rtol=0, atol=1e-4)
        assert (np.abs(found[4] - found[1]).max() > 0.1) == (net.clamp is not None)
    assert recorded["image"].std() > 0.1
    for other in ("image_truncated", "image_without_noise"):
        assert np.abs(recorded["image"] - recorded[other]).max() > 0.1


def test_the_averaged_generator_is_taken_and_another_by_its_key():
    path = RECORDED / "ada_colour.pkl"
    state = read_state_dict(path, names=sought()[1])
    averaged = read_state_dict(path, key="G_ema")
    other = read_state_dict(path, key="G", names=sought()[1])
    assert set(state) == set(averaged) == set(other)
    np.testing.assert_array_equal(state["mapping.w_avg"], averaged["mapping.w_avg"])
    assert np.abs(state["mapping.w_avg"] - other["mapping.w_avg"]).max() > 0.1


def test_a_stylegan2_of_classes_is_frozen_with_one_of_them():
    net, variables = loaded("ada_grey_of_classes")
    recorded = np.load(RECORDED / "ada_grey_of_classes.npz")
    spec = GeneratorSpec(label=int(recorded["labels"][1]))
    frozen = published("faces", net, variables, spec, 0)
    image = jax.jit(frozen.decode)(recorded["z"][1])
    np.testing.assert_allclose(image, (recorded["image"][1] + 1) / 2, atol=1e-4)
    assert (frozen.name, frozen.event_shape) == ("faces, class 1, Z space", (8, 8, 1))
    styles = published("faces", net, variables, GeneratorSpec(space="w+", label=1), 0)
    drawn = jax.eval_shape(styles.prior, jax.random.key(0))
    assert styles.latent_dim == net.style_count * 4 == drawn.size
    with pytest.raises(ValueError, match=r"generator.label must lie in \[0, 3\), got 3"):
        published("faces", net, variables, GeneratorSpec(label=3), 0)


def test_what_is_stored_comes_back_and_other_files_are_to_the_byte_what_they_were():
    net, variables = loaded("ada_grey_of_classes")
    found = load_bytes(to_bytes(StoredGenerator(net, variables, "grey")))
    assert found.net == net
    plain = to_bytes(StoredGenerator(*loaded("ada_colour"), "colour"))
    assert b"classes" not in plain
    assert b"clamp" not in plain


# What the weights do not fit


def test_another_architecture_or_activation_is_named():
    found = read_checkpoint(RECORDED / "ada_colour.pkl", names=sought())
    odd = {
        "synthesis.b8.architecture": "resnet",
        "synthesis.b16.conv0.activation": "relu",
        "mapping.fc1.activation": "linear",
        "mapping.fc0.bias_gain": 1.0,
    }
    for key, value in odd.items():
        assert key in found.settings
        changed = found._replace(settings={**found.settings, key: value})
        with pytest.raises(ValueError, match=rf"its {key} is {value!r}, and only .* is read"):
            fitted(PRESET, changed)


def test_a_state_dict_alone_leaves_the_bound_of_features_open():
    found = read_checkpoint(RECORDED / "ada_grey_of_classes.pkl", names=sought())
    fit = fitted(PRESET, Checkpoint(found.state))
    assert (fit.net, fit.unknown) == (GREY.clone(clamp=None), ("clamp",))


def test_size_and_depth_are_read_off_the_weights_of_the_other_port_too():
    state = Recorded("stylegan2_16").state
    fit = fitted(PRESET, Checkpoint(state))
    assert fit.net == STYLEGAN2
    assert fitted(STYLEGAN2, Checkpoint(state)).net == STYLEGAN2


def shaped(resolution, multiplier):
    """Weights of the published widths, of which shapes alone are looked at."""
    net = StyleGAN2(resolution, channel_multiplier=multiplier)
    weights = {f"style.{i + 1}.weight": np.zeros((512, 512), bool) for i in range(8)}
    weights["input.input"] = np.zeros((1, net.widths[0], 4, 4), bool)
    weights["conv1.conv.modulation.weight"] = np.zeros((512, 512), bool)
    for i, width in enumerate(net.widths[1:]):
        weights[f"convs.{2 * i + 1}.conv.weight"] = np.zeros((1, width, width, 3, 3), bool)
    return weights


@pytest.mark.parametrize(("resolution", "multiplier"), [(128, 1), (256, 2), (1024, 1)])
def test_the_channel_multiplier_is_read_off_the_weights(resolution, multiplier):
    for net in (StyleGAN2(64), PRESET):
        found = fitted(net, Checkpoint(shaped(resolution, multiplier))).net
        assert found == StyleGAN2(resolution, channel_multiplier=multiplier)


def test_a_mean_per_layer_of_an_encoder_draws_each_layer_to_its_own(key):
    found = read_checkpoint(RECORDED / "ada_grey_of_classes.pkl", names=sought())
    means = np.asarray(jax.random.normal(key, (GREY.style_count, 4)))
    found.state["mapping.w_avg"] = means
    fit = fitted(PRESET, found)
    assert fit.net == GREY.clone(mean_per_layer=True)
    variables = from_state_dict(fit.net, fit.table, found.state)
    w = jnp.ones(4)

    @jax.jit
    def image(w, truncation):
        return fit.net.apply(variables, w, truncation=truncation, method=fit.net.from_w)

    expected = image(means + 0.5 * (w - means), 1.0)
    tiled = jnp.tile(w, (GREY.style_count, 1))
    np.testing.assert_allclose(image(tiled, 0.5), expected, atol=1e-5)
    within_w = stylegan2.generator(fit.net, variables, space="w", truncation=0.5)
    assert jax.eval_shape(within_w, w).shape == expected.shape


@pytest.mark.parametrize(("rows", "of_its_own"), [(1, False), (STYLEGAN2.style_count, True)])
def test_the_mean_in_an_encoders_checkpoint_is_one_or_one_a_layer(tmp_path, rows, of_its_own):
    state = Recorded("stylegan2_16").state
    means = np.arange(6.0 * rows, dtype=np.float32).reshape(rows, 6)
    encoder = {"encoder.input_layer.0.weight": np.ones((2, 3, 3, 3), np.float32)}
    tree = {
        "state_dict": {**encoder, **{f"decoder.{k}": v for k, v in state.items()}},
        "latent_avg": means,
        "opts": {"lr": np.float64(1e-4), "ids": {1, 2}},
    }
    path = tmp_path / "encoder.pt"
    path.write_bytes(pickle.dumps(tree))
    found = read_checkpoint(path, names=sought())
    fit = fitted(PRESET, found)
    assert fit.net == STYLEGAN2.clone(mean_per_layer=of_its_own)
    variables = from_state_dict(fit.net, fit.table, found.state)
    np.testing.assert_array_equal(np.squeeze(means), variables["statistics"]["mean_w"])


# What pickles of weights hold beside them


BESIDE = {
    "numpy float": np.float64(0.5),
    "numpy int": np.int64(3),
    "numpy bool": np.bool_(True),
    "numpy text": np.str_("a"),
    "set": {1, 2},
    "frozen set": frozenset({"a"}),
    "counts": collections.Counter("aab"),
    "defaults": collections.defaultdict(list, a=[1]),
    "queue": collections.deque([1, 2], 2),
    "flags": argparse.Namespace(path=Path("a"), when=datetime.date(2020, 1, 1)),
    "path": Path("a"),
    "time": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "complex": 1 + 2j,
    "bytes": bytearray(b"abc"),
    "texts": np.array(["a", "bc"]),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_scalars_sets_and_arrays_of_numpy_may_be_in_a_state_dict(tmp_path, protocol):
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    swapped = array.astype(">f4")
    tree = {"weight": array, "turned": array.T, "swapped": swapped, "about": BESIDE}
    tree["weights"] = {0: np.asfortranarray(array), "count": np.array(7)}
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(tree, protocol))
    state = read_state_dict(path)
    np.testing.assert_array_equal(state.pop("weight"), array, strict=True)
    np.testing.assert_array_equal(state.pop("turned"), array.T, strict=True)
    np.testing.assert_array_equal(state.pop("swapped"), array, strict=True)
    np.testing.assert_array_equal(state.pop("weights.0"), array, strict=True)
    assert (state.pop("weights.count"), state.pop("about.empty").shape) == (7, (0, 3))
    assert not state


class Calls:
    """A pickle of it calls a name with arguments, whatever these are."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


HOSTILE = {
    "a set of a count": Calls(set, (range(3),)),
    "bytes of a size": Calls(bytearray, (10**12,)),
    "objects": np.array([{}, []], dtype=object),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_take_memory_or_run_code_is_refused_in_a_line(tmp_path, name):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"weight": HOSTILE[name]}))
    with pytest.raises(ValueError, match=r"refused|truncated, corrupt or no PyTorch file") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def meta(path, content):
    """A pickle that asks for a persistent object of this content."""
    body = pickle.dumps(content, 2)[2:-1]
    head = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    path.write_bytes(b"\x80\x02}(X\x05\0\0\0G_ema" + head + b"(" + body + b"tRu.")
    return path


def test_the_source_in_a_pickle_is_never_run(tmp_path):
    trap = tmp_path / "trap"
    source = f"import os\nos.mkdir({str(trap)!r})\n"
    state = {"_parameters": {"weight": np.ones(2)}, "_modules": {}, "_buffers": {"none": None}}
    content = {"type": "class", "version": 6, "module_src": source, "class_name": "G"}
    path = meta(tmp_path / "x.pkl", {**content, "state": state})
    assert set(read_state_dict(path)) == {"G_ema.weight"}
    assert not trap.exists()
    for broken in ({}, {**content, "state": 3}, {**content, "state": {"_parameters": [1]}}, [1]):
        with pytest.raises(ValueError, match="truncated, corrupt or no PyTorch file"):
            read_state_dict(meta(path, broken))


def test_a_pickle_of_tensorflow_is_refused_with_what_converts_it(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"cdnnlib.tflib.network\nNetwork\n)\x81.")
    with pytest.raises(ValueError, match=r"a network of TensorFlow; legacy.py of stylegan2-ada-py"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["ada_colour", "ada_grey_of_classes"])
def test_a_truncated_pickle_is_reported_in_one_line(tmp_path, name):
    content = (RECORDED / f"{name}.pkl").read_bytes()
    cut = tmp_path / "cut.pkl"
    for length in [*range(0, len(content) - 1, 7919), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match="truncated, corrupt or no PyTorch file") as raised:
            read_state_dict(cut)
        assert "\n" not in str(raised.value)


def test_labels_that_are_none_of_the_classes_are_refused():
    net, variables = loaded("ada_grey_of_classes")
    z = jnp.zeros(5)
    to_w = functools.partial(net.apply, variables, method=net.to_w)
    with pytest.raises(ValueError, match=r"of 3 classes needs a label"):
        to_w(z)
    with pytest.raises(ValueError, match=r"label must lie in \[0, 3\), got 3"):
        to_w(z, 3)
    with pytest.raises(ValueError, match=r"label must be an integer or have shape \[3\]"):
        to_w(z, 0.5)
    np.testing.assert_array_equal(to_w(z, 1), to_w(z, np.array([0.0, 1.0, 0.0], np.float32)))
    with pytest.raises(ValueError, match="has no classes, and got a label"):
        COLOUR.apply(loaded("ada_colour")[1], jnp.zeros(6), 0, method=COLOUR.to_w)
    assert stylegan2_checkpoint.fitted(GREY, Checkpoint({})).net is GREY
