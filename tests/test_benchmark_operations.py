"""The benchmark of operations compares like with like."""

from dataclasses import replace

import pytest

from benchmarks import operations


@pytest.mark.parametrize("part", ["trajectory step", "steering"])
def test_what_a_path_needs_is_little_more_than_the_passes_of_the_generator(part):
    config = operations.Config(side=16)
    config = replace(config, size=replace(config.size, batch=2))
    whole, floor = operations.COUNTED[part](config, operations.source(config, "vae"))
    assert 1 <= whole.operations / floor.operations < 1.3
