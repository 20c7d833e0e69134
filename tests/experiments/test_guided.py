"""Guided flows: the sequences, the loss and the scores in closed form, and a small run."""

import json
import shlex
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_generators import small_gan, small_vae

from experiments.generators.training_data import load_data
from experiments.runtime.cli import Failure
from experiments.runtime.training import Training
from experiments.supervised_flows import objective, scores
from experiments.supervised_flows import train as guided
from experiments.supervised_flows.config import (
    Config,
    Flows,
    Sequences,
    Weights,
    initial,
)
from experiments.supervised_flows.factors import KNOWN
from experiments.supervised_flows.framed_vae import FramedVAE, load_framed, measured
from experiments.supervised_flows.sequences import Seen, Taught, frame_factors, held_out, see, teach
from latent_flows import coordinates, directions
from latent_flows.data import sprites
from latent_flows.generators import load_generator

SIZE = 16
SPRITES = KNOWN["sprites"]
CONFIG = Config(
    sequences=Sequences(count=12, horizon=4, refine=0),
    flows=Flows(width=4, depth=1),
    training=Training(steps=3, batch_size=4),
    starts=3,
)
RUN = shlex.split(
    "sprites --sequences.count 6 --sequences.horizon 4 --sequences.refine 1 "
    "--flows.frame identity --flows.width 4 "
    "--flows.depth 1 --training.steps 3 --training.batch-size 4 --starts 3"
)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The run folder of a VAE of sprites that has learnt nothing."""
    folder = tmp_path_factory.mktemp("generators") / "vae"
    convolutions = {"encoder": "conv", "decoder": "conv", "width": 4}
    return small_vae(folder, "sprites", size=SIZE, **convolutions)


@pytest.fixture(scope="module")
def framed(vae):
    known = replace(SPRITES, size=SIZE)
    return FramedVAE(load_generator(vae), coordinates.identity(3), known)


def changed(**settings):
    return replace(CONFIG, sequences=replace(CONFIG.sequences, **settings))


def spans(config, name):
    factor = SPRITES.factors[name]
    return factor.low, factor.low + factor.width


@pytest.mark.parametrize(
    "settings",
    [{}, {"schedule": "swing"}, {"schedule": "swing", "offset": 1.0}, {"factors": ("elongation",)}],
)
def test_only_the_known_factor_changes_and_it_stays_in_its_range(framed, settings):
    config = changed(**settings)
    taught = teach(config, framed)
    for k, name in enumerate(config.sequences.factors):
        moved = SPRITES.factors[name].field
        low, high = spans(config, name)
        for field, values in taught.factors._asdict().items():
            rows = np.asarray(values[:, k])
            if field == moved:
                assert rows.min() >= low - 1e-5
                assert rows.max() <= high + 1e-5
                steps = np.diff(rows, axis=1) * np.asarray(taught.sign[:, k])[:, None]
                assert (steps > 0).all()
            else:
                np.testing.assert_array_equal(rows, rows[:, :1] + 0 * rows)


def test_the_factor_changes_by_the_known_amount(framed):
    taught = held_out(changed(schedule="swing"), framed)
    for k, name in enumerate(CONFIG.sequences.factors):
        rows = np.asarray(getattr(taught.factors, SPRITES.factors[name].field)[:, k])
        share = (
            (rows - rows[:, :1])
            / SPRITES.factors[name].width
            * np.asarray(taught.sign[:, k])[:, None]
        )
        # Trained time 4: as far again by the end, from rest to rest.
        expected = 0.4 * (1 - np.cos(np.pi / 2 * np.arange(9) / 4))
        np.testing.assert_allclose(share, np.broadcast_to(expected, share.shape), atol=1e-5)


def test_sequences_that_start_later_go_on_with_the_schedule(framed):
    config = changed(schedule="swing", offset=1.0, count=30)
    taught = teach(config, framed)
    assert 0 < float(taught.start.max()) <= 4
    assert float(taught.start.std()) > 0.3
    rows = taught.factors.x[:, 0] - taught.factors.x[:, 0, :1]
    ends = taught.start[:, 0, None] + jnp.arange(5.0)
    swung = -0.4 * jnp.cos(jnp.pi / 2 * ends / 4)
    np.testing.assert_allclose(rows * taught.sign[:, :1], swung - swung[:, :1], atol=1e-5)


def test_refining_brings_the_image_closer(framed):
    image = framed.render(sprites.Factors(0, 0.8, 0.3, 0.4, 0.6))
    code = framed.encode(image)
    found = directions.gauss_newton(framed.decode, image, code)
    before, after = (jnp.mean((framed.decode(z) - image) ** 2) for z in (code, found.z))
    assert after < before
    np.testing.assert_allclose([found.start_error, found.error], [before, after], rtol=1e-4)


def test_codes_are_refined_as_often_as_asked(framed):
    first = sprites.Factors(*(leaf[:1] for leaf in teach(CONFIG, framed).factors))
    for steps in (0, 2):
        taught = teach(changed(refine=steps), framed)
        image = framed.render(jax.tree.map(lambda leaf: leaf[0, 0, 0], first))
        code = framed.encode(image)
        if steps:
            code = directions.gauss_newton(framed.decode, image, code, steps=steps).z
        np.testing.assert_allclose(taught.codes[0, 0, 0], code, rtol=1e-4, atol=1e-5)


def straight(config, key, slopes=None):
    """Sequences whose codes go straight, in any metric."""
    n, k, t, m = 4, 3, config.sequences.horizon, 3
    start_key, way_key, metric_key = jax.random.split(key, 3)
    ways = jax.random.normal(way_key, (k, m))
    starts = jax.random.normal(start_key, (n, k, m))
    sign = jnp.where(jnp.arange(n * k).reshape(n, k) % 2, 1.0, -1.0)
    passed = jnp.arange(t + 1.0) / t
    codes = starts[:, :, None] + (sign[..., None, None] * passed[:, None] * ways[:, None])
    half = jax.random.normal(metric_key, (n, k, m, m))
    metric = half @ jnp.swapaxes(half, -1, -2) + jnp.eye(m)
    taught = Taught(sprites.Factors(0, 0, 0, 0, 0), jnp.zeros((n, k)), sign, codes)
    shape = (n, k, 3, 4, m)
    return ways, taught, Seen(metric, jnp.zeros(shape) if slopes is None else slopes(shape))


def test_the_constant_direction_is_the_way_of_straight_sequences(key):
    config = replace(CONFIG, weights=Weights(leakage=0.0))
    ways, taught, seen = straight(config, key)
    np.testing.assert_allclose(
        objective.constant_directions(config, SPRITES, taught, seen), ways, rtol=1e-3, atol=1e-4
    )


def going(config, ways, key):
    """Potentials whose flow goes along given ways in the trained time."""
    params = initial(config, 3, key)
    held = params["potentials"]["params"]
    held["bend"] = jax.tree.map(jnp.zeros_like, held["bend"])
    held["tilt"] = ways / config.sequences.horizon
    return params


@pytest.mark.slow
def test_a_flow_along_the_sequences_lands_and_one_that_stands_still_misses_by_one(key):
    ways, taught, seen = straight(CONFIG, key)
    dataset = objective.lessons(CONFIG, taught, seen)
    batch = dataset.examples(np.arange(4))
    for scale, expected in ((1.0, 0.0), (0.0, 1.0), (2.0, 1.0)):
        _, terms = objective.loss(
            CONFIG, SPRITES, going(CONFIG, scale * ways, key), key, jnp.array(0), batch
        )
        assert float(terms["landing"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_leakage_is_the_squared_ratio_of_other_changes_to_the_own(key):
    def slopes(shape):
        # x by 2 a unit, y by 1, size and elongation not at all, whatever the way.
        rows = jnp.array([2.0, 1.0, 0.0, 0.0])
        return jnp.broadcast_to(rows[:, None] * jnp.array([1.0, 0.0, 0.0]), shape)

    ways, taught, seen = straight(CONFIG, key, slopes)
    batch = objective.lessons(CONFIG, taught, seen).examples(np.arange(4))
    only_x = changed(factors=("x", "y", "scale"))
    _, terms = objective.loss(only_x, SPRITES, going(only_x, ways, key), key, jnp.array(0), batch)
    # x leaks 1/4 into y, y 4 into x, and scale moves only others: its share is beyond measure.
    assert float(terms["leakage"]) > 1e3
    found = jax.vmap(
        lambda p, kept, b: objective.taught_by(CONFIG, p, jnp.array(0.5), key, kept, b)["leakage"],
        in_axes=(0, 0, 1),
    )(
        going(only_x, ways, key)["potentials"],
        jnp.asarray(SPRITES.others(only_x.sequences.factors)),
        {name: jnp.asarray(value) for name, value in batch.items()},
    )
    np.testing.assert_allclose(found[:2], [0.25, 4.0], rtol=1e-4)


def test_slopes_are_derivatives_of_what_is_measured(framed):
    taught = teach(CONFIG, framed)
    ranges = jnp.array([1.0, 2.0, 1.0, 1.0])
    seen = see(CONFIG, framed, taught, ranges)
    z, step = taught.codes[0, 0, 0], 1e-2 * jnp.array([1.0, 0.0, 0.0])
    (after, _), (before, _) = (measured(framed, (z + s * step)[None]) for s in (1, -1))
    expected = (after - before)[0] / ranges / 2e-2
    np.testing.assert_allclose(seen.slopes[0, 0, 0, :, 0], expected, rtol=0.05, atol=1e-3)


@pytest.mark.slow
def test_pictures_come_without_scores_which_the_same_command_adds(tmp_path, vae, call, monkeypatch):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(scores, "outcome", None)
        code, out, err = call(guided, *RUN, "--generator", vae, "--no-scores", "--run", path)
        assert (code, err) == (0, "")
        assert "strips.png" in out
        patch.setattr(guided, "load_framed", None)
        assert call(guided, *RUN, "--generator", vae, "--no-scores", "--run", path)[0] == 0, (
            "nothing is left to do"
        )
    code, out, err = call(guided, *RUN, "--generator", vae, "--run", path)
    assert code == 0, err
    assert "Control of known factors" in out
    assert (path / "control.png").exists()


@pytest.mark.slow
def test_a_run_leaves_its_numbers_and_pictures_and_is_not_done_twice(
    tmp_path, vae, call, monkeypatch
):
    path = tmp_path / "run"
    code, _, err = call(guided, *RUN, "--generator", vae, "--run", path)
    assert code == 0, err
    metrics = json.loads((path / "metrics.json").read_text())
    assert [(row["method"], row["factor"]) for row in metrics["control"]] == [
        (method, factor)
        for method in ("flow", "constant direction", "codes of the truth")
        for factor in ("x", "y", "scale")
    ]
    for name in ("control", "strips", "losses_guided"):
        assert (path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(guided, "load_framed", None)
    code, out, err = call(guided, *RUN, "--generator", vae, "--run", path)
    assert code == 0, err
    assert "Control of known factors" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sequences.factors", "x", "yy"], "unknown factor 'yy' (did you mean 'y'?)"),
        (
            ["--sequences.factors", "x", "wall_hu"],
            "unknown factor 'wall_hu' (did you mean 'wall_hue'?)",
        ),
        (["--sequences.factors", "x", "x"], "must name each factor once"),
        (["--sequences.reach", "0.7"], "reach must lie in (0, 0.5]"),
        (["--sequences.count", "2"], "sequences.count must be at least 3, got 2"),
        (["--flows.pde", "wawe"], "unknown pde 'wawe' (did you mean 'wave'?)"),
        (["--flows.solver", "hein"], "unknown solver 'hein' (did you mean 'heun'?)"),
        (["--generator", "nowhere"], "nowhere does not exist"),
        ([], "make it with `python -m experiments.train_vae sprites`"),
        (["--quick"], "make it with `python -m experiments.train_vae sprites --quick`"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(flags, message, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(guided, "sprites", *flags, "--run", tmp_path / "run")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (small_vae, "whose factors are known: sprites or scenes, not digits (the VAE of digits)"),
        (small_gan, "a guided flow is about codes of data, and an SNGAN has no encoder"),
    ],
)
def test_another_generator_than_a_vae_of_drawn_images_is_refused(make, message, tmp_path, call):
    run = tmp_path / "run"
    code, _, err = call(guided, "--generator", make(tmp_path / "generator"), "--run", run)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not run.exists()


def test_codes_that_say_nothing_have_no_components(tmp_path):
    generator = load_generator(small_vae(tmp_path / "vae", "sprites", size=SIZE))
    wide = replace(generator, encode=lambda image: (jnp.zeros(3), jnp.ones(3) + 0 * image.sum()))
    with pytest.raises(Failure, match="no latent dimension is active"):
        load_framed(CONFIG, wide, load_data(generator, "train"))


# --- scenes ---


@pytest.fixture(scope="module")
def scenes_vae(tmp_path_factory):
    """The run folder of a VAE of scenes that has learnt nothing."""
    folder = tmp_path_factory.mktemp("generators") / "vae"
    return small_vae(folder, "scenes", size=SIZE)


def test_a_factor_of_scenes_changes_alone_and_by_the_known_amount():
    known, names = KNOWN["scenes"], ("wall_hue", "scale", "orientation")
    draw = partial(frame_factors, changed(factors=names), known, 4, 0.0)
    keys = jax.random.split(jax.random.key(0), 4)
    factors, _, _ = jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, None))(
        keys, jnp.arange(3)
    )
    for k, name in enumerate(names):
        low, width = known.factors[name][1:3]
        for field, values in factors._asdict().items():
            rows = np.asarray(values[:, k])
            if field == name:
                assert low - 1e-5 <= rows.min()
                assert rows.max() <= low + width + 1e-5
                moved = np.abs(rows[:, -1] - rows[:, 0])
                np.testing.assert_allclose(moved, 0.4 * width, rtol=1e-4)
            else:
                np.testing.assert_array_equal(rows, rows[:, :1] + 0 * rows)


def test_every_factor_shows_in_a_measurement_of_its_own():
    for known in KNOWN.values():
        names = tuple(known.factors)
        assert len({*known.own(names)}) == len(names)
        for factor in known.named(names):
            assert factor.field in known.drawn.names
        others = known.others(names)
        np.testing.assert_array_equal(others.sum(1), len(known.measures.factors) - 1)


def test_a_hue_that_goes_on_past_red_has_come_as_far_as_its_steps():
    known = KNOWN["scenes"]
    hue = known.own(("object_hue",))[0]
    way = 0.7 + 0.09 * np.arange(11.0, dtype=np.float32)
    values = np.zeros((2, 11, len(known.measures.factors)), np.float32)
    values[0, :, hue] = way % 1
    values[1, :, hue] = -way % 1
    values[:, :, known.own(("orientation",))[0]] = np.linspace(0, 60, 11)
    found = known.changes(jnp.asarray(values))
    np.testing.assert_allclose(found[0, :, hue], way - 0.7, atol=1e-5)
    np.testing.assert_allclose(found[1, :, hue], 0.7 - way, atol=1e-5)
    np.testing.assert_array_equal(found[0, :, known.own(("orientation",))[0]], values[0, :, -1])


@pytest.mark.slow
def test_flows_of_scenes_are_taught_measured_and_drawn(tmp_path, scenes_vae, call):
    path = tmp_path / "run"
    flags = ["scenes", *RUN[1:], "--sequences.factors", "object_hue", "orientation"]
    code, _, err = call(guided, *flags, "--generator", scenes_vae, "--run", path)
    assert code == 0, err
    metrics = json.loads((path / "metrics.json").read_text())
    assert [row["factor"] for row in metrics["control"]][:2] == ["object_hue", "orientation"]
    for name in ("control", "strips"):
        assert (path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_factors_of_another_set_are_refused_before_anything_is_computed(tmp_path, scenes_vae, call):
    run = tmp_path / "run"
    code, _, err = call(guided, "sprites", "--generator", scenes_vae, "--run", run)
    assert (code, err.count("\n")) == (2, 1), err
    assert "unknown factor of scenes 'x'" in err
    assert "expected one of 'floor_hue', 'object_hue'" in err
    assert not run.exists()


def test_a_vae_of_scenes_that_is_not_there_says_what_makes_it(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(guided, "scenes")
    assert code == 2
    assert "make it with `python -m experiments.train_vae scenes`" in err
