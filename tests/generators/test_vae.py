"""Every architecture on every shape of image, and the likelihoods in closed form."""

import itertools
from dataclasses import replace
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import logistic

from latent_flows.generators.vae import VAE, VAEConfig, first_weights, generator, members

SMALL = VAEConfig(latent_dim=3, encoder="mlp", decoder="mlp", width=4, depth=1)
LIKELIHOODS = ["bernoulli", "gaussian", "discretised_logistic"]
SHAPES = [
    *((8, 8, 1), (28, 28, 1), (64, 64, 1), (32, 32, 3)),
    *((32, 28, 1), (28, 32, 4), (64, 36, 3), (33, 17, 2), (16, 5, 1), (1, 8, 1)),
]
KINDS = list(itertools.product(["mlp", "conv"], ["mlp", "conv", "broadcast"]))
# Every network on every shape with one likelihood, in turn, and with the others among the slow.
CASES = [
    pytest.param(*kind, shape, likelihood, marks=[pytest.mark.slow] * ((i + j + k) % 3 != 0))
    for i, kind in enumerate(KINDS)
    for j, shape in enumerate(SHAPES)
    for k, likelihood in enumerate(LIKELIHOODS)
]


def made(config, shape, key):
    vae = VAE(config, shape)
    return vae, jax.jit(vae.init)(key, jnp.zeros(shape))


@pytest.mark.parametrize(("encoder", "decoder", "shape", "likelihood"), CASES)
def test_images_become_codes_and_codes_images(encoder, decoder, shape, likelihood):
    config = replace(SMALL, encoder=encoder, decoder=decoder, likelihood=likelihood)
    vae = VAE(config, shape)

    def around(key, x):
        params = vae.init(key, x)
        mean, std = vae.apply(params, x, method=vae.encode)
        decoded = vae.apply(params, mean, method=vae.decode)
        return mean, std, decoded, vae.apply(params, x, mean, method=vae.log_likelihood)

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    mean, std, decoded, likelihood = jax.eval_shape(around, jax.random.key(0), x)
    assert mean.shape == std.shape == (3,)
    assert decoded.shape == shape
    assert likelihood.shape == ()


@pytest.mark.parametrize(
    "shape",
    [*(pytest.param(s, marks=pytest.mark.slow) for s in ((32, 28, 1), (6, 20, 2))), (9, 5, 1)],
    ids=str,
)
def test_every_pixel_counts_and_is_made_of_its_own_numbers(key, shape):
    vae, params = made(replace(SMALL, encoder="conv", decoder="conv"), shape, key)
    x = jax.random.uniform(key, shape)

    @jax.jit
    def seen(x):
        return jax.grad(lambda x: vae.apply(params, x, method=vae.encode)[0].sum())(x)

    assert jnp.all(seen(x) != 0)
    decoded = vae.apply(params, jnp.ones(3), method=vae.decode)
    assert len(jnp.unique(decoded)) > 0.9 * x.size


