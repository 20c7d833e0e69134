"""Potentials that are planes bent by a network, and their dependence on time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import flows, pde
from latent_flows.potentials import TIMES, TiltedNet

Z = jnp.array([0.3, -1.0, 0.7])


def made(time, key, straight=False):
    net = TiltedNet(width=8, time=time)
    params = net.init(key, 0.0, Z)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    if straight:
        params["params"]["bend"] = jax.tree.map(jnp.zeros_like, params["params"]["bend"])
    return params, lambda t, z: net.apply(params, t, z)


@pytest.mark.parametrize("time", ["static", "free"])
def test_without_a_bend_the_flow_is_a_constant_direction(time, key):
    params, u = made(time, key, straight=True)
    for t, z in ((0.0, Z), (7.0, -Z)):
        np.testing.assert_allclose(flows.gradient(u)(t, z), params["params"]["tilt"], rtol=1e-6)


def test_exact_potentials_start_at_rest(key):
    _, u = made("exact", key)
    assert not flows.gradient(u)(0.0, Z).any()
    assert jnp.linalg.norm(flows.gradient(u)(5.0, Z)) > 1e-3


@pytest.mark.parametrize("time", TIMES)
def test_planes_solve_the_wave_equation_unless_they_swing(time, key):
    params, u = made(time, key, straight=True)
    omega = TiltedNet(time=time).clock(params)[0] if time == "standing" else 0.0
    expected = -((omega / 10.0) ** 2) * u(4.0, Z)
    np.testing.assert_allclose(pde.wave(u, 1.0)(4.0, Z), expected, rtol=1e-3, atol=1e-7)


def test_a_standing_wave_has_one_shape_at_all_times(key):
    params, u = made("standing", key)
    omega, phase = TiltedNet(time="standing").clock(params)
    field = flows.gradient(u)
    first = field(0.0, Z) / jnp.cos(phase)
    for t in (3.0, 25.0):
        expected = jnp.cos(omega * t / 10.0 - phase) * first
        np.testing.assert_allclose(field(t, Z), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_a_standing_wave_takes_the_way_of_the_static_potential_by_its_own_clock(key):
    params, u = made("standing", key)
    static = TiltedNet(width=8, time="static")
    kept = {name: params["params"][name] for name in ("tilt", "bend")}
    omega, phase = TiltedNet(time="standing").clock(params)
    end = flows.integrate(flows.gradient(u), Z, jnp.array([0.0, 8.0])).zs[-1]
    spent = 10.0 / omega * (jnp.sin(omega * 0.8 - phase) + jnp.sin(phase))
    field = flows.gradient(lambda t, z: static.apply({"params": kept}, t, z))
    other = flows.integrate(field, Z, jnp.array([0.0, spent])).zs[-1]
    assert jnp.linalg.norm(end - Z) > 0.1
    np.testing.assert_allclose(end, other, atol=2e-3)


def test_an_unknown_time_is_refused_with_the_nearest(key):
    with pytest.raises(ValueError, match=r"'standin' \(did you mean 'standing'\?\)"):
        TiltedNet(time="standin").init(key, 0.0, Z)


def test_a_known_clock_is_not_learnt(key):
    net = TiltedNet(width=8, time="standing", beat=(jnp.pi / 2, jnp.pi / 2))
    params = net.init(key, 0.0, Z)
    assert set(params["params"]) == {"tilt", "bend"}
    field = flows.gradient(lambda t, z: net.apply(params, t, z))
    top = jnp.linalg.norm(field(10.0, Z))
    speeds = [float(jnp.linalg.norm(field(t, Z)) / top) for t in (0.0, 20.0)]
    assert speeds == pytest.approx([0.0, 0.0], abs=1e-5)
