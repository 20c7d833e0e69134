"""The benchmark of the input tells data that keep up with the step from data that do not."""

import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.input import load, make_folder, measure
from experiments.generators import train_vae
from experiments.runtime.training import Training
from latent_flows import data
from latent_flows.generators.vae import VAEConfig

TINY = replace(
    train_vae.DIGITS,
    vae=VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=2),
    training=Training(batch_size=8),
)


def slowed(seconds):
    digits = data.load("digits")

    def examples(indices):
        time.sleep(seconds)
        return digits.examples(indices)

    return replace(digits, examples=examples)


@pytest.mark.slow
def test_a_step_starves_where_a_batch_takes_longer_than_it():
    # Two threads fetch ahead of time, so a batch is there every half of that.
    found = measure(TINY, slowed(0.2), steps=6, warmup=2)
    assert found.starved > 0.5
    assert found.wait > found.compute
    assert found.step >= found.wait
    assert found.fetch == pytest.approx(100, rel=0.9)


@pytest.mark.slow
def test_times_of_data_that_are_there_are_positive():
    found = measure(TINY, data.load("digits"), steps=4, warmup=2)
    assert found.compute > 0
    assert 0 < found.wait <= found.step
    assert 0 <= found.starved <= 1


def test_a_folder_is_made_and_read_at_once_or_on_demand(tmp_path):
    make_folder(tmp_path, 24)
    (_, kept), (_, lazy) = (load(name, str(tmp_path)) for name in ("folder", "lazy"))
    assert kept.length == lazy.length > 16
    assert kept.image_shape == (32, 32, 1)
    rows = np.arange(3)
    np.testing.assert_array_equal(kept.examples(rows)["image"], lazy.examples(rows)["image"])
    assert "_decoded" in str(lazy.examples)
    assert "_decoded" not in str(kept.examples)
