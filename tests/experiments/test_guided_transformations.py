"""Guided flows of any data: sequences of transformed examples, and what they are measured by."""

import json
import shlex
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_generators import small_vae

from experiments.generators.training_data import load_data
from experiments.runtime.cli import Failure
from experiments.supervised_flows import scores
from experiments.supervised_flows import train as guided
from experiments.supervised_flows.config import Config, Flows, Sequences
from experiments.supervised_flows.framed_vae import FramedVAE, load_known
from experiments.supervised_flows.known import check_finite
from experiments.supervised_flows.scores import Outcome
from experiments.supervised_flows.sequences import frame_factors, teach
from experiments.supervised_flows.transformed import short_names
from latent_flows import coordinates
from latent_flows.directions import transformations
from latent_flows.generators import freeze, load_generator

OWN = """
import jax.numpy as jnp

from latent_flows.data import ImageFactor
from latent_flows.directions.transformations import registered


def factor(name, measure):
    return ImageFactor(name, "units", measure)


FIRST = factor("first", lambda x: x[0])
LAST = factor("last", lambda x: 0.5 * x[-1])


@registered(reach=2.0, factor=FIRST)
def raise_first(x, t):
    return x.at[0].add(t).at[-1].add(0.5 * t), jnp.ones_like(x)


@registered(reach=0.5, factor=LAST)
def raise_last(x, t):
    return x.at[-1].add(t), jnp.ones(())


def nameless(x, t):
    return x + t, jnp.ones_like(x)


@registered(reach=1.0, factor=FIRST)
def looks(x, t):
    return (x + t, jnp.ones_like(x)) if t > 0 else (x, jnp.ones_like(x))


@registered(reach=1.0, factor=FIRST)
def breaks(x, t):
    raise KeyError("no such gene")


@registered(reach=1.0, factor=FIRST)
def alone(x, t):
    return x + t


@registered(reach=1.0, factor=FIRST)
def shorter(x, t):
    return x[1:] + t, jnp.ones_like(x)


@registered(reach=1.0, factor=FIRST)
def whole(x, t):
    return jnp.int32(x + t), jnp.ones_like(x)


@registered(reach=1.0, factor=FIRST)
def misfit(x, t):
    return x + t, jnp.ones(3)


@registered(reach=1.0, factor=FIRST)
def below(x, t):
    return x + t, -jnp.ones_like(x)


@registered(reach=1.0, factor=FIRST)
def late(x, t):
    return x + t + 1, jnp.ones_like(x)


@registered(reach=1.0, factor=FIRST)
def root(x, t):
    return x + jnp.sqrt(t), jnp.ones_like(x)


@registered(reach=1.0, factor=FIRST)
def bounded(x, t):  # of samples that data have and the generator has not
    return x.at[0].add(t * jnp.sqrt(1.5 - jnp.abs(x[0]))), jnp.ones_like(x)


@registered(reach=1.0, factor=factor("margin", lambda x: jnp.sqrt(2.5 - jnp.abs(x[0]))))
def nearer(x, t):
    return x.at[0].add(t), jnp.ones_like(x)


@registered(reach=1.0, factor=LAST)
def still(x, t):
    return x.at[0].add(t), jnp.ones_like(x)


@registered(reach=1.0, factor=factor("all", lambda x: x))
def many(x, t):
    return x + t, jnp.ones_like(x)


@registered(reach=1.0, factor=factor("tenth", lambda x: jnp.sum(x @ jnp.ones(10))))
def tenth(x, t):
    return x + t, jnp.ones_like(x)


@registered(reach=1.0, factor=factor("log", lambda x: jnp.log(-x[0] ** 2)))
def logarithm(x, t):
    return x + t, jnp.ones_like(x)
"""
SMALL = shlex.split(
    "--sequences.count 6 --sequences.horizon 4 --sequences.refine 1 --flows.frame identity "
    "--flows.width 4 --flows.depth 1 --training.steps 3 --training.batch-size 4 --starts 3"
)
CONFIG = Config(
    sequences=Sequences(count=12, horizon=4, refine=0), flows=Flows(width=4, depth=1), starts=5
)
PNG = b"\x89PNG"


