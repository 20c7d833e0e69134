"""The benchmark of trajectories measures the same algorithm on both sides."""

import importlib.util
from functools import partial

import jax
import numpy as np
import pytest

from benchmarks import trajectories
from benchmarks.peers import torch_module
from benchmarks.trajectories import Size, difference, ours, peers, problem
from latent_flows.directions.losses import blurred_error
from latent_flows.directions.transformations import translate_x
from latent_flows.generators import vae as vaes

TINY = Size(latent=3, side=16, width=4, batch=3, amounts=2, steps=3)
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


def of(decoder):
    return problem(Size(**{**vars(TINY), "decoder": decoder}))


@needs_torch
@pytest.mark.parametrize("decoder", ["mlp", "conv", "broadcast"])
def test_pytorch_decodes_the_same_images(decoder):
    work = of(decoder)
    expected = jax.vmap(vaes.generator(work.vae, work.params))(work.starts)
    assert np.ptp(expected) > 0.02
    for side in peers(work).values():
        found = side.decode(side.starts).permute(0, 2, 3, 1)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@needs_torch
@pytest.mark.parametrize("t", [0.11, -0.2, 0.125])
def test_pytorch_moves_images_and_measures_their_difference_alike(t):
    work = of("mlp")
    images = jax.vmap(vaes.generator(work.vae, work.params))(work.starts)
    moved, masks = jax.vmap(partial(translate_x, t=t))(images)
    errors = jax.vmap(partial(blurred_error, sigma=trajectories.SIGMA))(images, moved, masks)
    side = torch_module("benchmarks.torch_trajectories")
    tensor = side.torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)
    target, mask = side.translate(tensor, t)
    np.testing.assert_allclose(target[:, 0], moved[..., 0], atol=1e-5)
    np.testing.assert_array_equal(mask, masks[0])
    for blur in side.BLURS.values():
        measure = blur(TINY.side, trajectories.SIGMA, tensor.device)
        found = measure(mask * (tensor - target)) / mask.sum()
        np.testing.assert_allclose(found, errors, rtol=1e-3)


@needs_torch
def test_pytorch_ends_at_the_same_latents():
    work = of("mlp")
    call, _ = ours(work)
    found = call()
    assert found.shape == (3, 4, 3)
    assert np.linalg.norm(found - work.starts[:, None], axis=-1).min() > 1e-3
    for side in peers(work).values():
        assert difference(found, side(), work.starts) < trajectories.TOLERANCE


def test_the_difference_is_a_share_of_the_way():
    starts = np.zeros((1, 2))
    a = np.array([[[3.0, 4.0], [0.0, 5.0]]])
    assert difference(a, a, starts) == 0
    assert difference(a, 0.9 * a, starts) == pytest.approx(0.1)
