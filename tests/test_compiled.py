"""Programs are kept for functions that do the same, and for no others."""

import gc
import logging
import sys
import time
import types
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from latent_flows import _compiled, directions, flows, geometry
from latent_flows._compiled import keep_compiled
from latent_flows.geometry.land import fit_land

A, B = [0.0, 1.0], [1.0, 2.0]
POINTS = jnp.array([[0.0, 1.0], [0.5, 2.0], [1.0, 1.0], [0.2, 0.7]])
SCALE = 1.0
EVENTS: list[str] = []


def _listen(event, _, **details):
    if event == "/jax/core/compile/backend_compile_duration":
        EVENTS.append(str(details.get("fun_name")))


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def compilations():
    """The names of the programs that are compiled within."""
    made, before = [], len(EVENTS)
    yield made
    made += EVENTS[before:]


@keep_compiled(arrays=["x"])
def total(function, x):
    """The least that a solver does."""
    return jnp.sum(function(x))


def half_plane(z):
    return jnp.eye(2) / z[1] ** 2


def flat(z):
    return jnp.eye(2) * jnp.ones_like(z[0])


def image(z):
    return jnp.full((4, 4, 1), jnp.exp2(z[0] - 3))


def decay(t, z):
    return -z


SOLVERS = {
    "integrate": lambda: flows.integrate(decay, A, [0.0, 1.0]),
    "log_density": lambda: flows.log_density(decay, lambda z: -z @ z, A, 0.0, 1.0),
    "geodesic": lambda: geometry.geodesic(half_plane, A, B, segments=4),
    "pullback": lambda: geometry.geodesic(geometry.pullback(jnp.sin), A, B, segments=4),
    "initial": lambda: geometry.geodesic(flat, A, B, segments=4, initial=np.array([A, A, B])),
    "distance": lambda: geometry.distance(half_plane, A, B, segments=4),
    "geodesic_batch": lambda: geometry.geodesic_batch(half_plane, [A, B], [B, A], segments=4),
    "spline_geodesic": lambda: geometry.spline_geodesic(flat, A, B, knots=2, segments=4),
    "geodesic_flow": lambda: geometry.geodesic_flow(half_plane, A, B, [0.0, 0.1]),
    "exponential_map": lambda: geometry.exponential_map(half_plane, A, [0.1, 0.1]),
    "logarithm": lambda: geometry.logarithm(half_plane, A, B, segments=4),
    "logarithm_map": lambda: geometry.logarithm_map(half_plane, A, B, segments=4),
    "parallel_transport": lambda: geometry.parallel_transport(
        half_plane, lambda s: jnp.stack([s, 1 + s]), A
    ),
    "brownian_motion": lambda: geometry.brownian_motion(
        jax.random.key(0), half_plane, A, np.linspace(0, 1, 4)
    ),
    "frechet_mean": lambda: geometry.frechet_mean(flat, POINTS, segments=4),
    "kmeans": lambda: geometry.kmeans(jax.random.key(0), flat, POINTS, 2, segments=4),
    "invert": lambda: directions.invert(image, np.ones((4, 4, 1), np.float32), jnp.zeros(2)),
    "trajectories": lambda: directions.trajectories(
        jax.random.key(0), image, "brightness", [-0.5, 0.5], count=2, latent_dim=2, steps=3
    ),
}


# Of each kind of solver one is quick; that all of them are kept is told by their code.
SLOW = (
    *("kmeans", "logarithm", "logarithm_map", "trajectories"),
    *("distance", "initial", "pullback", "geodesic_batch", "spline_geodesic"),
    *("frechet_mean", "brownian_motion", "geodesic_flow", "exponential_map"),
    *("parallel_transport", "log_density"),
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SOLVERS],
)
def test_the_second_call_compiles_nothing_and_says_the_same(name):
    solve = SOLVERS[name]
    with compilations() as made:
        first = solve()
    with compilations() as again:
        second = solve()
    assert made
    assert not again
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", sorted(SOLVERS.keys() - {"pullback", "initial"}))
def test_every_solver_is_one_whose_programs_are_kept(name):
    function = next(getattr(m, name) for m in (flows, geometry, directions) if hasattr(m, name))
    layers = [function]
    while hasattr(layers[-1], "__wrapped__"):
        layers.append(layers[-1].__wrapped__)
    keeper = keep_compiled()(decay).__code__
    assert any(getattr(layer, "__code__", None) is keeper for layer in layers)


def test_other_numbers_of_the_same_shapes_compile_nothing():
    geometry.distance(flat, [0.0, 0.0], np.array([3.0, 4.0]), segments=4)
    origin = jnp.zeros(2)
    with compilations() as made:
        far = geometry.distance(flat, origin, [6, 8.0], segments=4)
    assert not made
    assert far == 10