@pytest.mark.parametrize(
    ("encoder", "decoder", "likelihood"),
    [
        pytest.param("mlp", "conv", "gaussian", marks=pytest.mark.slow),
        ("conv", "broadcast", "discretised_logistic"),
    ],
)
def test_every_parameter_is_trained(key, encoder, decoder, likelihood):
    config = replace(SMALL, encoder=encoder, decoder=decoder, likelihood=likelihood)
    vae, params = made(config, (8, 8, 1), key)
    x = jax.random.uniform(key, (8, 8, 1))

    def bound(params):
        mean, std = vae.apply(params, x, method=vae.encode)
        return vae.apply(params, x, mean + std, method=vae.log_likelihood)

    grads = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(bound))(params))
    for path, gradient in grads:
        assert jnp.isfinite(gradient).all(), path
        assert jnp.any(gradient != 0), path


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_likelihood_has_its_closed_form(key, likelihood):
    vae, params = made(replace(SMALL, likelihood=likelihood), (8, 8, 1), key)
    x, z = jax.random.uniform(key, (8, 8, 1)), jnp.array([0.5, -1.0, 2.0])
    p = np.asarray(generator(vae, params)(z), np.float64)
    assert ((p > 0) & (p < 1)).all()
    if likelihood == "bernoulli":
        expected = np.sum(x * np.log(p) + (1 - x) * np.log(1 - p))
    elif likelihood == "discretised_logistic":
        scale, half = np.exp(float(params["params"]["log_scale"])), 0.5 / 255
        x = jnp.round(x * 253 + 1) / 255  # no pixel is black or white
        upper, lower = (logistic.cdf((np.asarray(x) + h - p) / scale) for h in (half, -half))
        expected = np.sum(np.log(upper - lower))
    else:
        std = np.exp(float(params["params"]["log_std"]))
        expected = np.sum(-0.5 * ((x - p) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi))
    found = vae.apply(params, x, z, method=vae.log_likelihood)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_extreme_activations_leave_a_positive_finite_deviation(key):
    vae, params = made(SMALL, (8, 8, 1), key)
    for size in (-1e6, 1e6):
        wild = jax.tree.map(lambda leaf, size=size: size * jnp.ones_like(leaf), params)
        _, std = vae.apply(wild, jnp.ones((8, 8, 1)), method=vae.encode)
        assert jnp.isfinite(std).all()
        assert (std > 0).all()


