"""Inversion from many starts: what is found, in which form, and what is said where it is not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import inversion
from latent_flows._results import Result
from latent_flows.directions import to_ball
from latent_flows.generators import draw_latents, freeze
from latent_flows.generators.pretrained import published
from latent_flows.generators.spec import GeneratorSpec
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.inversion import (
    InversionSettings,
    init_inversion,
    inversion_result,
    inversion_step,
    invert,
)

QUICK = InversionSettings(starts=4, steps=60, candidates=2)


def spot(z):
    """A bright spot at `z`, in an image of 12 pixels."""
    at = jnp.linspace(-2.0, 2.0, 12)
    down, across = (jnp.exp(-4 * (at - place) ** 2) for place in z)
    return (down[:, None] * across)[..., None]


def encode(image):
    """Where the image is bright, a little beside it."""
    at = jnp.linspace(-2.0, 2.0, 12)
    mass = image[..., 0] / image.sum()
    return jnp.stack([mass.sum(1) @ at, mass.sum(0) @ at]) + 0.1, jnp.ones(2)


GENERATOR = freeze(spot, 2, name="spots")
TARGET = jnp.array([1.2, -0.7])


@pytest.fixture(scope="module")
def found():
    return invert(jax.random.key(0), GENERATOR, spot(TARGET), QUICK)


def test_a_latent_is_recovered_with_its_sample_and_its_error(found):
    np.testing.assert_allclose(found.z, TARGET, atol=0.01)
    np.testing.assert_allclose(found.image, spot(found.z), atol=1e-6)
    np.testing.assert_allclose(found.error, jnp.mean((found.image - spot(TARGET)) ** 2), atol=1e-8)
    assert found.errors.shape == (4,)
    assert found.error == found.errors.min()
    assert (found.result == Result.successful, found.message) == (True, "")


def test_steps_by_the_chunk_end_where_one_call_does(found):
    image = spot(TARGET)
    state = init_inversion(jax.random.key(0), GENERATOR, image, QUICK)
    while state.step < QUICK.steps:
        state = inversion_step(GENERATOR, image, state, QUICK, count=25)
    assert state.step == QUICK.steps, "no step is made beyond the last"
    again = inversion_result(GENERATOR, image, state, QUICK)
    np.testing.assert_allclose(again.z, found.z, atol=1e-4)
    more = inversion_step(GENERATOR, image, state, QUICK, count=25)
    np.testing.assert_allclose(more.zs, state.zs, atol=1e-6)


def test_what_is_stopped_says_so_and_gives_the_best_so_far(found):
    image = spot(TARGET)
    state = init_inversion(jax.random.key(0), GENERATOR, image, QUICK)
    first = inversion_result(GENERATOR, image, state, QUICK)
    later = inversion_step(GENERATOR, image, state, QUICK, count=10)
    stopped = inversion_result(GENERATOR, image, later, QUICK)
    assert found.error <= stopped.error <= first.error < jnp.inf
    assert stopped.result == Result.unfinished
    assert "stopped before its last step" in stopped.message


def test_a_sample_that_the_generator_does_not_make_is_said_to_be_another():
    found = invert(jax.random.key(0), GENERATOR, 1 - spot(TARGET), QUICK)
    assert found.result == Result.unlike
    assert "makes nothing like this" in found.message


def test_starts_are_the_code_the_mean_and_the_nearest_draws():
    frozen, image = freeze(spot, 2, encode=encode), spot(TARGET)
    state = init_inversion(jax.random.key(0), frozen, image, QUICK)
    np.testing.assert_allclose(state.zs[0], encode(image)[0], rtol=1e-5)
    np.testing.assert_allclose(state.zs[1], 0, atol=0.25)
    plain = InversionSettings(starts=4, candidates=1)
    some = init_inversion(jax.random.key(0), frozen, image, plain)
    far = lambda state: jnp.linalg.norm(state.zs[2:] - TARGET, axis=1).max()  # noqa: E731
    many = init_inversion(jax.random.key(0), frozen, image, InversionSettings(candidates=50))
    assert far(many) < far(some)
    one = init_inversion(jax.random.key(0), frozen, image, InversionSettings(starts=1))
    np.testing.assert_allclose(one.zs, encode(image)[0][None], rtol=1e-5)


def test_where_one_start_fails_another_does_not():
    """Two valleys, of which the mean of the latents lies in the wrong one."""

    def generator(z):
        return jnp.array([z[0] ** 2 * (z[0] - 3), 0.1 * z[0]])

    frozen, sample = freeze(generator, 1), generator(jnp.array([3.1]))
    settle = partial(InversionSettings, steps=150, learning_rate=0.05)
    alone = invert(jax.random.key(0), frozen, sample, settle(starts=1))
    several = invert(jax.random.key(0), frozen, sample, settle(starts=6, candidates=32))
    assert several.error < 1e-4 < alone.error
    assert several.errors.max() > 1e-3


@pytest.mark.slow
def test_several_images_are_taken_at_once_in_bounded_parts():
    zs = jnp.array([[0.5, 0.5], [-1.0, 0.3], [0.1, 1.4]])
    settings = InversionSettings(starts=3, steps=60, candidates=2, batch_size=4)
    found = invert(jax.random.key(1), GENERATOR, jax.vmap(spot)(zs), settings)
    np.testing.assert_allclose(found.z, zs, atol=0.02)
    assert found.image.shape == (3, 12, 12, 1)
    assert found.errors.shape == (3, 3)
    assert [*found.message] == ["", "", ""]


@pytest.mark.slow
def test_the_unit_of_samples_and_the_scale_of_latents_do_not_matter():
    settings = InversionSettings(starts=2, steps=40, candidates=1)
    key, target = jax.random.key(0), jnp.array([0.4, -0.8, 0.2])

    def of(unit, scale):
        frozen = freeze(
            lambda z: unit * jnp.sin(z / scale),
            3,
            prior=lambda key: scale * jax.random.normal(key, (3,)),
        )
        return invert(key, frozen, frozen(scale * target), settings).z / scale

    np.testing.assert_allclose(of(1e3, 1.0), of(1.0, 1.0), atol=1e-3)
    np.testing.assert_allclose(of(1.0, 1e3), of(1.0, 1.0), atol=1e-3)


@pytest.mark.slow
def test_features_alone_are_enough():
    def features(image):
        return image.sum(0)

    settings = InversionSettings(
        starts=4, steps=60, pixel_weight=0.0, blurred_weight=0.0, features=features
    )
    found = invert(jax.random.key(0), GENERATOR, spot(TARGET), settings)
    np.testing.assert_allclose(features(found.image), features(spot(TARGET)), atol=0.02)
    np.testing.assert_allclose(found.z[1], TARGET[1], atol=0.01)


def test_the_weight_of_the_prior_draws_latents_into_its_shell():
    """Only the sum of the latent is seen: its norm is the prior's to choose."""
    frozen = freeze(lambda z: z.sum(keepdims=True), 64)
    weighted = partial(InversionSettings, starts=1, steps=100)
    loose = invert(jax.random.key(0), frozen, jnp.array([1.0]), weighted())
    held = invert(jax.random.key(0), frozen, jnp.array([1.0]), weighted(prior_weight=0.1))
    assert jnp.linalg.norm(loose.z) < 3
    np.testing.assert_allclose(jnp.linalg.norm(held.z), 8, atol=0.5)
    np.testing.assert_allclose(held.image, 1.0, atol=0.1)


