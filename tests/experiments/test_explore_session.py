"""One tab of the explorer, told and asked as a page would, without any browser."""

import asyncio
import base64
import io
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.explore import own_picture, plane, shading, sliders
from experiments.explore.control import Control
from experiments.explore.explored import Codes, Explored, load_explored, metric_of
from experiments.explore.moves import axis_part
from experiments.explore.session import Session
from experiments.explore.sliders import Learnt
from experiments.explore.tab import Tab
from latent_flows.generators import GeneratorSpec, freeze, load_generator
from latent_flows.generators.biggan import BigGAN
from latent_flows.generators.load import GENERATOR
from latent_flows.generators.stored import StoredGenerator, to_bytes
from latent_flows.generators.stylegan2 import StyleGAN2, with_mean_w
from latent_flows.geometry import curves

pytestmark = pytest.mark.usefixtures("compile_quickly")


def picture(z):
    """Four stripes of 2 x 8 pixels, as bright as four numbers of three latents say."""
    levels = jax.nn.sigmoid(jnp.stack([z[0], z[1], z[0] - z[1], 0.2 * z[2]]))
    return jnp.repeat(levels, 2)[:, None, None] * jnp.ones((1, 8, 1))


def waves(z):
    return jnp.sin(jnp.linspace(0, 3, 30) * z[0]) + z[1]


def explored(decode=picture, latent_dim=3, identity="abc", **settings):
    names = ("right", "up")
    controls = [
        Control(n, "Straight axes", "", 3.0, (-2.0, 2.0), "how far the codes go") for n in names
    ]
    draws = np.random.default_rng(0).normal(size=(50, latent_dim)).astype(np.float32)
    learnt = Learnt((axis_part(controls, jnp.eye(latent_dim)[:2]),))
    labels = {"label": np.arange(50) % 3}
    generator = freeze(decode, latent_dim, name="stripes")
    return Explored("a-run", identity, generator, learnt, Codes(draws, labels), **settings)


@pytest.fixture(scope="module")
def shared():
    return explored()


@pytest.fixture
def session(shared):
    return Session(shared)


def test_a_slider_moves_the_image_and_undo_moves_it_back(session):
    before = session.seen.latent
    (answer,) = session.quick({"do": "slide", "index": 1, "amount": 1.5, "seq": 7})
    assert (answer["kind"], answer["seq"], answer["amounts"]) == ("image", 7, [0.0, 1.5])
    np.testing.assert_allclose(session.seen.latent, before + np.array([0, 1.5, 0]), atol=1e-6)
    shown = Image.open(io.BytesIO(base64.b64decode(answer["image"].partition(",")[2])))
    assert shown.size == (8, 8)
    session.quick({"do": "undo"})
    np.testing.assert_array_equal(session.seen.latent, before)
    session.quick({"do": "redo"})
    assert session.history.now.amounts == (0.0, 1.5)


def test_a_tap_goes_there_and_a_second_one_measures_the_way_there(session, shared):
    answers = session.tapped(0.5, -0.25)
    assert "the map at (0.5, −0.25)" in answers[0]["origin"]
    np.testing.assert_allclose(session.mark(), (0.5, -0.25), atol=1e-5)
    start = session.seen.latent
    assert session.tapped(2.5, 2.0) is None
    found = session.measured(start, session.history.now.target)
    place, ways = session.keep_ways(found)
    assert (place["track"], place["ways"]) == ("geodesic", True)
    np.testing.assert_allclose(ways["geodesic"][-1], (2.5, 2.0), atol=1e-4)
    line = curves.length(
        metric_of(shared.generator), lambda s: start + s * (found.line[-1] - start), segments=64
    )
    assert ways["line_length"] == pytest.approx(float(line), rel=1e-3)
    assert ways["geodesic_length"] <= ways["line_length"]
    # The strip goes along it, and a place of it is a new place.
    session.keep_strip(session.follow()())
    session.quick({"do": "use", "frame": len(session.strip.places) - 1})
    np.testing.assert_allclose(session.mark(), (2.5, 2.0), atol=1e-4)
    assert session.found is None
    assert session.tapped(0.0, 0.0) is not None


