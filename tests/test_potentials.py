import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.flows import gradient
from latent_flows.potentials import FieldNet, PotentialNet, init_stack, select, time_embedding
from tests.rest_slow import rest_slow


def potential(dtype, **options):
    net = PotentialNet(width=16, **options)
    z = jax.random.normal(jax.random.key(1), (5,), dtype)
    params = net.init(jax.random.key(0), 0.0, z)
    return (lambda t, z: net.apply(params, t, z)), z


@pytest.mark.parametrize("depth", rest_slow([1, 3, 2], every=2))
def test_exact_initial_condition_is_exactly_at_rest(depth, dtype):
    u, z = potential(dtype, depth=depth)
    zs = z + jnp.arange(7, dtype=dtype)[:, None]
    field = gradient(u)
    for at in (jax.vmap(field, (None, 0)), jax.jit(jax.vmap(field, (None, 0)))):
        assert (at(0.0, zs) == 0).all()
        assert jnp.abs(at(1.0, zs)).max() > 1e-3
    # A time known when compiling is one more way to round.
    assert (jax.jit(lambda z: field(0.0, z))(z) == 0).all()
    assert u(0.0, z) == 0


def test_free_potential_moves_at_time_zero_and_depends_on_time(dtype):
    u, z = potential(dtype, initial="free")
    assert jnp.abs(gradient(u)(0.0, z)).max() > 1e-3
    assert jnp.abs(u(0.0, z) - u(1.0, z)) > 1e-4


def test_exact_and_free_differ_by_the_value_at_time_zero(x64):
    z = jax.random.normal(jax.random.key(1), (5,), x64)
    exact, free = (PotentialNet(width=16, initial=name) for name in ("exact", "free"))
    params = exact.init(jax.random.key(0), 0.0, z)
    expected = free.apply(params, 2.0, z) - free.apply(params, 0.0, z)
    np.testing.assert_allclose(exact.apply(params, 2.0, z), expected, atol=1e-14)


@pytest.mark.parametrize("initial", ["exact", "free", "static"])
def test_a_field_has_the_initial_condition_of_potentials(initial, dtype):
    net = FieldNet(width=16, initial=initial)
    z = jax.random.normal(jax.random.key(1), (5,), dtype)
    params = net.init(jax.random.key(0), 0.0, z)
    at_start, later = net.apply(params, 0.0, z), net.apply(params, 2.0, z)
    assert later.shape == z.shape
    assert later.dtype == dtype
    assert (at_start == 0).all() == (initial == "exact")
    assert (at_start == later).all() == (initial == "static")


def test_static_potential_knows_no_time(dtype):
    u, z = potential(dtype, initial="static")
    assert u(0.0, z) == u(7.0, z)
    assert jnp.abs(gradient(u)(3.0, z)).max() > 1e-3


@pytest.mark.parametrize("initial", ["exact", "free", "static"])
@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
def test_the_dtype_of_the_latent_is_kept(initial, dtype):
    u, z = potential(dtype, initial=initial)
    for t in (1, 1.0, jnp.float32(1.0)):
        assert u(t, z).dtype == dtype
        assert gradient(u)(1.0, z).dtype == dtype


def test_time_embedding_separates_times_and_is_smooth_at_zero():
    ts = jnp.linspace(0.0, 10.0, 101)
    codes = jax.vmap(lambda t: time_embedding(t, 16, 10.0))(ts)
    distances = jnp.linalg.norm(codes[:, None] - codes[None], axis=-1)
    assert (distances + 10 * jnp.eye(101)).min() > 0.02
    # The scale of time is the horizon.
    np.testing.assert_allclose(
        time_embedding(2.0, 8, 10.0), time_embedding(20.0, 8, 100.0), rtol=1e-6
    )


def test_a_stack_holds_independent_potentials_and_a_traced_index_selects_them(key):
    net = PotentialNet(width=8)
    params = init_stack(net, key, 3, 4)
    z = jnp.arange(4.0)
    alone = [select(net, params, k)(1.0, z) for k in range(3)]
    traced = jax.jit(jax.vmap(lambda k: select(net, params, k)(1.0, z)))(jnp.arange(3))
    stacked = jax.vmap(lambda p: net.apply(p, 1.0, z))(params)
    np.testing.assert_allclose(traced, jnp.stack(alone), rtol=1e-5)
    np.testing.assert_allclose(stacked, jnp.stack(alone), rtol=1e-5)
    assert len({float(u) for u in alone}) == 3


@pytest.mark.parametrize("bad", [0, -1, True])
def test_bad_counts_and_dimensions_are_refused(bad, key):
    with pytest.raises(ValueError, match="count"):
        init_stack(PotentialNet(), key, bad, 4)
    with pytest.raises(ValueError, match="dim"):
        init_stack(PotentialNet(), key, 4, bad)


def test_select_refuses_what_is_not_in_the_stack(key):
    net = PotentialNet(width=8)
    params = init_stack(net, key, 3, 4)
    for k in (3, -1, 1.5):
        with pytest.raises(ValueError, match="k must be"):
            select(net, params, k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": "exakt"}, "did you mean 'exact'"),
        ({"width": 0}, "width"),
        ({"depth": 0}, "depth"),
        ({"time_features": 3}, "time_features"),
        ({"horizon": 0.0}, "horizon"),
    ],
)
def test_bad_options_are_refused(options, message, key):
    with pytest.raises(ValueError, match=message):
        init_stack(PotentialNet(**options), key, 2, 4)
