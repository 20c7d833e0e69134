"""What is written comes back the same, and moves latents as the library does."""

import json
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors import numpy as safetensors
from safetensors import safe_open

from latent_flows import coordinates, export, flows, potentials
from latent_flows.coordinates import AffineCoordinates
from latent_flows.directions import shift
from latent_flows.directions.model import DirectionModel, PotentialModel
from latent_flows.generators.rbf import RBF
from latent_flows.potentials import PotentialNet

NET = PotentialNet(width=4, depth=2, horizon=3.0, time_features=4)


@pytest.fixture(scope="module")
def stack():
    """Two potentials in a frame of three of four dimensions, large enough to move something."""
    first, second, third = jax.random.split(jax.random.key(0), 3)
    params = potentials.init_stack(NET, first, 2, 3)
    frame = AffineCoordinates(jax.random.normal(second, (4,)), jax.random.normal(third, (4, 3)))
    large = jax.tree.map(lambda leaf: 2 * leaf, params)
    return export.Potentials(NET, large, frame, jnp.array([0.5, 2.0]), "heat")


@pytest.fixture(scope="module")
def ways():
    """A straight direction with a bend, and a curved one."""
    knots, values = jnp.linspace(-1.0, 1.0, 3), jnp.array([-3.0, 0.0, 1.0])
    limits = jnp.array([-3.0, 1.0])
    scores = {"limits": limits, "r2": jnp.array(0.9), "train_r2": jnp.array(0.95)}
    unit = jnp.array([0.6, 0.0, 0.8, 0.0])
    net = PotentialNet(width=4, depth=1, initial="static")
    curved = PotentialModel(
        linear=2 * unit,
        params=net.init(jax.random.key(1), 0.0, unit),
        scale=jnp.array(1.5),
        offset=jnp.array(0.25),
        floor=jnp.array(1e-3),
        **scores,
        net=net,
    )
    straight = DirectionModel(unit, knots, values, **scores)
    return export.Directions(("zoom", "hue"), (straight, curved))


@pytest.fixture(scope="module")
def noise():
    first, second = jax.random.split(jax.random.key(2))
    return RBF(
        jax.random.normal(first, (3, 2)),
        jnp.array([0.5, 1.0, 2.0]),
        jax.random.normal(second, (3, 4, 5, 1)),
        jnp.array(0.01),
    )


