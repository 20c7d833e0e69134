"""What is refused before a score is computed, and how codes are put in bins."""

import numpy as np
import pytest

from latent_flows.evaluation import dci, discretise, mig, modularity, sap
from latent_flows.evaluation.labelled import labelled, split
from tests.evaluation.codes import grid

SCORES = {"mig": mig, "dci": dci, "sap": sap, "modularity": modularity}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c, f: (c[:-1], f), r"one row an example in both, got shapes \(239, 3\) and \(240"),
        (lambda c, f: (c[:, 0], f), r"codes must be \[n, d\] .* got shapes \(240,\)"),
        (lambda c, f: (c[:0], f[:0]), "no samples"),
        (lambda c, f: (np.where(c == 2, np.nan, c), f), "codes must be finite"),
        (lambda c, f: (c, np.where(f == 2, np.inf, f)), "factors must be finite"),
        (lambda c, f: (c, np.where([0, 1, 0], 7, f)), r"factors\[:, 1\] is constant, 7"),
        (lambda c, f: (c[:9], f[:9]), "is constant|at least two samples a value"),
        (lambda c, f: (c, f + 1e-3 * np.arange(240)[:, None]), "has 240 values in 240 samples"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(score, spoil, message):
    with pytest.raises(ValueError, match=message):
        score(*spoil(1.0 * grid(), 1.0 * grid()))


@pytest.mark.parametrize(
    ("score", "codes", "factors"),
    [
        (mig, 1, 2),
        (sap, 1, 2),
        (dci, 1, 2),
        (dci, 2, 1),
        (modularity, 2, 1),
    ],
)
def test_a_gap_needs_two_codes_and_a_contrast_two_factors(score, codes, factors):
    what = "codes" if codes == 1 else "factors"
    with pytest.raises(ValueError, match=f"{what} must have at least 2 columns, got 1"):
        score(grid()[:, :codes], grid()[:, :factors])


def test_factors_become_ranks_whatever_their_values():
    values = np.array([[0.1], [7.0], [-3.5], [7.0], [0.1], [-3.5]])
    both = labelled(np.zeros((6, 1)), values)
    assert both.factors.ravel().tolist() == [1, 2, 0, 2, 1, 0]


def test_a_split_is_a_partition_and_the_same_for_the_same_seed():
    both = labelled(np.arange(240.0)[:, None], grid())
    train, test = split(both, 0.25, seed=3)
    assert (len(train.codes), len(test.codes)) == (180, 60)
    assert {*train.codes.ravel(), *test.codes.ravel()} == set(range(240))
    for part in (train, test):
        rows = part.codes.ravel().astype(int)
        np.testing.assert_array_equal(part.factors, both.factors[rows])
    np.testing.assert_array_equal(split(both, 0.25, seed=3)[1].codes, test.codes)
    assert not np.array_equal(split(both, 0.25, seed=4)[1].codes, test.codes)


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(ValueError, match="held_out must lie between 0 and 1"):
        split(labelled(grid(), grid()), share, seed=0)


def test_a_split_that_leaves_nothing_is_refused():
    both = labelled(np.zeros((4, 1)), [[0], [1], [0], [1]])
    for share in (0.01, 0.9):
        with pytest.raises(ValueError, match=r"4 samples, .* of them held out, are too few"):
            split(both, share, seed=0)


def test_bins_are_those_of_a_histogram_and_ignore_scale_and_sign():
    values = np.random.default_rng(0).normal(size=(500, 2))
    found = discretise(values, bins=7)
    for column, bins in zip(values.T, found.T, strict=True):
        counts = np.histogram(column, 7)[0]
        np.testing.assert_array_equal(np.bincount(bins, minlength=7), counts)
        assert (np.diff(bins[np.argsort(column)]) >= 0).all()
    np.testing.assert_array_equal(discretise(1e3 * values + 5, bins=7), found)
    assert np.ptp(discretise(np.full((9, 1), 3.3))) == 0
    with pytest.raises(ValueError, match="bins must be at least 2, got 1"):
        discretise(values, bins=1)
    with pytest.raises(ValueError, match=r"shape \[n, d\], got \(3,\)"):
        discretise(np.zeros(3))
