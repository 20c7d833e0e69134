"""Modularity and explicitness: does a code know of one factor only, are factors easy to read?"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from latent_flows._extras import extra
from latent_flows.evaluation.labelled import Table, labelled, split
from latent_flows.evaluation.mig import informed

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["Modularity", "modularity"]


class Modularity(NamedTuple):
    """Two sides of a representation."""

    modularity: float
    """In [0, 1]; 1: each code knows of one factor only."""
    explicitness: float
    """Area under the ROC curve on held-out samples, in [0, 1]; 0.5: chance."""
    train_explicitness: float
    """The same on the samples that were learnt from."""


def modularity(
    codes: Table,
    factors: Table,
    *,
    bins: int = 20,
    held_out: float = 1 / 3,
    seed: int = 0,
) -> Modularity:
    r"""Modularity of codes, and explicitness of factors.

    With `I_ij` the mutual information of code `i`, in bins, and factor `j`, and `j(i)` the factor
    of which the code knows most,

    $$ \mathrm{modularity} = \frac1d \sum_i \Big( 1 -
       \frac{\sum_{j \ne j(i)} I_{ij}^2}{(f - 1) I_{i j(i)}^2} \Big), $$

    where a code that knows nothing at all counts 0. Of a code that nearly does so (few samples give
    it some information by chance) the value means little, and it counts like any other.
    Explicitness is how well a logistic regression on all codes, standardised, tells each value of a
    factor from the others: the area under the ROC curve, averaged over values, then over factors.

    Args:
        codes: `[n, d]`.
        factors: the true ones, `[n, f]`, discrete, at least two.
        bins: of a code, as for `mig`.
        held_out: share of the samples on which explicitness is measured; modularity, too, is that
            of the others.
        seed: of the split.

    Returns:
        A `Modularity`.

    Raises:
        ValueError: see `labelled` and `split`; also a single factor, or held-out samples that all
            have one value.

    References:
        Ridgeway and Mozer, *Learning Deep Disentangled Embeddings with the F-Statistic Loss*, 2018,
        section 3; as in disentanglement_lib, which takes 10,000 samples to learn from and 5,000 to
        judge on.

    >>> factors = np.random.RandomState(0).randint(0, 3, (1000, 2))
    >>> score = modularity(1.0 * factors, factors)
    >>> round(score.modularity, 2), score.explicitness > 0.8
    (1.0, True)
    """
    with extra("evaluation"):
        from sklearn.linear_model import LogisticRegression

    train, test = split(labelled(codes, factors, least_factors=2), held_out, seed)
    mean, deviation = train.codes.mean(0), train.codes.std(0)
    known, judged = (
        (part.codes - mean) / np.where(deviation > 0, deviation, 1) for part in (train, test)
    )
    areas = []
    for learnt, truth in zip(train.factors.T, test.factors.T, strict=True):
        # More rounds than the default, so that it converges.
        model = LogisticRegression(max_iter=1000).fit(known, learnt)
        areas.append([_area(model, judged, truth), _area(model, known, learnt)])
    held, seen = np.mean(areas, axis=0)
    return Modularity(_modularity(informed(train, bins)), float(held), float(seen))


def _area(
    model: "LogisticRegression", codes: Float[np.ndarray, "n d"], truth: Int[np.ndarray, "n"]
) -> float:
    """Area under the ROC curve of each value against the rest, averaged."""

    with extra("evaluation"):
        from sklearn.metrics import roc_auc_score

    chances = model.predict_proba(codes)
    present = [
        (truth == value, chance)
        for value, chance in zip(model.classes_, chances.T, strict=True)
        if 0 < np.sum(truth == value) < len(truth)
    ]
    if not present:
        raise ValueError(f"the {len(truth)} held-out samples are too few: a factor has one value")
    return float(np.mean([roc_auc_score(is_value, chance) for is_value, chance in present]))


def _modularity(information: Float[np.ndarray, "d f"]) -> float:
    squares = information**2
    most = squares.max(axis=1)
    rest = (squares.sum(axis=1) - most) / (squares.shape[1] - 1)
    return float(np.mean(np.where(most > 0, 1 - rest / np.where(most > 0, most, 1), 0)))
