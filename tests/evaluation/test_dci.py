"""DCI of codes that are as they should be, and of others; small trees, since they are slow."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from latent_flows.evaluation import dci
from tests.evaluation.codes import grid, quarter, random

FEW = GradientBoostingClassifier(n_estimators=5, random_state=0)
TREE = DecisionTreeClassifier(criterion="entropy", random_state=0)


def test_a_perfect_code_scores_1_in_any_order_scale_and_sign():
    score = dci(2 - 3.0 * grid()[:, ::-1], grid(), model=FEW)
    np.testing.assert_allclose(score[:3], 1, atol=1e-6)
    np.testing.assert_allclose(score.importance, np.eye(3)[::-1], atol=1e-6)


def test_a_code_that_knows_nothing_is_neither_disentangled_nor_informative():
    codes = np.random.default_rng(0).normal(size=(2000, 4))
    factors = np.random.default_rng(1).integers(0, 4, (2000, 3))
    score = dci(codes, factors, model=RandomForestClassifier(20, random_state=0))
    assert 0 <= score.disentanglement < 0.05
    assert 0 <= score.completeness < 0.05
    assert score.informativeness == pytest.approx(1 / 4, abs=0.05)
    flat = dci(np.zeros((240, 3)), grid(), model=FEW)
    assert flat[:2] == (0, 0)


def test_two_codes_a_factor_halve_completeness_and_leave_disentanglement():
    # Each factor of four values is spread over two codes, its two bits, which say as much.
    factors = np.random.default_rng(0).integers(0, 4, (4000, 2))
    bits = np.stack([factors % 2, factors // 2], -1).reshape(-1, 4)
    score = dci(bits, factors, model=TREE)
    assert score.disentanglement == pytest.approx(1, abs=0.01)
    assert score.completeness == pytest.approx(1 - np.log(2) / np.log(4), abs=0.01)
    assert score.informativeness == 1


def test_two_factors_a_code_take_disentanglement_and_leave_completeness():
    # The first code holds two bits, which are two factors; the second and third nothing.
    factors = np.random.default_rng(0).integers(0, 2, (2000, 2))
    codes = np.stack([factors @ [1, 2], 0 * factors[:, 0], 0 * factors[:, 0]], -1)
    score = dci(codes, factors, model=TREE)
    assert score[:3] == pytest.approx((0, 1, 1), abs=1e-6)


def test_a_turned_code_scores_lower():
    score = dci(quarter(grid(10)), grid(10), model=FEW)
    assert score.disentanglement < 0.85
    assert score.completeness < 0.85


@pytest.mark.parametrize("seed", [0, 1])
def test_it_agrees_with_a_plain_computation(seed):
    codes, factors = random(rows=400, seed=seed)
    rows = np.random.default_rng(5).permutation(400)
    learnt, judged = rows[:300], rows[300:]
    weights, right = np.zeros((5, 3)), []
    for j in range(3):
        trees = GradientBoostingClassifier(n_estimators=5, random_state=0)
        trees.fit(codes[learnt], factors[learnt, j])
        weights[:, j] = trees.feature_importances_
        right.append((trees.predict(codes[judged]) == factors[judged, j]).mean())
    per_code = 1 - entropy(weights + 1e-11, base=3, axis=1)
    per_factor = 1 - entropy(weights + 1e-11, base=5, axis=0)
    score = dci(codes, factors, model=FEW, held_out=0.25, seed=5)
    np.testing.assert_allclose(score.importance, weights, atol=1e-12)
    expected = (
        per_code @ weights.sum(1) / weights.sum(),
        per_factor @ weights.sum(0) / weights.sum(),
        np.mean(right),
    )
    assert score[:3] == pytest.approx(expected, abs=1e-6)
    assert all(0.05 < value < 0.95 for value in score[:3])
