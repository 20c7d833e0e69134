"""A PyTorch module as a generator: what it computes, what is handled, what is refused."""

import doctest
import re
import warnings
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: the extra `torch`")

from torch import nn  # noqa: E402

from latent_flows import flows, geometry  # noqa: E402
from latent_flows.generators import (  # noqa: E402
    FrozenGenerator,
    GeneratorSpec,
    from_torch,
    load_generator,
)
from latent_flows.generators._torch import aten  # noqa: E402


def mlp(*sizes):
    torch.manual_seed(0)
    layers = [(nn.Linear(n, m), nn.Tanh()) for n, m in pairwise(sizes)]
    return nn.Sequential(*(each for layer in layers for each in layer))


def dcgan(d=4, channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(d, 6, 4, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, channels, 4, 2, 1),
        nn.Tanh(),
    )


class VAE(nn.Module):
    """Of images of 4 x 4 pixels, as a user writes one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(16, 6), nn.Linear(3, 16)

    def encode(self, x):
        return self.inner(x.flatten(1)).chunk(2, -1)

    def decode(self, z):
        return torch.sigmoid(self.outer(z)).view(-1, 1, 4, 4)

    def forward(self, x):
        mean, log_variance = self.encode(x)
        z = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
        return self.decode(z), mean, log_variance


Z = np.random.default_rng(0).normal(size=4).astype(np.float32)


@pytest.fixture(scope="module")
def net():
    return mlp(4, 6, 5)


@pytest.fixture(scope="module")
def generator(net):
    return from_torch(net, 4)


# --- what it is ---


def test_it_is_the_module_under_every_transformation(net, generator):
    assert (generator.event_shape, generator.latent_dim) == ((5,), 4)
    z = torch.tensor(Z)
    with torch.no_grad():
        wanted = net(z).numpy()
    jacobian = torch.autograd.functional.jacobian(net, z).numpy()
    np.testing.assert_allclose(jax.jit(generator.decode)(Z), wanted, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(generator)(Z[None])[0], wanted, atol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(generator)(Z), jacobian, atol=1e-6)
    np.testing.assert_allclose(jax.jacrev(generator)(Z), jacobian, atol=1e-6)
    np.testing.assert_allclose(jax.linearize(generator, Z)[1](Z), jacobian @ Z, atol=1e-6)
    second = torch.autograd.functional.hessian(lambda z: net(z).sum(), z).numpy()
    np.testing.assert_allclose(jax.hessian(lambda z: generator(z).sum())(Z), second, atol=1e-6)


def test_it_is_followed_and_measured_like_any_other(generator):
    field = flows.gradient(lambda t, z: generator(z).sum())
    path = jax.jit(lambda z: flows.integrate(field, z, jnp.linspace(0.0, 0.5, 3)))(Z)
    assert path.ok
    metric = geometry.pullback(generator)
    jacobian = jax.jacfwd(generator)(Z)
    np.testing.assert_allclose(metric(Z), jacobian.T @ jacobian, atol=1e-6)


def test_its_parameters_are_leaves_and_no_constants(generator):
    leaves = jax.tree.leaves(generator)
    assert sorted(leaf.shape for leaf in leaves) == [(4, 6), (5,), (6,), (6, 5)]
    call = jax.make_jaxpr(lambda generator, z: generator(z))(generator, Z)
    assert not call.consts


def test_it_computes_in_half_precision_where_asked(net, generator):
    half = from_torch(net, 4, dtype="bfloat16", recompute=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.decode)} == {jnp.dtype("bfloat16")}
    assert half(Z).dtype == "float32"
    np.testing.assert_allclose(half(Z), generator(Z), atol=0.02)


def test_it_is_exact_in_double_precision(x64):
    net = mlp(4, 6, 5).double()
    z = np.array([0.1, 0.2, -0.3, 0.4])
    with torch.no_grad():
        wanted = net(torch.tensor(z)).numpy()
    np.testing.assert_allclose(from_torch(net, 4)(z), wanted, rtol=1e-14)


def test_training_the_module_further_changes_nothing():
    net = mlp(2, 3)
    generator = from_torch(net, 2)
    before = generator(Z[:2])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    np.testing.assert_array_equal(generator(Z[:2]), before)


def test_the_example_of_its_docstring_holds():
    text = from_torch.__doc__.replace("  # doctest: +SKIP", "")
    names = {"from_torch": from_torch, "jax": jax}
    example = doctest.DocTestParser().get_doctest(text, names, "from_torch", None, 0)
    assert doctest.DocTestRunner().run(example) == (0, 4)


# --- what is handled ---


def state_of(net):
    return {
        "modes": [m.training for m in net.modules()],
        "tensors": {k: v.clone() for k, v in net.state_dict().items()},
        "dtypes": [p.dtype for p in net.parameters()],
        "gradients": [p.grad is None for p in net.parameters()],
        "needed": [p.requires_grad for p in net.parameters()],
        "places": [p.data_ptr() for p in (*net.parameters(), *net.buffers())],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_module_is_run_in_evaluation_mode_and_left_as_it_was(dtype):
    net = nn.Sequential(dcgan(), nn.Dropout(0.5)).to(dtype).train()
    net[0][1].eval()  # a user who froze one layer
    before, seed = state_of(net), torch.random.get_rng_state()
    generator = from_torch(net, 4, range=(-1, 1))
    after = state_of(net)
    assert {k: v for k, v in after.items() if k != "tensors"} == {
        k: v for k, v in before.items() if k != "tensors"
    }
    assert all(torch.equal(after["tensors"][k], v) for k, v in before["tensors"].items())
    assert torch.equal(torch.random.get_rng_state(), seed)
    plain = net.float().eval()
    with torch.no_grad():
        wanted = plain(torch.tensor(Z)[None, :, None, None])[0].permute(1, 2, 0).numpy()
    assert generator.event_shape == (8, 8, 3)
    np.testing.assert_allclose(generator(Z), (wanted + 1) / 2, atol=1e-5)


class Reshaped(nn.Module):
    """A linear map whose latents and samples have any shape."""

    def __init__(self, taken, given):
        super().__init__()
        torch.manual_seed(0)
        self.taken, self.given = taken, given
        self.map = nn.Linear(4, int(np.prod(given)))

    def forward(self, z):
        assert z.shape[-len(self.taken) :] == self.taken or self.taken is None
        made = self.map(z.reshape(-1, 4))
        return made.reshape(*([-1] if z.ndim > len(self.taken) else []), *self.given)


@pytest.mark.parametrize(
    ("taken", "given", "settings", "shape"),
    [
        ((4,), (3, 5, 6), {}, (5, 6, 3)),
        ((4,), (1, 5, 6), {}, (5, 6, 1)),
        ((4,), (5, 6, 3), {}, (5, 6, 3)),
        ((4,), (3, 5, 6), {"channels_first": False}, (3, 5, 6)),
        ((4,), (2, 5, 6), {"channels_first": True}, (5, 6, 2)),
        ((4,), (1,), {}, (1,)),
        ((4,), (5, 6), {}, (5, 6)),
        ((4, 1, 1), (7,), {}, (7,)),
        ((2, 2), (7,), {"latent_shape": (2, 2)}, (7,)),
    ],
)
def test_shapes_of_latents_and_samples_are_found(taken, given, settings, shape):
    net = Reshaped(taken, given)
    generator = from_torch(net, 4, **settings)
    assert generator.event_shape == shape
    with torch.no_grad():
        wanted = net(torch.tensor(Z).reshape(1, *taken))[0].numpy()
    moved = shape != given
    np.testing.assert_allclose(
        generator(Z), wanted.transpose(1, 2, 0) if moved else wanted, atol=1e-6
    )


def test_a_function_without_a_batch_and_one_that_drops_it_are_taken():
    net = mlp(4, 6)
    weights = torch.arange(24.0).reshape(6, 4)
    assert from_torch(lambda z: weights @ z, 4).event_shape == (6,)
    assert from_torch(lambda z: net(z).squeeze(), 4).event_shape == (6,)
    assert from_torch(lambda z: net(z).reshape(-1, 1, 2, 3).squeeze(), 4).event_shape == (2, 3)
    assert from_torch(torch.compile(net), 4).event_shape == (6,)


def test_one_of_several_outputs_is_taken_where_it_is_said():
    net = mlp(4, 6)
    assert from_torch(lambda z: (z, net(z)), 4, output=1).event_shape == (6,)
    assert from_torch(lambda z: {"z": z, "x": net(z)}, 4, output="x").event_shape == (6,)
    assert from_torch(lambda z: (net(z),), 4).event_shape == (6,)


@pytest.mark.parametrize("spread", ["log_variance", "std"])
def test_an_encoder_comes_along(spread):
    vae = VAE()

    def encode(x):
        mean, second = vae.encode(2 * x)
        return (mean, second if spread == "log_variance" else second.exp())

    generator = from_torch(vae.decode, 3, encode=encode, spread=spread, range=(-1, 1))
    image = np.random.default_rng(0).uniform(size=(4, 4, 1)).astype(np.float32)
    with torch.no_grad():
        mean, second = vae.encode(2 * torch.tensor(2 * image[None, :, :, 0] - 1))
    wanted = torch.exp(second / 2 if spread == "log_variance" else second)
    found = jax.jit(lambda generator, x: generator.encode(x))(generator, image)
    np.testing.assert_allclose(found[0], mean[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[0].numpy(), rtol=1e-5)


def test_a_decoder_without_gradients_has_them_here():
    net = mlp(4, 6)
    generator = from_torch(torch.no_grad()(net.forward), 4)
    wanted = torch.autograd.functional.jacobian(net, torch.tensor(Z)).numpy()
    np.testing.assert_allclose(jax.jacfwd(generator)(Z), wanted, atol=1e-6)


# --- what is refused ---


class Noisy(nn.Module):
    def forward(self, z):
        return z + torch.randn_like(z) + nn.functional.dropout(z)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z):
        self.calls += 1
        return z * self.calls


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return torch.round(3 * z)

    @staticmethod
    def backward(ctx, slope):
        return slope


def pair_only(z):
    assert z.shape[-2] > 1
    return 2 * z


def numpy_noise(z):
    return z + float(np.random.default_rng().normal())


REFUSED = {
    "a class": (VAE, "VAE is a class: give a module, VAE(...)"),
    "a number": (3.0, "a float is no module of PyTorch, nor a function"),
    "other latents": (
        lambda z: z @ torch.ones(5, 2),
        "<lambda> takes no latent of 4 numbers: [1, ",
    ),
    "a pair": (lambda z: (z, 2 * z), "take one of 0 [1, 4], 1 [1, 4] by output="),
    "a dictionary": (
        lambda z: {"x": z},
        "gives a dict with not one tensor; take one of 'x' [1, 4]",
    ),
    "nothing": (lambda z: None, "gives None and no tensor"),
    "integers": (lambda z: z.int(), "gives int32, not floating-point numbers"),
    "no numbers": (lambda z: z[:, :0], "gives shape (0,), in which there is nothing to change"),
    "noise": (Noisy(), "(aten.native_dropout.default, aten.randn_like.default)"),
    "numpy's noise": (numpy_noise, "gives another result each time"),
    "a counter": (Counting(), "gives another result each time"),
    "two at least": (pair_only, "takes no single latent, only a batch of two and more"),
    "unknown operators": (
        lambda z: torch.special.zeta(z, z) + torch.special.i1(z),
        "2 operators that cannot be run in JAX: aten.special_i1.default, aten.special_zeta.default",
    ),
    "a choice": (lambda z: z if z.sum() > 0 else -z, "decides by the values of its numbers"),
    "a mask": (lambda z: z[z > -9], "PyTorch|depends on values|decides by the values"),
    "detached": (
        lambda z: z.detach() * z,
        "has a derivative in JAX that differs from PyTorch's by ",
    ),
    "straight through": (Rounded.apply, "is something in it detached, or has it a backward"),
    "endless": (lambda z: z / 0, "makes samples that are not finite"),
    "no storage": (nn.Linear(4, 2, device="meta"), "has parameters without numbers"),
    "no shape": (nn.LazyLinear(2), "has parameters without numbers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_generator_is_one_line(kind, capfd):
    module, message = REFUSED[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="|".join(map(re.escape, message.split("|")))) as error:
            from_torch(module, 4)
    assert "\n" not in str(error.value)
    said = capfd.readouterr()
    assert said.out + said.err == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"latent_shape": (3, 2)}, "latent_shape (3, 2) has 6 numbers, and latent_dim is 4"),
        ({"range": (1, 0)}, "range must be black and white, got (1, 0)"),
        ({"spread": "variance"}, "spread must be log_variance or std, got 'variance'"),
        ({"channels_first": True}, "gives shape (6,), which is no image whose channels are first"),
        ({"output": 0}, "gives one tensor, so that there is no output 0 to take"),
        ({"encode": lambda x: x}, "encode of net gives a Tensor, where a pair is needed"),
        ({"encode": lambda x: (x, x)}, "gives [1, 6] for one sample, where a latent has 4 numbers"),
        ({"encode": lambda x: x.reshape(7)}, "takes no sample of shape [1, 6], which is what"),
        (
            {"encode": lambda x: (x[:, :4], -(x[:, :4] ** 2)), "spread": "std"},
            "gives negative deviations",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_torch(mlp(4, 6), **{"latent_dim": 4, "name": "net", **settings})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("which", ["decode", "encode"])
def test_a_wrong_rule_would_be_seen(which, monkeypatch):
    rules = {**aten.RULES, "tanh": lambda self: 1.001 * jnp.tanh(self)}
    for name in ("graph.RULES", "aten.RULES"):
        monkeypatch.setattr(f"latent_flows.generators._torch.{name}", rules)
    net = mlp(4, 6)
    message = r"differ from PyTorch's by [1-9]\.\de-0[34] of their range; at most 1e-05 is accepted"
    given = {"encode": (lambda z: z, lambda x: (torch.tanh(x), x)), "decode": (net, None)}
    module, encode = given[which]
    with pytest.raises(ValueError, match=message):
        from_torch(module, 4, encode=encode)


# --- by its name ---

OWN = """
import torch
from torch import nn
from latent_flows.generators import from_torch

