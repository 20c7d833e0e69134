"""Families of traversals: each field is what it is called, and `motion` follows any of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from latent_flows import flows, potentials, traversals
from latent_flows.coordinates import AffineCoordinates, from_latent

Z = jnp.array([0.3, -0.7, 1.1])


def test_the_gradient_of_a_mixture_is_the_closed_form(key, x64):
    keys = jax.random.split(key, 3)
    supports = jax.random.normal(keys[0], (5, 3), x64)
    alphas = jax.random.normal(keys[1], (5,), x64)
    gammas = jax.random.uniform(keys[2], (5,), x64, 0.2, 2.0)
    z = Z.astype(x64)
    apart = z - supports
    weights = -2 * alphas * gammas * jnp.exp(-gammas * jnp.sum(apart**2, 1))
    found = jax.grad(partial(traversals.mixture, supports, alphas, gammas))(z)
    assert_allclose(found, weights @ apart, rtol=1e-10)


def test_a_warp_moves_at_one_speed_along_the_gradient_of_its_mixture(key):
    net = traversals.Warp(pairs=3)
    params = net.init(key, 0.0, Z)
    own = params["params"]
    signed = jnp.concatenate([own["alphas"], -own["alphas"]])
    u = partial(traversals.mixture, own["supports"], signed, jnp.exp(own["log_gammas"]))
    velocity, slope = net.apply(params, 0.0, Z), jax.grad(u)(Z)
    assert_allclose(velocity, 0.1 * slope / jnp.linalg.norm(slope), rtol=1e-5)
    # Opposite pairs of opposite weights: an odd potential, so an even field.
    assert_allclose(u(-Z), -u(Z), rtol=1e-5)
    assert_allclose(net.apply(params, 5.0, -Z), velocity, rtol=1e-4)


def test_where_a_warp_is_flat_it_stands_still_and_has_a_gradient(key):
    net = traversals.Warp(pairs=2)
    params = jax.tree.map(jnp.zeros_like, net.init(key, 0.0, Z))
    value, gradient = jax.value_and_grad(lambda p: jnp.sum(net.apply(p, 0.0, Z)))(params)
    assert value == 0
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_warp_knows_its_way_however_far_from_its_supports(key):
    net = traversals.Warp(pairs=3)
    params = net.init(key, 0.0, Z)

    def loss(params, z):
        return jnp.sum(net.apply(params, 0.0, z) ** 3)

    for far in (10.0, 40.0, 1000.0):
        velocity = net.apply(params, 0.0, far * Z)
        np.testing.assert_allclose(jnp.linalg.norm(velocity), 0.1, rtol=1e-4)
        slopes = jax.tree.leaves(jax.jit(jax.grad(loss))(params, far * Z))
        assert all(jnp.isfinite(leaf).all() for leaf in slopes)


def test_orthogonal_directions_are_orthogonal_and_the_first_stays(key):
    net = traversals.Line()
    params = potentials.init_stack(net, key, 3, 5)
    turned = traversals.orthogonal(params)
    velocities = jax.vmap(net.apply, (0, None, None))(turned, 0.0, jnp.zeros(5))
    assert_allclose(velocities @ velocities.T, 0.01 * jnp.eye(3), atol=1e-7)
    first = params["params"]["direction"][0]
    assert_allclose(velocities[0], 0.1 * first / jnp.linalg.norm(first), rtol=1e-5)
    with pytest.raises(ValueError, match="3 directions cannot be orthogonal in 2 dimensions"):
        traversals.orthogonal(potentials.init_stack(net, key, 3, 2))


def test_climbing_in_a_metric_is_the_natural_gradient(key):
    net = potentials.PotentialNet(width=4)
    params = net.init(key, 0.0, Z)
    scale = jnp.array([1.0, 4.0, 9.0])
    climb = partial(flows.natural_gradient, metric=lambda z: jnp.diag(scale))
    plain = traversals.climbing(net)(params, 2.0, Z)
    assert_allclose(traversals.climbing(net, climb)(params, 2.0, Z), plain / scale, rtol=1e-5)


@pytest.mark.slow
def test_a_motion_is_the_path_of_its_field_and_backward_undoes_forward(key):
    net = potentials.PotentialNet(width=8, initial="static")
    params = potentials.init_stack(net, key, 2, 3)
    field = traversals.climbing(net)
    move = traversals.motion(field, params)
    path = flows.integrate(partial(field, potentials.member(params, 1)), Z, jnp.array([0.0, 0.5]))
    there = move(1, 0.5, Z)
    assert jnp.linalg.norm(there - Z) > 0.05
    assert_allclose(there, path.zs[-1], atol=1e-3)
    assert_allclose(move(1, -0.5, there), Z, atol=5e-3)


def test_time_runs_forward_on_a_reversed_path_too():
    # A field of time alone: its displacement is the integral of t, whichever way.
    move = traversals.motion(lambda a, t, z: a * t, jnp.ones((1, 3)))
    assert_allclose(move(0, 2.0, Z) - Z, 2.0, rtol=1e-5)
    assert_allclose(move(0, -2.0, Z) - Z, -2.0, rtol=1e-5)


def test_what_lies_outside_the_frame_stays():
    frame = AffineCoordinates(jnp.ones(3), jnp.array([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
    move = traversals.motion(traversals.constant, jnp.eye(2), frame)
    there = move(1, 0.5, Z)
    assert_allclose(there, Z + jnp.array([0.0, 1.5, 0.0]), rtol=1e-6)
    assert_allclose(
        from_latent(frame, there) - from_latent(frame, Z), jnp.array([0.0, 0.5]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("k", "z", "message"),
    [(2, Z, "k must be in"), (0, jnp.zeros(4), r"shape \[3\]"), (0, jnp.zeros((2, 3)), "shape")],
)
def test_a_motion_refuses_what_it_has_not(k, z, message):
    move = traversals.motion(
        traversals.constant, jnp.eye(3)[:2], AffineCoordinates(jnp.zeros(3), jnp.eye(3))
    )
    with pytest.raises(ValueError, match=message):
        move(k, 1.0, z)


def test_a_warp_needs_a_pair(key):
    with pytest.raises(ValueError, match="pairs must be at least 1, got 0"):
        traversals.Warp(pairs=0).init(key, 0.0, Z)


def test_the_field_of_a_network_is_its_output(key):
    net = potentials.FieldNet(width=4, initial="free")
    params = net.init(key, 0.0, Z)
    field = traversals.following(net)
    np.testing.assert_array_equal(field(params, 1.0, Z), net.apply(params, 1.0, Z))
    # No potential has a Jacobian that is not symmetric.
    turn = jax.jacobian(lambda z: field(params, 1.0, z))(Z)
    assert jnp.abs(turn - turn.T).max() > 1e-3
