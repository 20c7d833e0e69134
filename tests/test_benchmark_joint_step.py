"""The benchmark of a joint training step measures the same step on both sides."""

import importlib.util

import pytest

from benchmarks.joint_step import PEERS, Size, Step, peer, problem
from benchmarks.potential_flows import TOLERANCE, difference

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("prior", ["flowed", "standard"])
def test_pytorch_takes_the_same_steps(prior):
    work = problem(Size(latent=3, count=2, batch=4, frames=3, steps=2, width=4, prior=prior))
    step = Step(work)
    ours = step(), step()
    for name in PEERS:
        other = peer(work, name)
        for found in ours:
            assert difference(found, other()) < TOLERANCE, name