@pytest.fixture(scope="module", autouse=True)
def _compiled(compile_quickly):
    pass


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A file of transformations, of which nothing is registered afterwards."""
    path = tmp_path_factory.mktemp("own") / "own.py"
    path.write_text(OWN)
    before = {*transformations.ENTRIES}
    yield path
    for name in {*transformations.ENTRIES} - before:
        del transformations._entries[name], transformations._apply[name]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """The run folder of a VAE of vectors of six numbers, the fifth always the same."""
    path = tmp_path_factory.mktemp("vectors")
    x = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
    x[:, 4] = 3.0
    np.savez(path / "x.npz", x=x)
    return small_vae(path / "vae", str(path / "x.npz"), likelihood="gaussian")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The run folder of a VAE of digits."""
    return small_vae(tmp_path_factory.mktemp("generators") / "digits")


def asking(own, *names, **settings):
    factors = tuple(f"{own}:{name}" for name in names)
    return replace(CONFIG, sequences=replace(CONFIG.sequences, factors=factors, **settings))


@pytest.fixture(scope="module")
def both(own, vectors):
    """A configuration of two transformations of vectors, the generator, and what is known."""
    config, generator = asking(own, "raise_first", "raise_last"), load_generator(vectors)
    return config, generator, load_known(config, generator, load_data(generator, "train"))


def drawn(config, known, steps=4):
    keys = jax.random.split(jax.random.key(0), 7)
    draw = partial(frame_factors, config, known, steps, 0.0)
    return jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None))(keys, jnp.arange(2))


def test_a_sequence_is_one_example_under_even_steps_of_one_transformation(both):
    config, _, known = both
    frames, _, sign = drawn(config, known)
    for part in (frames.example, frames.which):
        np.testing.assert_array_equal(part, np.broadcast_to(part[..., :1], part.shape))
    np.testing.assert_array_equal(frames.which[..., 0], np.broadcast_to([0, 1], sign.shape))
    for k, reach in enumerate((2.0, 0.5)):
        steps = np.diff(frames.amount[:, k], axis=-1) * np.asarray(sign[:, k, None])
        # The trained time takes 0.4 of the way from minus to plus the reach.
        np.testing.assert_allclose(steps, 0.4 * 2 * reach / 4, rtol=1e-4)


def test_held_out_sequences_of_other_examples_stay_within_the_reach_for_twice_the_time(both):
    config, generator, known = both
    frames, _, _ = drawn(config, known.held_out(), steps=8)
    most = np.abs(frames.amount).max((0, 2))
    assert (most <= np.array([2.0, 0.5]) + 1e-5).all()
    train, test = (load_data(generator, part) for part in ("train", "test"))
    for dataset, of in ((train, drawn(config, known)[0]), (test, frames)):
        images = np.asarray(dataset.examples(np.arange(dataset.length))["image"])
        rows = np.asarray(known.samples[of.example[..., 0].ravel()])
        assert all((images == row).all(1).any() for row in rows)


def test_a_frame_shows_its_example_after_its_transformation(both):
    _, _, known = both
    frame = type(drawn(*both[::2])[0])(*map(jnp.asarray, (3, 1, 0.25)))
    sample, weights = known.render(frame)
    expected = np.array(known.samples[3])
    expected[-1] += 0.25
    np.testing.assert_allclose(sample, expected, rtol=1e-6)
    np.testing.assert_array_equal(weights, np.ones(6))


def test_what_a_transformation_changes_beside_its_factor_is_no_leakage(both):
    config, _, known = both
    names = config.sequences.factors
    assert known.own(names) == [0, 1]
    # The first raises the other factor a quarter as fast, in units of a smaller range.
    np.testing.assert_array_equal(known.others(names), [[0, 0], [1, 0]])
    true = jnp.array([[[[0.4, 0.1]], [[0.0, 0.3]]]])
    found = known.beside(names, jnp.array([[[[0.5, 0.15]], [[0.2, 0.2]]]]), true)
    np.testing.assert_allclose(found, [[[[0.5, 0.05]], [[0.2, 0.2]]]], atol=1e-6)