class Net(nn.Module):
    latent_dim = 4

    def __init__(self, width=3):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 24)
        self.register_buffer("gain", torch.ones(()))

    def decode(self, z):
        return torch.tanh(self.last(torch.relu(self.first(z)) * self.gain)).view(-1, 2, 3, 4)

    def forward(self, z):
        return self.decode(z)

torch.manual_seed(0)
net = Net()
decode = net.decode
frozen = from_torch(net, 4)

def build(width=3):
    return Net(width)

def broken():
    raise RuntimeError("no such luck")

def three():
    return 3

def jaxen(z=None):
    return 2.0 * z
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    state = {"first.weight": torch.ones(3, 4), "first.bias": torch.zeros(3)}
    state |= {"last.weight": torch.full((24, 3), 0.1), "last.bias": torch.zeros(24)}
    return {**state, "gain": torch.tensor(2.0)}


def wanted(z):
    return np.full((2, 3, 4), np.tanh(0.6 * max(z.sum(), 0)))


PUT = {
    "plain": lambda state: state,
    "prefixed": lambda state: {f"module.{k}": v for k, v in state.items()},
    "nested": lambda state: {"state_dict": state, "epoch": 3},
    "nested and prefixed": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    "averaged": lambda state: {"g": {k: 0 * v for k, v in state.items()}, "g_ema": state},
    "parameters": lambda state: {k: nn.Parameter(v) for k, v in state.items()},
    "halves": lambda state: {k: v.half() for k, v in state.items()},
    "within others": lambda state: {
        **{f"decoder.{k}": v for k, v in state.items()},
        "encoder.weight": torch.ones(2),
    },
}
POSITIVE = np.array([0.1, 0.2, 0.3, 0.1], np.float32)