def test_a_way_that_was_measured_is_gone_when_a_slider_leaves_its_start(session):
    session.tapped(0.5, -0.25)
    session.tapped(2.5, 2.0)
    session.keep_ways(session.measured(session.seen.latent, session.history.now.target))
    answers = session.quick({"do": "slide", "index": 0, "amount": 1.0, "seq": 3})
    assert [answer["kind"] for answer in answers] == ["place", "ways"]
    place, ways = answers
    assert (place["target"], place["ways"], place["seq"]) == (None, False, 3)
    assert (ways["line"], ways["geodesic"]) == ([], [])
    assert place["track"] not in ("geodesic", "straight line")


def test_the_strip_shows_what_a_slider_does_while_others_stay(session):
    session.quick({"do": "slide", "index": 0, "amount": 1.0})
    session.look_differently({"track": "up"})
    strip = session.follow()()
    (told,) = session.keep_strip(strip)
    assert (told["title"], told["places"][0], told["places"][-1]) == ("up", -2.0, 2.0)
    middle = told["start"]
    np.testing.assert_allclose(strip.latents[middle], session.seen.latent, atol=1e-6)
    assert np.allclose(np.diff(strip.latents[:, 1]), 4 / 32, atol=1e-5)
    sheet = Image.open(io.BytesIO(base64.b64decode(told["sheet"].partition(",")[2])))
    assert sheet.size == (8 * told["count"], 8)


@pytest.mark.parametrize("name", shading.names(explored()))
def test_a_map_is_shaded_by_whatever_is_offered(name, session):
    session.look_differently({"shade": name})
    *progress, last = session.shades()
    shares = [answer["share"] for answer in progress]
    assert shares == sorted(shares)
    values = last["shade"].values
    assert np.isfinite(values).all() or name == "nothing"
    if name == "image: x":
        (left, right, bottom, top), side = session.box, len(values)
        at = np.array([left + 2.5 / side * (right - left), bottom + 1.5 / side * (top - bottom)])
        there = session.explored.factors[0].measure(picture(session.plane.latents(at)))
        assert values[1, 2] == pytest.approx(float(there), abs=1e-5)


def test_what_is_taken_along_is_what_is_seen(session):
    session.quick({"do": "slide", "index": 0, "amount": 0.7})
    session.keep_strip(session.follow()())
    files = {}
    for what in ("png", "gif", "npy"):
        (told,) = session.quick({"do": "take", "what": what})
        assert told["name"].endswith(what)
        files[what] = io.BytesIO(base64.b64decode(told["content"]))
    np.testing.assert_array_equal(np.load(files["npy"]), session.seen.latent)
    pixels = np.asarray(Image.open(files["png"]))[..., 0] / 255
    np.testing.assert_allclose(pixels, session.seen.sample[..., 0], atol=3e-3)
    assert Image.open(files["gif"]).n_frames == 2 * len(session.strip.places) - 2
    with pytest.raises(ValueError, match="expected png, gif or npy"):
        session.quick({"do": "take", "what": "exe"})


def test_a_link_opens_in_another_tab_what_it_was_made_of_and_refuses_other_runs(session, shared):
    session.quick({"do": "random", "number": 4})
    session.quick({"do": "slide", "index": 0, "amount": -1.0})
    session.look_differently({"axes": "principal", "first": 1, "second": 0})
    other = Session(shared)
    assert other.open(session.link()) == []
    np.testing.assert_array_equal(other.seen.latent, session.seen.latent)
    assert other.looks == session.looks
    (told,) = Session(explored(identity="xyz")).open(session.link())
    assert "made for another run (a-run)" in told["text"]
    assert told["wrong"]