def test_the_broadcast_decoder_translates_along_its_shift(key):
    # Latents that leave the frames alone and shift the coordinates by one patch.
    config = VAEConfig(latent_dim=9, encoder="mlp", decoder="broadcast", width=2, depth=1)
    vae, params = made(config, (32, 32, 1), key)
    kernels = {leaf.shape: leaf for leaf in jax.tree.leaves(params["params"]["decoder"])}
    shift, frames = kernels[9, 2], kernels[9, 6]
    spacing = 2 / (32 // 4 - 1)
    wanted = jnp.array([*[0.0] * 6, spacing, 0.0])
    step = jnp.linalg.lstsq(jnp.concatenate([frames, shift], axis=1).T, wanted)[0]
    decode, z = jax.jit(generator(vae, params)), jax.random.normal(key, (9,))
    before, after = decode(z), decode(z + step)
    assert float(jnp.std(before)) > 1e-3
    assert not np.allclose(before, after, atol=1e-4)
    # In patches the picture moves by exactly one column.
    np.testing.assert_allclose(after[:, 4:], before[:, :-4], atol=1e-4)


@pytest.mark.parametrize("decoders", [1, 2])
def test_kept_apart_what_shifts_the_picture_does_nothing_else(key, decoders):
    config = VAEConfig(latent_dim=4, encoder="mlp", width=2, depth=1, apart=True, decoders=decoders)
    vae, params = made(config, (32, 32, 1), key)
    decode = jax.jit(partial(vae.apply, params, method=vae.members))
    z = jax.random.normal(key, (4,))
    weights = first_weights(vae, params)
    for member, rows in enumerate(weights[: 2 * decoders].reshape(decoders, 2, 4)):
        # By one patch to the right, in the plane that the decoder's shift is made in.
        step = jnp.linalg.pinv(rows) @ jnp.array([2 / (32 // 4 - 1), 0.0])
        before, after = decode(z)[member], decode(z + step)[member]
        assert float(jnp.std(before)) > 1e-3
        np.testing.assert_allclose(after[:, 4:], before[:, :-4], atol=1e-4)
        others = weights[2 * decoders :].reshape(decoders, -1, 4)[member]
        np.testing.assert_allclose(others @ rows.T, 0, atol=1e-5)


def test_only_a_decoder_that_shifts_keeps_that_apart():
    with pytest.raises(ValueError, match=r"apart is of the decoder broadcast.* not of conv"):
        VAEConfig(decoder="conv", apart=True)


def test_an_image_of_another_shape_is_refused_under_jit(key):
    vae, params = made(SMALL, (8, 8, 1), key)
    with pytest.raises(ValueError, match=r"images of shape \(8, 8, 1\), got \(8, 9, 1\)"):
        jax.jit(partial(vae.apply, method=vae.encode))(params, jnp.zeros((8, 9, 1)))


@pytest.mark.parametrize("name", ["latent_dim", "width", "depth"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"vae {name} must be at least 1, got 0"):
        VAEConfig(**{name: 0})


@pytest.mark.parametrize(
    ("decoder", "likelihood", "shape"),
    [
        ("mlp", "gaussian", (5,)),
        pytest.param("mlp", "bernoulli", (8, 8, 1), marks=pytest.mark.slow),
        pytest.param("conv", "gaussian", (8, 8, 1), marks=pytest.mark.slow),
    ],
)
def test_several_decoders_are_those_of_single_vaes_with_their_parameters(
    key, decoder, likelihood, shape
):
    config = replace(SMALL, decoder=decoder, likelihood=likelihood, decoders=3)
    vae, params = made(config, shape, key)
    single = VAE(replace(config, decoders=1), shape)
    stack = params["params"]["decoder"]
    own = [
        {"params": {**params["params"], "decoder": jax.tree.map(itemgetter(m), stack)}}
        for m in range(3)
    ]
    x, zs = jax.random.uniform(key, shape), jax.random.normal(key, (3, 3))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    alone = [single.apply(one, zs[0], method=single.decode) for one in own]
    assert not np.allclose(alone[0], alone[1])
    close(members(vae, params)(zs[0]), alone)
    close(generator(vae, params)(zs[0]), np.mean(alone, 0))
    logs = [
        single.apply(one, x, z, method=single.log_likelihood)
        for one, z in zip(own, zs, strict=True)
    ]
    xs = jnp.stack([x] * 3)
    close(vae.apply(params, xs, zs, method=vae.member_log_likelihoods), logs)
    # The likelihood is that of a decoder drawn at random.
    logs = [single.apply(one, x, zs[0], method=single.log_likelihood) for one in own]
    mixture = jax.nn.logsumexp(jnp.stack(logs)) - jnp.log(3)
    close(vae.apply(params, x, zs[0], method=vae.log_likelihood), mixture)
    weights = first_weights(vae, params)
    close(weights, jnp.concatenate([first_weights(single, one) for one in own]))


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((8, 8, 1), replace(SMALL, encoder="conv", decoder="conv")),
        ((16, 12, 3), replace(SMALL, encoder="mlp", decoder="broadcast")),
        ((8, 8, 1), replace(SMALL, likelihood="discretised_logistic")),
        ((5,), replace(SMALL, likelihood="gaussian")),
        ((5,), replace(SMALL, likelihood="gaussian", decoders=2)),
    ],
)
def test_many_at_once_are_what_each_is(key, shape, config):
    vae, params = made(config, shape, key)
    xs, zs = jax.random.uniform(key, (2, 3, *shape)), jax.random.normal(key, (2, 3, 3))

    def each(method, *arrays):
        one = lambda *own: vae.apply(params, *own, method=method)  # noqa: E731
        return jax.jit(jax.vmap(jax.vmap(one)))(*arrays)

    def at_once(method, *arrays):
        return jax.jit(lambda *all_: vae.apply(params, *all_, method=method))(*arrays)

    close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    jax.tree.map(close, at_once(vae.encode, xs), each(vae.encode, xs))
    close(at_once(vae.decode, zs), each(vae.decode, zs))
    close(at_once(vae.log_likelihood, xs, zs), each(vae.log_likelihood, xs, zs))
    close(jnp.moveaxis(at_once(vae.members, zs), 0, 2), each(vae.members, zs))


def test_many_that_are_no_images_of_the_shape_are_refused(key):
    vae, params = made(SMALL, (8, 8, 1), key)
    for shape in ((3, 8, 9, 1), (8, 1), (8, 8, 1, 3)):
        with pytest.raises(ValueError, match=r"images of shape \(8, 8, 1\), got"):
            vae.apply(params, jnp.zeros(shape), method=vae.encode)


def test_one_decoder_has_no_members(key):
    vae, params = made(SMALL, (8, 8, 1), key)
    assert members(vae, params) is None
    with pytest.raises(ValueError, match="vae decoders must be at least 1, got 0"):
        replace(SMALL, decoders=0)