def test_ranges_are_those_of_the_transformed_examples(both):
    _, generator, known = both
    ranges = known.ranges(load_data(generator, "train"), 0)
    first = np.asarray(known.samples)[known.rows.start : known.rows.stop, 0]
    assert np.ptp(first) < ranges[0] <= np.ptp(first) + 4.0


def test_damping_follows_the_unit_of_vectors_and_is_a_squared_pixel_of_images(both):
    known = both[2]
    louder = replace(known, samples=1000 * known.samples)
    assert louder.damping == pytest.approx(1e6 * known.damping, rel=1e-4)
    assert replace(known, samples=jnp.zeros((2, 4, 4, 1))).damping == 1.0
    assert replace(known, samples=jnp.zeros((2, 6))).damping > 0


def test_codes_of_sequences_are_finite_and_refined(both):
    config, generator, known = both
    framed = FramedVAE(generator, coordinates.identity(3), known)
    rough = teach(config, framed)
    fine = teach(replace(config, sequences=replace(config.sequences, refine=2)), framed)

    def missed(taught):
        true = jax.vmap(framed.render)(jax.tree.map(jnp.ravel, taught.factors))
        return jnp.mean((jax.vmap(framed.decode)(taught.codes.reshape(-1, 3)) - true) ** 2)

    assert jnp.isfinite(fine.codes).all()
    assert missed(fine) < missed(rough)


def test_of_images_what_any_show_is_measured_as_well(digits):
    generator = load_generator(digits)
    config = replace(CONFIG, sequences=replace(CONFIG.sequences, factors=("zoom", "contrast")))
    known = load_known(config, generator, load_data(generator, "train"))
    assert known.measures.factor_names == ("x", "y", "size", "light", "contrast")
    assert known.own(("contrast", "zoom")) == [4, 2]
    frame = drawn(config, known)[0]
    _, weights = known.render(jax.tree.map(lambda leaf: leaf[0, 0, 0], frame))
    assert weights.shape == (8, 8, 1)


def test_where_one_thing_is_measured_nothing_leaks(both):
    config, _, known = both
    names = config.sequences.factors[:1]
    single = replace(known, measures=known.measures._replace(factors=known.measures.factors[:1]))
    config = replace(config, sequences=replace(config.sequences, factors=names))
    asked = jnp.arange(9.0)[None, None] * jnp.ones((3, 1, 1)) / 10
    found = Outcome(asked, asked[..., None], asked >= 0)
    (row,) = scores.scores(config, single, found)
    assert (row["factor"], row["r2"]) == ("raise_first", 1.0)
    assert "leakage" not in row
    rows = [{"method": method, **row} for method in (scores.FLOW, scores.DIRECTION)]
    assert scores.summary(rows) == {"worst_r2": 1.0, "worst_far_error": 0.0}


def test_what_cannot_be_measured_on_samples_of_the_generator_is_one_line(both):
    known = both[2]
    values = jnp.ones((4, 3, 2)).at[1, 2, 1].set(jnp.nan)
    with pytest.raises(Failure, match=r"^what is measured, last, is not finite for 1 of 12"):
        check_finite(known, values, "what is measured,")
    check_finite(known, jnp.ones((4, 2)), "what is measured,")


def test_functions_go_by_their_name_alone_where_that_tells_them_apart():
    assert short_names(["zoom", "a.py:f"]) == ["zoom", "f"]
    assert short_names(["a.py:f", "b.py:f"]) == ["a.py:f", "b.py:f"]
    assert short_names(["a.py:zoom", "zoom"]) == ["a.py:zoom", "zoom"]


def refused(call, run, vae, *names):
    code, out, err = call(
        guided, "--generator", vae, "--sequences.factors", *names, "--run", run / "run"
    )
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert not (run / "run").exists()
    return err


