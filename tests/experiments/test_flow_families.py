"""Every family under the one loss, on a generator whose geometry is known."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.potential_flows import families as flow_families
from experiments.potential_flows import scores as flow_scores
from experiments.potential_flows import train as potential_flows
from experiments.potential_flows.config import Config, Flows, Weights
from experiments.potential_flows.families import row_sums
from experiments.potential_flows.flow_space import FlowSpace, initial, vector_field, with_metrics
from experiments.runtime.training import Training
from latent_flows import coordinates, pde
from latent_flows.calculus import laplacian
from latent_flows.generators import freeze

SMALL = Config(
    flows=Flows(count=2, horizon=2, width=4, depth=1, codes=16, bank=4, frame="identity"),
    weights=Weights(speed=1.0, outside=1.0, sparsity=1.0, overlap=1.0, consistency=1.0),
    training=Training(batch_size=4),
)
STRETCH = jnp.array([1.0, 2.0, 4.0])


def picture(z):
    """An image of 2 x 3 pixels that changes at another rate along each axis."""
    return jnp.tile(STRETCH * z, (2, 1))[..., None] / 8


def setting(**flags):
    config = replace(SMALL, flows=replace(SMALL.flows, **flags))
    starts = jax.random.normal(jax.random.key(0), (16, 3))
    low, high = starts.min(0), starts.max(0)
    frozen = freeze(picture, 3)
    space = FlowSpace(frozen, coordinates.identity(3), frozen.decode, starts, low, high)
    return config, with_metrics(config.flows, space)


@pytest.mark.parametrize("bank", [0, 4])
def test_a_field_of_natural_gradients_is_made_once(bank):
    config, space = setting(gradient="natural", bank=bank)
    assert vector_field(config.flows, space) is vector_field(config.flows, space)


@pytest.mark.slow
def test_a_natural_gradient_climbs_less_where_the_generator_is_steep():
    config, space = setting(gradient="natural")
    params = initial(config.flows, space, jax.random.key(1))["potentials"]
    own = jax.tree.map(lambda leaf: leaf[0], params)
    z = space.starts[0]
    usual, there = setting()
    plain = vector_field(usual.flows, there)(own, 1.0, z)
    natural = vector_field(config.flows, space)(own, 1.0, z)
    np.testing.assert_allclose(space.metric(z) @ natural, plain, rtol=1e-3, atol=1e-6)


SETTINGS = [
    {"family": "linear"},
    {"avoid": ("brightness",)},
    {"family": "field", "initial": "free"},
    {"laplacian": "beltrami"},
    {"family": "linear", "orthogonal": True},
    {"family": "warp", "supports": 2},
    {"gradient": "natural"},
    {"laplacian": "row-sum"},
    {"laplacian": "beltrami", "bank": 0},
]


@pytest.mark.slow
@pytest.mark.parametrize("flags", SETTINGS, ids=lambda flags: " ".join(map(str, flags.values())))
def test_every_family_has_a_loss_that_teaches_it(flags, compile_quickly):
    config, space = setting(**flags)
    params = jax.jit(partial(initial, config.flows, space))(jax.random.key(1))
    batch = potential_flows.latents(config, space).examples(np.arange(4))
    loss = partial(potential_flows.loss, config, space)
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, terms), slopes = gradient(params, jax.random.key(2), 0, batch)
    assert jnp.isfinite(total)
    has_equation = config.flows.family == "potential"
    assert (terms["residual"] > 0) == has_equation
    # Only a potential that may move at time 0 has an initial condition to learn.
    assert terms["initial"] == 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(slopes):
        assert jnp.isfinite(leaf).all(), path
    moved = [bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(slopes["potentials"])]
    assert any(moved)


@pytest.mark.slow
def test_flows_are_told_to_leave_a_transformation_alone(compile_quickly):
    """Of a bump that its first latent moves to the right, the share that moves with it counts."""
    column, row = jnp.arange(12.0), jnp.arange(10.0)

    def bump(z):
        across = jnp.exp(-((column - 6 - z[0]) ** 2) / 8)
        down = jnp.exp(-((row - 5 - z[1]) ** 2) / 8)
        return (jnp.outer(down, across) * (1 + 0.1 * z[2]))[..., None]

    points = jnp.array([[0.0, 0.0, 0.0], [0.5, -0.5, 0.2]])
    settings = replace(SMALL.flows, avoid=("translate_x", "translate_y"))
    found = potential_flows.avoided(settings, bump, points)
    assert found.shape == (2, 2, 3)
    # Each moves its own latent, by about the image's side a unit.
    np.testing.assert_allclose(found[:, 0, 0], 12, rtol=0.1)
    np.testing.assert_allclose(found[:, 1, 1], 10, rtol=0.1)
    np.testing.assert_allclose(found[:, [0, 1], [1, 0]], 0, atol=0.5)
    _, space = setting()
    space = space._replace(frozen=freeze(bump, 3), generator=bump)
    config = replace(SMALL, flows=settings)
    batch = potential_flows.latents(config, space).examples(np.arange(4))
    assert batch["avoid"].shape == (4, 2, 3)


@pytest.mark.slow
def test_laplacians_differ_only_where_they_should():
    """At the same parameters, the row sums and the manifold's Laplacian give other residuals."""
    residuals = {}
    for name in ("euclidean", "row-sum", "beltrami"):
        config, space = setting(laplacian=name)
        params = initial(config.flows, space, jax.random.key(1))
        batch = potential_flows.latents(config, space).examples(np.arange(4))
        found = jax.jit(partial(potential_flows.loss, config, space))(
            params, jax.random.key(2), 0, batch
        )[1]
        residuals[name] = float(found.pop("residual"))
        rest = {key: float(value) for key, value in found.items()}
        assert rest == pytest.approx(residuals.setdefault("rest", rest), rel=1e-4)
    residuals.pop("rest")
    assert len({round(value, 4) for value in residuals.values()}) == 3


