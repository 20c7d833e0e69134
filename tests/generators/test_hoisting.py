"""A generator whose parameters are arguments is the same generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows._transforms import closure_convert, closure_convert_at
from latent_flows.generators.sngan import SNGAN
from latent_flows.geometry.metrics import pullback


@pytest.fixture
def closed(key):
    net = SNGAN(channels=(2, 2), latent_dim=3)
    variables = net.init(key, jnp.zeros(3))
    return lambda z: net.apply(variables, z)


@pytest.mark.parametrize("wrap", [lambda g: g, jax.jit, jax.checkpoint])
def test_images_and_derivatives_are_those_of_the_closure(closed, wrap, key):
    hoisted = closure_convert(wrap(closed), 3)
    zs = jax.random.normal(key, (2, 3))

    def both(generator, zs):
        return jax.vmap(generator)(zs), jax.vmap(pullback(generator))(zs)

    wanted = jax.jit(both, static_argnums=0)(closed, zs)
    for one, other in zip(jax.jit(both)(hoisted, zs), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_program_that_takes_the_generator_holds_none_of_its_numbers():
    weights = jnp.arange(1000.0).reshape(500, 2)
    generator = closure_convert(lambda z: weights @ z, 2)
    inside = jax.make_jaxpr(generator)(jnp.ones(2))
    assert sum(c.size for c in inside.consts) == weights.size
    beside = jax.make_jaxpr(lambda generator, z: generator(z))(generator, jnp.ones(2))
    assert beside.consts == []


def test_a_program_that_takes_the_generator_is_compiled_once():
    traced = []

    @jax.jit
    def image(generator, z):
        traced.append(z)
        return generator(z)

    generator = closure_convert(lambda z: 2 * z, 2)
    for z in (jnp.ones(2), jnp.zeros(2)):
        np.testing.assert_array_equal(image(generator, z), 2 * z)
    assert len(traced) == 1


def test_a_latent_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got shape \(3,\)"):
        closure_convert(jnp.sum, 2)(jnp.ones(3))


def test_functions_of_keys_and_of_several_arrays():
    offset = jnp.arange(3.0)

    def noisy(key, parts):
        return {"sum": jax.random.normal(key, (3,)) + offset + parts["a"] * parts["b"]}

    parts = {"a": jnp.ones(3), "b": 2 * jnp.ones(())}
    key = jax.random.key(3)
    made = jax.jit(lambda one, *args: one(*args))(closure_convert_at(noisy, key, parts), key, parts)
    np.testing.assert_allclose(made["sum"], noisy(key, parts)["sum"], rtol=1e-6)