@pytest.mark.slow
def test_a_land_is_fitted_by_programs_that_both_measures_share():
    fit = partial(
        fit_land, jax.random.key(0), flat, POINTS, samples=16, final_samples=16, segments=2
    )
    with compilations() as made:
        fit(measure="volume")
        fit(measure="lebesgue")
    long = [name for name in made if "_climb" in name or "_connected" in name]
    assert len(long) == 2


# --- what a function captures ---


def closure():
    """A variable of the function around."""
    scale = jnp.array(1.0)

    def change():
        nonlocal scale
        scale = jnp.array(2.0)

    return (lambda x: scale * x), change


def number():
    """The same, a number of Python's."""
    scale = 1.0

    def change():
        nonlocal scale
        scale = 2.0

    return (lambda x: scale * x), change


def global_variable():
    """A global, through another function."""

    def inner(x):
        return SCALE * x

    return (lambda x: inner(x) + 0), lambda: globals().update(SCALE=2.0)


def parameters():
    """A dictionary that is changed in place."""
    params = {"layers": [jnp.array(1.0)]}
    return (lambda x: params["layers"][0] * x), lambda: params["layers"].__setitem__(
        0, jnp.array(2.0)
    )


def array_in_place(dtype):
    """An array of NumPy, of a precision that JAX converts or not."""
    scale = np.ones(2, dtype)
    return (lambda x: scale * x), lambda: scale.__setitem__(slice(None), 2)


def module_attribute():
    """A name in another module."""
    module = types.ModuleType("a_module_of_parameters")
    sys.modules[module.__name__] = module
    module.scale = 1.0
    return (lambda x: module.scale * x), lambda: setattr(module, "scale", 2.0)


def attribute():
    """An attribute, by a bound method in a partial."""

    class Decoder:
        def __init__(self):
            self.scale = jnp.array(1.0)

        def decode(self, power, x):
            return self.scale**power * x

    decoder = Decoder()
    return partial(decoder.decode, 1), lambda: setattr(decoder, "scale", jnp.array(2.0))


def class_attribute():
    """What a method reads from its class."""

    class Decoder:
        scale = 1.0

        def __call__(self, x):
            return self.scale * x

    return Decoder(), lambda: setattr(Decoder, "scale", 2.0)


def default():
    """The default of an argument."""

    def function(x, scale=1.0):
        return scale * x

    return function, lambda: setattr(function, "__defaults__", (2.0,))


def slots():
    """An object without a dictionary."""

    @dataclass(slots=True)
    class Decoder:
        scale: float = 1.0

        def __call__(self, x):
            return self.scale * x

    decoder = Decoder()
    return decoder, lambda: setattr(decoder, "scale", 2.0)


def derivative():
    """A gradient of a function, whose parameter changes."""
    box = [jnp.array(0.5)]
    return jax.grad(lambda x: jnp.sum(box[0] * x**2)), lambda: box.__setitem__(0, jnp.array(1.0))


CAPTURED = {
    make.__name__: make
    for make in (
        closure,
        number,
        global_variable,
        parameters,
        module_attribute,
        attribute,
        class_attribute,
        default,
        slots,
        derivative,
    )
} | {f"array_{dtype}": partial(array_in_place, dtype) for dtype in ("float32", "float64")}


@pytest.mark.parametrize("name", CAPTURED)
def test_what_a_function_captures_decides(name):
    function, change = CAPTURED[name]()
    x = jnp.array([1.0, 1.0])
    assert total(function, x) == 2
    with compilations() as made:
        assert total(function, x) == 2
    assert not made
    change()
    try:
        assert total(function, x) == 4
        assert total(function, x) == 4
    finally:
        globals()["SCALE"] = 1.0


def test_the_solvers_follow_a_metric_that_is_trained_again():
    params = {"w": jnp.eye(2)}
    metric = geometry.pullback(lambda z: params["w"] @ z)
    assert geometry.distance(metric, [0.0, 0.0], [3.0, 4.0], segments=4) == pytest.approx(5)
    params["w"] = 2 * jnp.eye(2)
    assert geometry.distance(metric, [0.0, 0.0], [3.0, 4.0], segments=4) == pytest.approx(10)


def test_a_function_that_is_defined_again_compiles_nothing():
    table = jnp.ones((3, 2))
    with compilations() as made:
        for row in range(3):
            weights = table[row]  # another array with the same numbers
            total(lambda x: weights * x, A)  # noqa: B023
    assert sum("total" in name for name in made) == 1


def test_a_function_may_count_its_traces():
    traces = []

    def function(x):
        traces.append(x.shape)
        return x

    for _ in range(3):
        total(function, A)
    assert traces == [(2,)]