@pytest.mark.parametrize("kind", PUT)
@pytest.mark.parametrize("name", ["net"])
def test_a_state_is_found_wherever_it_lies_in_its_file(kind, name, own):
    torch.save(PUT[kind](own), "x.pt")
    generator = load_generator(GeneratorSpec(f"own.py:{name}", checkpoint="x.pt"))
    np.testing.assert_allclose(generator(POSITIVE), wanted(POSITIVE), atol=1e-3)


@pytest.mark.parametrize("name", ["net", "decode", "Net", "build", "frozen"])
def test_a_module_and_what_builds_one_are_recognised_by_name(name, own):
    generator = load_generator(f"own.py:{name}")
    assert isinstance(generator, FrozenGenerator)
    assert generator.event_shape == (2, 3, 4)


def test_a_function_of_jax_beside_pytorch_stays_one(own):
    assert load_generator(GeneratorSpec("own.py:jaxen", latent_dim=3)).event_shape == (3,)


def test_settings_of_a_module_are_those_of_any_function(own):
    from safetensors.torch import save_file

    save_file(own, "x.safetensors")
    spec = GeneratorSpec(
        "own.py:build",
        checkpoint="x.safetensors",
        range=(-1, 1),
        prior="sphere",
        dtype="bfloat16",
        recompute=True,
    )
    generator = load_generator(spec)
    np.testing.assert_allclose(jnp.linalg.norm(generator.prior(jax.random.key(1))), 2, rtol=1e-5)
    np.testing.assert_allclose(generator(POSITIVE), (wanted(POSITIVE) + 1) / 2, atol=0.02)


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("run"),)


