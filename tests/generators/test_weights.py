"""State dicts: read as they were written, refused when they are not what they should be."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
from flax import linen as nn

from latent_flows.generators.weights import LINES, Target, from_state_dict, read_state_dict

RECORDED = Path(__file__).parent / "recorded"
FILES = [RECORDED / "checkpoint.pt", RECORDED / "checkpoint_legacy.pt"]
NAMES = ("plain", "turned", "window", "half", "brain", "learned", "count", "empty", "latent_avg")


@pytest.fixture(scope="module")
def base():
    return np.load(RECORDED / "checkpoint_plain.npy")


class Command:
    """A pickle of it makes a folder when it is loaded as pickles usually are."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def archive(path, content, **members):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)
    return path


# Reading


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tensors_are_read_as_pytorch_would_read_them(path, base):
    state = read_state_dict(path, key="g_ema")
    half = base.astype(np.float16).astype(np.float32)
    brain = np.asarray(jnp.asarray(base).astype(jnp.bfloat16).astype(jnp.float32))
    expected = {
        "plain": base,
        "turned": base.T,
        "window": base[1:3, 2:5],
        "half": half,
        "brain": brain,
        "learned": base[0],
        "count": np.int64(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert set(state) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_averaged_weights_are_found_by_their_names_with_what_lies_beside_them(path, base):
    state = read_state_dict(path, names=NAMES)
    assert set(state) == set(NAMES)
    np.testing.assert_array_equal(state["plain"], base)
    np.testing.assert_array_equal(state["latent_avg"], base[0])
    np.testing.assert_array_equal(read_state_dict(path, key="g", names=NAMES)["plain"], base + 1)


def test_without_names_every_tensor_is_there():
    assert {"g.plain", "g_ema.plain", "latent_avg", "optimizer.state.0.exp_avg"} < set(
        read_state_dict(FILES[0])
    )


def test_an_unknown_key_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no tensors under 'ema', only 'g', 'g_ema'"):
        read_state_dict(FILES[0], key="ema")


def test_safetensors_are_read_with_every_precision(tmp_path, base):
    tensors = {"module.plain": jnp.asarray(base), "module.brain": jnp.asarray(base, jnp.bfloat16)}
    safetensors.flax.save_file(tensors, tmp_path / "weights.safetensors")
    state = read_state_dict(tmp_path / "weights.safetensors", names=("plain", "brain"))
    np.testing.assert_array_equal(state["plain"], base, strict=True)
    assert state["brain"].dtype == np.float32
    np.testing.assert_allclose(state["brain"], base, rtol=2**-8)


def test_mappings_that_fit_equally_well_have_to_be_chosen_from(tmp_path, base):
    tensors = {f"{name}.plain": jnp.asarray(base) for name in ("first", "second")}
    safetensors.flax.save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"several mappings that fit \('first', 'second'\)"):
        read_state_dict(tmp_path / "weights.safetensors", names=("plain",))


# Files that are not what they should be


def written(tmp_path, kind, payload):
    """A pickle with code in it, in each of the formats that are read."""
    path = tmp_path / f"{kind}.pt"
    if kind == "bare":
        path.write_bytes(pickle.dumps({"weight": payload}))
    elif kind == "archive":
        archive(path, pickle.dumps({"weight": payload}))
    elif kind == "compressed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("model/data.pkl", pickle.dumps([{"weight": payload}], protocol=2))
    else:
        head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in [*head, payload, []]))
    return path


@pytest.mark.parametrize("kind", ["bare", "archive", "compressed", "legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, kind):
    trap = tmp_path / "trap"
    path = written(tmp_path, kind, Command(trap))
    with pytest.raises(ValueError, match=rf"refused: its pickle asks for {os.mkdir.__module__}.mk"):
        read_state_dict(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Command(trap)))
    assert trap.exists()  # so the trap does work


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "builtins getattr", "numpy load", "torch load", "torch.nn.modules.conv X"],
)
def test_only_what_a_state_dict_needs_is_known(tmp_path, name):
    module, function = name.split()
    path = archive(tmp_path / "x.pt", f"c{module}\n{function}\n(tR.".encode())
    with pytest.raises(ValueError, match=f"asks for {module}.{function}, which could run code"):
        read_state_dict(path)


