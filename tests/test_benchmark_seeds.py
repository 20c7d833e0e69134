"""The benchmark of seeds trains the same in every way."""

import jax
import numpy as np
import pytest

from benchmarks import seeds
from benchmarks.potential_flows import Size
from experiments.results.workers import available_cores

SMALL = seeds.Config(
    size=Size(latent=2, count=2, batch=4, horizon=2, width=8), steps=2, repeats=3, patience=0.0
)


@pytest.mark.slow
def test_seeds_of_one_program_are_those_of_several():
    both, apart = (
        seeds.Seeds(SMALL, range(2)),
        [seeds.Seeds(SMALL, range(s, s + 1)) for s in (0, 1)],
    )
    for train in (both, *apart):
        train()
    for place, one in enumerate(apart):
        mine = jax.tree.map(lambda leaf, place=place: leaf[place], both.carried[0])
        for own, other in zip(jax.tree.leaves(one.carried[0]), jax.tree.leaves(mine), strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)
    first, second = (jax.tree.leaves(one.carried[0])[-1] for one in apart)
    assert not np.allclose(first, second)


@pytest.mark.slow
@pytest.mark.skipif(len(available_cores()) < 2, reason="each of two seeds has a core")
def test_all_ways_are_compared():
    found = seeds.main(SMALL)
    assert {row["side"] for row in found.rows} == {seeds.IN_TURN, seeds.VMAPPED, seeds.BESIDE}
    assert all(row["ms"] > 0 for row in found.rows)


@pytest.mark.parametrize("count", [1, 10_000])
def test_seeds_without_a_core_of_their_own_are_refused(count):
    with pytest.raises(ValueError, match="seeds must lie in"):
        seeds.main(seeds.Config(seeds=count))