def test_a_link_that_asks_for_what_is_not_here_leaves_everything_as_it_is(session, shared):
    kept = session.history.now
    for looks in (
        {"axes": "independent"},
        {"axes": "coordinates", "first": 9},
        {"shade": "potential 3"},
        {"track": "sideways"},
        {"truncation": 50.0},
        {"axes": "pinned"},
    ):
        forged = Session(shared)
        forged.looks = forged.looks._replace(**looks)
        (told,) = session.open(forged.link())
        assert "the link asks for what is not here" in told["text"], looks
    forged.looks = session.looks
    forged.history = forged.history._replace(now=kept._replace(amounts=(1e9, 0.0)))
    assert "right goes up to 3" in session.open(forged.link())[0]["text"]
    assert session.history.now is kept
    assert session.quick({"do": "slide", "index": 0, "amount": 0.5})[0]["kind"] == "image"


def test_pins_span_a_plane_that_shows_them(session):
    for number in range(3):
        session.quick({"do": "random", "number": number})
        session.quick({"do": "pin"})
    session.look_differently({"axes": "pinned", "first": 0, "second": 1})
    assert max(session.plane.distance(pin) for pin in session.pins) < 1e-4
    other = Session(session.explored)
    assert other.open(session.link()) == []
    assert session.quick({"do": "unpin"})[0]["count"] == 0


def test_the_cursor_goes_no_further_than_the_map(session):
    _, right, bottom, _ = session.box
    for _ in range(9):
        (told,) = session.quick({"do": "cursor", "dx": 0.3, "dy": -0.3})
    assert (told["x"], told["y"]) == (pytest.approx(right), pytest.approx(bottom))
    (told,) = session.quick({"do": "cursor", "home": True})
    assert (told["x"], told["y"]) == pytest.approx(session.mark())


def test_a_slider_that_was_moved_before_one_went_elsewhere_moves_nothing(session):
    session.quick({"do": "random", "number": 1})
    (told,) = session.quick({"do": "slide", "index": 0, "amount": 1.0, "arrivals": 0, "seq": 3})
    assert (told["kind"], told["amounts"], told["seq"]) == ("place", [0.0, 0.0], 3)


def test_truncation_draws_latents_to_the_middle(session):
    before = session.seen.latent
    session.quick({"do": "truncation", "value": 0.25})
    np.testing.assert_allclose(session.seen.latent, 0.25 * before, atol=1e-6)


def test_layers_keep_sliders_to_their_part_of_a_latent():
    own = Session(explored(layers=3))
    before = own.seen.latent
    own.quick({"do": "slide", "index": 0, "amount": 1.0})
    own.quick({"do": "layers", "first": 1, "last": 2})
    np.testing.assert_array_equal(own.seen.latent, before)
    own.quick({"do": "layers", "first": 0, "last": 1})
    np.testing.assert_allclose(own.seen.latent, before + np.array([1, 0, 0]), atol=1e-6)
    with pytest.raises(ValueError, match="layers go from 0 to 2, got 2 to 1"):
        own.quick({"do": "layers", "first": 2, "last": 1})


def test_numbers_are_sent_where_samples_are_no_pictures():
    own = Session(explored(waves, 2))
    (told,) = own.quick({"do": "slide", "index": 0, "amount": 0.5})
    np.testing.assert_allclose(told["row"], own.seen.sample, atol=1e-5)
    (strip,) = own.keep_strip(own.follow()())
    assert np.shape(strip["rows"]) == (33, 30)
    assert own.hello()["takes_pictures"] is False
    low, high = own.hello()["range"]
    assert low < np.min(told["row"])
    assert high > np.max(told["row"])
    assert own.quick({"do": "take", "what": "png"})[0]["name"].endswith(".png")


