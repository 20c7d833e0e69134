"""The benchmark of a step on a GAN measures the same step on both sides."""

import importlib.util

import pytest

from benchmarks import gan_step
from benchmarks.gan_step import Config, Size, Step, Thrift, compile_only, filled, torch_side
from benchmarks.training_step import TOLERANCE, difference
from experiments.runtime.memory import needs

TINY = Config(channels=(2, 2, 2, 2, 2), size=Size(count=2, batch=2, horizon=2, width=2))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_takes_the_same_steps():
    work = filled(TINY)
    step = Step(work)
    other = torch_side(TINY, work, step)
    for _ in range(2):
        assert difference(step(), other()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("thrift", [Thrift(), Thrift(dtype="bfloat16", checkpoint=True)])
def test_memory_of_a_step_on_stylegan2_is_known_without_running_it(thrift):
    tiny = gan_step.stylegan2.StyleGAN2(16, latent_dim=4, mapping_layers=1, channels=(2, 2, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gan_step.NETS, "stylegan2-1024", tiny)
        config = Config(model="stylegan2-1024", size=TINY.size, thrift=thrift)
        program, _ = compile_only(config)
    found = needs(program)
    assert found["total"] > found["temp"] > 0
