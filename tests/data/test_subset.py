import numpy as np
import pytest

from latent_flows import data
from latent_flows.data import subset


def numbers(count=10):
    return data.from_arrays("numbers", value=np.arange(count), label=np.arange(count) % 3)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_examples_with_the_labels_are_kept_in_their_order(chunk, monkeypatch):
    monkeypatch.setattr(subset, "CHUNK", chunk)
    kept = data.with_labels(numbers(), (2, 0))
    assert kept.length == 7
    everything = kept.examples(np.arange(kept.length))
    np.testing.assert_array_equal(everything["value"], [0, 2, 3, 5, 6, 8, 9])
    np.testing.assert_array_equal(kept.examples(np.array([3, 1]))["label"], [2, 2])
    assert (kept.name, kept.split) == ("numbers", "train")


def test_no_labels_are_all_labels():
    dataset = numbers()
    assert data.with_labels(dataset, ()) is dataset


def test_labels_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"labels must be among .* numbers, which lacks \[3, 7\]"):
        data.with_labels(numbers(), (1, 7, 3))
    with pytest.raises(ValueError, match="codes has no labels"):
        data.with_labels(data.from_arrays("codes", value=np.zeros(3)), (1,))
