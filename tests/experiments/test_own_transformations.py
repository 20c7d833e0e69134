"""Directions and steering by transformations and losses of one's own, of samples of any shape."""

import json
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.directions import config as config_of
from experiments.directions import learn
from experiments.directions import train as directions
from experiments.directions.config import Config
from experiments.directions.subject import check
from experiments.explore import sliders
from experiments.steer import distil, figures, scores
from experiments.steer import train as steer
from experiments.steer.config import Config as SteerConfig
from latent_flows.data import ImageFactor
from latent_flows.directions import transformations
from latent_flows.evaluation.image_control import (
    Subject,
    _shift,
    even_direction,
    explained,
    inversion_scores,
    survey,
    untrained_directions,
)
from latent_flows.generators import freeze, load_generator
from tests.experiments.small_generators import small_vae

OWN = """
import jax.numpy as jnp
import numpy as np

from latent_flows.data import ImageFactor
from latent_flows.directions import registered

PLACES = jnp.arange(6.0)


def vector(z):
    return jnp.exp(0.5 * z[0]) * (2 + jnp.cos(PLACES + z[1]))


def sequence(z):
    return jnp.stack([vector(z), PLACES * z[0]], axis=1)


def bands(z):
    y, x = jnp.mgrid[-1:1:6j, -1:1:8j]
    blob = jnp.exp(-((x - 0.3 * z[0]) ** 2) - (y - 0.3 * z[1]) ** 2)
    return jnp.stack([(i - 1.0) * blob for i in range(5)], axis=-1)


def picture(z):
    return jnp.clip(bands(z)[..., 2:3] * jnp.exp2(0.3 * z[0]), 0, 1)


for made in (vector, sequence, bands, picture):
    made.latent_dim = 2


@registered(reach=0.5, factor=ImageFactor("volume", "doublings", lambda x: jnp.log2(x.std())))
def amplified(x, t):
    return jnp.exp2(t) * x, jnp.ones_like(x)


@registered(reach=0.25, factor=ImageFactor("first", "units", lambda x: x[0]))
def raised(x, t):
    return x.at[0].add(t), 1.0


def gain(x, t):
    return jnp.exp2(t) * x, 1.0


def partly(x, t):
    return (x + t).at[-1].set(jnp.nan * t), jnp.ones_like(x).at[-1].set(0.0)


def distance(x, y, mask):
    return jnp.mean(mask * jnp.abs(x - y))


def reshaped(x, t):
    return jnp.tile(x, 2), 1.0


def alone(x, t):
    return x


def three(x, t):
    return x, 1.0, t


def whole(x, t):
    return jnp.round(x + t).astype(int), 1.0


def offset(x, t):
    return x + 1 + t, 1.0


def branches(x, t):
    return (x if t > 0 else -x), 1.0


def of_numpy(x, t):
    return np.exp(t) * x, 1.0


def ends(x, t):
    raise SystemExit(3)


def divides(x, t):
    return x + t / t, 1.0


def masked(x, t):
    return x, jnp.ones(5)


def blind(x, t):
    return x, 0.0


def negative(x, t):
    return x, -jnp.ones_like(x)


def many(x, y, mask):
    return (x - y) ** 2


def divided(x, y, mask):
    return jnp.sum(mask * (x - y)) / jnp.sum(x - y)


@registered(reach=1.0, factor=ImageFactor("many", "", lambda x: x))
def unmeasured(x, t):
    return x + t, 1.0


@registered(reach=1.0, factor=ImageFactor("endless", "", lambda x: x.sum() / 0))
def unfinished(x, t):
    return x + t, 1.0
"""
SMALL = shlex.split(
    "--inversion.count 5 --inversion.amounts 1 --inversion.steps 2 --fit.steps 3 --fit.width 4 "
    "--control.starts 3 --control.amounts 1 --control.candidates 1"
)
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def _quick(compile_quickly):
    pass


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """What a test registers is known to it alone."""
    for name, read in (("_entries", "ENTRIES"), ("_apply", "TRANSFORMATIONS")):
        kept = dict(getattr(transformations, name))
        monkeypatch.setattr(transformations, name, kept)
        monkeypatch.setattr(transformations, read, kept)


@pytest.fixture
def own(tmp_path):
    """A file of generators, transformations and losses."""
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def named(own, *names):
    return [f"{own}:{name}" for name in names]