def test_a_pickle_cannot_change_the_functions_it_is_given(tmp_path):
    # GLOBAL; then BUILD with a state that would replace its defaults and its dictionary.
    attack = b"ctorch._utils\n_rebuild_parameter\n}\x8c\x01xK\x01s\x86b."
    with pytest.raises(ValueError, match="truncated, corrupt or no PyTorch file"):
        read_state_dict(archive(tmp_path / "x.pt", attack))
    assert set(read_state_dict(FILES[0], key="g_ema")) == set(NAMES) - {"latent_avg"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_truncated_file_is_reported_in_one_line(path, tmp_path):
    content = path.read_bytes()
    cut = tmp_path / "cut.pt"
    for length in [*range(0, len(content) - 1, 211), len(content) - 1]:
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match="truncated, corrupt or no PyTorch file") as raised:
            read_state_dict(cut)
        assert "\n" not in str(raised.value)


def test_a_damaged_tensor_is_noticed(tmp_path, base):
    content = FILES[0].read_bytes()
    place = content.index(base.tobytes())
    bad = tmp_path / "bad.pt"
    bad.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(ValueError, match="truncated, corrupt"):
        read_state_dict(bad)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"", "truncated"),
        ("a.pth", b"<html>not found</html>", "truncated"),
        ("a.safetensors", b"", "truncated, corrupt or no safetensors file"),
        ("a.safetensors", b"\x10" * 100, "truncated, corrupt or no safetensors file"),
        ("a.pt", None, "does not exist"),
        ("a.safetensors", None, "does not exist"),
    ],
)
def test_what_is_no_file_of_weights_is_reported(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / name)


def window(path, shape, strides):
    """A file of one tensor `w`, a window onto a storage of the numbers 1 and 2."""
    buffer = io.BytesIO()
    numbers = (
        b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in n) + b"t" for n in (shape, strides)
    )
    # PERSID of a storage of 2 numbers, then the tensor.
    buffer.write(b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(")
    buffer.write(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000")
    buffer.write(b"X\x03\x00\x00\x00cpuK\x02tQK\x00" + b"".join(numbers) + b"\x89}tRs.")
    return archive(path, buffer.getvalue(), **{"data/0": np.float32([1, 2]).tobytes()})


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a tensor of shape \[3\] does not fit"):
        read_state_dict(window(tmp_path / "x.pt", (3,), (1,)))


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((3,), (0,), [1, 1, 1]),
        ((2, 2), (1, 0), [[1, 1], [2, 2]]),
        ((3, 2), (0, 1), [[1, 2]] * 3),
        ((3, 1, 2), (0, 0, 1), [[[1, 2]]] * 3),
        ((1, 2), (7, 1), [[1, 2]]),
    ],
)
def test_an_expanded_tensor_repeats_its_numbers(tmp_path, shape, strides, expected):
    # As torch.save writes `torch.tensor([1., 2.]).expand(3, 2)`, whose first stride is 0.
    found = read_state_dict(window(tmp_path / "x.pt", shape, strides))["w"]
    np.testing.assert_array_equal(found, np.float32(expected))


def test_a_few_bytes_do_not_become_terabytes(tmp_path):
    path = window(tmp_path / "x.pt", (2**20, 2**20), (0, 0))
    with pytest.raises(ValueError, match=r"shape \[1048576, 1048576\] repeats 2 numbers"):
        read_state_dict(path)


def test_a_file_without_tensors_is_refused(tmp_path):
    path = archive(tmp_path / "x.pt", pickle.dumps({"steps": 3}, 2))
    with pytest.raises(ValueError, match="holds no tensors"):
        read_state_dict(path)


# Placing


class Net(nn.Module):
    """One variable, of a given shape."""

    shape: tuple[int, ...]
    latent_dim: int = 1

    @nn.compact
    def __call__(self, z):
        return self.param("x", nn.initializers.ones, self.shape)


def place(shape, value, **target):
    table = {"x": Target(("params", "x"), **target)}
    return from_state_dict(Net(shape), table, {"x": value})["params"]["x"]


@pytest.mark.parametrize(
    ("layout", "torch_shape", "shape", "moved"),
    [
        ("conv", (2, 3, 4, 5), (4, 5, 3, 2), lambda x: x.transpose(2, 3, 1, 0)),
        ("modulated_conv", (1, 2, 3, 4, 5), (4, 5, 3, 2), lambda x: x[0].transpose(2, 3, 1, 0)),
        (
            "transposed_conv",
            (2, 3, 4, 5),
            (4, 5, 2, 3),
            lambda x: x.transpose(2, 3, 0, 1)[::-1, ::-1],
        ),
        ("dense", (2, 3), (3, 2), lambda x: x.T),
        ("image", (1, 2, 3, 4), (3, 4, 2), lambda x: x[0].transpose(1, 2, 0)),
        ("plane", (1, 1, 3, 4), (3, 4), lambda x: x[0, 0]),
        ("same", (2, 3), (2, 3), lambda x: x),
        ("flat", (1, 3, 1, 1), (3,), lambda x: x.reshape(3)),
        ("flat", (1,), (), lambda x: x[0]),
    ],
)
def test_layouts_move_the_axes_and_check_them(layout, torch_shape, shape, moved):
    value = np.random.default_rng(0).normal(size=torch_shape).astype(np.float32)
    np.testing.assert_array_equal(place(shape, value, layout=layout, scale=2.0), 2 * moved(value))
    with pytest.raises(ValueError, match="1 key of another shape"):
        place(shape, np.ones((7, *torch_shape)), layout=layout)


def test_weights_are_divided_by_their_singular_value():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 4)).astype(np.float32)
    left, values, _ = np.linalg.svd(weight)
    table = {"w": Target(("params", "x"), "dense", normalise="u")}
    state = {"w": weight, "u": left[:, :1].T}
    found = from_state_dict(Net((4, 3)), table, state)["params"]["x"]
    np.testing.assert_allclose(found.T * values[0], weight, rtol=1e-5)
    # Stored vectors are taken as they are, however far from the singular ones.
    u, v = rng.normal(size=3), rng.normal(size=4)
    table = {"w": Target(("params", "x"), "dense", normalise=("u", "v"))}
    found = from_state_dict(Net((4, 3)), table, {"w": weight, "u": u, "v": v})["params"]["x"]
    np.testing.assert_allclose(found.T * (u @ weight @ v), weight, rtol=1e-4)
    with pytest.raises(ValueError, match="1 key missing\n  missing: v"):
        from_state_dict(Net((4, 3)), table, {"w": weight, "u": u})