@pytest.fixture(params=["stack", "ways", "noise"])
def learnt(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def z():
    return jnp.array([0.3, -0.4, 0.8, 1.1])


def test_what_was_saved_comes_back_to_the_last_bit(learnt, tmp_path):
    export.save(tmp_path / "file", learnt)
    again = export.load(tmp_path / "file")
    if isinstance(learnt, export.Potentials):
        assert (again.net, again.pde) == (learnt.net, learnt.pde)
        again, learnt = again._replace(net=0, pde=0), learnt._replace(net=0, pde=0)
    if isinstance(learnt, export.Directions):
        assert again.names == learnt.names
        again, learnt = again.models, learnt.models
    # The structure of a curved direction includes its network.
    assert jax.tree.structure(again) == jax.tree.structure(learnt)
    jax.tree.map(np.testing.assert_array_equal, again, learnt)


def test_the_header_says_what_the_page_says(learnt, tmp_path):
    export.save(tmp_path / "file", learnt, about={"run": "demo"})
    with safe_open(tmp_path / "file", framework="numpy") as file:
        header = file.metadata()
        assert {file.get_tensor(name).dtype for name in file.keys()} == {np.dtype("float32")}  # noqa: SIM118
    assert header["format"] == "latent_flows"
    assert header["version"] == str(export.VERSION) == "1"
    assert header["kind"] in ("potentials", "directions", "metric")
    assert json.loads(header["model"])["latent_dim"] == export.dim(learnt)
    assert json.loads(header["about"]) == {"run": "demo"}


def test_a_latent_follows_the_gradient_in_the_frame_and_its_reverse(stack, z):
    start = coordinates.from_latent(stack.frame, z)
    u = potentials.select(NET, stack.params, 1)
    heun = flows.solver("heun")

    @jax.jit
    def expected(sign):
        field = lambda at, s: sign * jax.grad(u, argnums=1)(at, s)  # noqa: E731
        path = flows.integrate(field, start, jnp.linspace(0.0, 3.0, 1000), solver=heun)
        return stack.frame.basis @ (path.zs[-1] - start)

    move = jax.jit(export.motion(stack))
    for sign in (1.0, -1.0):
        assert jnp.linalg.norm(expected(sign)) > 0.1
        np.testing.assert_allclose(move(1, 3 * sign, z) - z, expected(sign), atol=5e-5)


def test_what_lies_outside_the_frame_stays(stack, z):
    normal = jnp.linalg.svd(stack.frame.basis)[0][:, 3]
    move = jax.jit(lambda z: export.motion(stack)(0, 3.0, z))
    np.testing.assert_allclose(move(z) @ normal, z @ normal, atol=1e-6)
    np.testing.assert_allclose(move(z + 5 * normal), move(z) + 5 * normal, atol=1e-5)


@pytest.mark.parametrize("k", [0, 1])
def test_a_direction_shifts_as_control_does(ways, z, k):
    moved = export.motion(ways)(k, 0.7, z)
    np.testing.assert_allclose(moved, shift(ways.models[k], z, 0.7, extrapolate=True), atol=1e-4)
    np.testing.assert_allclose(ways.models[k](moved) - ways.models[k](z), 0.7, atol=1e-4)


@pytest.mark.parametrize("which", [pytest.param("stack", marks=pytest.mark.slow), "ways"])
def test_the_program_is_the_motion(which, request, z):
    learnt = request.getfixturevalue(which)
    move = export.motion(learnt)
    program = jax.export.deserialize(bytearray(export.serialize_motion(move, 4)))
    assert set(program.platforms) == {"cpu", "cuda", "rocm", "tpu"}
    assert [str(value.dtype) for value in program.in_avals] == ["int32", "float32", "float32"]
    zs = jnp.stack([z, -z, 2 * z])
    call = jax.jit(program.call)
    for k in range(2):
        got = call(jnp.int32(k), jnp.float32(0.5), zs.ravel()).reshape(zs.shape)
        np.testing.assert_allclose(got, jax.vmap(lambda z, k=k: move(k, 0.5, z))(zs), atol=1e-5)
    assert call(jnp.int32(0), jnp.float32(0.5), z).shape == z.shape


def test_the_program_of_a_metric_is_the_metric():
    metric = lambda z: jnp.outer(z, z) + jnp.eye(2)  # noqa: E731
    content = export.serialize_metric(metric, 2, platforms=("cpu",))
    call = jax.export.deserialize(bytearray(content)).call
    zs = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(call(zs[0]), metric(zs[0]))
    np.testing.assert_allclose(call(zs.ravel()).reshape(2, 2, 2), jax.vmap(metric)(zs))


def test_wrong_arguments_are_named(stack, ways, z):
    for learnt in (stack, ways):
        with pytest.raises(ValueError, match=r"z must have shape \[4\], got \[3\]"):
            export.motion(learnt)(0, 1.0, z[:3])
        with pytest.raises(ValueError, match=r"k must be in \[0, 2\), got 2"):
            export.motion(learnt)(2, 1.0, z)
    with pytest.raises(ValueError, match=r"unknown platform 'cdua'.*'cuda'"):
        export.serialize_motion(export.motion(ways), 4, platforms=("cdua",))
    with pytest.raises(ValueError, match="expected potentials of a PotentialNet, got Dense"):
        export.to_bytes(stack._replace(net=nn.Dense(1)))
    with pytest.raises(ValueError, match="1 names and 2 directions"):
        export.to_bytes(ways._replace(names=("zoom",)))
    short = replace(ways.models[1], linear=jnp.ones(3), params=ways.models[1].params)
    with pytest.raises(ValueError, match="1/params/params/latent/kernel has shape"):
        export.to_bytes(ways._replace(models=(ways.models[0], short)))
    with pytest.raises(ValueError, match="coefficients"):
        export.to_bytes(stack._replace(coefficients=jnp.ones((2, 1))))


def rewrite(path, change):
    """The file with another header or other arrays."""
    with safe_open(path, framework="numpy") as file:
        header, names = dict(file.metadata()), list(file.keys())
        arrays = {name: file.get_tensor(name) for name in names}
    change(header, arrays)
    path.write_bytes(safetensors.save(arrays, header))


CHANGES = {
    "has version 2 of the layout": lambda header, arrays: header.update(version="2"),
    "not one of latent_flows": lambda header, arrays: header.pop("format"),
    "its header makes no sense": lambda header, arrays: header.update(kind="wavelets"),
    "frame/origin is missing": lambda header, arrays: arrays.pop("frame/origin"),
    r"frame/origin has shape \[2\], expected \[4\]": lambda header, arrays: arrays.update(
        {"frame/origin": np.ones(2, np.float32)}
    ),
    "latent/kernel has shape": lambda header, arrays: arrays.update(
        {"frame/basis": np.ones((4, 2), np.float32)}
    ),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_file_that_is_not_as_it_was_written_is_refused(stack, tmp_path, message):
    path = tmp_path / "file"
    export.save(path, stack)
    rewrite(path, CHANGES[message])
    with pytest.raises(ValueError, match=message):
        export.load(path)


def test_a_part_of_a_file_is_refused(stack, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(ValueError, match="does not exist"):
        export.load(path)
    whole = export.to_bytes(stack)
    for length in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated, corrupt or no safetensors file"):
            export.load(path)


def test_every_array_of_a_direction_is_in_the_file(ways):
    names = safetensors.load(export.to_bytes(ways))
    for i, model in enumerate(ways.models):
        wanted = {f.name for f in fields(model)} - {"net"}
        assert {name.split("/")[1] for name in names if name.startswith(f"{i}/")} == wanted
