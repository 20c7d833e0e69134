"""Modularity and explicitness of codes that are as they should be, and of others."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score

from latent_flows.evaluation import modularity
from tests.evaluation.codes import grid, quarter, random


def test_a_perfect_code_is_modular_and_explicit():
    # Shares of the parts differ a little, so that factors are not quite independent there.
    two = np.random.default_rng(0).integers(0, 2, (4000, 3))
    score = modularity(3 - 2.0 * two, two)
    assert score.modularity == pytest.approx(1, abs=1e-3)
    assert score.explicitness == pytest.approx(1)
    assert score.train_explicitness == pytest.approx(1)


def test_a_copy_is_as_modular_as_its_original():
    copied = np.hstack([grid(20), grid(20)])
    assert modularity(copied, grid(20)).modularity > 0.99


def test_a_code_of_two_factors_alike_is_not_modular():
    coins = np.random.default_rng(0).integers(0, 2, (4000, 2))
    both = (coins @ [1, 2])[:, None]
    assert modularity(both, coins).modularity == pytest.approx(0, abs=0.01)
    assert modularity(quarter(grid(20)), grid(20)).modularity < 0.95


def test_a_code_that_knows_nothing_tells_by_chance():
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 4, (4000, 3))
    score = modularity(rng.normal(size=(4000, 5)), factors)
    assert score.explicitness == pytest.approx(0.5, abs=0.03)
    constant = modularity(np.full((4000, 2), 0.3), factors)
    assert constant.modularity == 0
    assert constant.explicitness == pytest.approx(0.5)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_agrees_with_a_plain_computation(seed):
    codes, factors = random(rows=400, seed=seed)
    rows = np.random.default_rng(5).permutation(400)
    learnt, judged = rows[:300], rows[300:]
    squares = np.zeros((5, 3))
    for i, code in enumerate(codes[learnt].T):
        edges = np.linspace(code.min(), code.max(), 21)[1:-1]
        bins = np.searchsorted(edges, code, side="right")
        squares[i] = [mutual_info_score(bins, factor) ** 2 for factor in factors[learnt].T]
    contrast = [1 - (row.sum() - row.max()) / (2 * row.max()) for row in squares]
    unit = (codes - codes[learnt].mean(0)) / codes[learnt].std(0)
    areas = []
    for factor in factors.T:
        model = LogisticRegression(max_iter=1000).fit(unit[learnt], factor[learnt])
        chances = model.predict_proba(unit[judged])
        areas.append(roc_auc_score(factor[judged], chances, multi_class="ovr"))
    score = modularity(codes, factors, held_out=0.25, seed=5)
    assert score.modularity == pytest.approx(np.mean(contrast), abs=1e-9)
    assert score.explicitness == pytest.approx(np.mean(areas), abs=1e-6)
    assert 0.5 < score.explicitness < 0.99
    assert 0.1 < score.modularity < 0.95
