"""Noise maps as part of a latent: what they are, and that they stay noise when they are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import draw_latents
from latent_flows.generators.pretrained import published
from latent_flows.generators.spec import GeneratorSpec
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.stylegan2_noise import noise_correlation, noise_latents, whitened
from latent_flows.inversion import InversionSettings, invert
from tests.generators.small_nets import filled


@pytest.fixture(scope="module")
def both():
    """A small StyleGAN2 in W, and the same with its noise in the latent."""
    net = StyleGAN2(8, latent_dim=4, mapping_layers=1, channels=(4, 4))
    variables = filled(net)
    plain = published("a StyleGAN2", net, variables, GeneratorSpec(space="w"), 0)
    return plain, noise_latents(net, variables, plain), variables


@pytest.mark.slow
def test_with_the_stored_noise_it_is_the_same_generator(both):
    plain, noisy, variables = both
    w = plain.prior(jax.random.key(0))
    stored = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(variables["noise"])])
    assert noisy.generator.latent_dim == 4 + stored.size
    full = jnp.concatenate([w, stored])
    np.testing.assert_allclose(noisy.generator(full), plain(w), atol=1e-5)
    np.testing.assert_allclose(noisy.maps(stored)["noise_1"], variables["noise"]["noise_1"])
    assert jnp.abs(noisy.generator(full.at[4:].add(1.0)) - plain(w)).max() > 1e-3


def test_a_projection_leaves_the_latent_and_whitens_each_map(both):
    _, noisy, _ = both
    z = 3 + 2 * draw_latents(noisy.generator.prior, jax.random.key(1), 1)[0]
    projected = noisy.project(z)
    np.testing.assert_array_equal(projected[:4], z[:4])
    for one in jax.tree.leaves(noisy.maps(projected[4:])):
        np.testing.assert_allclose([one.mean(), one.std()], [0, 1], atol=1e-4)
    np.testing.assert_allclose(noisy.project(projected), projected, atol=1e-4)
    assert jnp.isfinite(whitened(jnp.ones((8, 8)))).all()


@pytest.mark.slow
def test_a_picture_in_the_noise_costs_more_than_noise(both):
    noise = jax.random.normal(jax.random.key(0), (64, 64))
    across = jnp.sin(jnp.arange(64) / 10)
    drawn = whitened(jnp.outer(across, across))
    assert noise_correlation(drawn) > 10 * noise_correlation(noise)
    coarse = whitened(jnp.kron(jax.random.normal(jax.random.key(1), (16, 16)), jnp.ones((4, 4))))
    assert noise_correlation(coarse) > 5 * noise_correlation(noise)
    _, noisy, _ = both
    z = noisy.generator.prior(jax.random.key(2))
    assert noisy.penalty(noisy.project(z.at[4:].set(1.0 + z[4:] / 100))) >= 0


@pytest.mark.slow
def test_an_inversion_may_choose_the_noise_which_stays_noise(both):
    plain, noisy, _ = both
    image = noisy.generator(noisy.generator.prior(jax.random.key(3)))
    settings = {"starts": 3, "steps": 100, "candidates": 2}
    fixed = invert(jax.random.key(0), plain, image, InversionSettings(**settings))
    free = InversionSettings(**settings, penalty=noisy.penalty, project=noisy.project)
    found = invert(jax.random.key(0), noisy.generator, image, free)
    assert found.error < 0.5 * fixed.error
    assert noisy.penalty(found.z) < 1
    for one in jax.tree.leaves(noisy.maps(found.z[4:])):
        np.testing.assert_allclose([one.mean(), one.std()], [0, 1], atol=1e-3)
