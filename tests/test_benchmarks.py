"""The benchmark of a training step measures the same step on both sides."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from benchmarks.potential_flows import PEERS, TOLERANCE, Size, Step, difference, peer, problem
from experiments.potential_flows import train as potential_flows

TINY = Size(latent=3, count=2, batch=4, horizon=2, width=4)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


@pytest.fixture(scope="module")
def work():
    return problem(TINY)


@pytest.fixture(scope="module")
def first_two(work):
    step = Step(work)
    return step(), step()


@pytest.mark.slow
def test_the_timed_loss_is_that_of_the_experiment(work, first_two):
    loss, _ = jax.jit(
        lambda params: potential_flows.loss(
            work.config, work.subject, params, work.key, jnp.zeros((), int), work.batch
        )
    )(work.params)
    assert first_two[0][0] == pytest.approx(float(loss), rel=1e-5)


@needs_torch
@pytest.mark.parametrize("name", [name for name in PEERS if "row sums" not in name])
def test_pytorch_takes_the_same_steps(work, first_two, name):
    other = peer(work, name)
    for ours in first_two:
        assert difference(ours, other()) < TOLERANCE


@needs_torch
def test_row_sums_of_the_hessian_are_another_loss(work, first_two):
    assert difference(first_two[0], peer(work, "torch loop, row sums")()) > TOLERANCE