def test_one_latent_has_sliders_and_no_map():
    controls = [Control("right", "Straight axes", "", 3.0, (-2.0, 2.0), "")]
    learnt = Learnt((axis_part(controls, jnp.eye(1)),))
    draws = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    one = Explored("one", "abc", freeze(jnp.sin, 1), learnt, Codes(draws, {}))
    own = Session(one)
    own.quick({"do": "slide", "index": 0, "amount": 0.5})
    assert own.seen.latent == pytest.approx(-0.5)
    assert own.hello()["latent_dim"] == 1


@pytest.mark.slow
def test_a_generator_of_classes_makes_the_one_that_is_asked_for(tmp_path):
    net = BigGAN(resolution=32, channels=2, classes=3, latent_dim=8, attention=())
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros(8), 0)
    (tmp_path / "config.json").write_text('{"experiment": "experiments.import_weights"}')
    (tmp_path / GENERATOR).write_bytes(to_bytes(StoredGenerator(net, variables, "a BigGAN")))
    spec = GeneratorSpec(str(tmp_path), label=1)
    found = load_explored("b", "", load_generator(spec), spec, codes=16, seed=0)
    own = Session(found)
    assert own.hello()["classes"] == 3
    seen = {}
    for label in (0, 2, 1):
        own.quick({"do": "label", "label": label})
        seen[label] = own.seen.sample
    own.quick({"do": "label", "label": 0})
    np.testing.assert_array_equal(own.seen.sample, seen[0])
    assert np.abs(seen[0] - seen[2]).max() > 1e-4
    with pytest.raises(ValueError, match="there are 3 classes, none of them 3"):
        own.quick({"do": "label", "label": 3})


def small_stylegan2(path, classes=0):
    net = StyleGAN2(8, latent_dim=3, mapping_layers=1, channels=(4, 3), classes=classes)
    label = (0,) if classes else ()
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros(3), *label)
    mean = jax.random.normal(jax.random.key(1), (3,))
    (path / "config.json").write_text('{"experiment": "experiments.import_weights"}')
    kept = StoredGenerator(net, with_mean_w(variables, mean), "a StyleGAN2")
    (path / GENERATOR).write_bytes(to_bytes(kept))
    return np.asarray(mean)


@pytest.mark.parametrize(
    ("layers", "count"), [pytest.param("", 4, marks=pytest.mark.slow), ("1,3", 2)]
)
def test_styles_are_truncated_to_their_mean_and_moved_layer_by_layer(tmp_path, layers, count):
    mean = small_stylegan2(tmp_path)
    spec = GeneratorSpec(str(tmp_path), space="w+", layers=layers)
    found = load_explored("s", "", load_generator(spec), spec, codes=40, seed=0)
    own = Session(found)
    assert own.hello()["layers"] == count
    assert own.looks.axes == "visible"
    own.quick({"do": "truncation", "value": 0.0})
    np.testing.assert_allclose(own.seen.latent, np.tile(mean, count), atol=1e-6)
    own.quick({"do": "truncation", "value": 1.0})
    own.quick({"do": "layers", "first": 1, "last": 1})
    before = own.seen.latent
    index = [control.group for control in found.controls].index(sliders.AXES)
    own.quick({"do": "slide", "index": index, "amount": 0.1})
    moved = np.abs(own.seen.latent - before).reshape(count, 3).max(1)
    assert moved[1] > 0
    assert not np.delete(moved, 1).any()


@pytest.mark.slow
@pytest.mark.parametrize("space", ["z", "w+"])
def test_a_stylegan2_of_classes_makes_the_one_that_is_asked_for(tmp_path, space):
    small_stylegan2(tmp_path, classes=3)
    spec = GeneratorSpec(str(tmp_path), label=1, space=space)
    own = Session(load_explored("c", "", load_generator(spec), spec, codes=20, seed=0))
    assert own.hello()["classes"] == 3
    own.quick({"do": "random", "number": 5})
    seen = {}
    for label in (0, 2):
        own.quick({"do": "label", "label": label})
        seen[label] = own.seen.sample
    assert np.abs(seen[0] - seen[2]).max() > 1e-5
    other = load_generator(replace(spec, label=2))
    if space == "w+":
        # The class is in the latent, which is drawn of it.
        key = jax.random.fold_in(jax.random.key(0), 5)
        np.testing.assert_allclose(own.seen.latent, other.prior(key), atol=1e-6)
        assert own.history.now.origin == "draw 5 of class 2"
    np.testing.assert_allclose(seen[2], other.decode(own.seen.latent), atol=1e-5)


