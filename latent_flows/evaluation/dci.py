"""Disentanglement, completeness and informativeness, from the importance of codes to trees."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from latent_flows._extras import extra
from latent_flows.evaluation.labelled import Table, labelled, split

__all__ = ["DCI", "dci"]


class DCI(NamedTuple):
    """Three sides of a representation, each in [0, 1]."""

    disentanglement: float
    """1: every code matters to one factor only."""
    completeness: float
    """1: every factor is told by one code only."""
    informativeness: float
    """Share of held-out samples whose factors are named correctly, averaged over factors."""
    importance: Float[np.ndarray, "d f"]
    """What each code contributes to naming each factor; columns sum to 1."""


def dci(
    codes: Table,
    factors: Table,
    *,
    model: Any = None,
    held_out: float = 1 / 3,
    seed: int = 0,
) -> DCI:
    r"""Disentanglement, completeness and informativeness.

    For each factor a classifier learns to name its value from all codes. With `R_ij` the importance
    of code `i` to factor `j`, and `H_f`, `H_d` entropies to the bases `f` and `d`,

    $$ D = \sum_i \rho_i \Big(1 - H_f\Big[\tfrac{R_{i\cdot}}{\sum_j R_{ij}}\Big]\Big), \qquad
       C = \sum_j \gamma_j \Big(1 - H_d\Big[\tfrac{R_{\cdot j}}{\sum_i R_{ij}}\Big]\Big) $$

    weighted by the shares `rho_i`, `gamma_j` of all importance.

    Args:
        codes: `[n, d]`, at least two columns.
        factors: the true ones, `[n, f]`, discrete, at least two.
        model: a classifier of scikit-learn that has `feature_importances_` once it is fitted. By
            default gradient boosted trees as they are (100 rounds of depth 3), as in
            disentanglement_lib, which takes 10,000 samples to learn from and 5,000 to judge on;
            they take a tree for every value of a factor and round, so minutes for such numbers.
        held_out: share of the samples that informativeness is measured on.
        seed: of the split, and of the default trees.

    Returns:
        A `DCI`.

    Raises:
        ValueError: see `labelled` and `split`; also a single code or factor.

    References:
        Eastwood and Williams, *A Framework for the Quantitative Evaluation of Disentangled
        Representations*, 2018, section 2; trees as in Locatello et al., 2019.

    >>> factors = np.random.RandomState(0).randint(0, 3, (200, 2))
    >>> score = dci(1.0 * factors, factors)
    >>> [round(value, 3) for value in score[:3]]
    [1.0, 1.0, 1.0]
    """

    with extra("evaluation"):
        from sklearn.base import clone
        from sklearn.ensemble import GradientBoostingClassifier

    both = labelled(codes, factors, least_codes=2, least_factors=2)
    train, test = split(both, held_out, seed)
    model = GradientBoostingClassifier(random_state=seed) if model is None else model
    columns, right = [], []
    for learnt, judged in zip(train.factors.T, test.factors.T, strict=True):
        fitted = clone(model).fit(train.codes, learnt)
        columns.append(np.abs(fitted.feature_importances_))
        right.append(np.mean(fitted.predict(test.codes) == judged))
    importance = np.stack(columns, axis=1)
    return DCI(
        _concentration(importance),
        _concentration(importance.T),
        float(np.mean(right)),
        importance,
    )


def _concentration(importance: Float[np.ndarray, "a b"]) -> float:
    """One minus the entropy of each row, weighted by its share of everything."""
    total = importance.sum()
    if total == 0:
        return 0.0  # nothing tells anything
    rows = importance.sum(axis=1)
    shares = importance[rows > 0] / rows[rows > 0, None]
    surprise = np.where(shares > 0, -np.log(np.where(shares > 0, shares, 1)), 0)
    entropy = np.sum(shares * surprise, axis=1) / np.log(importance.shape[1])
    return float(np.sum(rows[rows > 0] / total * (1 - entropy)))