def test_networks_are_told_apart_by_their_parameters_and_settings():
    x = jnp.ones(2)
    for width in (2, 3):
        net = nn.Dense(width, kernel_init=nn.initializers.ones)
        params = net.init(jax.random.key(0), x)
        for function in (partial(net.apply, params), lambda x: net.apply(params, x)):  # noqa: B023
            assert total(function, x) == 2 * width
            with compilations() as made:
                total(function, x)
            assert not made


def test_parameters_of_a_pytree_are_arguments_of_the_program():
    layer = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    total(layer, A)
    trained = jax.tree.map(jnp.ones_like, layer)
    with compilations() as made:
        found = total(trained, A)
    assert not [name for name in made if "total" in name]
    assert found == 4


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + time.monotonic(),
        lambda x: x + np.random.default_rng().random(),
        lambda x: x + globals()["SCALE"],
        lambda x: x + float(eval("SCALE")),
    ],
)
def test_what_cannot_be_known_is_compiled_at_every_call(function):
    with compilations() as made:
        total(function, A)
        total(function, A)
    assert sum("total" in name for name in made) == 2


# --- what surrounds a call ---


def test_within_a_trace_nothing_is_done(monkeypatch):
    monkeypatch.setattr(_compiled, "_run", pytest.fail)
    x = jnp.array(A)
    assert jax.jit(lambda: total(jnp.cos, x))() == pytest.approx(1 + np.cos(1))
    assert jax.grad(lambda w: total(lambda x: w * x, x))(2.0) == 1
    np.testing.assert_array_equal(
        jax.vmap(lambda w: total(lambda x: w * x, x))(jnp.arange(3.0)), [0, 1, 2]
    )
    distance = lambda z: geometry.distance(flat, A, z, segments=2)  # noqa: E731
    slope = jax.jit(jax.grad(distance))(jnp.array([3.0, 5.0]))
    np.testing.assert_allclose(slope, [0.6, 0.8], rtol=1e-4)


def test_precision_is_that_of_the_call(double_precision):
    third = lambda x: jnp.ones(1) / 3 + 0 * x[0]  # noqa: E731
    x = jnp.zeros(1, jnp.float32)
    for _ in range(2):
        assert total(third, x).dtype == jnp.float32
        with double_precision(True):
            found = total(third, x)
            assert found.dtype == jnp.float64
            assert found == 1 / 3


def test_wrong_arguments_are_refused_as_ever():
    with pytest.raises(ValueError, match="expected times that only increase"):
        flows.integrate(decay, A, [0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="expected times that only increase"):
        geometry.geodesic_flow(flat, A, B, [0.0, 1.0, 0.5])
    with pytest.raises(ValueError, match="ts must only increase"):
        geometry.brownian_motion(jax.random.key(0), flat, A, [0.0, 0.0])
    with pytest.raises(ValueError, match="z1 must have the shape of z0"):
        geometry.distance(flat, A, [1.0])
    with pytest.raises(TypeError, match="missing"):
        geometry.distance(flat)


def test_what_fails_when_run_raises_and_logs_nothing(caplog):
    @keep_compiled(arrays=["x"])
    def positive(x):
        return eqx.error_if(x, x < 0, "below zero")

    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert positive(1.0) == 1
            with pytest.raises(RuntimeError, match="below zero"):
                positive(-1.0)
    assert not caplog.records


def test_a_function_that_needs_values_is_still_called():
    weight = jnp.array(2.0)
    for _ in range(2):
        assert total(lambda x: float(weight) * x, jnp.array(A)) == 2
    layer = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0))
    layer = jax.tree.map(jnp.ones_like, layer)

    @keep_compiled(arrays=["x"])
    def scaled(module, x):
        return float(module.weight[0, 0]) * x

    assert scaled(layer, 3.0) == 3


def test_programs_are_few_and_given_up_with_what_they_hold(monkeypatch):
    monkeypatch.setattr(_compiled, "_MOST", 1)
    alive = []
    for number in range(4):
        weights = jnp.full(2, number)
        alive.append(weakref.ref(weights))
        flows.integrate(lambda t, z, w=weights: w * z, A, [0.0, 0.1], solver=flows.solver("heun"))
    del weights
    gc.collect()
    assert len(_compiled._kept) <= 1
    # JAX keeps what it traced first of some inner functions, but nothing that grows.
    assert sum(one() is not None for one in alive) <= 2


def test_large_arrays_are_not_held_by_many_programs(monkeypatch):
    monkeypatch.setattr(_compiled, "_WEIGHT", 200_000)
    for _ in range(3):
        weights = jnp.ones((2, 20_000))
        total(lambda x, w=weights: x @ w, A)
    assert _compiled._weight() <= 200_000
