"""SAP in closed form, of numbers and of values."""

import numpy as np
import pytest
from scipy.stats import linregress
from sklearn.svm import LinearSVC

from latent_flows.evaluation import sap
from tests.evaluation.codes import grid, quarter, random


def test_a_perfect_code_of_independent_numbers_scores_1():
    factors = np.random.default_rng(0).normal(size=(20_000, 3))
    assert sap(7 - 2 * factors[:, ::-1], factors, continuous=True) == pytest.approx(1, abs=0.01)


def test_a_code_with_noise_scores_its_share_of_the_variance():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(20_000, 2))
    noisy = factors + np.sqrt([1.0, 3.0]) * rng.normal(size=(20_000, 2))
    assert sap(noisy, factors, continuous=True) == pytest.approx((1 / 2 + 1 / 4) / 2, abs=0.02)


def test_a_turned_code_and_a_copy_have_no_lead():
    factors = np.random.default_rng(0).normal(size=(20_000, 2))
    assert sap(quarter(factors), factors, continuous=True) == pytest.approx(0, abs=0.03)
    assert sap(np.hstack([factors, factors]), factors, continuous=True) == pytest.approx(0)


def test_a_perfect_code_of_coins_leads_by_one_half():
    # The second best code is right about half of the time.
    coins = np.random.default_rng(0).integers(0, 2, (6000, 2))
    assert sap(1.0 * coins, coins) == pytest.approx(1 / 2, abs=0.03)


def test_a_code_that_never_changes_explains_nothing():
    codes = np.stack([np.full(240, 0.1), grid()[:, 0]], -1)
    assert sap(codes, grid()[:, :1], continuous=True) == pytest.approx(1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("continuous", [True, False])
def test_it_agrees_with_a_plain_computation(seed, continuous):
    codes, factors = random(rows=400, seed=seed)
    rows = np.random.default_rng(5).permutation(400)
    learnt, judged = rows[:300], rows[300:]
    leads = []
    for truth in factors.T:
        known = []
        for code in codes.T:
            if continuous:
                known.append(linregress(code, truth).rvalue ** 2)
                continue
            machine = LinearSVC(C=0.01, class_weight="balanced")
            machine.fit(code[learnt, None], truth[learnt])
            known.append(np.mean(machine.predict(code[judged, None]) == truth[judged]))
        *_, second, first = sorted(known)
        leads.append(first - second)
    found = sap(codes, factors, continuous=continuous, held_out=0.25, seed=5)
    assert found == pytest.approx(np.mean(leads), abs=1e-9)
    assert found > 0.02


def test_numbers_may_all_differ_but_not_all_be_alike():
    with pytest.raises(ValueError, match=r"factors\[:, 1\] is constant, 3"):
        sap(grid(), np.where([0, 1, 0], 3, grid()), continuous=True)
    with pytest.raises(ValueError, match="codes must have at least 2 columns, got 1"):
        sap(grid()[:, :1], grid(), continuous=True)
    with pytest.raises(ValueError, match="a line needs at least 3 samples, got 2"):
        sap(np.eye(2), np.eye(2), continuous=True)
