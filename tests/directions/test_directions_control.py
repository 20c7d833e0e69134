from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions
from latent_flows.directions import DirectionModel, PotentialModel
from latent_flows.potentials import PotentialNet


def straight(u, dtype=jnp.float32):
    """A direction whose factor rises twice as fast to the right of 0."""
    u = jnp.array(u, dtype)
    knots, values = jnp.array([-2.0, 0.0, 2.0], dtype), jnp.array([-1.0, 0.0, 2.0], dtype)
    one = jnp.ones((), dtype)
    return DirectionModel(
        u / jnp.linalg.norm(u), knots, values, values[jnp.array([0, 2])], one, one
    )


def curved(dim=3, seed=0, strength=0.5):
    """A potential that is not linear."""
    net = PotentialNet(width=8, initial="static")
    params = net.init(jax.random.key(seed), 0.0, jnp.zeros(dim))
    params = jax.tree.map(lambda leaf: strength * leaf, params)
    one = jnp.ones(())
    limits = jnp.array([-3.0, 3.0])
    linear = jnp.roll(jnp.zeros(dim).at[0].set(1.0), seed)
    return PotentialModel(linear, params, one, 0 * one, 1e-3 * one, limits, one, one, net)


MODELS = [straight([1.0, 2.0, 0.5]), curved()]
Z = jnp.array([0.3, -0.2, 0.7])


@pytest.mark.parametrize("model", MODELS)
def test_a_shift_changes_the_factor_by_its_amount_and_back(model):
    shift = jax.jit(directions.shift)
    for dt in (-0.8, 0.0, 0.6):
        moved = shift(model, Z, dt)
        np.testing.assert_allclose(model(moved) - model(Z), dt, atol=1e-4)
        np.testing.assert_allclose(shift(model, moved, -dt), Z, atol=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_a_place_is_where_it_was_asked_to_be(model):
    zs = jax.random.normal(jax.random.key(0), (5, 3))
    ts = jnp.linspace(-0.9, 1.5, 5)
    placed = jax.jit(jax.vmap(directions.place, (None, 0, 0)))(model, zs, ts)
    np.testing.assert_allclose(jax.vmap(model)(placed), ts, atol=1e-4)


def test_a_straight_place_moves_along_the_direction_only():
    model = straight([1.0, 2.0, 0.5])
    moved = directions.place(model, Z, 1.0) - Z
    np.testing.assert_allclose(jnp.cross(moved, model.direction), 0, atol=1e-6)


@pytest.mark.slow
def test_a_curved_shift_is_a_gradient_flow_at_unit_rate():
    model = curved()
    velocity = jax.jit(jax.jacrev(lambda dt: directions.shift(model, Z, dt)))(0.0)
    slope = jax.grad(model)(Z)
    np.testing.assert_allclose(velocity, slope / (slope @ slope), rtol=1e-3, atol=1e-5)


def test_double_precision_is_kept(x64):
    z = Z.astype(x64)
    model = straight([1.0, 2.0, 0.5], x64)
    moved = directions.shift(model, z, 0.25)
    assert moved.dtype == x64
    np.testing.assert_allclose(model(moved) - model(z), 0.25, atol=1e-12)


def test_samples_have_the_wanted_distribution():
    model = MODELS[0]

    class Triangle:
        def ppf(self, q):
            return jnp.sqrt(q)

    keys = jax.random.split(jax.random.key(3), 400)
    draw = jax.jit(jax.vmap(partial(directions.sample, distribution=Triangle()), (0, None, None)))
    ts = jax.vmap(model)(draw(keys, model, Z))
    quantiles = jnp.quantile(ts, jnp.array([0.1, 0.5, 0.9]))
    np.testing.assert_allclose(quantiles, jnp.sqrt(jnp.array([0.1, 0.5, 0.9])), atol=0.08)
    sampler = partial(jax.random.uniform, minval=-0.5, maxval=0.5)
    one = directions.sample(keys[0], model, Z, sampler)
    np.testing.assert_allclose(model(one), sampler(keys[0]), atol=1e-4)


@pytest.mark.parametrize(
    "models",
    [
        (straight([1.0, 0.0, 0.0]), straight([1.0, 1.0, 0.0])),
        pytest.param((straight([0.0, 1.0, 0.5]), curved()), marks=pytest.mark.slow),
    ],
)
def test_two_factors_at_once_each_by_its_amount(models):
    dts = jnp.array([0.5, -0.3])
    moved = jax.jit(directions.shift_many)(models, Z, dts)
    changes = jnp.stack([model(moved) - model(Z) for model in models])
    np.testing.assert_allclose(changes, dts, atol=1e-3)
    placed = jax.jit(directions.place_many)(models, Z, jnp.array([0.2, 0.1]))
    np.testing.assert_allclose([model(placed) for model in models], [0.2, 0.1], atol=1e-3)


def test_two_factors_that_are_one_do_not_blow_up():
    for model in MODELS:
        moved = jax.jit(directions.shift_many)([model, model], Z, jnp.array([0.5, -0.5]))
        assert jnp.linalg.norm(moved - Z) < 10


def test_a_flat_potential_is_left_slowly_and_finite():
    flat = curved(strength=0.0)
    flat = PotentialModel(**{**vars(flat), "linear": 0 * flat.linear})
    moved = directions.shift(flat, Z, 1.0)
    np.testing.assert_allclose(moved, Z)


@pytest.mark.parametrize("model", MODELS)
def test_beyond_the_range_is_an_error_or_a_choice(model):
    with pytest.raises(ValueError, match=r"t must lie in \[-., .\], the range .* got 8"):
        directions.place(model, Z, 8.0)
    with pytest.raises(ValueError, match="t must lie in"):
        directions.shift(model, Z, -9.0)
    with pytest.raises(ValueError, match="got 4"):
        directions.check_reach(model, [0.0, 4.0])
    far = directions.place(model, Z, 3.2, extrapolate=True)
    np.testing.assert_allclose(model(far), 3.2, atol=0.02)


@pytest.mark.parametrize("model", MODELS)
def test_calibration_moves_factor_and_range_by_one_constant(model):
    zs = jax.random.normal(jax.random.key(0), (6, 3))
    measured = jax.vmap(model)(zs) + 0.7
    fitted = directions.calibrate(model, zs, measured)
    np.testing.assert_allclose(jax.vmap(fitted)(zs), measured, atol=1e-5)
    np.testing.assert_allclose(fitted.limits, model.limits + 0.7, rtol=1e-5)


def test_bad_input_is_named():
    model = MODELS[0]
    with pytest.raises(ValueError, match=r"with shape \(3,\), got shape \(4,\)"):
        directions.shift(model, jnp.ones(4), 0.1)
    with pytest.raises(ValueError, match="dt must be one number"):
        directions.shift(model, Z, jnp.ones(2))
    with pytest.raises(ValueError, match="expected a DirectionModel"):
        directions.place(lambda z: z[0], Z, 0.1)
    with pytest.raises(ValueError, match="sampler key -> t"):
        directions.sample(jax.random.key(0), model, Z, 3.0)
    with pytest.raises(ValueError, match="got 0 models"):
        directions.shift_many([], Z, jnp.zeros(0))
    with pytest.raises(ValueError, match=r"got 1 models and amounts of shape \(2,\)"):
        directions.shift_many([model], Z, jnp.zeros(2))
    with pytest.raises(ValueError, match="expected latents"):
        directions.calibrate(model, Z, jnp.zeros(1))
