"""The frozen generator: a pytree that can be an argument, mapped, and kept as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import GeneratorSpec, draw_latents, freeze, load_generator
from latent_flows.generators.frozen import standard_normal
from latent_flows.generators.prior_flow import init_prior_flow, through_noise

WEIGHTS = jnp.arange(6.0).reshape(3, 2)


def plane(weights=WEIGHTS, **known):
    return freeze(lambda z: weights @ z, 2, name="a plane", **known)


@pytest.mark.parametrize(
    ("decode", "dim", "shape"),
    [
        (lambda z: z, 5, (5,)),
        (lambda z: z[:, None] * jnp.ones(7), 4, (4, 7)),
        (lambda z: jnp.outer(z, z)[..., None] * jnp.ones(11), 3, (3, 3, 11)),
        (lambda z: z.sum() * jnp.ones((6, 2, 2, 3)), 1, (6, 2, 2, 3)),
        (lambda z: z.sum(), 2, ()),
    ],
    ids=["a vector", "a sequence", "many channels", "a film", "a number"],
)
def test_a_sample_has_any_shape(decode, dim, shape):
    generator = freeze(decode, dim)
    assert (generator.event_shape, generator.latent_dim) == (shape, dim)
    assert generator(jnp.ones(dim)).shape == shape
    assert jax.vmap(generator)(jnp.ones((3, dim))).shape == (3, *shape)


def test_its_arrays_are_leaves_that_a_compiled_function_takes_as_arguments():
    deviations = {"rbf": lambda z: jnp.exp(WEIGHTS @ z)}
    generator = plane(
        encode=lambda x: (WEIGHTS.T @ x, jnp.ones(2)),
        log_likelihood=lambda x, z: -jnp.sum((x - WEIGHTS @ z) ** 2),
        noise_std=deviations,
        first_layer=WEIGHTS,
        dataset="planes",
        labels=[1, 2],
        augment=[("zoom", 1)],
    )
    assert len(jax.tree.leaves(generator)) == 5

    compiled = []

    @jax.jit
    def everything(generator, z):
        compiled.append(1)
        x = generator(z)
        mean, std = generator.encode(x)
        return x, mean, std, generator.log_likelihood(x, z), generator.noise_std["rbf"](z)

    z = jnp.array([0.5, -1.0])
    x, mean, std, likelihood, deviation = everything(generator, z)
    np.testing.assert_allclose(x, WEIGHTS @ z, rtol=1e-6)
    np.testing.assert_allclose(mean, WEIGHTS.T @ x, rtol=1e-6)
    np.testing.assert_allclose(deviation, jnp.exp(WEIGHTS @ z), rtol=1e-5)
    assert (std.shape, float(likelihood)) == ((2,), 0.0)
    # Other numbers in its leaves are another generator, and no other program.
    doubled = jax.tree.map(lambda leaf: 2 * leaf, generator)
    np.testing.assert_allclose(everything(doubled, z)[0], 2 * WEIGHTS @ z, rtol=1e-6)
    assert (len(compiled), doubled.dataset, doubled.labels) == (1, "planes", (1, 2))


def test_it_can_be_differentiated_by_its_parameters():
    generator, z = plane(), jnp.array([2.0, 3.0])
    slope = jax.grad(lambda generator: generator(z).sum())(generator)
    np.testing.assert_array_equal(jax.tree.leaves(slope)[0], jnp.broadcast_to(z, (3, 2)))


def test_generators_of_one_form_are_mapped_over():
    generator = plane()
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 3 * leaf]), generator)
    found = jax.vmap(lambda one, z: one(z), in_axes=(0, None))(many, jnp.ones(2))
    np.testing.assert_allclose(found, jnp.stack([WEIGHTS.sum(1), 3 * WEIGHTS.sum(1)]))


@pytest.mark.parametrize("made", ["new", "old", "rbg"])
def test_a_prior_takes_keys_of_every_kind_one_or_many(made):
    make = {
        "new": jax.random.key,
        "old": jax.random.PRNGKey,
        "rbg": lambda seed: jax.random.key(seed, impl="rbg"),
    }
    generator, key = plane(), make[made](3)
    one = generator.prior(key)
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, generator.prior(key))
    some = jax.vmap(generator.prior)(jax.random.split(key, 400))
    assert some.shape == (400, 2)
    assert abs(float(some.std()) - 1) < 0.1
    np.testing.assert_array_equal(draw_latents(generator.prior, key, 400), some)
    if made != "rbg":
        np.testing.assert_array_equal(one, standard_normal(2)(jax.random.key(3)))


def test_a_prior_of_ones_own_is_drawn_from():
    shift = jnp.array([10.0, 20.0])
    generator = plane(prior=lambda key: shift + jax.random.uniform(key, (2,)))
    latents = draw_latents(generator.prior, jax.random.key(0), 50)
    assert ((latents >= shift) & (latents <= shift + 1)).all()


@pytest.mark.parametrize(
    ("decode", "dim", "message"),
    [
        (lambda z: z, 0, "latent_dim must be at least 1, got 0"),
        (lambda z: (z, z), 2, "generator gives tuple, not an array"),
        (lambda z: z > 0, 2, "generator gives bool, not floating-point numbers"),
    ],
)
def test_what_makes_no_samples_is_refused(decode, dim, message):
    with pytest.raises(ValueError, match=message):
        freeze(decode, dim)


def test_a_latent_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got shape \(3,\)"):
        plane()(jnp.ones(3))


def test_the_density_of_the_prior_is_known_where_it_has_a_closed_form():
    z = jnp.array([0.5, -1.0])
    normal = -0.625 - np.log(2 * np.pi)
    np.testing.assert_allclose(plane().log_prior(z), normal, rtol=1e-5)
    assert plane(prior=lambda key: jnp.zeros(2)).log_prior is None
    known = plane(prior=lambda key: jnp.zeros(2), log_prior=lambda z: WEIGHTS[0] @ z)
    np.testing.assert_allclose(known.log_prior(z), -1.0)
    assert len(jax.tree.leaves(known)) == 2  # the weights of both functions
    for prior in ("truncated", "sphere", "uniform"):
        spec = GeneratorSpec("jax.numpy:sin", latent_dim=2, prior=prior)
        assert load_generator(spec).log_prior is None
    spec = GeneratorSpec("jax.numpy:sin", latent_dim=2)
    np.testing.assert_allclose(load_generator(spec).log_prior(z), normal, rtol=1e-5)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (lambda z: z, r"must give \[M, 2\], a sample of each, got \(2,\)"),
        (lambda z: jnp.stack([z, z])[:, :1], r"must give \[M, 2\], .* got \(2, 1\)"),
        (lambda z: (z, z), r"must give \[M, 2\], .* got tuple"),
        (lambda z: z[None], "generator needs at least two members, got 1"),
    ],
)
def test_members_that_do_not_fit_are_refused(members, message):
    with pytest.raises(ValueError, match=message):
        freeze(lambda z: 2 * z, 2, members=members)


@pytest.mark.slow
def test_members_are_seen_from_the_noise_of_a_prior_too(key):
    generator = freeze(lambda z: 2 * z, 2, members=lambda z: jnp.stack([z, 3 * z]))
    flow = init_prior_flow(key, 3 + jax.random.normal(key, (100, 2)), steps=1)
    noisy = through_noise(generator, flow)
    z = jnp.array([0.2, -0.1])
    np.testing.assert_allclose(noisy.members(z).mean(0), noisy(z), rtol=1e-5)
