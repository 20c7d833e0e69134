"""Generators that are no VAE's: their images, priors and flags, and what is refused."""

import json
import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import save_file

from experiments.directions import train as directions
from experiments.generators import import_weights, train_gan, train_vae, vae_runs
from experiments.generators.load import resolved, supply
from experiments.generators.pretrained import first_weights, published
from experiments.generators.spec import Source, draws, prior
from experiments.latent_oddity import clustering, geodesics
from experiments.potential_flows import train as potential_flows
from experiments.potential_flows import traverse
from experiments.runtime import checkpoints, cli
from experiments.runtime.cli import UsageError
from experiments.runtime.run_dir import open_folder
from experiments.supervised_flows import train as guided
from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.proggan import ProgGAN
from latent_flows.generators.sngan import SNGAN
from latent_flows.generators.stylegan2 import StyleGAN2
from latent_flows.generators.vae import VAEConfig

ROOT = Path(__file__).parents[2]
FLAGS = shlex.split(
    "gan --flows.count 2 --flows.horizon 2 --flows.width 4 --flows.depth 1 --flows.codes 32 "
    "--flows.bank 16 --training.steps 2 --training.warmup 0 --training.batch-size 8 "
    "--training.log-every 1 --training.checkpoint-every 2 --scores.starts 4 --scores.pairs 20 "
    "--scores.fractions 0.2 --scores.seeds 1 --scores.vp-steps 5"
)
STYLE = StyleGAN2(resolution=8, latent_dim=3, mapping_layers=1, channels=(2, 4))


@pytest.fixture(autouse=True)
def _quick(compile_quickly):
    pass


