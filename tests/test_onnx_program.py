"""Functions as ONNX programs: rewritten without change, and run to the same numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import coordinates, directions, export, onnx_program, potentials, steering
from latent_flows._extras import MissingExtra
from latent_flows.directions.model import DirectionModel, PotentialModel
from latent_flows.generators import rbf
from latent_flows.geometry.metrics import pullback, stochastic_pullback
from latent_flows.onnx_program import TOLERANCE, check_program, metric_to_onnx, motion_to_onnx

DIM = 3
WEIGHTS = jnp.asarray(np.random.default_rng(0).normal(size=(9, DIM)), jnp.float32)
LATENTS = np.random.default_rng(1).normal(size=(4, DIM)).astype(np.float32)


def generator(z):
    return jnp.tanh(WEIGHTS @ z)


def picture(z):
    return jax.nn.sigmoid(WEIGHTS @ z).reshape(3, 3, 1)


def two_potentials():
    net = potentials.PotentialNet(width=4, depth=2, horizon=4.0)
    params = potentials.init_stack(net, jax.random.key(0), count=2, dim=DIM)
    return export.motion(
        export.Potentials(net, params, coordinates.identity(DIM), jnp.ones(2), "wave")
    )


def two_directions():
    """A straight one with a bend, and a curved one."""
    knots = jnp.linspace(-1.0, 1.0, 5)
    unit = jnp.array([0.6, 0.8, 0.0])
    scores = {"limits": jnp.array([-1.0, 1.0]), "r2": jnp.ones(()), "train_r2": jnp.ones(())}
    net = potentials.PotentialNet(width=4, depth=1, initial="static")
    curved = PotentialModel(
        linear=unit,
        params=net.init(jax.random.key(1), 0.0, unit),
        scale=jnp.array(1.5),
        offset=jnp.array(0.25),
        floor=jnp.array(1e-3),
        **scores,
        net=net,
    )
    straight = DirectionModel(unit, knots, knots**3 + 2 * knots, **scores)
    return export.motion(export.Directions(("zoom", "hue"), (straight, curved)))


def steered(k, t, z):
    """Two ways to steer a picture."""
    names = ("translate_x", "brightness")

    def lead(name, z, t):
        return steering.steer(picture, directions.transformation(name), z, t[None], blur=1.0).zs[0]

    return jax.lax.switch(k, [partial(lead, name) for name in names], z, t)


MOTIONS = {
    "potentials": (two_potentials, True, (4.0, -2.0)),
    "directions": (two_directions, True, (0.3, -0.2)),
    "steering": (lambda: steered, False, (0.05, 0.1)),
}


def example(k, t, z):
    return {"k": np.asarray(k, np.int32), "t": np.asarray(t, np.float32), "z": z}


def operations(jaxpr):
    """The names of all operations of a program, those within others too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, [atom.aval.shape for atom in equation.outvars]
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if isinstance(inner, jax.extend.core.ClosedJaxpr):
                    yield from operations(inner.jaxpr)


@pytest.mark.parametrize(
    "name",
    ["directions", *(pytest.param(n, marks=pytest.mark.slow) for n in ("potentials", "steering"))],
)
def test_what_is_rewritten_is_the_same_without_short_loops_and_empty_arrays(name):
    make, _, ts = MOTIONS[name]
    args = jnp.int32(1), jnp.float32(ts[1]), jnp.asarray(LATENTS[0])
    traced = jax.make_jaxpr(make())(*args)
    plain = onnx_program._rewritten(make(), args)
    found = list(operations(plain.jaxpr))
    assert not {"lt_to", "jit", "pjit", "custom_jvp_call"} & {name for name, _ in found}
    assert not any(0 in shape for _, shapes in found for shape in shapes)
    # Compiled as it was written, and as it was rewritten.
    one, other = (
        jax.jit(jax.extend.core.jaxpr_as_fun(program))(*args)[0] for program in (traced, plain)
    )
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