TRIED = [
    ("raise_frist", "has no 'raise_frist'; did you mean 'raise_first'?"),
    ("looks", "write jnp.where for if, and jnp for numpy"),
    ("breaks", "fails on a sample of shape (6,): KeyError: 'no such gene'"),
    ("alone", "must return a pair (sample, mask), got one value"),
    ("shorter", "must keep the shape (6,) of the generator's sample, got (5,)"),
    ("whole", "must return floats, got int32"),
    ("many", "its factor all must give one number of a sample, got shape (6,) of float32"),
    ("tenth", "its factor tenth fails on a sample of shape (6,)"),
    ("late", "must leave a sample as it is at t = 0, and changes it by"),
    ("root", "gives numbers that are not finite at t = -1"),
    ("logarithm", "its factor log of a sample is nan"),
]
"""What is tried in one place for all experiments; quick tests of directions do so too."""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nameless", "is registered with no factor that shows how far it got; decorate it with"),
        ("misfit", "of the first axes of a sample of shape (6,), or one that broadcasts"),
        ("below", "gives a mask that is not of weights from 0 on"),
        ("bounded", "makes numbers that are not finite of the data, for t from -1.0 to 1.0"),
        ("nearer", "its factor 'margin' is not finite on the data"),
        ("still", "does not change its factor 'last' on the data"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in TRIED),
    ],
)
def test_a_function_that_is_no_transformation_is_one_line_and_code_2(
    name, message, own, vectors, tmp_path, call
):
    err = refused(call, tmp_path, vectors, f"{own}:raise_first", f"{own}:{name}")
    assert message in err
    assert f"{own}" in err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zom"], "unknown factor 'zom' (did you mean 'zoom'?)"),
        (["zoom"], "transforms images [height, width, channels], and"),
        (["x"], "x is of images whose factors are known: sprites or scenes, not"),
        (["nowhere.py:f"], "nowhere.py does not exist"),
        (["nowhere:f"], "nowhere cannot be imported"),
    ],
)
def test_a_factor_that_vectors_do_not_have_is_refused(names, message, vectors, tmp_path, call):
    assert message in refused(call, tmp_path, vectors, *names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rotate"], "nothing is known that shows how far it got"),
        (["hue"], "--sequences.factors hue: hue needs 3 channels (colour), got 1"),
        (["zoom", "zoom"], "must name each factor once"),
    ],
)
def test_a_transformation_that_digits_do_not_show_is_refused(
    names, message, digits, tmp_path, call
):
    assert message in refused(call, tmp_path, digits, *names)


def test_factors_are_drawn_or_transformations_and_not_both(tmp_path, call):
    vae = small_vae(tmp_path / "vae", "sprites", size=16)
    assert "give --sequences.factors of one kind" in refused(call, tmp_path, vae, "x", "zoom")


def test_a_vae_that_does_not_know_its_data_is_asked_for_them(tmp_path, call, monkeypatch):
    generator = freeze(lambda z: jnp.tile(z, 3), 2, encode=lambda x: (x[:2], jnp.ones(2)))
    monkeypatch.setattr(guided, "load", lambda config: generator)
    err = refused(call, tmp_path, "any", "zoom")
    assert "name them, or their path, by --generator.data" in err


@pytest.mark.slow
@pytest.mark.parametrize("names", [["raise_first", "raise_last"], ["raise_first"]])
def test_flows_of_vectors_are_taught_measured_and_drawn(names, own, vectors, tmp_path, call):
    factors = [f"{own}:{name}" for name in names]
    run = tmp_path / "run"
    flags = ["--generator", vectors, *SMALL, "--sequences.factors", *factors, "--run", run]
    code, _, err = call(guided, *flags)
    assert (code, err) == (0, "")
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["factor"] for row in metrics["control"]] == 3 * names
    assert all(("leakage" in row) == (len(names) > 1) for row in metrics["control"])
    assert all(np.isfinite(value) for value in metrics["summary"].values())
    for name in ("control", "strips", "losses_guided"):
        assert (run / f"{name}.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_flows_of_digits_are_taught_measured_and_drawn(digits, tmp_path, call):
    run = tmp_path / "run"
    flags = [*SMALL, "--sequences.factors", "translate_x", "zoom", "--run", run]
    code, _, err = call(guided, "--generator", digits, *flags)
    assert (code, err) == (0, "")
    metrics = json.loads((run / "metrics.json").read_text())
    assert [row["factor"] for row in metrics["control"]][:2] == ["translate_x", "zoom"]
    assert all(np.isfinite(value) for value in metrics["summary"].values())
    for name in ("control", "strips"):
        assert (run / f"{name}.png").read_bytes().startswith(PNG)