@pytest.mark.slow
def test_directions_of_vectors_are_learnt_and_drawn(own, tmp_path, call):
    run = tmp_path / "run"
    words = ["--generator", f"{own}:vector", "--transformations", *named(own, "gain"), *SMALL]
    code, _, err = call(directions, "gan", *words, "--no-scores", "--run", run)
    assert (code, err) == (0, "")
    for picture in ("traversals_gain", "inversions"):
        assert (run / f"{picture}.png").read_bytes().startswith(PNG)
    assert not (run / "losses.png").exists()  # there is one, mse
    kept = json.loads((run / "config.json").read_text())["config"]
    assert (kept["losses"], kept["transformations"]) == (["mse"], named(own, "gain"))
    # The explorer calls it by its short name, and so does whatever reads the run.
    control = sliders.read(str(run), load_generator(run)).parts[0].controls[0]
    assert (control.name, control.group) == ("gain", sliders.STRAIGHT)
    assert learn.learnt_directions(run).names[0] == f"{own}:gain"


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["vector", "sequence", "bands", "picture"])
def test_directions_are_measured_by_what_transformations_raise(shape, own, tmp_path, call):
    run = tmp_path / "run"
    kinds = ["amplified", "raised"] if shape == "vector" else ["amplified", "gain"]
    losses = ["mse", f"{own}:distance"]
    words = ["--generator", f"{own}:{shape}", "--transformations", *named(own, *kinds), *SMALL]
    code, out, err = call(directions, "gan", *words, "--losses", *losses, "--run", run)
    assert code == 0, err
    assert "amplified" in out
    assert f"{own}:amplified" not in out
    metrics = json.loads((run / "metrics.json").read_text())
    rows = metrics["control"]
    assert {"linear", "linear, distance", "steered", "GANSpace"} <= {row["method"] for row in rows}
    leaks = {key for row in rows for key in row if key.startswith("leakage_")}
    light = {"leakage_x", "leakage_y", "leakage_size"}
    assert leaks == {
        "vector": {"leakage_first", "leakage_volume"},
        "picture": light,
    }.get(shape, set())
    assert all(("valid" in row) == (shape == "picture") for row in rows)
    assert all((row["leakage"] is None) == (not leaks) for row in rows)
    pictures = shape in ("bands", "picture")
    assert all(("sharpness" in row) == pictures for row in metrics["inversion"])
    for picture in ("control", "inversions", "losses", f"traversals_{kinds[1]}"):
        assert (run / f"{picture}.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_vectors_of_a_vae_are_steered_beside_their_directions(own, tmp_path, call):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 6))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32), output_names=[*"abcdef"])
    vae = small_vae(tmp_path / "vae", str(tmp_path / "x.npz"), likelihood="gaussian")
    kinds = ["--transformations", *named(own, "raised", "gain"), "--generator", vae]
    assert call(directions, "gan", *kinds, *SMALL, "--run", tmp_path / "lines")[0] == 0
    few = ["--starts", 2, "--amounts", 1, "--candidates", 1, "--compare", tmp_path / "lines"]
    code, out, err = call(steer, *kinds, *few, "--run", tmp_path / "run")
    assert (code, err) == (0, "")
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["methods"]
    methods = {(row["transformation"], row["method"]): row for row in rows}
    first = methods[f"{own}:raised", "steered"]
    assert first["r2"] is not None
    assert not {"valid", "overlap"} & first.keys()
    assert methods[f"{own}:gain", "steered"]["r2"] is None
    assert (f"{own}:raised", "learnt: linear directions") in methods
    assert "raised" in out
    assert str(own) not in out.split("results:")[0]
    for kind in ("raised", "gain"):
        assert (tmp_path / "run" / f"steered_{kind}.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_pictures_are_steered_by_a_function_beside_one_of_the_library(own, tmp_path, call):
    kinds = ["--transformations", "translate_x", *named(own, "gain"), "--ts", "0.1", "0.2"]
    few = ["--starts", 2, "--amounts", 1, "--candidates", 1, "--blur", 1]
    words = [*kinds, *few, "--generator", f"{own}:picture", "--run", tmp_path / "run"]
    code, _, err = call(steer, *words)
    assert code == 0, err
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())["methods"]
    assert {"steered", "steered, moments held"} <= {row["method"] for row in rows}
    assert all("overlap" in row for row in rows)
    assert (tmp_path / "run" / "steered_gain.png").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reshaped", "must keep the shape (6,) of the generator's sample, got (12,)"),
        ("alone", "must return a pair (sample, mask), got one value"),
        ("three", "must return a pair (sample, mask), got 3 values"),
        ("whole", "must return floats, got int"),
        ("offset", "must leave a sample as it is at t = 0, and changes it by up to 1"),
        ("branches", "write jnp.where for if"),
        ("of_numpy", "jnp for numpy"),
        ("ends", "fails on a sample of shape (6,): SystemExit: 3"),
        ("divides", "numbers that are not finite at t = 0"),
        ("masked", "mask must have shape (6,), got (5,)"),
        ("blind", "its mask is 0 there"),
        ("negative", "weights from 0 on"),
        ("unfinished", "its factor endless of a sample is inf"),
        ("unmeasured", "its factor many must give one number of a sample, got shape (6,)"),
        ("amplifed", "has no 'amplifed'; did you mean 'amplified'?"),
        ("PLACES", "no function"),
    ],
)
def test_a_function_that_is_no_transformation_is_one_line_and_code_2(
    name, message, own, tmp_path, call
):
    words = ["--generator", f"{own}:vector", "--transformations", f"{own}:{name}"]
    code, out, err = call(directions, *words, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (directions, "--transformations OWN:gain --losses OWN:many", "got shape (6,)"),
        (directions, "--transformations OWN:gain --losses OWN:divided", "finite where two"),
        (directions, "--transformations OWN:gain --losses OWN:distanse", "did you mean"),
        (directions, "--transformations OWN:gain --losses dssim", "dssim is of images"),
        (directions, "--transformations OWN:gain --losses blurred mse", "or the loss mse"),
        (directions, "--transformations OWN:gain ./other.py:gain", "both be called 'gain'"),
        (directions, "--transformations nowhere.py:gain", "nowhere.py does not exist"),
        (directions, "--transformations no.module:gain", "no.module cannot be imported"),
        (directions, "--transformations OWN:gain zoom", "give --transformations file.py:function"),
        (steer, "--transformations OWN:gain --blur 2", "in pixels of images"),
        (steer, "--transformations OWN:gain --hold moments", "give --hold nothing"),
        (steer, "--transformations OWN:gain --attributes x", "attributes are measured on images"),
        (steer, "--transformations OWN:offset", "must leave a sample as it is at t = 0"),
        (steer, "--transformations zoom", "give --transformations file.py:function"),
        (steer, "--transformations nowhere.py:gain", "nowhere.py does not exist"),
        (
            steer,
            "--transformations OWN:gain --distil.forms dual_frame",
            "did you mean 'dual frame'?",
        ),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_what_vectors_cannot_be_asked_is_one_line_and_code_2(
    module, flags, message, own, tmp_path, call
):
    words = ["--generator", f"{own}:vector", *flags.replace("OWN", str(own)).split()]
    code, out, err = call(module, *words, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "run").exists()


def test_what_is_usual_of_images_gives_way_to_what_is_of_anything():
    shapes = {(28, 28, 1): True, (28, 28, 5): True, (12,): False, (20, 2): False}
    for shape, is_image in shapes.items():
        assert (config_of.suited(Config(), shape).losses == ("mse",)) != is_image
        assert (steer.suited(SteerConfig(), shape).blur == 0) != is_image
    assert steer.suited(SteerConfig(), (28, 28, 5)).hold == ("nothing",)
    assert steer.suited(SteerConfig(), (28, 28, 3)).hold == ("nothing", "moments")
    for chosen in (Config(losses=("dssim",)), Config(losses=("blurred", "mse"))):
        assert config_of.suited(chosen, (12,)) is chosen
    # A short run has fewer of them, which are as usual.
    assert config_of.suited(Config(losses=Config.QUICK["losses"]), (12,)).losses == ("mse",)


def test_a_function_of_vectors_passes_with_masks_of_any_kind(own):
    generator = load_generator(f"{own}:vector")
    kinds = (*named(own, "gain", "partly", "amplified"),)
    check(Config(transformations=kinds, losses=("mse", f"{own}:distance")), generator)


def test_files_are_named_by_the_function_alone():
    for path in ("/home/me/a b.py:far", r"C:\mine\a.py:far", "package.module:far"):
        assert config_of.label(path) == "far"
        assert not {"/", "\\", ":"} & {*learn.file_name(f"linear, {path}")}


def test_labels_of_functions_in_two_files_must_differ():
    with pytest.raises(ValueError, match=r"losses mse and far\.py:mse would both be called 'mse'"):
        Config(losses=("mse", "far.py:mse"))
    with pytest.raises(ValueError, match="must differ from each other"):
        SteerConfig(transformations=("a.py:b", "a.py:b"), ts=())


def test_a_configuration_is_read_without_its_functions(tmp_path):
    """A run can be looked at where the file of a function is not at hand any more."""
    gone = f"{tmp_path}/gone.py:away"
    assert Config(transformations=(gone,), losses=("mse", gone)).transformations == (gone,)
    assert SteerConfig(transformations=(gone,), ts=()).asked.transformations == (gone,)
    with pytest.raises(ValueError, match="does not exist"):
        config_of.check_functions(Config(transformations=(gone,)))


@pytest.fixture
def level(key):
    """Vectors of which nothing is measured, and where to start on them."""
    generator = freeze(lambda z: jnp.exp(z[0]) * jnp.arange(1.0, 6.0) + 0 * z[1], 2)
    starts = jnp.linspace(-1, 1, 10).reshape(5, 2)
    low, high, faintest = survey((), starts, generator.decode)
    return Subject(
        generator.decode, None, starts, starts[:3], 3.0, "level", (),
        lambda x: jnp.isfinite(x).all(), low, high, faintest, False, names=(*"abcde",),
    )  # fmt: skip


def test_without_factors_there_are_paths_and_errors_and_nothing_else(level, own):
    """What is too faint, or sharp, or valid, is of images."""
    assert level.faintest == -np.inf
    assert (level.low.shape, level.event_shape) == ((0,), (5,))
    kind = f"{own}:gain"
    ts = np.array([-0.5, 0.5], np.float32)
    found = transformations_of(level, kind, ts)
    assert {*inversion_scores(level, kind, found)} == {"mse", "r2", "missed"}
    assert inversion_scores(level, kind, found)["mse"] < 1e-4
    config = SteerConfig(transformations=(kind,), ts=(0.5,), amounts=1, blur=0.0, hold=("nothing",))
    led = scores.lead(
        kind, "nothing", (0.0, 0.01, 2, 0.2), (-0.5, 0.5), level.generator, level.held_out
    )
    assert led.reached.all()
    of = scores.Led(np.asarray(led.zs), np.asarray(led.residual))
    row = scores._row(config, level, kind, of)
    assert (row["r2"], row["leakage"], row["reached"], row["count"]) == (None, None, 1.0, 6)
    assert not {"valid", "overlap"} & row.keys()
    figure = figures.strips(config, level, kind, {"steered": of})
    assert [axes.get_title() for axes in figure.axes[:2]] == ["samples", "change"]
    # Fields are taught without a factor as well.
    lesson = distil.lessons(config, level)(level.generator, level.starts)
    assert (lesson.fields.shape, lesson.slopes.shape) == ((5, 1, 2), (5, 0, 2))
    np.testing.assert_allclose(lesson.fields[:, 0, 0], np.log(2), rtol=0.02)


def transformations_of(subject, kind, ts):
    """The exact trajectories of `level` under a gain."""
    step = jnp.stack([ts * np.log(2), 0 * ts], -1)
    zs = subject.starts[:, None] + step
    return learn.Trajectories(subject.starts, zs, jnp.asarray(ts), jnp.zeros(zs.shape[:2]))


def test_one_factor_leaks_into_nothing_that_is_known(level, own):
    kind = f"{own}:amplified"
    config = SteerConfig(transformations=(kind,), ts=(0.5,), amounts=1, blur=0.0, hold=("nothing",))
    factor = transformations.entry(kind).factor
    assert isinstance(factor, ImageFactor)
    assert config_of.measured(config.asked, ()) == (factor,)
    measured = level._replace(factors=(factor,), low=np.array([0.0]), high=np.array([1.0]))
    ts = np.array([-0.5, 0.5], np.float32)
    zs = np.asarray(transformations_of(measured, kind, ts).zs)[:3]
    row = scores._row(
        config, measured._replace(held_out=measured.starts[:3]), kind, scores.Led(zs, None)
    )
    assert row["r2"] > 0.999
    assert row["leakage"] is None


def test_what_cannot_be_measured_on_some_samples_is_measured_on_the_others(level):
    factors = (
        ImageFactor("tone", "octaves", lambda x: jnp.log2(x[0] - 0.5)),
        ImageFactor("never", "", lambda x: jnp.nan * x[0]),
    )
    starts = jnp.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    low, high, _ = survey(factors, starts, level.generator)
    assert low[0] == pytest.approx(-1, abs=0.1)
    assert high[0] == pytest.approx(np.log2(np.e - 0.5), abs=0.1)
    assert (low[1], high[1]) == (0, 0)
    measured = level._replace(factors=factors, starts=starts)
    line = (even_direction([1.0, 0.0], 1.0),)
    slopes, shares = explained(measured, _shift, line, np.array([-0.1, 0.1]))
    assert slopes[0] > 1
    assert shares[0] > 0.9
    assert (slopes[1], shares[1]) == (0, 0)


def test_vectors_of_fewer_numbers_than_there_are_candidates_have_baselines(level):
    factor = ImageFactor("size", "doublings", lambda x: jnp.log2(x[0]))
    measured = level._replace(
        generator=freeze(lambda z: jnp.exp(z[:1]), 2).decode,
        factors=(factor,), low=np.array([0.0]), high=np.array([1.0]),
    )  # fmt: skip
    rows = untrained_directions(measured, jax.random.key(0), {"louder": 0}, candidates=2)
    assert {row["method"] for row in rows} == {
        "GANSpace", "random direction", "latent coordinate",
    }  # fmt: skip
    assert max(row["explained"] for row in rows) > 0.99
