"""The Fisher-Rao metric of every family is that of closed forms, of sums, and of geomstats."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, xlogy
from numpy.testing import assert_allclose

from latent_flows.geometry import distance, families, fisher_rao, geodesic, length, pullback

KNOWN = json.loads(Path(__file__).with_name("known_information.json").read_text())

# A decoder whose latent are the parameters that geomstats takes; of probabilities the logits.
DECODERS = {
    "bernoulli": (families.bernoulli(logits=False), lambda z: z),
    "categorical": (families.categorical(), lambda z: jnp.append(z, 0.0)),
    "poisson": (families.poisson(log=False), lambda z: z),
    "exponential": (families.exponential(log=False), lambda z: z),
    "gaussian": (families.gaussian(), lambda z: (z[:1], z[1:])),
    "beta": (families.beta(), lambda z: (z[:1], z[1:])),
    "dirichlet": (families.dirichlet(3), lambda z: z),
    "gamma": (families.gamma(), lambda z: (z[:1], z[:1] / z[1:])),
}
PAIRS = [(name, k) for name in DECODERS for k in range(len(KNOWN[name]))]


def latent(name, given, dtype):
    given = jnp.asarray(given, dtype)
    return jnp.log(given[:-1] / given[-1]) if name == "categorical" else given


def expected(name, row):
    """The metric in the latent; of logits, as the classes' indicators vary together."""
    if name != "categorical":
        return np.array(row["metric"])
    p = np.array(row["first"])
    return (np.diag(p) - np.outer(p, p))[:-1, :-1]


@pytest.mark.parametrize(("name", "k"), PAIRS)
def test_metrics_are_those_of_geomstats(name, k, dtype):
    family, decode = DECODERS[name]
    row = KNOWN[name][k]
    metric = fisher_rao(decode, family)
    z = latent(name, row["first"], dtype)
    found = jax.jit(metric)(z)
    assert found.dtype == dtype
    rtol = 1e-6 if dtype == jnp.float64 else 1e-3
    assert_allclose(found, expected(name, row), rtol=rtol, atol=rtol * 1e-2)
    v = jnp.ones_like(z)
    assert_allclose(jax.jit(metric.squared_norm)(z, v), v @ found @ v, rtol=max(1e-6, rtol / 10))


QUICK = [("poisson", 0)]
REST = [pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS if pair not in QUICK]


@pytest.mark.parametrize(("name", "k"), [*QUICK, *REST])
def test_distances_are_those_of_geomstats(name, k, x64):
    family, decode = DECODERS[name]
    row = KNOWN[name][k]
    ends = [latent(name, row[end], x64) for end in ("first", "second")]
    path = jax.jit(lambda a, b: geodesic(fisher_rao(decode, family), a, b, segments=64))(*ends)
    assert path.converged, path.message
    # geomstats solves for these three in numbers, to five digits; ours do not change with segments.
    numeric = name in ("beta", "dirichlet", "gamma")
    assert_allclose(path.length, row["distance"], rtol=1e-5 if numeric else 1e-6)


def log_categorical(logits, x):
    return jax.nn.log_softmax(logits)[x]


def log_poisson(rate, x):
    return x * jnp.log(rate) - rate - gammaln(x + 1)


def log_negative_binomial(mean, x):
    r = 3.0
    return (
        gammaln(x + r)
        - gammaln(r)
        - gammaln(x + 1)
        - (r + x) * jnp.log1p(mean / r)
        + xlogy(x, mean / r)
    )