@pytest.mark.slow
def test_a_projection_and_a_penalty_of_ones_own_are_kept_to():
    near = InversionSettings(starts=3, steps=40, project=partial(to_ball, radius=0.5))
    found = invert(jax.random.key(0), GENERATOR, spot(TARGET), near)
    assert jnp.linalg.norm(found.z) <= 0.5 + 1e-5
    flat = InversionSettings(starts=3, steps=60, penalty=lambda z: 100 * z[0] ** 2)
    assert abs(invert(jax.random.key(0), GENERATOR, spot(TARGET), flat).z[0]) < 0.3


def test_what_is_not_finite_is_passed_by_and_where_nothing_is_it_is_said():
    def brittle(z):
        return jnp.where(z[0] > 1.0, jnp.nan, spot(z))

    found = invert(jax.random.key(0), freeze(brittle, 2), spot(TARGET), QUICK)
    assert jnp.isfinite(found.z).all()
    assert jnp.isfinite(found.error)
    broken = freeze(lambda z: jnp.nan * spot(z), 2)
    nowhere = invert(jax.random.key(0), broken, spot(TARGET), QUICK)
    assert nowhere.result == Result.nonfinite
    assert jnp.isinf(nowhere.error)
    assert jnp.isfinite(nowhere.z).all()


