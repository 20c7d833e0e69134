"""The F-measure over pairs, counted pair by pair."""

import itertools

import numpy as np
import pytest

from latent_flows.evaluation import pairwise_f_measure


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_counting_all_pairs_gives(seed):
    labels, clusters = np.random.default_rng(seed).integers(0, 4, (2, 30))
    pairs = list(itertools.combinations(range(30), 2))
    true = {(i, j) for i, j in pairs if labels[i] == labels[j]}
    found = {(i, j) for i, j in pairs if clusters[i] == clusters[j]}
    precision, recall = len(true & found) / len(found), len(true & found) / len(true)
    wanted = 2 * precision * recall / (precision + recall)
    assert pairwise_f_measure(labels, clusters) == pytest.approx(wanted, rel=1e-12)


def test_what_groups_are_called_is_no_matter():
    labels = np.array([3, 3, 9, 9, 9])
    assert pairwise_f_measure(labels, np.array(["b", "b", "a", "a", "a"])) == 1
    assert pairwise_f_measure(labels, np.arange(5)) == 0


def test_of_points_that_have_nothing_in_common_it_is_zero():
    assert pairwise_f_measure([0, 1], [0, 1]) == pairwise_f_measure([], []) == 0


def test_groups_of_other_numbers_of_points_are_named():
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(3,\)"):
        pairwise_f_measure([0, 1], [0, 1, 2])