@pytest.mark.slow
def test_thousands_of_latents_are_mapped_without_a_matrix_of_all_of_them():
    wide = np.linspace(1, 2, 6000)

    def decode(z):
        return jnp.sin(z[:4] * wide[:4])

    prior = lambda key: jax.random.normal(key, (6000,)) * wide  # noqa: E731
    generator = freeze(decode, 6000, prior=prior)
    draws = np.random.default_rng(0).normal(size=(300, 6000)).astype(np.float32)
    for kind in ("coordinates", "principal"):
        frame = plane.frame_of(kind, generator, draws, None)
        assert frame.basis.shape == (6000, plane.MOST)
        laid = plane.Plane(draws[0], frame, 0, 1)
        place = np.array([0.5, -0.25])
        np.testing.assert_allclose(laid.seen(laid.latents(place)), place, atol=1e-3)
    variances = np.linalg.norm(frame.basis, axis=0)
    assert (np.diff(variances) <= 1e-4).all()


# --- a picture of one's own ---


def sent(image, kind="png"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_picture_is_found_and_the_sliders_start_from_it(session, monkeypatch):
    monkeypatch.setattr(own_picture, "STEPS", 120)
    wanted = np.asarray(picture(jnp.array([0.8, -0.4, 0.5])))
    image = Image.fromarray(np.round(wanted[..., 0] * 255).astype(np.uint8))
    first, *told, last, found = session.inverted({"name": "me.png", "content": sent(image)})
    assert (first["done"], first["share"]) == (False, 0.0)
    assert [answer["share"] for answer in told] == sorted(answer["share"] for answer in told)
    assert last["done"]
    assert "root mean square error" in last["words"]
    session.keep_picture(found["latent"], found["origin"])
    np.testing.assert_allclose(session.seen.sample, wanted, atol=0.02)
    assert session.history.now.origin == "your picture, me.png"


def test_a_search_that_is_stopped_keeps_the_best_so_far(session):
    content = sent(Image.new("L", (8, 8), 90))
    steps = session.inverted({"name": "grey", "content": content})
    next(steps), next(steps)
    session.quick({"do": "stop"})
    *_, last, found = steps
    assert last["done"]
    assert np.isfinite(found["latent"]).all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (base64.b64encode(b"#!/bin/sh\nrm -rf /").decode(), "it is no image"),
        (sent(Image.new("L", (40, 40), 90))[:-60], "cannot be taken|did not arrive whole"),
        ("%%%", "did not arrive whole"),
        (sent(Image.new("1", (10_000, 10_000))), "100 megapixels, more than 64"),
        ("A" * 17_000_000, "larger than 12 MB"),
    ],
    ids=["a script", "a truncated file", "no base 64", "100 megapixels", "a large file"],
)
def test_what_is_no_picture_is_refused_in_words(content, told, session):
    with pytest.raises(ValueError, match=told):
        list(session.inverted({"name": "x", "content": content}))


# --- what a tab is told, and when ---


def talk(tab, *messages):
    async def speak():
        for message in messages:
            await tab.hear(message)
        while tab._doing:
            await asyncio.sleep(0.01)

    asyncio.run(speak())


def test_a_tab_is_told_what_it_needs_at_its_beginning(session):
    told = []
    talk(Tab(session, told.extend), {"do": "ready", "view": ""})
    kinds = [answer["kind"] for answer in told]
    assert kinds[:3] == ["hello", "map", "place"]
    assert {"strip", "shade"} <= set(kinds)