SUMS = {
    "categorical": (
        families.categorical(),
        families.of_log_prob(log_categorical, parameters=3, support=range(3)),
        jnp.array([[0.2, -1.0, 0.5], [3.0, 0.0, -2.0]]),
    ),
    "Poisson": (
        families.poisson(log=False),
        families.of_log_prob(log_poisson, support=np.arange(60.0)),
        jnp.array([0.5, 4.0, 9.0]),
    ),
    "negative binomial": (
        families.negative_binomial(3.0, log=False),
        families.of_log_prob(log_negative_binomial, support=np.arange(400.0)),
        jnp.array([0.5, 4.0, 20.0]),
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_closed_form_is_the_sum_over_all_that_can_happen(name, key, x64):
    closed, summed, base = SUMS[name]
    base = base.astype(x64)
    slope = 0.2 * jax.random.normal(key, (*base.shape, 2), x64)
    decode = lambda z: base + slope @ z  # noqa: E731
    z = jnp.zeros(2, x64)
    found, exact = (jax.jit(fisher_rao(decode, family))(z) for family in (summed, closed))
    assert_allclose(found, exact, rtol=1e-9)
    assert (summed.error(summed.coordinates(base)) == 0).all()


def test_draws_come_with_the_error_of_their_mean(key):
    def drawn(key, rate):
        return jax.random.poisson(key, rate).astype(jnp.float32)

    family = families.of_log_prob(log_poisson, sample=drawn, samples=4000, key=key)
    rates = jnp.array([0.5, 4.0, 9.0])
    estimate, error = family.ambient(rates), family.error(rates)
    assert (error > 0).all()
    assert (jnp.abs(estimate - 1 / rates) < 4 * error).all()
    assert (error < 0.1 / rates).all()
    metric = fisher_rao(jnp.exp, family)
    assert_allclose(metric(jnp.zeros(1)), metric(jnp.zeros(1)))


@pytest.mark.parametrize("logit", [-60.0, -20.0, -1.0, 0.0, 1.0, 20.0, 60.0])
def test_next_to_certainty_single_precision_keeps_the_metric(logit):
    exact = 1 / (2 + np.exp(logit) + np.exp(-logit))  # p (1 - p)
    for family, given in [
        (families.bernoulli(), lambda z: z),
        (families.categorical(), lambda z: jnp.append(z, 0.0)),
    ]:
        found = jax.jit(fisher_rao(given, family))(jnp.array([logit], jnp.float32))
        assert_allclose(found[0, 0], exact, rtol=1e-4)
    # Bent as it should be, at the middle too.
    bend = jax.jit(jax.grad(lambda z: fisher_rao(lambda z: z, families.bernoulli())(z)[0, 0]))
    p = 1 / (1 + np.exp(-logit))
    assert_allclose(bend(jnp.array([logit])), exact * (1 - 2 * p), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kappa", [0.0, 1e-3, 0.7, 5.0, 50.0])
def test_directions_in_three_dimensions_have_their_closed_form(kappa, x64):
    mean = jnp.array([0.6, 0.0, 0.8], x64)
    found = jax.jit(fisher_rao(lambda z: z, families.von_mises_fisher(3)))(kappa * mean)
    if kappa < 1e-2:
        across, along = 1 / 3 - kappa**2 / 45, 1 / 3 - kappa**2 / 15
    else:
        across = (1 / np.tanh(kappa) - 1 / kappa) / kappa
        along = 1 / kappa**2 - 1 / np.sinh(kappa) ** 2
    exact = across * (np.eye(3) - np.outer(mean, mean)) + along * np.outer(mean, mean)
    assert_allclose(found, exact, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 5, 50])
def test_directions_have_the_ratio_of_bessel_functions(dim, x64):
    from scipy.special import ive

    for kappa in (0.1, 3.0, 200.0):
        across, bent = families._mean_ratio(dim, jnp.asarray(kappa**2, x64))
        ratio = ive(dim / 2, kappa) / ive(dim / 2 - 1, kappa)
        assert_allclose(across, ratio / kappa, rtol=1e-8)
        slope = 1 - ratio**2 - (dim - 1) / kappa * ratio
        assert_allclose(across + bent * kappa**2, slope, rtol=1e-5)


def test_many_outputs_add_up_and_a_metric_of_blocks_is_that_of_its_matrix(key, x64):
    slope = jax.random.normal(key, (2, 4, 3), x64)
    decode = lambda z: tuple(jnp.exp(0.3 * slope @ z))  # noqa: E731
    z = jnp.array([0.3, -0.2, 0.1], x64)
    family = families.beta()
    whole = fisher_rao(decode, family)

    def dense(x):
        return jax.scipy.linalg.block_diag(*family.ambient(x))

    assert_allclose(
        whole(z), pullback(lambda z: family.coordinates(decode(z)), dense)(z), rtol=1e-10
    )
    parts = [
        fisher_rao(lambda z, i=i: tuple(part[i : i + 1] for part in decode(z)), family)(z)
        for i in range(4)
    ]
    assert_allclose(whole(z), sum(parts), rtol=1e-10)


def test_a_constant_dispersion_that_is_large_makes_counts_poisson(x64):
    decode = lambda z: jnp.stack([z[0], z[0] + z[1]])  # noqa: E731
    z = jnp.array([0.3, 1.0], x64)
    many = fisher_rao(decode, families.negative_binomial(1e9))(z)
    assert_allclose(many, fisher_rao(decode, families.poisson())(z), rtol=1e-6)


@pytest.mark.slow
def test_a_batch_of_latents_and_derivatives_of_distances_are_finite(key):
    decode = lambda z: jnp.stack([z[0], z[1], jnp.sin(z[0] * z[1])])  # noqa: E731
    metric = fisher_rao(decode, families.bernoulli())
    zs = jax.random.normal(key, (5, 2))
    assert jax.jit(jax.vmap(metric))(zs).shape == (5, 2, 2)
    slope = jax.jit(jax.grad(lambda b: distance(metric, zs[0], b, segments=8)))(zs[1])
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fisher_rao(lambda z: z, "bernoulli"), "must be one of .*families, called"),
        (lambda: fisher_rao(lambda z: z, families.poisson), "called"),
        (lambda: families.negative_binomial(0.0), "dispersion r must be positive"),
        (lambda: families.gaussian(-1.0), "deviation must be positive"),
        (lambda: families.von_mises_fisher(1), "at least 2 dimensions, got 1"),
        (lambda: families.of_log_prob(None, support=[0, 1]), "needs log_prob"),
        (lambda: families.of_log_prob(log_poisson), "needs one of support"),
        (lambda: families.of_log_prob(log_poisson, sample=lambda k, t: t), "need a key"),
        (lambda: families.of_log_prob(log_poisson, support=[]), "at least one value"),
        (lambda: families.bernoulli(logits=False).coordinates(jnp.array([0.5, 1.5])), "at most 1"),
        (lambda: families.poisson(log=False).coordinates(jnp.array([-1.0])), "rates must be at"),
        (lambda: families.gaussian().coordinates(jnp.ones(2)), r"must give a tuple \(mean, std\)"),
        (lambda: families.beta().coordinates((jnp.ones(2), jnp.ones(3))), "must have one shape"),
        (lambda: families.beta().coordinates((jnp.zeros(2), jnp.ones(2))), "greater than 0"),
        (lambda: families.categorical().coordinates(jnp.ones((3, 1))), "at least 2 classes"),
        (lambda: families.dirichlet(3).coordinates(jnp.ones(4)), "needs a last axis of 3"),
    ],
)
def test_what_is_no_distribution_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_a_geodesic_through_impossible_parameters_says_so():
    """Between two rates the line in between dips below zero."""
    metric = fisher_rao(lambda z: z**2 - 0.5, families.poisson(log=False))
    path = geodesic(metric, jnp.array([-1.0]), jnp.array([1.0]), segments=8)
    assert not path.converged
    assert path.message
    assert jnp.isnan(length(metric, path))
