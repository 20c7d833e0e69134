import numpy as np
import pytest
from sklearn.datasets import load_digits

from latent_flows import data


def rows(split):
    found = data.load("digits", split=split)
    return found.examples(np.arange(found.length))


def test_splits_share_the_digits_out_evenly():
    train, test = rows("train"), rows("test")
    images = np.concatenate([train["image"], test["image"]]).reshape(-1, 64)
    everything = load_digits().data / 16
    np.testing.assert_array_equal(
        images[np.lexsort(images.T)], everything[np.lexsort(everything.T)].astype(np.float32)
    )
    counts = np.bincount(test["label"]) / (np.bincount(train["label"]) + np.bincount(test["label"]))
    np.testing.assert_allclose(counts, 0.2, atol=0.01)


def test_labels_belong_to_their_images():
    bunch = load_digits()
    known = {image.tobytes(): label for image, label in zip(bunch.data, bunch.target, strict=True)}
    test = rows("test")
    for image, label in zip(test["image"], test["label"], strict=True):
        assert known[(image.ravel() * 16).astype(float).tobytes()] == label


def test_resizing_keeps_the_mean_and_the_range():
    small, large = rows("test")["image"], data.load("digits", split="test", size=32)
    images = large.examples(np.arange(large.length))["image"]
    assert images.shape == (360, 32, 32, 1)
    assert images.dtype == np.float32
    assert images.mean() == pytest.approx(small.mean(), rel=0.02)
    assert images.min() >= 0
    assert images.max() <= 1


def test_wrong_arguments_say_what_was_expected():
    with pytest.raises(ValueError, match="splits train, test, got 'val'"):
        data.load("digits", split="val")
    with pytest.raises(ValueError, match="size must be"):
        data.load("digits", size=0)