UNFIT = {
    "code": (lambda s: Harmful(), "which could run code; only tensors"),
    "missing": (
        lambda s: {k: v for k, v in s.items() if "last" not in k},
        "is not the state of Net: 2 missing (last.weight, last.bias)",
    ),
    "left over": (lambda s: {**s, "more.weight": s["gain"]}, "1 left over (more.weight)"),
    "misshapen": (
        lambda s: {**s, "first.weight": torch.ones(5, 4)},
        "1 of another shape (first.weight [5, 4] in place of [3, 4])",
    ),
    "a list": (lambda s: [1, 2], "holds no tensors"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_state_that_does_not_fit_is_one_line_and_nothing_of_it_is_run(kind, own):
    make, message = UNFIT[kind]
    torch.save(make(own), "x.pt")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_generator(GeneratorSpec("own.py:net", checkpoint="x.pt"))
    assert str(error.value).startswith("generator.checkpoint: x.pt ")
    assert "\n" not in str(error.value)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("broken", {}, "own.py:broken fails to build a module (RuntimeError: no such luck)"),
        ("three", {"latent_dim": 4}, "own.py:three cannot be called with (z)"),
        ("net", {"checkpoint": "none.pt"}, "generator.checkpoint: none.pt does not exist"),
        ("net", {"latent_dim": 3}, "the latent's dimensions differ: 3 by generator.latent_dim, 4"),
        ("net", {"label": 1}, "are for published generators"),
        ("frozen", {"dtype": "bfloat16"}, "own.py:frozen is a FrozenGenerator"),
    ],
)
def test_a_name_that_makes_no_module_is_one_line(name, settings, message, own):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_generator(GeneratorSpec(f"own.py:{name}", **settings))
    assert "\n" not in str(error.value)