def test_loops_are_written_out_forwards_and_backwards_with_what_they_leave():
    def loops(z):
        def step(carry, x):
            return carry * 0.5 + x, carry

        short = jax.lax.scan(step, z[0], z, reverse=True)
        none = jax.lax.scan(step, z[0], z[:0])
        long = jax.lax.scan(step, z[0], jnp.tile(z, 9))
        waited = jax.lax.while_loop(lambda s: s < 40, lambda s: 2 * s + 1, jnp.abs(z[1]))
        parts = jnp.split(z, [0, 2])
        return [*short, *none, *long, waited, jnp.concatenate(parts[::-1])]

    z = jnp.array([1.0, 2.0, -3.0])
    traced = jax.make_jaxpr(loops)(z)
    for found, expected in zip(onnx_program._evaluated(traced, z), loops(z), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_choices_are_between_two_and_zeros_between_numbers_are_laid_beside_them():
    def spread(k, x):
        ways = [jnp.sin, jnp.cos, jnp.negative, lambda x: 2 * x]
        chosen = jax.lax.switch(k, ways, x)
        return [chosen, jax.lax.pad(x, 1.5, [(1, 2, 2), (0, -1, 1)])]

    x = jnp.arange(6.0).reshape(2, 3)
    traced = onnx_program._rewritten(spread, (jnp.int32(0), x))
    for k in (-1, 0, 1, 2, 3, 9):
        found = jax.extend.core.jaxpr_as_fun(traced)(jnp.int32(k), x)
        for one, other in zip(found, spread(k, x), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    pads = [e.params["padding_config"] for e in traced.jaxpr.eqns if e.primitive.name == "pad"]
    assert pads
    assert not any(between for config in pads for _, _, between in config)


def test_a_missing_extra_is_named_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(onnx_program.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs jax2onnx: pip install 'latent-flows\[onnx\]'"):
        onnx_program.require()


def test_a_program_in_parts_is_the_same_and_none_of_its_graphs_is_large(monkeypatch):
    monkeypatch.setattr(onnx_program, "PART", 10)

    def chain(z):
        early = z + 1
        for i in range(20):
            z = jnp.sin(z) * 0.5 + i
        return [z * early, early, z + jnp.arange(3), jnp.arange(4) < 2]

    z = jnp.asarray(LATENTS[0])
    plain = onnx_program._rewritten(chain, (z,))
    found = onnx_program._in_parts(plain)
    for one, other in zip(chain(z), jax.extend.core.jaxpr_as_fun(found)(z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    parts = [equation for equation in found.jaxpr.eqns if equation.primitive.name == "cond"]
    assert len(parts) == -(-len(onnx_program._needed(plain.jaxpr)) // 10) > 2
    sizes = [len(branch.jaxpr.eqns) for part in parts for branch in part.params["branches"]]
    assert max(sizes) <= 10


# With the extra


@pytest.fixture
def exporter():
    pytest.importorskip("jax2onnx", reason="the extra `onnx` is not installed")


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize(
    "name", ["potentials", "directions", pytest.param("steering", marks=pytest.mark.slow)]
)
def test_onnxruntime_moves_latents_as_jax_does(name):
    make, batched, ts = MOTIONS[name]
    motion = make()
    content = motion_to_onnx(motion, DIM, batched=batched)

    @jax.jit
    def function(k, t, z):
        return jax.vmap(partial(motion, k, t))(z) if batched else motion(k, t, z)

    # Of another number of latents than any that it was made with.
    latents = [LATENTS, LATENTS[:1]] if batched else LATENTS[:2]
    examples = [example(k, t, z) for (k, t), z in zip(enumerate(ts), latents, strict=True)]
    assert check_program(content, function, examples) < TOLERANCE


@pytest.mark.usefixtures("exporter")
@pytest.mark.parametrize("kind", ["immersion", "with noise"])
def test_onnxruntime_measures_as_jax_does(kind):
    metric = pullback(generator)
    if kind == "with noise":
        noise = rbf.RBF(jnp.asarray(LATENTS), jnp.ones(4), jnp.zeros((4, 9)), jnp.array(0.1))
        metric = stochastic_pullback(generator, partial(rbf.std, noise))
    content = metric_to_onnx(metric, DIM)
    assert check_program(content, jax.vmap(metric), [{"z": LATENTS}]) < TOLERANCE


@pytest.mark.usefixtures("exporter")
def test_a_program_of_another_function_is_refused_with_the_difference():
    content = metric_to_onnx(pullback(generator), DIM)
    other = jax.vmap(pullback(lambda z: 2 * generator(z)))
    with pytest.raises(ValueError, match=r"differs from its function by 7.5e-01 of the largest"):
        check_program(content, other, [{"z": LATENTS}])
    with pytest.raises(ValueError, match="onnxruntime cannot run the program"):
        check_program(b"nothing", other, [{"z": LATENTS}])


@pytest.mark.usefixtures("exporter")
def test_weights_that_no_file_holds_are_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(onnx_program, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"it takes at least 0.0 GiB, and an ONNX file holds"):
        metric_to_onnx(pullback(generator), DIM)


@pytest.mark.usefixtures("exporter")
def test_what_has_no_program_is_refused_in_a_line():
    with pytest.raises(ValueError, match="this function has no ONNX program: ") as raised:
        motion_to_onnx(lambda k, t, z: jax.pure_callback(np.sin, z, z), DIM, batched=False)
    assert "\n" not in str(raised.value)


# Factors of matrices


def positive(shape, n):
    square = np.random.default_rng(n).normal(size=(*shape, n, n)).astype(np.float32)
    return square @ np.swapaxes(square, -1, -2) + np.eye(n, dtype=np.float32)


def counted(function, *args):
    return len([*operations(onnx_program._rewritten(function, args).jaxpr)])


@pytest.mark.parametrize(("shape", "n"), [((), 1), ((3,), 5), ((), 20)])
def test_a_cholesky_factor_is_the_same_and_has_a_few_operations_a_column(shape, n):
    matrix = positive(shape, n)
    traced = jax.make_jaxpr(jnp.linalg.cholesky)(matrix)
    (found,) = onnx_program._evaluated(traced, matrix)
    np.testing.assert_allclose(found, np.linalg.cholesky(matrix), atol=1e-5)
    assert {"cholesky"}.isdisjoint(
        name
        for name, _ in operations(onnx_program._rewritten(jnp.linalg.cholesky, (matrix,)).jaxpr)
    )


def test_the_operations_of_a_factor_and_what_it_solves_do_not_grow_with_its_size():
    def solve(matrix):
        return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), matrix[0])

    assert counted(solve, positive((), 90)) == counted(solve, positive((), 20)) < 150


@pytest.mark.parametrize("n", [3, 20])
@pytest.mark.parametrize("left_side", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_what_a_triangle_solves_is_the_same_on_either_side_and_turned(n, left_side, lower):
    factor = np.linalg.cholesky(positive((2,), n))
    factor = factor if lower else np.swapaxes(factor, -1, -2)
    right = np.random.default_rng(1).normal(size=(2, n, 4) if left_side else (2, 4, n))
    right = right.astype(np.float32)
    for transpose in (True, False):
        for unit in (True, False):
            solve = partial(
                jax.lax.linalg.triangular_solve,
                left_side=left_side,
                lower=lower,
                transpose_a=transpose,
                unit_diagonal=unit,
            )
            (found,) = onnx_program._evaluated(jax.make_jaxpr(solve)(factor, right), factor, right)
            expected = solve(factor, right)
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.usefixtures("exporter")
def test_onnxruntime_solves_least_squares_of_many_latents_as_jax_does(monkeypatch):
    """In a choice, as of steering, and in parts: loops of more steps than are written out."""
    basis = jnp.asarray(np.random.default_rng(0).normal(size=(30, 20)) / 5, jnp.float32)

    def solved(k, t, z):
        def ridge(z):
            factor = jax.scipy.linalg.cho_factor(basis.T @ basis + jnp.diag(z**2) + jnp.eye(20))
            return t * jax.scipy.linalg.cho_solve(factor, z)

        return jax.lax.cond(k > 0, ridge, lambda z: t * z, jnp.tanh(jnp.sin(2 * z) + t))

    monkeypatch.setattr(onnx_program, "PART", 2)
    content = motion_to_onnx(solved, 20, batched=False)
    z = np.random.default_rng(1).normal(size=20).astype(np.float32)
    examples = [example(k, 0.5, z) for k in (0, 1)]
    assert check_program(content, jax.jit(solved), examples) < TOLERANCE
