"""SAP: how much better the best single code predicts a factor than the second best."""

import numpy as np
from jaxtyping import Float

from latent_flows._extras import extra
from latent_flows.evaluation.labelled import Table, check_pair, labelled, split

__all__ = ["sap"]


def sap(
    codes: Table,
    factors: Table,
    *,
    continuous: bool = False,
    held_out: float = 1 / 3,
    seed: int = 0,
) -> float:
    r"""Separated attribute predictability.

    $$ \mathrm{SAP} = \frac1f \sum_j \big( S_{i_1 j} - S_{i_2 j} \big) $$

    with `S_ij` how well code `i` alone predicts factor `j`: the held-out accuracy of a linear
    support vector machine, or of a continuous factor the `R^2` of a line. A perfect code scores
    less than 1 on discrete factors, since the second best code is still right by chance.

    Args:
        codes: `[n, d]`, at least two columns.
        factors: the true ones, `[n, f]`.
        continuous: whether factors are numbers to predict, and not values to name.
        held_out: share of the samples that accuracies are measured on.
        seed: of the split.

    Returns:
        The difference, in [0, 1].

    Raises:
        ValueError: see `labelled` and `split`; also a single code.

    References:
        Kumar, Sattigeri and Balakrishnan, *Variational Inference of Disentangled Latent Concepts*,
        2018, section 3; the machine's settings (`C = 0.01`, balanced) are those of
        disentanglement_lib, which takes 10,000 samples to learn from and 5,000 to judge on.

    >>> factors = np.random.RandomState(0).standard_normal((4000, 2))
    >>> round(sap(-2 * factors, factors, continuous=True), 2)
    1.0
    """
    scores = _explained(codes, factors) if continuous else _named(codes, factors, held_out, seed)
    second, first = np.sort(scores, axis=0)[-2:]
    return float(np.mean(first - second))


def _explained(codes: Table, factors: Table) -> Float[np.ndarray, "d f"]:
    """Squared correlations; 0 for a code that never changes."""
    known, truth = check_pair(codes, factors)
    if known.shape[1] < 2:
        raise ValueError(f"codes must have at least 2 columns, got {known.shape[1]}")
    if len(known) < 3:
        raise ValueError(f"a line needs at least 3 samples, got {len(known)}")
    for j, column in enumerate(truth.T):
        if np.ptp(column) == 0:
            raise ValueError(
                f"factors[:, {j}] is constant, {column[0]:g}, in all {len(column)} samples: "
                "a score needs samples where it changes; take more of them, or leave the factor out"
            )
    unit = [_standard(values) for values in (known, truth)]
    return (unit[0].T @ unit[1] / len(known)) ** 2


def _standard(values: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    deviation = values.std(0)
    return (values - values.mean(0)) / np.where(np.ptp(values, axis=0) > 0, deviation, np.inf)


def _named(codes: Table, factors: Table, held_out: float, seed: int) -> Float[np.ndarray, "d f"]:
    """Held-out accuracies of naming each factor from each code alone."""

    with extra("evaluation"):
        from sklearn.svm import LinearSVC

    train, test = split(labelled(codes, factors, least_codes=2), held_out, seed)
    scores = np.empty((train.codes.shape[1], train.factors.shape[1]))
    for i, j in np.ndindex(*scores.shape):
        machine = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
        machine.fit(train.codes[:, [i]], train.factors[:, j])
        scores[i, j] = machine.score(test.codes[:, [i]], test.factors[:, j])
    return scores
