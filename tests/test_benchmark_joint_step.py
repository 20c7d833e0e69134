"""The benchmark of a joint training step measures the same step on both sides."""

import importlib.util
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.joint_step import PEERS, Size, peer, problem
from benchmarks.training_step import TOLERANCE, Step, difference
from latent_flows import pde
from latent_flows.objectives.flow_vae import FlowVAE, FlowVAEObjective, Pairs, flow_vae_loss

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


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["flowed", "standard"])
def test_the_timed_loss_is_that_of_the_experiment(prior):
    size = Size(latent=3, count=2, batch=4, frames=3, steps=2, width=4, prior=prior)
    work = problem(size)
    objective = FlowVAEObjective(kind="flow", prior=prior, warmup=0)
    blank: Any = None
    model = FlowVAE(
        work.vae, work.net, blank, blank, blank, pde.EQUATIONS["wave"], size.count, "flow"
    )
    found, step = Pairs(work.before, work.after, work.t), jnp.zeros((), int)
    expected, terms = flow_vae_loss(
        model, objective, work.params, work.key, step, found, steps=size.steps
    )
    np.testing.assert_allclose(work.value(work.params), expected, rtol=1e-5)
    assert terms["residual"] > 0