@pytest.mark.slow
@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_stylegan2_starts_at_the_mean_of_its_space(space):
    net = StyleGAN2(8, latent_dim=4, mapping_layers=2, channels=(4, 4))
    variables = jax.jit(net.init)(jax.random.key(0), jnp.ones(4))
    frozen = published("a StyleGAN2", net, variables, GeneratorSpec(space=space), 0)
    z = frozen.prior(jax.random.key(5))
    settings = InversionSettings(starts=2, steps=30, candidates=1)
    state = init_inversion(jax.random.key(0), frozen, frozen(z), settings)
    mean = draw_latents(frozen.prior, jax.random.key(2), 4096).mean(0)
    scale = draw_latents(frozen.prior, jax.random.key(2), 256).std(0)
    np.testing.assert_allclose(state.zs[0] / scale, mean / scale, atol=0.3)
    before = inversion_result(frozen, frozen(z), state, settings)
    after = invert(jax.random.key(0), frozen, frozen(z), settings)
    assert after.error < 0.5 * before.error


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"starts": 0}, "starts must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"prior_weight": -1.0}, "prior_weight must be at least 0"),
        ({"pixel_weight": float("inf")}, "pixel_weight must be finite"),
        ({"sigma": float("nan")}, "sigma must be at least 0 pixels"),
        ({"pixel_weight": 0.0, "blurred_weight": 0.0}, "nothing compares the images"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        InversionSettings(**settings)


def test_images_that_do_not_fit_are_refused():
    key = jax.random.key(0)
    for images, message in {
        "shape": (jnp.zeros((8, 8, 1)), r"have shape \(8, 8, 1\), but spots makes \(12, 12, 1\)"),
        "batch": (jnp.zeros((2, 8, 8, 1)), r"have shape \(2, 8, 8, 1\)"),
        "none": (jnp.zeros((0, 12, 12, 1)), r"have shape \(0, 12, 12, 1\)"),
        "bytes": (jnp.zeros((12, 12, 1), jnp.uint8), "divide 8-bit images by 255"),
    }.values():
        with pytest.raises(ValueError, match=message):
            invert(key, GENERATOR, images, QUICK)
    with pytest.raises(ValueError, match="have shape"):
        init_inversion(key, GENERATOR, jnp.zeros((1, 12, 12, 1)))
    state = init_inversion(key, GENERATOR, spot(TARGET), QUICK)
    with pytest.raises(ValueError, match="count must be at least 1"):
        inversion_step(GENERATOR, spot(TARGET), state, QUICK, count=0)


def test_another_image_of_the_same_generator_compiles_nothing_anew():
    settings = InversionSettings(starts=2, steps=3, candidates=1)
    invert(jax.random.key(0), GENERATOR, spot(TARGET), settings)
    before = inversion._whole._cache_size()
    invert(jax.random.key(1), GENERATOR, spot(-TARGET), InversionSettings(2, 3, candidates=1))
    assert inversion._whole._cache_size() == before
