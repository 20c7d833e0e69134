"""The latents of pictures of one's own: what the command writes, what it refuses, who goes on."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.directions import train as directions
from experiments.inversion import invert
from experiments.inversion.config import Config, home
from experiments.inversion.latent_file import one_latent, read_latents
from experiments.latent_oddity import geodesics
from experiments.runtime.errors import UsageError
from experiments.runtime.run_dir import Folder
from latent_flows.generators import load_generator
from latent_flows.generators.stored import StoredGenerator, to_bytes
from latent_flows.generators.stylegan2 import StyleGAN2
from tests.experiments.small_generators import small_gan, small_vae
from tests.generators.small_nets import filled

FEW = ("--starts", 2, "--steps", 20)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return small_vae(tmp_path_factory.mktemp("generators") / "vae")


@pytest.fixture
def pictures(tmp_path):
    """A grey one of the right size, a wide one in colours, and one of two frames."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    frames = [Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)) for _ in range(2)]
    frames[0].save(folder / "grey.png")
    Image.fromarray(random.integers(0, 256, (10, 20, 4), np.uint8)).save(folder / "wide.png")
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    return folder


def refused(result, *words):
    code, _, err = result
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert all(word in err for word in words), err


def test_latents_reconstructions_and_errors_are_written_and_what_was_done_is_said(
    vae, pictures, tmp_path, call
):
    run = tmp_path / "run"
    names = [str(pictures / name) for name in ("grey.png", "wide.png", "moving.gif")]
    code, out, err = call(invert, vae, *names, "--run", run, *FEW)
    assert (code, err) == (0, ""), err
    assert "wide.png: the middle 10 x 10 of 20 x 10 pixels, brought to 8 x 8" in out
    assert "wide.png: black where it is transparent" in out
    assert "wide.png: its colours made grey" in out
    assert "moving.gif: the first of 2 frames" in out
    assert "grey.png: step 20 of 20, error" in out
    latents = np.load(run / "latents.npy")
    assert latents.shape == (3, 3)
    np.testing.assert_array_equal(np.load(run / "latents" / "wide.npy"), latents[1])
    rows = json.loads((run / "metrics.json").read_text())["pictures"]
    assert [row["picture"] for row in rows] == ["grey.png", "wide.png", "moving.gif"]
    assert all({"pixels", "blurred", "ssim", "pixels of code"} <= {*row} for row in rows)
    with Image.open(pictures / "grey.png") as image:
        target = np.float32(image)[..., None] / 255
    sample = load_generator(vae)(jnp.asarray(latents[0]))
    np.testing.assert_allclose(rows[0]["pixels"], np.mean((target - sample) ** 2), rtol=1e-4)
    assert rows[0]["pixels"] <= rows[0]["pixels of code"] + 1e-6
    assert (run / "reconstructions.png").exists()


def test_the_same_command_goes_on_and_a_changed_picture_is_seen(
    vae, pictures, tmp_path, call, monkeypatch
):
    picture, run = pictures / "grey.png", tmp_path / "run"
    assert call(invert, vae, picture, "--run", run, *FEW)[0] == 0
    before = (run / "latents.npy").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(invert, "inverted", None)  # what was found is not looked for again
        code, out, _ = call(invert, vae, picture, "--run", run, *FEW)
    assert code == 0
    assert "results:" in out
    assert (run / "latents.npy").read_bytes() == before
    refused(call(invert, vae, picture, "--run", run, "--starts", 3), "other settings", "starts")
    (pictures / "wide.png").rename(picture)
    refused(
        call(invert, vae, picture, "--run", run, *FEW), "another picture", "choose another --run"
    )


def test_what_is_no_picture_is_refused_before_a_run_begins(vae, pictures, tmp_path, call):
    run = tmp_path / "run"
    (tmp_path / "text.png").write_text("# Title")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((pictures / "wide.png").read_bytes()[:90])
    Image.new("1", (10_000, 6_500)).save(tmp_path / "large.png")
    for name, words in {
        "nothing.png": ("nothing.png: there is no such file",),
        ".": ("is a folder; name the pictures in it",),
        "text.png": ("text.png cannot be read as a picture", "no image"),
        "empty.png": ("empty.png cannot be read as a picture", "empty"),
        "cut.png": ("cut.png cannot be read as a picture", "truncated"),
        "large.png": ("large.png", "65 megapixels, more than 64", "make it smaller"),
    }.items():
        refused(call(invert, vae, tmp_path / name, "--run", run), *words)
    refused(call(invert, vae, "--run", run), "no picture is named")
    refused(call(invert, tmp_path / "gone", pictures / "grey.png", "--run", run), "does not exist")
    refused(call(invert, vae, pictures / "grey.png", "--steps", 0), "steps must be at least 1")
    refused(call(invert, vae, pictures / "grey.png", "--generator.space", "w"), "and", "encoder")
    assert not run.exists()


