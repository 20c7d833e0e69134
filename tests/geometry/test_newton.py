"""Damped Newton steps on a chain of points: one for a parabola, downhill for anything."""

import jax
import jax.numpy as jnp
import numpy as np

from latent_flows.geometry._newton import Model, minimise


def chain(value):
    """`Advance` of a scalar function of a chain whose Hessian has no other blocks, by AD."""

    def advance(points, step, here):
        m, d = points.shape
        hessian = jax.hessian(value)(points)
        at = jnp.arange(m)
        diagonal, upper = hessian[at, :, at], hessian[at[:-1], :, at[1:]]
        safe = jnp.broadcast_to(jnp.eye(d), (m, d, d))
        there = Model(
            value(points),
            jax.grad(value)(points),
            diagonal,
            upper,
            safe,
            jnp.zeros_like(upper),
            jnp.zeros(()),
            value(points),
            (),
        )
        return there, here

    def blank(points):
        return jax.tree.map(jnp.zeros_like, advance(points, points, None)[0])

    return advance, blank


def run(value, start, **settings):
    advance, blank = chain(value)
    settings = {"tolerance": 1e-6, "max_iterations": 100} | settings
    return jax.jit(lambda x: minimise(advance, blank(x), x, **settings))(start)


def test_a_parabola_takes_one_step(x64):
    def value(x):
        return 1 + (jnp.diff(x, axis=0) ** 2).sum() + ((x - 2) ** 2).sum()

    found = run(value, jnp.zeros((4, 2)))
    assert found.converged
    assert found.iterations == 2  # where it starts, and where it is
    np.testing.assert_allclose(found.points, 2, atol=1e-12)


def test_from_a_saddle_it_goes_downhill(x64):
    def value(x):
        return 3 + ((x**2 - 1) ** 2).sum() + 0.1 * (jnp.diff(x, axis=0) ** 2).sum()

    found = run(value, jnp.full((3, 1), 0.1))
    assert found.converged
    np.testing.assert_allclose(found.points, 1, atol=1e-5)


def test_what_is_not_finite_is_not_stepped_to(x64):
    def value(x):
        return (x - jnp.log(x)).sum() + 0.05 * (jnp.diff(x, axis=0) ** 2).sum()

    found = run(value, jnp.full((2, 1), 3.0))  # the first full step is to -3
    assert found.converged
    np.testing.assert_allclose(found.points, 1, atol=1e-6)
    lost = run(value, jnp.full((2, 1), -1.0))
    assert not lost.converged
    assert (lost.points == -1).all()
    assert not jnp.isfinite(lost.model.value)


def test_running_out_of_iterations_is_not_convergence(x64):
    found = run(lambda x: jnp.cosh(x - 9).sum(), jnp.zeros((2, 1)), max_iterations=3)
    assert not found.converged
    assert found.iterations == 3