def variables_of(net):
    inputs = import_weights.example_inputs(net)
    return jax.jit(net.init)(jax.random.key(0), *inputs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compile_quickly):
    """The flows of the generator that the documentation begins with."""
    folder = tmp_path_factory.mktemp("own")
    page = (ROOT / "docs" / "generators.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (folder / "blob.py").write_text(block[1], encoding="utf-8")
    flags = [*FLAGS, "--generator.path", f"{folder / 'blob.py'}:blob", "--run", folder / "run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup", lambda: None)
        presets, words = potential_flows.PRESETS, [str(flag) for flag in flags]
        assert cli.main(potential_flows.run, presets, words) == 0
    return folder


@pytest.mark.slow
def test_the_generator_of_the_documentation_is_traversed_and_measured(whole):
    assert len((whole / "blob.py").read_text().splitlines()) <= 15
    metrics = json.loads((whole / "run" / "metrics.json").read_text())
    assert "generator" not in metrics  # no encoder, so no bound
    assert metrics["potentials"]["solved"] == 1
    found = [row["method"] for row in metrics["comparison"] if row["displacement"] == "long"]
    assert found == [
        "potentials",
        "random directions",
        "latent coordinates",
        "GANSpace",
        "most visible axes",
    ]
    for row in metrics["comparison"]:
        assert 0 <= row["vp@20%"] <= 1
        assert row["length"] > 0
    for name in ("traversals", "landscapes", "losses_flows"):
        assert (whole / "run" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_flows_of_any_generator_can_be_drawn_again(whole, call):
    before = (whole / "run" / "traversals.png").read_bytes()
    assert call(traverse, whole / "run", "--start", "3")[0] == 0
    assert (whole / "run" / "traversals.png").read_bytes() != before


@pytest.mark.slow
def test_flows_can_be_learnt_again_on_the_generator_of_earlier_ones(whole, tmp_path, call):
    flags = [*FLAGS, "--generator", whole / "run", "--run", tmp_path / "run"]
    assert call(potential_flows, *flags)[0] == 0
    first, second = (json.loads((p / "run/metrics.json").read_text()) for p in (whole, tmp_path))
    assert first["comparison"] == second["comparison"]


# --- a user's own ---

OWN = """
import jax
import jax.numpy as jnp
import numpy as np

def good(z):
    return jnp.full((4, 4, 1), 0.5) + 0.01 * z.sum()

def scaled(params, z):
    return params["deep"]["gain"] * jnp.ones((4, 4, 1)) + 0.01 * z.sum()

def vector(z):
    return z

def integers(z):
    return jnp.ones((4, 4, 1), int)

def several(z):
    return good(z), good(z)

def endless(z):
    return good(z) / 0

def blank(z):
    return jnp.full((4, 4, 1), 0.5) + 0 * z.sum()

def stopped(z):
    return jax.lax.stop_gradient(good(z))

def rounded(z):
    return jnp.round(255 * good(z)) / 255

def rooted(z):
    return good(z) + 0.01 * jnp.sqrt(jnp.zeros(())) * jnp.sqrt(0 * z[0])

def sized(z):
    return jnp.full((4, 4, 1), 0.5) + 0.01 * z[0]

def great(z):
    return jnp.ones((100_000, 100_000, 3)) * z[0]

def symmetric(z):
    return jnp.tanh(jnp.linspace(-3, 3, 16)).reshape(4, 4, 1) + 1e-5 * z.sum()

def host(z):
    return jnp.asarray(np.asarray(z))

number = 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("god", {}, "has no 'god'; did you mean 'good'?"),
        ("number", {}, "is a int, no function"),
        ("scaled", {}, "with --generator.checkpoint it gets (params, z)"),
        ("vector", {}, "gives shape (3,), not an image [h, w, c]"),
        ("integers", {}, "gives int32, not floating-point pixels"),
        ("several", {}, "gives tuple, not an image [h, w, c]"),
        ("host", {}, "fails on a latent of shape (3,): TracerArrayConversionError"),
        ("good", {"latent_dim": None}, "or the function an attribute latent_dim"),
        ("good", {"label": 2}, "are for published generators"),
        ("blank", {}, "own.py:blank makes the same image of every latent"),
        ("stopped", {}, "makes images whose derivatives by the latent are zero"),
        ("rounded", {}, "makes images whose derivatives by the latent are zero"),
        ("rooted", {}, "makes images whose derivatives are not finite"),
        ("good", {"checkpoint": "none.npz"}, "none.npz does not exist"),
        ("good", {"checkpoint": "own.py"}, "must be an orbax folder, .npz or .safetensors"),
    ],
)
def test_what_gives_no_images_is_refused(name, flags, message, own, monkeypatch):
    monkeypatch.chdir(own.parent)
    with pytest.raises(UsageError, match=re.escape(message)):
        supply("", Source(**{"path": f"own.py:{name}", "latent_dim": 3} | flags), 0)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("endless", [], "makes images that are not finite"),
        ("symmetric", [], "makes pixels from -0.995 to 0.995, far beyond --generator.range 0 1"),
        ("good", ["--generator.range", "1", "0"], "generator.range must be black and white"),
        ("good", ["--generator.truncation", "0"], "generator.truncation must be positive, got 0"),
        ("good", ["--generator.checkpoint", "."], "cannot be read"),
        ("good", ["--generator.pth", "x"], "did you mean --generator.path?"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(name, flags, message, own, monkeypatch, call):
    monkeypatch.chdir(own.parent)
    words = ["--generator.path", f"own.py:{name}", "--generator.latent-dim", "3", *flags]
    code, out, err = call(potential_flows, *FLAGS, *words, "--run", "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert [file.name for file in own.parent.iterdir() if file.name != "__pycache__"] == ["own.py"]


@pytest.mark.parametrize("said", ["four", 0, -3, True, 2.5, float("nan"), 2**40, [4], (1, 2)])
def test_dimensions_that_are_no_number_of_them_are_refused(said, own, monkeypatch):
    monkeypatch.chdir(own.parent)
    own.write_text(OWN + f"sized.latent_dim = {said!r}\n".replace("nan", "float('nan')"))
    with pytest.raises(UsageError, match=r"own.py:sized: latent_dim must be a whole number from 1"):
        supply("", Source(path="own.py:sized"), 0)


def test_dimensions_that_differ_are_refused_and_equal_ones_are_not(own, monkeypatch):
    monkeypatch.chdir(own.parent)
    own.write_text(OWN + "sized.latent_dim = np.int64(4)\nscaled.latent_dim = jnp.array(4)\n")
    with pytest.raises(UsageError, match=r"differ: 2 by --generator.latent-dim, 4 by own.py:sized"):
        supply("", Source(path="own.py:sized", latent_dim=2), 0)
    np.savez("params.npz", **{"deep/gain": np.array(0.25), "latent_dim": np.array(3)})
    with pytest.raises(UsageError, match=r"differ: 4 by own.py:scaled, 3 by params.npz"):
        supply("", Source(path="own.py:scaled", checkpoint="params.npz"), 0)
    assert supply("", Source(path="own.py:sized", latent_dim=4), 0).latent_dim == 4


def test_latents_too_long_for_the_memory_are_refused_at_once(own, monkeypatch, call):
    monkeypatch.chdir(own.parent)
    own.write_text(OWN + "sized.latent_dim = 10**6\n")
    words = ["gan", "--generator.path", "own.py:sized", "--run", "run"]
    code, out, err = call(potential_flows, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "latents of 1000000 numbers with 1024 matrices of their size takes at least" in err
    assert "GiB are free; lower --generator.latent-dim" in err
    assert not Path("run").exists()


def test_images_too_large_for_the_memory_are_refused_at_once(own, monkeypatch, call):
    monkeypatch.chdir(own.parent)
    words = ["gan", "--generator.path", "own.py:great", "--generator.latent-dim", "2"]
    code, out, err = call(potential_flows, *words, "--run", "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "a few images of own.py:great (4 of 100000 x 100000 x 3) takes at least 447 GiB" in err
    assert "GiB are free; make them smaller" in err
    assert not Path("run").exists()


def truncated(place):
    np.savez(place, gain=np.ones(1000))
    place.write_bytes(place.read_bytes()[:-300])


def damaged(place):
    np.savez_compressed(place, gain=np.arange(1000))
    content = bytearray(place.read_bytes())
    content[60:400] = bytes(340)
    place.write_bytes(content)


DAMAGED = {
    "truncated": (truncated, "cannot be read"),
    "damaged": (damaged, "cannot be read"),
    "a folder": (Path.mkdir, "cannot be read"),
    "empty": (Path.touch, "cannot be read"),
    "objects": (lambda place: np.savez(place, w=np.array([{}], object)), "cannot be read"),
    "texts": (lambda place: np.savez(place, w=np.array(["a"])), "holds <U1, not numbers alone"),
    "an array that holds others": (
        lambda place: np.savez(place, **{"w": np.ones(1), "w/b": np.ones(1)}),
        "w/b lies in w, which is an array itself",
    ),
    "others in an array": (
        lambda place: np.savez(place, **{"w/b": np.ones(1), "w": np.ones(1)}),
        "w is an array, and others lie in it",
    ),
}
"""Checkpoints that nobody can read, and what the message says."""


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_checkpoint_that_cannot_be_read_is_one_line(kind, suffix, own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = DAMAGED[kind]
    make(tmp_path / "params.npz")
    if suffix == "safetensors":
        Path("params.npz").rename("params.safetensors")
        message = "cannot be read"
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        supply("", Source(path="own.py:scaled", latent_dim=3, checkpoint=f"params.{suffix}"), 0)
    assert str(error.value).startswith("--generator.checkpoint: ")
    assert "\n" not in str(error.value)


def test_a_folder_called_like_a_module_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").mkdir()
    with pytest.raises(UsageError, match=r"own.py is a folder, not a file with a function"):
        supply("", Source(path="own.py:f"), 0)


# --- what a run says of its generator ---


def finished_vae(path, **settings):
    """A run of train_vae as it is after its end, of weights that nobody trained."""
    config = train_vae.Config(run=str(path), data="digits", vae=TINY, **settings)
    folder = open_folder(config.run, config)
    vae = train_vae.model(config, train_vae.load(config, "train"))
    params = jax.jit(partial(train_vae.initial, vae))(jax.random.key(0))
    with checkpoints.open_manager(folder.path / "checkpoints" / train_vae.PHASE) as manager:
        checkpoints.save(manager, 1, {"params": params, "total": 1})
    return config


TINY = VAEConfig(latent_dim=2, encoder="mlp", decoder="mlp", width=1, depth=1)


def test_a_configuration_says_what_is_true_of_its_generator(tmp_path, capsys):
    run = finished_vae(tmp_path / "vae", labels=(1, 2)).run
    for module in (potential_flows, directions, guided, geodesics):
        name = next(name for name in ("mnist", "sprites") if name in module.PRESETS)
        preset = module.PRESETS[name][1]
        said = resolved(replace(preset, generator=run))
        assert (said.data, said.image_size, said.vae) == ("digits", None, TINY)
        assert (said.generator, said.run) == (run, preset.run)
        assert getattr(said, "labels", (1, 2)) == (1, 2)
        assert capsys.readouterr().err == (
            f"warning: the generator of {run} was trained on digits, and so the data are digits, "
            f"not {preset.data}\n"
        )
    same = replace(potential_flows.PRESETS["digits"][1], generator=run)
    assert resolved(same).vae == TINY
    assert capsys.readouterr().err == ""


def test_a_run_of_ones_own_generator_claims_no_data(own):
    preset = potential_flows.PRESETS["gan"][1]
    said = resolved(replace(preset, source=Source(path=f"{own}:good")))
    assert (said.generator, said.data, said.source.path) == ("", "", f"{own}:good")


def test_two_generators_are_one_too_many(own, tmp_path, call, monkeypatch):
    monkeypatch.chdir(own.parent)
    path = ["--generator.path", "own.py:good", "--generator.latent-dim", "3", "--run", "run"]
    for module, given in ((potential_flows, "runs/gan"), (directions, "R"), (geodesics, "R")):
        code, out, err = call(module, "gan", "--generator", given, *path)
        assert (code, out) == (2, "")
        assert err == (
            f"error: --generator {given} and --generator.path own.py:good name two generators; "
            "leave one of them out\n"
        )
    assert not Path("run").exists()


def test_what_belongs_to_a_function_is_refused_for_a_run(tmp_path):
    for flag, value in (("latent_dim", 2), ("checkpoint", "a.npz"), ("range", (-1.0, 1.0))):
        name = flag.replace("_", "-")
        with pytest.raises(UsageError, match=f"--generator.{name} belongs to --generator.path"):
            supply("runs/gan", Source(**{flag: value}), 0)


@pytest.mark.parametrize("module", [potential_flows, directions, guided, geodesics, clustering])
@pytest.mark.parametrize("path", ["README.md", "README.md/x", "empty", "nowhere"])
def test_a_generator_that_is_no_run_folder_is_one_line(module, path, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("# Title")
    Path("empty").mkdir()
    code, out, err = call(module, "--generator", path, "--run", "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert path in err
    assert not Path("run").exists()


def test_a_vae_whose_images_never_change_is_refused(tmp_path):
    run = finished_vae(tmp_path / "vae").run
    config = replace(potential_flows.PRESETS["digits"][1], generator=run)
    dataset = train_vae.load(train_vae.Config(data="digits"), "train")
    vae, params = vae_runs.load_vae(None, config, dataset)
    flat = jax.tree.map(jnp.zeros_like, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae_runs, "restore", lambda *_: flat)
        with pytest.raises(UsageError, match="makes the same image of every latent"):
            vae_runs.load_vae(None, config, dataset)
    assert vae.config == TINY


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("own", "must be package.module:function or file.py:function, got 'own'"),
        ("nowhere.at.all:f", "cannot be imported (ModuleNotFoundError"),
        ("broken.py:f", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("missing.py:f", "missing.py does not exist"),
    ],
)
def test_a_path_that_does_not_import_says_why(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=re.escape(message)):
        supply("", Source(path=path), 0)


def test_a_function_computes_in_the_dtype_asked_for(own, tmp_path):
    np.savez(tmp_path / "params.npz", **{"deep/gain": np.array(0.3, np.float32)})
    given = {"path": f"{own}:scaled", "checkpoint": str(tmp_path / "params.npz"), "latent_dim": 2}
    half = supply("", Source(**given, dtype="bfloat16"), 0).generator
    image = half(jnp.zeros(2))
    assert image.dtype == jnp.float32
    # 0.3 has no exact form in eight bits.
    assert float(image[0, 0, 0]) == float(jnp.bfloat16(0.3)) != float(jnp.float32(0.3))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}


def test_numbers_of_ones_own_are_not_narrowed_in_silence(own):
    path = f"{own}:symmetric"
    message = re.escape(f"{path} makes float32 of latents in bfloat16")
    with pytest.raises(UsageError, match=message):
        supply("", Source(path=path, latent_dim=1, range=(-1.0, 1.0), dtype="bfloat16"), 0)


@pytest.mark.parametrize(
    "net", [SNGAN((2, 2), latent_dim=3), pytest.param(STYLE, marks=pytest.mark.slow)]
)
def test_features_that_are_computed_again_give_the_same_images(net, key):
    variables, z = filled(net), jnp.ones(3)
    kept, again = (
        published("net", net, variables, Source(recompute=on), 0).generator for on in (False, True)
    )
    push = lambda g: jax.jit(lambda z: jax.vjp(g, z))(z)[1](jnp.ones((8, 8, g(z).shape[2])))  # noqa: E731
    np.testing.assert_allclose(again(z), kept(z), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(push(again)[0], push(kept)[0], rtol=1e-4, atol=1e-4)
    assert "remat" in str(jax.make_jaxpr(again)(z))
    assert "remat" not in str(jax.make_jaxpr(kept)(z))


@pytest.mark.parametrize("kind", ["npz", "safetensors", "orbax"])
def test_every_kind_of_checkpoint_gives_the_same_images(kind, own, tmp_path):
    flat = {"deep/gain": np.array(0.25, np.float32), "latent_dim": np.array(2)}
    place = tmp_path / f"params.{kind}"
    if kind == "npz":
        np.savez(place, **flat)
    elif kind == "safetensors":
        save_file(flat, place)
    else:
        with ocp.StandardCheckpointer() as writer:
            writer.save(
                place, {"deep": {"gain": flat["deep/gain"]}, "latent_dim": flat["latent_dim"]}
            )
    found = supply("", Source(path=f"{own}:scaled", checkpoint=str(place)), 0)
    assert (found.latent_dim, found.image_shape) == (2, (4, 4, 1))
    np.testing.assert_allclose(found.generator(jnp.ones(2)), 0.27, rtol=1e-6)


def test_the_range_of_the_images_becomes_black_and_white(own):
    source = Source(path=f"{own}:symmetric", latent_dim=1, range=(-1.0, 1.0))
    image = supply("", source, 0).generator(jnp.zeros(1))
    np.testing.assert_allclose([image.min(), image.max()], [0.0025, 0.9975], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "low", "high", "norm"),
    [
        ("normal", -np.inf, np.inf, np.sqrt(8)),
        ("truncated", -0.7, 0.7, np.sqrt(8 * 0.155)),
        ("sphere", -np.sqrt(8), np.sqrt(8), np.sqrt(8)),
        ("uniform", -1, 1, np.sqrt(8 / 3)),
    ],
)
def test_latents_are_those_of_the_prior(name, low, high, norm, key):
    latents = draws(prior(Source(prior=name, truncation=0.7), 8), key, 2000)
    assert latents.shape == (2000, 8)
    assert (low <= latents).all()
    assert (latents <= high).all()
    np.testing.assert_allclose(np.sqrt((latents**2).sum(1).mean()), norm, rtol=0.02)
    np.testing.assert_allclose(latents.mean(0), 0, atol=0.1)
    if name == "sphere":
        np.testing.assert_allclose(jnp.linalg.norm(latents, axis=1), norm, rtol=1e-5)


# --- those of this library ---


BIG = BigGAN(resolution=32, channels=2, classes=5, latent_dim=8, attention=())


def filled(net):
    """Variables of the right shapes, without compiling what would draw them."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *import_weights.example_inputs(net))
    random = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(draw, shapes)


def test_an_image_is_the_same_in_every_space_of_stylegan(key):
    variables = filled(STYLE)
    z, *others = (
        published("net", STYLE, variables, Source(space=space), 0) for space in ("z", "w", "w+")
    )
    assert [one.latent_dim for one in (z, *others)] == [3, 3, 3 * STYLE.style_count]
    image = jax.jit(z.generator)(z.prior(key))
    assert image.shape == z.image_shape == (8, 8, 3)
    for one in others:
        np.testing.assert_allclose(jax.jit(one.generator)(one.prior(key)), image, rtol=1e-4)
    # The more is cut off, the nearer are images to that of the mean of W.
    mean = variables["statistics"]["mean_w"]
    cut = published("net", STYLE, variables, Source(space="w", truncation=1e-6), 0)
    images = jax.jit(jax.vmap(cut.generator))(jnp.stack([mean, mean + 1]))
    np.testing.assert_allclose(images[0], images[1], rtol=1e-3, atol=1e-3)


def test_the_class_of_a_biggan_is_the_one_asked_for_or_drawn_by_the_seed():
    names = [published("net", BIG, filled(BIG), Source(), seed).name for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    with pytest.raises(UsageError, match=r"label must lie in \[0, 5\), got 5"):
        published("net", BIG, filled(BIG), Source(label=5), 0)


@pytest.mark.slow
def test_images_of_a_biggan_are_of_its_class(key):
    variables = variables_of(BIG)
    one = published("net", BIG, variables, Source(label=3), 0)
    z = one.prior(key)
    image = jax.jit(one.generator)(z)
    np.testing.assert_allclose(image, (BIG.apply(variables, z, 3) + 1) / 2, atol=1e-5)
    assert jnp.abs(image - published("net", BIG, variables, Source(label=2), 0).generator(z)).max()


def test_flags_of_another_architecture_are_refused():
    net = SNGAN((2, 2), latent_dim=3)
    for source, message in ((Source(space="w"), "StyleGAN2's"), (Source(label=1), "BigGAN's")):
        with pytest.raises(UsageError, match=message):
            published("net", net, filled(net), source, 0)


@pytest.mark.parametrize(
    ("net", "space", "rows", "seen"),
    [
        (SNGAN((2, 3), latent_dim=5), "z", 16 * 2, 5),
        (ProgGAN(channels=(2, 3), latent_dim=5), "z", 16 * 2, 5),
        # The first of four parts of the latent.
        (BIG, "z", 16 * 8, 2),
        # A modulation each: conv of 4 pixels, up and conv of 8, two to RGB.
        (STYLE, "w", 2 + 2 + 4 + 2 + 4, 3),
    ],
)
def test_first_weights_have_a_column_for_each_latent_that_the_layers_see(net, space, rows, seen):
    weight = first_weights(net, filled(net), space)
    assert weight.shape == (rows, net.latent_dim)
    assert weight[:, :seen].all()
    assert not weight[:, seen:].any()


def test_sefa_has_no_weights_to_go_by_behind_a_mapping_network():
    assert first_weights(STYLE, filled(STYLE), "z") is None


def test_the_generator_of_a_trained_gan_is_taken_from_its_run(tmp_path):
    config = train_gan.Config(
        run=str(tmp_path / "gan"),
        image_size=16,
        networks=train_gan.Networks(3, generator=(2, 2, 2), discriminator=(2,)),
    )
    folder = open_folder(config.run, config)
    net = SNGAN((2, 2, 2), 1, 3)
    variables = jax.jit(partial(train_gan.initial, net))(jax.random.key(1))
    with checkpoints.open_manager(folder.path / "checkpoints" / train_gan.PHASE) as manager:
        checkpoints.save(manager, 1, {"params": variables, "total": 1})
    found = supply(config.run, Source(), 0)
    assert (found.latent_dim, found.image_shape) == (3, (16, 16, 1))
    z = jnp.ones(3)
    np.testing.assert_allclose(found.generator(z), (net.apply(variables, z) + 1) / 2, atol=1e-6)
