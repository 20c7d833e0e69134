"""The benchmark of inversion measures something."""

import pytest

from benchmarks import inversion
from latent_flows.generators import load_generator
from tests.experiments.small_generators import small_gan, small_vae

FEW = inversion.Config((), images=2, draws=2, starts=2, steps=5, more_starts=2, longer=1)


@pytest.mark.slow
def test_the_benchmark_measures_both_kinds_of_generators(tmp_path, capsys):
    row = inversion.nearness(FEW, load_generator(small_vae(tmp_path / "vae")))
    assert 0.5 < row["ratio"] <= row["worst_ratio"] < 2
    row = inversion.recovery(FEW, load_generator(small_gan(tmp_path / "gan")))
    assert 0 <= row["recovered"] <= 1
    assert row["blurred_error"] <= row["worst_blurred_error"]


@pytest.mark.slow
def test_draws_of_a_random_sngan_are_recovered_from_several_starts(tmp_path):
    generator = load_generator(small_gan(tmp_path / "gan", latent_dim=16, features=(16, 16, 16)))
    config = inversion.Config((), draws=50, starts=4, steps=100)
    assert inversion.recovery(config, generator)["recovered"] >= 0.9
