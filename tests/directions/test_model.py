from functools import partial

import blob
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import directions
from latent_flows.directions import Trajectories

TS = jnp.linspace(-0.5, 0.5, 6)


def bend(s):
    """A monotone function that is not linear."""
    return s + 0.3 * jnp.sin(s)


def along(u, count=40, seed=0, dtype=jnp.float32):
    """Trajectories on which `bend(<z, u>)` changes by `t`, and nothing else does."""
    z0 = jax.random.normal(jax.random.key(seed), (count, len(u)), dtype)
    grid = jnp.linspace(-6, 6, 4001, dtype=dtype)
    s = z0 @ u
    after = jnp.interp(bend(s)[:, None] + TS.astype(dtype), bend(grid), grid)
    zs = z0[:, None] + (after - s[:, None])[..., None] * u
    return Trajectories(z0, zs, TS.astype(dtype), jnp.zeros(zs.shape[:2], dtype))


def around(count=40, seed=0):
    """Trajectories that turn about an axis by the angle `t`."""
    angle, radius, height = jax.random.uniform(jax.random.key(seed), (3, count))
    angle, radius = 2.4 * (angle - 0.5), 1.0 + radius
    turned = angle[:, None] + jnp.concatenate([jnp.zeros(1), 1.6 * TS])
    circle = radius[:, None] * jnp.stack([jnp.cos(turned), jnp.sin(turned)])
    zs = jnp.stack([*circle, jnp.broadcast_to(height[:, None], turned.shape)], -1)
    return Trajectories(zs[:, 0], zs[:, 1:], 1.6 * TS, jnp.zeros((count, len(TS))))


# The same settings throughout, and shapes, so that each fit is compiled once.
fit_line = partial(directions.fit_direction, steps=300)
fit_curve = partial(directions.fit_potential, width=24, steps=500, learning_rate=1e-2)
OBLIQUE = jnp.array([0.6, 0.0, -0.8])


@pytest.fixture(scope="module")
def straight():
    return fit_line(jax.random.key(1), along(OBLIQUE))


@pytest.fixture(scope="module")
def curved():
    return fit_curve(jax.random.key(1), around())


def test_the_direction_and_the_function_along_it_are_found(straight):
    assert straight.r2 > 0.999
    np.testing.assert_allclose(straight.direction, OBLIQUE, atol=0.02)
    s = jnp.linspace(-1.5, 1.5, 9)
    error = jax.vmap(straight)(s[:, None] * OBLIQUE) - bend(s)
    np.testing.assert_allclose(error - error.mean(), 0, atol=0.04)


def test_the_function_increases_strictly_and_its_inverse_is_exact(straight):
    assert (jnp.diff(straight.values) > 0).all()
    t = jnp.linspace(2 * straight.limits[0], 2 * straight.limits[1], 50)
    np.testing.assert_allclose(straight.value(straight.inverse(t)), t, atol=1e-5)


def test_it_goes_on_straight_beyond_its_ends(straight):
    beyond = straight.value(straight.knots[-1] + jnp.arange(3.0))
    np.testing.assert_allclose(jnp.diff(beyond, 2), 0, atol=1e-5)
    slope = (straight.values[-1] - straight.values[-2]) / (straight.knots[-1] - straight.knots[-2])
    np.testing.assert_allclose(jnp.diff(beyond), slope, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fit", [fit_line, fit_curve])
def test_starts_have_zero_on_average(fit):
    trajectories = along(OBLIQUE)
    trajectories = trajectories._replace(errors=trajectories.errors.at[-4:].set(1.0))
    model = fit(jax.random.key(1), trajectories)
    np.testing.assert_allclose(jax.vmap(model)(trajectories.z0[:-4]).mean(), 0, atol=1e-5)


def test_the_worst_trajectories_are_left_out():
    good = along(OBLIQUE)
    spoilt = good._replace(
        zs=good.zs.at[:4].set(-3 * good.zs[:4]), errors=good.errors.at[:4].set(jnp.inf)
    )
    assert fit_line(jax.random.key(1), spoilt).r2 > 0.99
    unknown = spoilt._replace(errors=good.errors)
    assert fit_line(jax.random.key(1), unknown).train_r2 < 0.9


def test_a_given_direction_is_kept_but_for_its_sign():
    model = directions.fit_direction(
        jax.random.key(1), along(OBLIQUE), direction=jnp.array([-3.0, 0.0, 0.0]), steps=50
    )
    np.testing.assert_allclose(model.direction, [1.0, 0.0, 0.0])
    assert model.r2 < 0.98


def test_double_precision_is_kept(x64):
    model = directions.fit_direction(
        jax.random.key(1), along(OBLIQUE.astype(x64), dtype=x64), steps=2
    )
    assert all(leaf.dtype == x64 for leaf in jax.tree.leaves(model))


def test_trajectories_that_do_not_move_give_a_low_score_and_finite_numbers():
    still = along(OBLIQUE)
    still = still._replace(zs=jnp.broadcast_to(still.z0[:, None], still.zs.shape))
    for fit in (fit_line, fit_curve):
        model = fit(jax.random.key(1), still)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(model))
        assert model.r2 < 0.5


