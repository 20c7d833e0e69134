"""The benchmark of a joint training step measures the same step on both sides."""

import importlib.util
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.joint_step import PEERS, Size, Step, peer, problem
from benchmarks.potential_flows import TOLERANCE, difference
from experiments.flow_vae import config as flow_vae_config
from experiments.flow_vae.config import Fields, Objective
from experiments.flow_vae.model import Model
from experiments.flow_vae.objective import Pairs, loss_of_pairs
from experiments.runtime.training import Training
from latent_flows import pde

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
    config = flow_vae_config.Config(
        frames=size.frames,
        vae=work.vae.config,
        fields=Fields(width=size.width, steps=size.steps),
        objective=Objective(kind="flow", prior=prior, warmup=0),
        training=Training(batch_size=60),
    )
    blank: Any = None
    model = Model(
        work.vae, work.net, blank, blank, blank, pde.EQUATIONS["wave"], size.count, "flow"
    )
    found, step = Pairs(work.before, work.after, work.t), jnp.zeros((), int)
    expected, terms = loss_of_pairs(model, config, work.params, work.key, step, found)
    np.testing.assert_allclose(work.value(work.params), expected, rtol=1e-5)
    assert terms["residual"] > 0
