"""The benchmark of PyTorch generators measures the same networks on both sides."""

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: the extra `peers`")

from benchmarks import torch_generators
from benchmarks.from_torch import Config, measure

TINY = {
    "MLP": lambda: torch_generators.mlp(4),
    "DCGAN": lambda: torch_generators.dcgan(4),
    "VAE": lambda: torch_generators.vae(4),
    "StyleGAN2": lambda: torch_generators.stylegan2(4),
}


@pytest.mark.parametrize("name", TINY)
def test_samples_and_derivatives_are_those_of_pytorch(name, monkeypatch):
    monkeypatch.setitem(torch_generators.GENERATORS, name, TINY[name])
    [row] = measure(Config(batch=2, repeats=1), name).rows
    assert row["forward_error"] < 1e-5
    assert row["jvp_error"] < 1e-4
    assert row["vjp_error"] < 1e-4
    assert ("forward_flax_ms" in row) == (name in ("MLP", "DCGAN"))