def test_nonsense_is_answered_in_words_and_the_tab_lives(session, capsys):
    told = []
    tab = Tab(session, told.extend)
    for message in (
        {"do": "explode"},
        {"do": "slide", "index": "a", "amount": 1, "seq": 5},
        {"do": "slide"},
        {},
        {"do": "tap", "x": None, "y": 2},
        {"do": "code", "number": 3},
        {"do": "looks", "shade": "green"},
        {"do": "_go"},
        {"do": "picture", "name": "x", "content": "%"},
    ):
        before = len(told)
        talk(tab, message)
        assert told[before:], message
        assert all(answer["kind"] == "note" and answer["wrong"] for answer in told[before:])
    assert any(answer.get("seq") == 5 for answer in told)
    assert "Traceback" not in capsys.readouterr().err
    talk(tab, {"do": "slide", "index": 0, "amount": 0.5})
    assert told[-1]["kind"] == "image"


def test_of_wishes_that_come_at_once_the_newest_is_met(session):
    told = []
    tab = Tab(session, told.extend)

    async def wish():
        for shade in ("image: x", "image: y", "image: light"):
            await tab.hear({"do": "looks", "shade": shade})
        while tab._doing:
            await asyncio.sleep(0.01)

    asyncio.run(wish())
    assert [answer["shade"].name for answer in told if answer["kind"] == "shade"] == [
        "image: light"
    ]


def test_enter_goes_to_where_the_arrows_before_it_lead(session):
    told = []
    tab = Tab(session, told.extend)

    async def typed():
        await tab.hear({"do": "cursor", "home": True})
        moves = ({"do": "cursor", "dx": 0.1, "dy": 0.0}, {"do": "enter"})
        await asyncio.gather(*(tab.hear(move) for move in (*moves, *moves)))
        while tab._doing:
            await asyncio.sleep(0.01)

    asyncio.run(typed())
    (cursor, farther) = [answer["x"] for answer in told if answer["kind"] == "cursor"][1:]
    assert farther > cursor
    (way,) = [answer for answer in told if answer["kind"] == "ways" and answer["line"]]
    assert way["line_length"] > 0
    assert way["line"][0][0] == pytest.approx(cursor, abs=1e-5)
    assert way["line"][-1][0] == pytest.approx(farther, abs=1e-5)


def test_a_slider_that_is_let_go_late_does_not_end_the_search_for_a_way(session):
    told = []
    tab = Tab(session, told.extend)

    async def hurried():
        await tab.hear({"do": "slide", "index": 0, "amount": 0.5})
        await tab.hear({"do": "tap", "x": 0.0, "y": 0.0})
        await tab.hear({"do": "tap", "x": 0.5, "y": -0.25})
        await tab.hear({"do": "release", "index": 0})
        while tab._doing:
            await asyncio.sleep(0.01)

    asyncio.run(hurried())
    (way,) = [answer for answer in told if answer["kind"] == "ways" and answer["line"]]
    assert way["line_length"] > 0
    assert session.looks.track == "geodesic"


def test_the_way_to_where_one_is_has_no_length(session):
    told = []
    tab = Tab(session, told.extend)
    talk(tab, {"do": "tap", "x": 0.5, "y": -0.25})
    talk(tab, {"do": "tap", "x": 0.5, "y": -0.25})
    (way,) = [answer for answer in told if answer["kind"] == "ways" and answer["line"]]
    assert way["line_length"] == way["geodesic_length"] == 0


def test_two_tabs_do_not_see_each_other(shared):
    one, other = Session(shared), Session(shared)
    before = other.seen.latent
    one.quick({"do": "slide", "index": 0, "amount": 1.0})
    one.quick({"do": "pin"})
    np.testing.assert_array_equal(other.seen.latent, before)
    assert other.pins == []
    assert not other.history.past
