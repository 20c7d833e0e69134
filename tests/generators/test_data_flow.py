"""Flow-matching generators of data: any shape, their file, and the solver that is asked for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import GeneratorSpec, load_generator
from latent_flows.generators.data_flow import DataFlow, data_flow_loss, init_data_flow
from latent_flows.generators.prior_flow import init_prior_flow
from latent_flows.generators.stored import (
    StoredGenerator,
    load_bytes,
    restore_generator,
    to_bytes,
)
from latent_flows.generators.unet import UNet
from tests.generators.small_nets import SMALL_SNGAN, filled, small_net_of_a_vae
from tests.rest_slow import rest_slow

SMALL = {"widths": (4, 6), "width": 8, "depth": 1, "steps": 2}


def flow_of(shape, seed=0):
    """A flow that has learnt nothing, but does not stand still."""
    net = DataFlow(shape, **SMALL)
    data = 3.0 + 2.0 * jax.random.normal(jax.random.key(seed), (50, *shape))
    made = jax.jit(partial(init_data_flow, net))(jax.random.key(0), data)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), made["params"])
    return StoredGenerator(net, made | {"params": params}, "a flow", "sprites", (1,))


@pytest.fixture(scope="module")
def vectors():
    return flow_of((3,))


@pytest.mark.parametrize("size", rest_slow([(28, 28, 1), (7, 5, 3), (1, 9, 2)], every=2))
def test_a_u_net_moves_images_of_any_size(size):
    net = UNet(widths=(4, 6, 8))
    shapes = jax.eval_shape(net.init, jax.random.key(0), 0.0, jnp.zeros(size))
    assert jax.eval_shape(net.apply, shapes, 0.5, jnp.zeros(size)).shape == size


@pytest.mark.slow
def test_a_u_net_sees_the_time_and_all_of_the_image():
    net, x = UNet(widths=(4, 8)), jax.random.normal(jax.random.key(1), (7, 6, 1))
    params = jax.jit(net.init)(jax.random.key(0), 0.0, x)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), params)
    late, early = (jax.jit(net.apply)(params, t, x) for t in (0.8, 0.2))
    assert jnp.abs(late - early).max() > 1e-3
    seen = jax.jit(jax.grad(lambda x: net.apply(params, 0.2, x)[0, 0, 0]))(x)
    assert (seen != 0).all()


@pytest.mark.slow
def test_before_training_draws_have_mean_and_deviation_of_the_data():
    net = DataFlow((4, 4, 2), **SMALL)
    data = jnp.array([1.0, -3.0]) + jnp.array([2.0, 0.5]) * jax.random.normal(
        jax.random.key(0), (200, 4, 4, 2)
    )
    variables = jax.jit(partial(init_data_flow, net))(jax.random.key(1), data)
    generator = restore_generator(StoredGenerator(net, variables, "a flow"))
    draws = jax.jit(jax.vmap(generator))(jax.random.normal(jax.random.key(2), (300, 32)))
    np.testing.assert_allclose(draws.mean((0, 1, 2)), [1.0, -3.0], atol=0.1)
    np.testing.assert_allclose(draws.std((0, 1, 2)), [2.0, 0.5], rtol=0.05)


def test_the_loss_is_that_of_standardised_samples(vectors):
    net, variables = vectors.net, vectors.variables
    standard = {"mean": jnp.zeros(3), "scale": jnp.ones(3)}
    xs = 3.0 + jax.random.normal(jax.random.key(0), (6, 3))
    ys = (xs - variables["standard"]["mean"]) / variables["standard"]["scale"]
    loss = jax.jit(partial(data_flow_loss, net))
    key = jax.random.key(1)
    np.testing.assert_allclose(
        loss(variables, key, xs), loss(variables | {"standard": standard}, key, ys), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(5, 6, 1), (3,), (2, 3)])
def test_a_flow_comes_back_from_its_file_to_the_bit(shape):
    kept = flow_of(shape)
    back = load_bytes(to_bytes(kept))
    assert (back.net, back.name, back.dataset, back.labels) == (
        kept.net, "a flow", "sprites", (1,)
    )  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, back.variables, kept.variables)
    assert to_bytes(back) == to_bytes(kept)


@pytest.mark.slow
def test_a_flow_is_a_generator_of_its_noise_with_slopes_in_both_modes(vectors, tmp_path):
    (tmp_path / "generator.safetensors").write_bytes(to_bytes(vectors))
    generator = load_generator(tmp_path)
    assert (generator.latent_dim, generator.event_shape, generator.dataset) == (3, (3,), "sprites")
    z = generator.prior(jax.random.key(0))
    assert generator.log_prior(z) == pytest.approx(
        float(jax.scipy.stats.norm.logpdf(z).sum()), abs=1e-5
    )
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(generator.decode))(z),
        jax.jit(jax.jacrev(generator.decode))(z),
        atol=1e-5,
    )


@pytest.mark.slow
def test_the_solver_and_its_steps_are_those_that_are_asked_for(vectors):
    z = jnp.array([0.3, -0.2, 0.7])

    def made(**settings):
        return jax.jit(restore_generator(vectors, GeneratorSpec(**settings)).decode)(z)

    exact, few = made(steps=0, solver="tsit5"), made()
    errors = [float(jnp.abs(made(steps=n) - exact).max()) for n in (2, 8, 32)]
    assert errors[0] > 10 * errors[1] > 50 * errors[2]
    assert jnp.abs(few - made(steps=2, solver="midpoint")).max() == 0
    assert jnp.abs(few - made(steps=2, solver="euler")).max() > 1e-4
    np.testing.assert_allclose(made(dtype="bfloat16"), few, rtol=0.05)
    np.testing.assert_array_equal(made(recompute=True), few)


@pytest.mark.slow
def test_the_prior_of_a_vae_is_followed_in_the_steps_that_are_asked_for():
    codes = np.random.default_rng(0).normal(size=(50, 2))
    flow = init_prior_flow(jax.random.key(0), codes, width=4, depth=1)
    net = small_net_of_a_vae()
    kept = StoredGenerator(net, filled(net), "a VAE", prior_flow=flow)
    found = restore_generator(kept, GeneratorSpec(steps=3, solver="euler"))
    assert found.encode is not None
    steps = str(jax.make_jaxpr(found.log_prior)(jnp.zeros(2)))
    assert "f32[4]" in steps


# --- from noise ---


@pytest.fixture(scope="module")
def from_noise():
    codes = 4.0 + np.random.default_rng(0).normal(size=(50, 2))
    flow = init_prior_flow(jax.random.key(0), codes, width=4, depth=1, steps=2)
    net = small_net_of_a_vae()
    reading = (("crop", "pad"),)
    return StoredGenerator(
        net, filled(net), "flow of a VAE", "sprites", (2,), reading=reading, prior_flow=flow,
        from_noise=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_flow_of_codes_is_a_generator_of_noise_that_decodes_them(from_noise):
    back = load_bytes(to_bytes(from_noise))
    assert back.from_noise
    found = restore_generator(back)
    assert (found.name, found.dataset, found.labels, found.encode) == (
        "flow of a VAE", "sprites", (2,), None
    )  # fmt: skip
    assert found.reading == (("crop", "pad"),)
    z = jnp.array([0.5, -1.0])
    vae = restore_generator(from_noise._replace(from_noise=False))
    code = jax.jit(from_noise.prior_flow.to_code)(z)
    np.testing.assert_allclose(jax.jit(found.decode)(z), jax.jit(vae.decode)(code), rtol=1e-4)
    assert found.log_prior(jnp.zeros(2)) == pytest.approx(-np.log(2 * np.pi), abs=1e-5)
    sphere = restore_generator(back, GeneratorSpec(prior="sphere"))
    assert jnp.linalg.norm(sphere.prior(jax.random.key(0))) == pytest.approx(2**0.5)


def test_earlier_versions_refuse_these_files_and_read_all_others(from_noise, vectors):
    """They would take the code for the latent."""
    for kept, version in (
        (from_noise, b'"version":"2"'),
        (vectors, b'"version":"2"'),
        (from_noise._replace(from_noise=False), b'"version":"1"'),
        (from_noise._replace(from_noise=False, prior_flow=None), b'"version":"1"'),
    ):
        assert version in to_bytes(kept)


def test_noise_without_a_flow_makes_no_sense(from_noise):
    with pytest.raises(ValueError, match="its header makes no sense"):
        load_bytes(to_bytes(from_noise._replace(prior_flow=None)))


GAN = StoredGenerator(SMALL_SNGAN, filled(SMALL_SNGAN), "a GAN")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gan", {"steps": 4}, "generator.steps is of a generator with a flow, and a GAN has none"),
        ("vae", {"solver": "euler"}, "generator.solver is of a generator with a flow, and a VAE"),
        ("flow", {"steps": 0, "solver": "euler"}, "euler cannot choose its steps"),
        ("flow", {"space": "w"}, "space w is StyleGAN2's; a flow has z alone"),
        ("flow", {"label": 1}, "label is BigGAN's; a flow has no classes"),
        ("noise", {"label": 1}, "label is BigGAN's; flow of a VAE has no classes"),
        ("noise", {"dtype": "bfloat16"}, "generator.dtype is of no account for flow of a VAE"),
    ],
)
def test_settings_that_a_generator_does_not_have_are_refused_in_one_line(
    kind, settings, message, vectors, from_noise
):
    vae = from_noise._replace(from_noise=False, prior_flow=None, name="a VAE")
    kept = {"gan": GAN, "vae": vae, "flow": vectors, "noise": from_noise}[kind]
    with pytest.raises(ValueError, match=message) as error:
        restore_generator(kept, GeneratorSpec(**settings))
    assert "\n" not in str(error.value)


def test_steps_of_a_function_of_ones_own_and_solvers_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"generator\.steps is of a generator with a flow, and"):
        load_generator(GeneratorSpec("jax.numpy:sin", latent_dim=3, steps=4))
    with pytest.raises(ValueError, match="did you mean 'euler'"):
        GeneratorSpec(solver="eular")
    with pytest.raises(ValueError, match=r"generator\.steps must be at least 0, got -1"):
        GeneratorSpec(steps=-1)