def test_where_the_factor_turns_a_potential_follows_and_a_line_does_not(curved):
    line = fit_line(jax.random.key(1), around())
    assert curved.r2 > 0.99
    assert line.r2 < curved.r2 - 0.03

    def angle_error(model, dt):
        z = around(seed=5).z0[:20]
        moved = jax.jit(jax.vmap(partial(directions.shift, model, dt=dt, extrapolate=True)))(z)
        turned = jnp.arctan2(moved[:, 1], moved[:, 0]) - jnp.arctan2(z[:, 1], z[:, 0])
        radius = jnp.linalg.norm(moved[:, :2], axis=1) - jnp.linalg.norm(z[:, :2], axis=1)
        return jnp.abs(turned - dt).mean(), jnp.abs(radius).mean()

    angle, radius = angle_error(curved, 0.6)
    assert angle < 0.1
    assert radius < 0.15
    assert angle_error(line, 0.6)[1] > 2 * radius


@pytest.mark.slow
def test_on_a_generator_with_a_known_latent_that_one_is_found_and_places_the_object():
    key = jax.random.key(0)
    found = directions.trajectories(
        key,
        blob.generator,
        "translate_x",
        [-0.2, -0.15, -0.1, 0.1, 0.15, 0.2],
        starts=0.7 * jax.random.normal(key, (40, 3)),
        steps=40,
        project=4.0,
    )
    model = fit_line(key, found)
    assert model.r2 > 0.99
    assert model.direction[0] > 0.999
    zs = 0.5 * jax.random.normal(key, (10, 3))
    measured = jax.vmap(lambda z: blob.barycentre(blob.generator(z))[0])
    model = directions.calibrate(model, zs, measured(zs))
    for asked in (-0.1, 0.0, 0.12):
        placed = jax.vmap(lambda z, t=asked: directions.place(model, z, t))(zs)
        np.testing.assert_allclose(measured(placed) * blob.SIZE, asked * blob.SIZE, atol=0.1)


def test_bad_input_is_named():
    key, good = jax.random.key(0), along(OBLIQUE)
    few = Trajectories(good.z0[:4], good.zs[:4], good.ts, good.errors[:4])
    for fit in (directions.fit_direction, directions.fit_potential):
        with pytest.raises(ValueError, match="too few trajectories: 4, of which 2 are left"):
            fit(key, few, drop=0.5)
        with pytest.raises(ValueError, match="expected trajectories of one transformation"):
            fit(key, jax.tree.map(lambda leaf: leaf[None], good))
        with pytest.raises(ValueError, match="held_out in"):
            fit(key, good, held_out=1.0)
        with pytest.raises(ValueError, match="steps"):
            fit(key, good, steps=0)
    with pytest.raises(ValueError, match="knots must be at least 2"):
        directions.fit_direction(key, good, knots=1)
    with pytest.raises(ValueError, match="anchor and smoothness"):
        directions.fit_direction(key, good, anchor=-1.0)
    with pytest.raises(ValueError, match="span must be two increasing"):
        directions.fit_direction(key, good, span=(1.0, 0.0))
    with pytest.raises(ValueError, match="direction must have the shape"):
        directions.fit_direction(key, good, direction=jnp.ones(5))
    with pytest.raises(ValueError, match="flow_weight"):
        directions.fit_potential(key, good, flow_weight=-1.0)
