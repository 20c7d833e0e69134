"""Mutual information and its gap, in closed form and beside scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from latent_flows.evaluation import discretise, mig, mutual_information
from tests.evaluation.codes import grid, quarter, random

BITS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(10, 0)


def test_information_of_independent_equal_and_halved_variables():
    whole = np.arange(40)[:, None] % 4
    found = mutual_information(np.hstack([whole, whole % 2, 0 * whole]), np.hstack([whole]))
    np.testing.assert_allclose(found.ravel(), [np.log(4), np.log(2), 0], atol=1e-12)
    np.testing.assert_allclose(mutual_information(BITS, BITS), np.log(2) * np.eye(2), atol=1e-12)


@pytest.mark.parametrize("code", [lambda f: f, lambda f: 5 - 3.0 * f[:, ::-1], np.sqrt])
def test_a_perfect_code_has_gap_1_in_any_order_scale_and_sign(code):
    assert mig(code(grid()), grid()) == pytest.approx(1)


def test_a_code_that_knows_nothing_has_no_gap(key):
    rng = np.random.default_rng(0)
    # 20 bins and 20,000 samples leave about 19 * 4 / (2 * 20,000) nats by chance.
    factors = np.stack([rng.integers(0, 5, 20_000) for _ in range(3)], -1)
    assert 0 <= mig(rng.normal(size=(20_000, 6)), factors) < 0.005
    assert mig(np.ones((240, 2)), grid()) == 0


def test_a_second_code_of_the_same_factor_closes_the_gap():
    doubled = np.hstack([grid(), grid()[:, :1]])
    assert mig(doubled, grid()) == pytest.approx(2 / 3)


def test_a_turned_code_has_a_smaller_gap():
    # A sum and a difference of two independent coins: each is 1 with chance 1/2, and then tells
    # nothing; otherwise it tells both coins. Both codes know as much of both: no gap at all.
    turned = np.stack([BITS.sum(1), BITS[:, 0] - BITS[:, 1]], -1)
    assert mig(turned, BITS) == pytest.approx(0, abs=1e-9)
    assert mig(quarter(grid()), grid()) < 0.6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_agrees_with_a_plain_computation(seed):
    codes, factors = random(seed=seed)
    gaps = []
    for factor in factors.T:
        known = []
        for code in codes.T:
            edges = np.linspace(code.min(), code.max(), 21)[1:-1]
            known.append(mutual_info_score(factor, np.searchsorted(edges, code, side="right")))
        *_, second, first = sorted(known)
        gaps.append((first - second) / mutual_info_score(factor, factor))
    assert mig(codes, factors) == pytest.approx(np.mean(gaps), abs=1e-9)
    information = mutual_information(discretise(codes), factors)
    assert information.shape == (5, 3)
    assert 0.02 < np.mean(gaps) < 0.9