def test_an_equation_with_row_sums_holds_for_each_component(key):
    """On a line row sums are the Laplacian; where they cancel, they see no curvature at all."""
    ts, zs = jnp.linspace(0.0, 2.0, 7), jax.random.normal(key, (7, 2))

    def residual(direction, operator):
        a = jnp.asarray(direction)
        speed = 2.0
        u = lambda t, z: jnp.sin(z @ a - speed * jnp.sqrt(a @ a) * t)  # noqa: E731
        wave = pde.wave(u, speed, laplacian=operator)
        return pde.relative_residual(wave, ts, zs[:, : len(direction)])

    np.testing.assert_allclose(residual([1.5], row_sums), 0.0, atol=1e-8)
    # Axes of opposite sign: a solution of the wave equation, of which nothing cancels u_tt.
    np.testing.assert_allclose(residual([1.0, -1.0], laplacian), 0.0, atol=1e-8)
    np.testing.assert_allclose(residual([1.0, -1.0], row_sums), 1.0, rtol=1e-5)


def test_row_sums_are_the_hessian_times_ones(key):
    z = jax.random.normal(key, (4,))
    f = lambda z: jnp.sin(z[0] * z[1]) + z[2] ** 3 * z[3]  # noqa: E731
    np.testing.assert_allclose(row_sums(f)(z), jax.hessian(f)(z).sum(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"family": "linear", "gradient": "natural"}, "are about potentials"),
        ({"family": "field", "laplacian": "beltrami"}, "are about potentials"),
        ({"laplacian": "beltrami", "pde": "hamilton_jacobi"}, "for flows.pde wave or heat"),
        ({"avoid": ("translate",)}, "unknown flows.avoid 'translate'"),
        ({"avoid": ("zoom",), "bank": 0}, "flows.avoid needs the generator's metric"),
        ({"orthogonal": True}, "flows.orthogonal is for flows.family linear, not potential"),
        ({"supports": 0}, "flows.supports must be at least 1"),
    ],
)
def test_flags_that_make_no_sense_together_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        Flows(**flags)


def test_what_needs_potentials_says_so():
    with pytest.raises(flow_families.UsageError, match="is warp: RBF warps"):
        flow_families.potential_network(Flows(family="warp"))


def test_what_is_learnt_is_measured_first_and_alone_if_asked():
    config, space = setting(family="linear", orthogonal=True)
    params = initial(config.flows, space, jax.random.key(1))
    found = flow_scores.methods(None, config, space, params, None, jax.random.key(2), {})
    assert [method.name for method in found] == [
        "learnt lines",
        "random directions",
        "latent coordinates",
    ]
    # What is measured are the members, not what they are made of.
    directions = found[0].params["params"]["direction"]
    np.testing.assert_allclose(directions @ directions.T, jnp.eye(2), atol=1e-5)
    alone = replace(config, scores=replace(config.scores, others=False))
    assert len(flow_scores.methods(None, alone, space, params, None, jax.random.key(2), {})) == 1