def test_either_of_two_names_will_do_and_both_have_to_agree():
    table = {name: Target(("params", "x")) for name in ("a", "b")}
    one, two = np.ones(2, np.float32), np.zeros(2, np.float32)
    for state in ({"a": one}, {"b": one}, {"a": one, "b": one}):
        np.testing.assert_array_equal(from_state_dict(Net((2,)), table, state)["params"]["x"], one)
    with pytest.raises(ValueError, match="b differs from another key"):
        from_state_dict(Net((2,)), table, {"a": one, "b": two})
    with pytest.raises(ValueError, match="2 keys missing"):
        from_state_dict(Net((2,)), table, {})


def test_optional_keys_keep_what_init_makes():
    table = {"x": Target(("params", "x"), optional=True)}
    np.testing.assert_array_equal(from_state_dict(Net((2,)), table, {})["params"]["x"], [1, 1])
    with pytest.raises(ValueError, match=r"x \[3\], expected \[2\]"):
        from_state_dict(Net((2,)), table, {"x": np.ones(3)})


class Wide(nn.Module):
    """Many variables."""

    latent_dim: int = 1

    @nn.compact
    def __call__(self, z):
        return [self.param(f"x{i}", nn.initializers.ones, (2,)) for i in range(40)]


def test_what_does_not_fit_is_told_in_at_most_ten_lines():
    table = {f"net.{i}": Target(("params", f"x{i}")) for i in range(40)}
    state = {f"net.{i}": np.ones(3) for i in range(20)}
    state |= {f"other.{i}": np.ones(3) for i in range(4)}
    state |= {"net.3.num_batches_tracked": np.ones(())}
    with pytest.raises(
        ValueError, match="20 keys missing, 4 left over, 20 of another sh"
    ) as raised:
        from_state_dict(Wide(), table, state)
    lines = str(raised.value).splitlines()
    assert len(lines) <= LINES
    assert "  missing: net.20 [2]" in lines
    assert "  left over: and 2 more" in lines
    assert "  another shape: net.0 [3], expected [2]" in lines


def test_a_table_that_forgets_a_variable_is_an_error():
    with pytest.raises(ValueError, match=r"key_names leaves out \['params/x1'\]"):
        from_state_dict(
            Wide(), {f"{i}": Target(("params", f"x{i}")) for i in range(40) if i != 1}, {}
        )