def test_a_network_of_ones_own_is_tried_first(vae, pictures, tmp_path, call):
    (tmp_path / "own.py").write_text(
        "import jax.numpy as jnp\n"
        "def rows(image):\n    return image.mean(1)\n"
        "def wrong(image):\n    return image @ jnp.ones((3, 3))\n"
        "def bad(image):\n    return jnp.nan * image\n"
        "def whole(image):\n    return (255 * image).astype(int)\n"
    )
    run, picture = tmp_path / "run", pictures / "grey.png"
    for name, words in {
        "wrong": ("fails on a sample of shape (8, 8, 1)",),
        "bad": ("expected finite floating-point numbers",),
        "whole": ("gives int32", "expected finite floating-point numbers"),
        "raws": ("has no 'raws'", "did you mean 'rows'"),
    }.items():
        flags = ("--features", f"{tmp_path / 'own.py'}:{name}", "--run", run)
        refused(call(invert, vae, picture, *flags), "--features", *words)
    assert not run.exists()
    flags = ("--features", f"{tmp_path / 'own.py'}:rows", "--run", run, *FEW)
    assert call(invert, vae, picture, *flags)[0] == 0
    assert 0 < json.loads((run / "metrics.json").read_text())["pictures"][0]["features"] < 1


@pytest.mark.slow
def test_a_generator_of_vectors_takes_samples_as_arrays(tmp_path, call):
    (tmp_path / "own.py").write_text(
        "import jax.numpy as jnp\n"
        "def sines(z):\n    return jnp.sin(jnp.outer(jnp.arange(1.0, 6.0), z)).ravel()\n"
        "sines.latent_dim = 2\n"
    )
    generator = f"{tmp_path / 'own.py'}:sines"
    sample = np.sin(np.outer(np.arange(1.0, 6.0), [0.3, -0.2])).ravel()
    np.save(tmp_path / "a.npy", sample.astype(np.float32))
    run = tmp_path / "run"
    code, _, err = call(invert, generator, tmp_path / "a.npy", "--run", run, "--starts", 3)
    assert (code, err) == (0, "")
    np.testing.assert_allclose(np.load(run / "latents.npy"), [[0.3, -0.2]], atol=0.01)
    np.save(tmp_path / "b.npy", sample[:4])
    np.save(tmp_path / "c.npy", np.zeros(10, np.uint8))
    np.save(tmp_path / "d.npy", np.full(10, np.nan, np.float32))
    (tmp_path / "e.npy").write_text("text")
    (tmp_path / "f.png").write_text("text")
    for name, word in {
        "b.npy": "makes samples of shape (10,)",
        "c.npy": "holds uint8",
        "d.npy": "not finite",
        "e.npy": "is no .npy file",
        "f.png": "pictures are for a generator of images",
    }.items():
        refused(call(invert, generator, tmp_path / name, "--run", tmp_path / "no"), name, word)


@pytest.mark.slow
def test_a_gan_is_searched_in_its_latents(pictures, tmp_path, call):
    gan, run = small_gan(tmp_path / "gan"), tmp_path / "run"
    assert call(invert, gan, pictures / "grey.png", "--run", run, *FEW)[0] == 0
    row = json.loads((run / "metrics.json").read_text())["pictures"][0]
    assert "pixels of code" not in row


def test_runs_of_several_pictures_have_names_of_their_own():
    named = [
        home(Config(generator, ("a/cat.jpg",)))
        for generator in ("runs/vae", "runs/vae/", "model.py:decode")
    ]
    assert named == ["runs/invert-vae-cat", "runs/invert-vae-cat", "runs/invert-decode-cat"]
    assert home(Config("runs/vae", ("a.png",), run="here")) == "here"


