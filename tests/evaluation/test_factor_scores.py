"""The scores of beta-VAE and FactorVAE, where their values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from latent_flows.evaluation import (
    Sampler,
    beta_vae_score,
    factor_vae_score,
    sampler_of_examples,
    sampler_of_model,
)
from tests.evaluation.codes import grid

BOTH = {"beta-VAE": beta_vae_score, "FactorVAE": factor_vae_score}
FEW = {"batch_size": 32, "train": 240, "test": 200}


def normal(represent, factors=3):
    """Independent normal factors through a representation."""
    return sampler_of_model(lambda key: jax.random.normal(key, (factors,)), represent)


@pytest.mark.parametrize("score", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize(
    "represent",
    [lambda f: 5 - 3 * f[::-1], lambda f: jnp.concatenate([f, f, jnp.ones(1)])],
    ids=["permuted", "twice"],
)
def test_a_perfect_code_scores_1(key, score, represent):
    found = score(key, normal(represent), **FEW)
    assert found == pytest.approx((1, 1))


@pytest.mark.parametrize("score", BOTH.values(), ids=BOTH)
def test_a_code_that_knows_nothing_scores_by_chance(key, score):
    def draw(key, k, count):
        return jax.random.normal(key, (count, 3))

    found = score(key, Sampler(3, draw), batch_size=4, train=2000, test=2000)
    assert found.accuracy == pytest.approx(1 / 3, abs=0.05)


def test_a_turn_does_not_hurt_beta_vae_but_factor_vae(key):
    turn = jnp.linalg.qr(jax.random.normal(key, (3, 3)))[0]
    assert beta_vae_score(key, normal(lambda f: turn @ f), **FEW).accuracy > 0.95
    # Two factors in one plane, turned by 45 degrees: which of the two is shared cannot be told.
    half = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    found = factor_vae_score(key, normal(lambda f: half @ f, 2), **FEW)
    assert found.accuracy == pytest.approx(1 / 2, abs=0.12)


def test_dimensions_that_never_change_do_not_vote(key):
    assert factor_vae_score(key, normal(lambda f: 0 * f + 0.3), **FEW) == (0, 0)
    # One that is faint is left out on request.
    faint = lambda f: jnp.append(f[:2], 1e-3 * f[2])  # noqa: E731
    assert factor_vae_score(key, normal(faint), **FEW).accuracy == pytest.approx(1)
    kept = factor_vae_score(key, normal(faint), threshold=0.05, **FEW).accuracy
    assert 0.5 < kept < 0.9


@pytest.mark.parametrize("name", [pytest.param("examples", marks=pytest.mark.slow), "model"])
def test_a_draw_shares_one_factor_and_no_other(key, name):
    values = jnp.array([3.0, 4.0, 5.0])
    if name == "examples":
        sampler = sampler_of_examples(1.0 * grid(), grid())
    else:
        sampler = sampler_of_model(
            lambda key: jnp.floor(values * jax.random.uniform(key, (3,))), lambda f: f
        )
    assert sampler.factors == 3
    for k in range(3):
        drawn = jax.vmap(lambda key, k=k: sampler.draw(key, k, 40))(jax.random.split(key, 200))
        spread = np.ptp(np.asarray(drawn), axis=1)
        assert (spread[:, k] == 0).all()
        assert (np.delete(spread, k, 1) > 0).all()
        # Each value is as likely as the others, shared or not.
        for j, size in enumerate(values):
            counts = np.bincount(np.asarray(drawn[:, 0, j], int), minlength=int(size))
            assert counts.min() > 200 / size - 4.5 * np.sqrt(200 / size)


def test_examples_whose_order_and_values_are_anything(key):
    shuffled = np.random.default_rng(0).permutation(len(grid()))
    factors = np.array([-7.5, 0.1, 20.0, 3.3, 1e6])[grid()][shuffled]
    sampler = sampler_of_examples(factors, factors)
    drawn = np.asarray(jax.vmap(lambda key: sampler.draw(key, 2, 9))(jax.random.split(key, 50)))
    assert (np.ptp(drawn[:, :, 2], axis=1) == 0).all()
    assert set(drawn[:, 0, 2].round(1)) == set(np.float32(factors[:, 2]).round(1))


MIXING = np.array([[1.0, 0.6, 0.0], [-0.4, 1.0, 0.3], [0.0, 0.2, 0.5], [0.5, 0.5, 0.5]])


def plainly(rng, group, count, size):
    """What is made of groups of codes of `MIXING` that share a factor, one by one in NumPy."""
    labels, found = rng.integers(0, 3, count), []
    for k in labels:
        factors = rng.normal(size=(2, size, 3))
        factors[1, :, k] = factors[0, :, k]  # pairs
        alike = rng.normal(size=(size, 3))
        alike[:, k] = alike[0, k]  # a whole batch
        found.append(group(*(factors @ MIXING.T), alike @ MIXING.T))
    return labels, np.array(found)


def test_beta_vae_agrees_with_a_plain_computation(key):
    rng = np.random.default_rng(0)
    labels, points = plainly(rng, lambda one, two, _: np.abs(one - two).mean(0), 3000, 4)
    model = LogisticRegression().fit(points[:2000], labels[:2000])
    expected = model.score(points[2000:], labels[2000:])
    sizes = {"batch_size": 4, "train": 2000, "test": 1000}
    found = beta_vae_score(key, normal(lambda f: MIXING @ f), **sizes).accuracy
    assert 0.5 < expected < 0.95
    assert found == pytest.approx(expected, abs=0.05)


def test_factor_vae_agrees_with_a_plain_computation(key):
    rng = np.random.default_rng(0)
    everywhere = (rng.normal(size=(5000, 3)) @ MIXING.T).var(0, ddof=1)
    labels, ratios = plainly(rng, lambda _, __, z: z.var(0, ddof=1) / everywhere, 3000, 3)
    votes, right = ratios.argmin(1), 0
    for k, vote in zip(labels[2000:], votes[2000:], strict=True):
        right += k == np.bincount(labels[:2000][votes[:2000] == vote]).argmax()
    sizes = {"batch_size": 3, "train": 2000, "test": 1000}
    found = factor_vae_score(key, normal(lambda f: MIXING @ f), **sizes).accuracy
    assert 0.5 < right / 1000 < 0.95
    assert found == pytest.approx(right / 1000, abs=0.05)


@pytest.mark.parametrize("score", BOTH.values(), ids=BOTH)
def test_what_cannot_be_scored_is_refused_by_name(key, score):
    with pytest.raises(ValueError, match="at least 2 factors, got 1"):
        score(key, normal(lambda f: f, 1))
    with pytest.raises(ValueError, match="train must be at least 3, got 2"):
        score(key, normal(lambda f: f), train=2)
    with pytest.raises(ValueError, match="test must be at least 1, got 0"):
        score(key, normal(lambda f: f), test=0)
    with pytest.raises(ValueError, match="codes of the sampler are not all finite"):
        score(key, normal(jnp.log), **FEW)


def test_a_variance_needs_two_examples(key):
    with pytest.raises(ValueError, match="batch_size must be at least 2, got 1"):
        factor_vae_score(key, normal(lambda f: f), batch_size=1)


def test_samplers_refuse_what_they_cannot_draw_from():
    with pytest.raises(ValueError, match=r"factors\[:, 0\] has a value that only one of 9"):
        sampler_of_examples(np.zeros((9, 2)), [[0], [0], [0], [0], [1], [1], [1], [1], [2]])
    with pytest.raises(ValueError, match=r"must give vectors, got \(\) and \(\)"):
        sampler_of_model(jax.random.normal, lambda f: f)
