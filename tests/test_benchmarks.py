"""The benchmark of a training step measures the same step on both sides."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks.potential_flows import BOX, PEERS, Size, peer, problem
from benchmarks.training_step import TOLERANCE, Step, difference
from experiments.potential_flows import train as potential_flows
from experiments.potential_flows.config import Config, Flows
from experiments.potential_flows.flow_space import FlowSpace
from experiments.runtime.training import Training
from latent_flows import coordinates
from latent_flows.generators import freeze

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
    flows = Flows(
        count=TINY.count,
        horizon=TINY.horizon,
        initial="free",
        width=TINY.width,
        frame="identity",
        bank=0,
    )
    config = Config(flows=flows, training=Training(batch_size=TINY.batch))
    box, dim = jnp.full(TINY.latent, BOX), TINY.latent
    frozen = freeze(work.generator, dim)
    space = FlowSpace(
        frozen, coordinates.identity(dim), frozen.decode, work.starts, low=-box, high=box
    )
    batch, step = {"start": work.starts}, jnp.zeros((), int)
    loss, _ = jax.jit(
        lambda params: potential_flows.loss(config, space, params, work.key, step, batch)
    )(work.params)
    assert first_two[0][0] == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("name", ["potential_flows", "joint_step", "laplacian"])
def test_a_step_is_timed_without_any_experiment(name):
    code = f"import sys, benchmarks.{name}; print([n for n in sys.modules if 'experiments' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_torch
@pytest.mark.parametrize("name", [name for name in PEERS if "row sums" not in name])
def test_pytorch_takes_the_same_steps(work, first_two, name):
    other = peer(work, name)
    for ours in first_two:
        assert difference(ours, other()) < TOLERANCE


@needs_torch
def test_row_sums_of_the_hessian_are_another_loss(work, first_two):
    assert difference(first_two[0], peer(work, "torch loop, row sums")()) > TOLERANCE