def test_a_file_of_latents_holds_one_or_several_of_this_generator(tmp_path):
    name = str(tmp_path / "z.npy")
    np.save(name, np.arange(3.0))
    assert read_latents(name, 3, "--latent").shape == (1, 3)
    np.save(name, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(one_latent(name, 3, "--latent", 1, "--start"), [3, 4, 5])
    with pytest.raises(UsageError, match="holds 2 latents, of which --start 2 is none"):
        one_latent(name, 3, "--latent", 2, "--start")
    with pytest.raises(UsageError, match="3 numbers, and those of this generator have 4"):
        read_latents(name, 4, "--latent")
    for content, message in {
        "nan": (np.full(3, np.nan), "not finite"),
        "deep": (np.zeros((2, 2, 3)), r"expected the numbers of one latent, \[3\]"),
        "words": (np.array(["a", "b", "c"]), "holds <U1"),
        "none": (np.zeros((0, 3)), "expected the numbers"),
    }.values():
        np.save(name, content)
        with pytest.raises(UsageError, match=message):
            read_latents(name, 3, "--latent")
    np.save(name, np.array([{}], object), allow_pickle=True)
    with pytest.raises(UsageError, match=r"is no \.npy file"):
        read_latents(name, 3, "--latent")
    np.savez(tmp_path / "z.npz", z=np.zeros(3))
    with pytest.raises(UsageError, match="is an archive"):
        read_latents(str(tmp_path / "z.npz"), 3, "--latent")
    with pytest.raises(UsageError, match="there is no such file"):
        read_latents(str(tmp_path), 3, "--latent")


@pytest.mark.slow
def test_geodesics_join_latents_of_ones_own(tmp_path, call):
    (tmp_path / "own.py").write_text(
        "import jax.numpy as jnp\n"
        "def bowl(z):\n    return jnp.append(z, z @ z)\n"
        "bowl.latent_dim = 3\n"
    )
    ends = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", ends[:2])
    np.save(tmp_path / "b.npy", ends[2])
    run, generator = tmp_path / "run", f"{tmp_path / 'own.py'}:bowl"
    flags = ("gan", "--generator", generator, "--geodesics.segments", 4, "--geodesics.strips", 1)
    own = (*flags, "--from", tmp_path / "a.npy", "--to", tmp_path / "b.npy", "--run", run)
    code, out, err = call(geodesics, *own)
    assert (code, err) == (0, "")
    assert "Paths between the latents that were given" in out
    points = np.array(json.loads((run / "paths.json").read_text())["points"], np.float32)
    np.testing.assert_allclose(points[:, 0], ends[:2], atol=1e-6)
    np.testing.assert_allclose(points[:, -1], ends[[2, 2]], atol=1e-6)
    np.save(tmp_path / "b.npy", ends[0] + 1)
    refused(call(geodesics, *own), "other latents", "choose another --run")


def test_one_latent_is_joined_with_each_of_several(tmp_path):
    ends = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", ends[:2])
    np.save(tmp_path / "b.npy", ends[2])
    config = geodesics.Config(first=str(tmp_path / "a.npy"), last=str(tmp_path / "b.npy"))
    pairs = geodesics.given_ends(config, 3)
    np.testing.assert_array_equal(pairs, [[ends[0], ends[2]], [ends[1], ends[2]]])
    geodesics.keep_ends(Folder(tmp_path), pairs)
    geodesics.keep_ends(Folder(tmp_path), pairs)
    with pytest.raises(UsageError, match="other latents"):
        geodesics.keep_ends(Folder(tmp_path), pairs + 1)
    assert geodesics.given_ends(geodesics.Config(), 3) is None


@pytest.mark.slow
def test_ends_that_make_no_sense_are_refused(tmp_path, call):
    vae = small_vae(tmp_path / "vae")
    for name, content in {"a": np.zeros((2, 3)), "b": np.ones((3, 3)), "c": np.ones(4)}.items():
        np.save(tmp_path / f"{name}.npy", content)
    flags = ("gan", "--generator", vae, "--run", tmp_path / "run")
    a, b, c = (tmp_path / f"{name}.npy" for name in "abc")
    refused(call(geodesics, *flags, "--from", a), "--from and --to belong together")
    refused(call(geodesics, *flags, "--from", a, "--to", b), "holds 2 latents", "3;")
    refused(call(geodesics, *flags, "--from", a, "--to", c), "--to", "4 numbers")
    refused(call(geodesics, *flags, "--from", a, "--to", a), "the same latent twice")
    assert not (tmp_path / "run").exists()


def test_directions_refuse_latents_of_another_generator_before_anything_is_learnt(tmp_path, call):
    gan = small_gan(tmp_path / "gan", features=(4, 4, 4))
    np.save(tmp_path / "z.npy", np.zeros(7))
    flags = ("--generator", gan, "--run", tmp_path / "run", "--latent", tmp_path / "z.npy")
    refused(call(directions, *flags), "--latent", "7 numbers", "have 4")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_noise_of_stylegan2_may_be_chosen_and_is_kept_beside_the_latent(tmp_path, call):
    net = StyleGAN2(8, latent_dim=4, mapping_layers=1, channels=(4, 4))
    gan, run = tmp_path / "gan", tmp_path / "run"
    gan.mkdir()
    (gan / "generator.safetensors").write_bytes(
        to_bytes(StoredGenerator(net, filled(net), "a StyleGAN2"))
    )
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "cat.png")
    space = ("--generator.space", "w")
    code, _, err = call(invert, gan, tmp_path / "cat.png", "--run", run, *space, "--noise", *FEW)
    assert (code, err) == (0, "")
    assert np.load(run / "latents.npy").shape == (1, 4)
    with np.load(run / "noise" / "0-cat.npz") as maps:
        assert [*maps] == ["noise_0", "noise_1", "noise_2"]
        assert maps["noise_2"].shape == (8, 8)
    row = json.loads((run / "metrics.json").read_text())["pictures"][0]
    assert row["pixels with its noise"] > 0


def test_a_generator_without_noise_maps_has_none_to_choose(vae, pictures, tmp_path, call):
    result = call(invert, vae, pictures / "grey.png", "--noise", "--run", tmp_path / "run")
    refused(result, "--noise is of StyleGAN2's noise maps, and the VAE of digits has none")
    assert not (tmp_path / "run").exists()
