"""The prior flow: it is the distribution of codes, its own inverse, and its own density."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows.generators import freeze, load_generator
from latent_flows.generators._mixture import (
    GaussianMixture,
    best_mixture,
    mixture_log_prob,
    mixture_velocity,
)
from latent_flows.generators.prior_flow import (
    blend_mixture,
    fit_prior_flow,
    init_prior_flow,
    through_noise,
    with_prior,
)
from latent_flows.generators.stored import (
    StoredGenerator,
    load_bytes,
    restore_generator,
    to_bytes,
)
from latent_flows.objectives.flow_matching import trigonometric_bridge
from tests.generators.small_nets import filled, small_net_of_a_vae


class Mixture:
    """A mixture of full Gaussians, whose density is known."""

    def __init__(self, dim, components, spread, seed=0):
        random = np.random.default_rng(seed)
        self.means = jnp.asarray(spread * random.normal(size=(components, dim)), jnp.float32)
        self.weights = jnp.asarray(random.dirichlet(5 * np.ones(components)), jnp.float32)
        axes = [np.linalg.qr(random.normal(size=(dim, dim)))[0] for _ in range(components)]
        stds = np.exp(random.uniform(np.log(0.4), 0.0, (components, 1, dim)))
        self.factors = jnp.asarray(np.stack(axes) * stds, jnp.float32)

    def draw(self, key, count):
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, jnp.log(self.weights), shape=(count,))
        eps = jax.random.normal(noise, (count, self.means.shape[1]))
        return self.means[k] + jnp.einsum("nij,nj->ni", self.factors[k], eps)

    def log_prob(self, x):
        covariances = self.factors @ jnp.swapaxes(self.factors, 1, 2)
        log_pdf = jax.scipy.stats.multivariate_normal.logpdf
        return jax.nn.logsumexp(
            jnp.log(self.weights) + jax.vmap(log_pdf, (None, 0, 0))(x, self.means, covariances)
        )


def density_error(flow, mixture, count):
    """Mean absolute difference of the log-densities in nats, over draws that were not learnt."""
    points = mixture.draw(jax.random.key(99), count)
    found = jax.jit(jax.vmap(flow.log_prob))(points)
    return float(jnp.abs(found - jax.vmap(mixture.log_prob)(points)).mean())


TWO = Mixture(2, 3, 1.5)
EIGHT = Mixture(8, 4, 1.0)


def exact(mixture):
    """The same mixture, by the axes of its components."""
    variances, axes = jnp.linalg.eigh(mixture.factors @ jnp.swapaxes(mixture.factors, 1, 2))
    return GaussianMixture(mixture.weights, mixture.means, variances, axes)


class Exact:
    """In the place of a network: the velocity itself."""

    def apply(self, params, t, y):
        return mixture_velocity(params, t, y)


@pytest.fixture(scope="module")
def fitted():
    return fit_prior_flow(
        jax.random.key(0), TWO.draw(jax.random.key(1), 8_000), width=32, depth=2, steps=700
    )


def test_the_density_of_a_mixture_in_two_dimensions_is_close_to_its_closed_form(fitted):
    assert density_error(fitted, TWO, 500) < 0.05


@pytest.mark.slow
def test_the_density_of_its_network_by_itself_is_close_and_that_of_a_gaussian_is_not(fitted):
    gaussian = init_prior_flow(jax.random.key(0), TWO.draw(jax.random.key(1), 8_000), steps=1)
    assert density_error(gaussian, TWO, 500) > 0.15
    assert density_error(replace(fitted, mixture=None), TWO, 500) < 0.05


@pytest.mark.slow
def test_the_density_of_a_mixture_in_eight_dimensions_is_within_a_twentieth_of_a_nat():
    """The mean absolute difference over draws; single points are off by more, to both sides."""
    flow = fit_prior_flow(jax.random.key(0), EIGHT.draw(jax.random.key(1), 100_000))
    assert density_error(flow, EIGHT, 1000) < 0.05


@pytest.mark.slow
def test_the_velocity_of_a_mixture_carries_noise_to_it_with_its_density():
    """The solver's part of the error of a density is a ten thousandth of the network's."""
    known = exact(EIGHT)
    codes = EIGHT.draw(jax.random.key(1), 2000)
    flow = init_prior_flow(jax.random.key(0), codes, width=2, depth=1)
    flow = replace(
        flow,
        mean=jnp.zeros(8),
        scale=jnp.eye(8),
        mixture=known,
        share=jnp.zeros(()),
    )
    assert density_error(flow, EIGHT, 20) < 1e-4
    points = EIGHT.draw(jax.random.key(99), 20)
    found = jax.vmap(partial(mixture_log_prob, known))(points)
    np.testing.assert_allclose(found, jax.vmap(EIGHT.log_prob)(points), atol=1e-4)


def test_the_velocity_of_a_mixture_is_the_mean_of_all_paths_through_a_place():
    """At half time, from draws that are weighted by how likely they lead through it."""
    known, y = exact(TWO), jnp.array([0.3, -0.2])
    a, b = trigonometric_bridge(0.5)
    draws = TWO.draw(jax.random.key(0), 200_000)
    noise = (y - b * draws) / a
    weights = jax.nn.softmax(-jnp.sum(noise**2, axis=1) / 2)
    speeds = jnp.pi / 2 * (-b * noise + a * draws)
    found = mixture_velocity(known, 0.5, y)
    np.testing.assert_allclose(found, weights @ speeds, atol=0.01)


def test_a_mixture_has_the_components_of_the_points_and_one_where_they_have_none():
    points = EIGHT.draw(jax.random.key(1), 8000)
    points = (points - points.mean(0)) / points.std(0)
    gaussian = jax.random.normal(jax.random.key(2), (4000, 3))
    for there, counts in [(points, (4, 8)), (gaussian, (1,))]:
        found = best_mixture(jax.random.key(0), there[500:], there[:500], (1, 4))
        assert len(found.weights) in counts
        np.testing.assert_allclose(found.weights.sum(), 1, atol=1e-4)
    # Few points are no ground for many numbers.
    assert len(best_mixture(jax.random.key(0), points[:200], points[200:], (1, 4)).weights) == 1


@pytest.mark.slow
def test_a_flow_that_knows_less_than_a_mixture_takes_its_velocity_and_a_better_one_does_not():
    codes = EIGHT.draw(jax.random.key(1), 10_000)
    flow = init_prior_flow(jax.random.key(0), codes, width=4, depth=1)
    blended = blend_mixture(flow, jax.random.key(1), codes[1000:], codes[:1000])
    # It has learnt nothing: its velocity is 0 everywhere.
    assert blended.share < 0.1
    assert density_error(blended, EIGHT, 200) < 0.2
    assert density_error(flow, EIGHT, 200) > 0.9

    true = replace(
        init_prior_flow(jax.random.key(0), codes, width=2, depth=1),
        params=exact(EIGHT),
        mean=jnp.zeros(8),
        scale=jnp.eye(8),
        net=Exact(),
    )
    # As many as one Gaussian can be fitted to.
    kept = blend_mixture(true, jax.random.key(1), codes[1000:1600], codes[:1000])
    assert kept.share is None or kept.share > 0.9


@pytest.mark.slow
def test_the_density_integrates_to_one(fitted):
    low, high = -7.0, 7.0
    side = jnp.linspace(low, high, 57)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    mass = jnp.exp(jax.jit(jax.vmap(fitted.log_prob))(grid)).sum() * ((high - low) / 56) ** 2
    assert mass == pytest.approx(1, abs=0.01)


def test_noise_and_codes_are_each_others_inverse(fitted):
    noise = jax.random.normal(jax.random.key(3), (50, 2))
    codes = jax.jit(jax.vmap(fitted.to_code))(noise)
    back = jax.jit(jax.vmap(fitted.to_noise))(codes)
    np.testing.assert_allclose(back, noise, atol=2e-3)


@pytest.mark.slow
def test_the_density_is_that_of_the_noise_over_the_volume_of_the_map(fitted):
    noise = jnp.array([0.4, -0.9])
    jacobian = jax.jit(jax.jacfwd(fitted.to_code))(noise)
    reverse = jax.jit(jax.jacrev(fitted.to_code))(noise)
    np.testing.assert_allclose(jacobian, reverse, atol=1e-4)
    normal = jax.scipy.stats.norm.logpdf(noise).sum()
    expected = normal - jnp.linalg.slogdet(jacobian)[1]
    assert fitted.log_prob(fitted.to_code(noise)) == pytest.approx(float(expected), abs=2e-3)


@pytest.mark.slow
def test_before_training_it_is_the_gaussian_of_the_codes():
    codes = np.asarray(TWO.draw(jax.random.key(1), 8_000))  # as many as those that are learnt
    flow = init_prior_flow(jax.random.key(0), codes)
    z = jnp.array([0.5, 1.0])
    expected = jax.scipy.stats.multivariate_normal.logpdf(
        z, codes.mean(0), np.cov(codes.T, bias=True)
    )
    assert flow.log_prob(z) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.slow
def test_its_draws_have_the_deviations_of_the_posteriors_they_were_learnt_from():
    means = jnp.zeros((2, 2))
    flow = fit_prior_flow(
        jax.random.key(0),
        jnp.tile(means, (500, 1)),
        std=jnp.tile(jnp.array([0.1, 2.0]), (1000, 1)),
        width=8,
        depth=1,
        steps=1,
    )
    draws = jax.jit(jax.vmap(flow.sample))(jax.random.split(jax.random.key(1), 2000))
    np.testing.assert_allclose(draws.std(0), [0.1, 2.0], rtol=0.1)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros(3), r"finite and of shape \[n, d\], got shape \(3,\)"),
        (np.zeros((0, 3)), r"finite and of shape \[n, d\], got shape \(0, 3\)"),
        (np.full((9, 2), np.nan), "codes must be finite"),
        (np.full((9, 2), 0.1), "do not vary in dimension 0, 1"),
        (np.eye(3), "3 codes of 3 numbers do not vary in every direction"),
        (np.arange(10.0)[:, None] * np.ones(2), "do not vary in every direction"),
    ],
)
def test_codes_without_a_density_are_refused_in_one_line(codes, message):
    with pytest.raises(ValueError, match=message) as error:
        init_prior_flow(jax.random.key(0), codes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps and batch_size must be at least 1"),
        ({"ode_steps": 0}, "steps must be at least 1, or None"),
        ({"solver": "tsit6"}, "did you mean 'tsit5'"),
        ({"solver": "euler", "ode_steps": None}, "euler cannot choose its steps"),
        ({"width": 0}, "width and depth must be at least 1"),
        ({"std": np.ones((4, 2))}, "one number for each of the codes of shape"),
        ({"std": np.zeros((40, 2))}, "std must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, message):
    codes = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(ValueError, match=message):
        fit_prior_flow(jax.random.key(0), codes, **{"steps": 1, **settings})


@pytest.mark.slow
def test_a_generator_with_a_prior_flow_draws_through_it_and_knows_its_density(fitted):
    generator = with_prior(freeze(lambda z: 2 * z, 2), fitted)
    key = jax.random.key(4)
    np.testing.assert_allclose(generator.prior(key), fitted.sample(key), rtol=1e-5)
    z = jnp.array([0.3, 0.1])
    found, slope = jax.value_and_grad(generator.log_prior)(z)
    assert found == pytest.approx(float(fitted.log_prob(z)), abs=1e-5)
    assert jnp.isfinite(slope).all()
    with pytest.raises(ValueError, match="latents of 2 numbers, and generator takes 3"):
        with_prior(freeze(lambda z: z, 3), fitted)


def test_through_noise_is_a_generator_of_a_normal_latent(fitted):
    generator = through_noise(freeze(lambda z: 2 * z, 2, name="twice"), fitted)
    noise = jnp.array([0.3, 0.1])
    np.testing.assert_allclose(generator(noise), 2 * fitted.to_code(noise), rtol=1e-5)
    assert generator.log_prior(jnp.zeros(2)) == pytest.approx(-np.log(2 * np.pi), abs=1e-5)


# --- its file ---


@pytest.fixture(scope="module")
def kept(fitted):
    net = small_net_of_a_vae("mlp", "bernoulli", (8, 8, 3))
    return StoredGenerator(net, filled(net), "a VAE", prior_flow=fitted)


@pytest.mark.slow
def test_the_file_of_a_generator_holds_its_prior_flow(kept, tmp_path):
    (tmp_path / "generator.safetensors").write_bytes(to_bytes(kept))
    before, after = restore_generator(kept), load_generator(tmp_path)
    key, z = jax.random.key(0), jnp.array([0.2, -0.3])
    np.testing.assert_array_equal(after.prior(key), before.prior(key))
    np.testing.assert_array_equal(after.log_prior(z), before.log_prior(z))
    assert to_bytes(load_bytes(to_bytes(kept))) == to_bytes(kept)


def test_without_a_flow_the_file_says_nothing_of_one_and_the_prior_is_normal(kept):
    content = to_bytes(kept._replace(prior_flow=None))
    assert b"prior_flow" not in content
    found = restore_generator(load_bytes(content))
    assert found.log_prior(jnp.zeros(2)) == pytest.approx(-np.log(2 * np.pi), abs=1e-5)


def test_a_mixture_in_the_prior_is_kept_and_earlier_versions_are_told_of_it(kept, tmp_path):
    flow = replace(kept.prior_flow, mixture=exact(TWO), share=jnp.array(0.25))
    content = to_bytes(kept._replace(prior_flow=flow))
    assert b'"version":"3"' in content
    z = jnp.array([0.2, -0.3])
    found = load_bytes(content).prior_flow
    t = jnp.float32(0.7)
    np.testing.assert_array_equal(found.velocity(t, z), flow.velocity(t, z))
    assert abs(found.velocity(t, z) - replace(flow, mixture=None).velocity(t, z)).max() > 1e-3
    with pytest.raises(ValueError, match="mixture/means is float32"):
        load_bytes(to_bytes(kept._replace(prior_flow=replace(flow, mixture=exact(EIGHT)))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            b'\\"width\\": 32',
            b'\\"width\\": 16',
            "prior_flow/params/params/Dense_0/bias is float32",
        ),
        (b'\\"solver\\": \\"tsit5\\"', b'\\"solver\\": \\"tsit6\\"', "unknown solver"),
        (b'\\"steps\\": 16', b'\\"steps\\": -1', "its header makes no sense"),
        (b"prior_flow/scale", b"prior_flow/scald", "its header makes no sense"),
    ],
)
def test_a_flow_that_does_not_fit_is_named(kept, old, new, message):
    content = to_bytes(kept)
    assert old in content
    with pytest.raises(ValueError, match=message):
        load_bytes(content.replace(old, new))
