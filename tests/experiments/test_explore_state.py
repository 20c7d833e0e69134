"""What the explorer knows of places, links, planes and sliders, without any page."""

import base64
import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.explore.control import Control, bounds
from experiments.explore.link import BadLink, from_link, to_link
from experiments.explore.moves import (
    attribute_part,
    axis_part,
    combined,
    direction_part,
    flow_part,
    steered_part,
)
from experiments.explore.plane import Plane, extent, through
from experiments.explore.view import History, Looks, Place, View, arrived, at_rest, slid
from latent_flows import coordinates, traversals
from latent_flows.data.image_factors import ImageFactor, Measures
from latent_flows.directions import DirectionModel

START = Place(np.zeros(3, np.float32), (0.0, 0.0), "somewhere")
VIEW = View(
    Place(np.array([0.1, -2.5, 1e-7], np.float32), (0.25, -1.0), "draw 3", np.ones(3, np.float32)),
    Looks(axes="principal", second=2, shade="density of codes", time=0.5, track="a"),
    (np.full(3, 0.3, np.float32),),
)


def slider(name, **settings):
    usual = {"group": "", "unit": "", "reach": 2.0, "good": (-1.0, 1.0), "basis": ""}
    return Control(name, **usual | settings)


# --- where one is ---


def test_a_slider_that_is_dragged_is_one_step_of_undo_and_a_second_drag_another():
    history = History(START)
    for amount in (0.1, 0.2, 0.3):
        history = history.moved(slid(history.now, 0, amount), "a")
    history = history.released()
    history = history.moved(slid(history.now, 0, 0.9), "a").moved(slid(START, 1, 1.0), "b")
    assert [place.amounts for place in history.past] == [(0.0, 0.0), (0.3, 0.0), (0.9, 0.0)]
    assert history.undone().undone().now.amounts == (0.3, 0.0)
    assert history.undone().undone().undone().undone().now == START


def test_redo_goes_forward_again_until_one_goes_elsewhere():
    history = History(START).moved(slid(START, 0, 1.0)).moved(slid(START, 1, 1.0))
    back = history.undone().undone()
    assert back.redone().redone().now == history.now
    assert back.moved(slid(START, 0, 2.0)).future == ()
    assert history.redone() == history


def test_going_elsewhere_puts_sliders_at_rest_and_reset_keeps_the_base():
    moved = slid(START, 0, 1.0)._replace(target=np.ones(3))
    there = arrived(moved, np.ones(3), "draw 1")
    assert (there.amounts, there.target, there.origin) == ((0.0, 0.0), None, "draw 1")
    assert at_rest(moved).base is moved.base
    assert at_rest(moved).amounts == (0.0, 0.0)


def test_a_slider_that_is_not_there_and_an_amount_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match="there is no slider 2: there are 2"):
        slid(START, 2, 0.0)
    with pytest.raises(ValueError, match="a slider cannot be at nan"):
        slid(START, 0, float("nan"))


# --- links ---


def test_a_link_reopens_the_view_that_it_was_made_of_to_the_bit():
    found = from_link(to_link(VIEW, "demo", "abc"), "abc", 3, 2)
    np.testing.assert_array_equal(found.place.base, VIEW.place.base)
    np.testing.assert_array_equal(found.place.target, VIEW.place.target)
    np.testing.assert_array_equal(found.pins[0], VIEW.pins[0])
    assert found.place.amounts == VIEW.place.amounts
    assert found.looks == VIEW.looks


def test_a_link_is_made_of_letters_that_an_address_may_hold():
    link = to_link(VIEW, "a run with Umlauts äöü", "abc")
    assert link.replace("-", "").replace("_", "").isalnum()
    assert link.isascii()


def test_a_link_of_another_run_says_which():
    with pytest.raises(BadLink, match=r"made for another run \(demo\)"):
        from_link(to_link(VIEW, "demo", "abc"), "xyz", 3, 2)


def packed(**content):
    whole = {"version": 1, "of": "abc", "amounts": [0, 0], "origin": "", "looks": {}, "pins": []}
    whole |= {"base": base64.b64encode(np.zeros(3, "<f4")).decode(), "target": None}
    whole |= {"layers": None, **content}
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(whole).encode())).decode()


BROKEN = {
    "nothing": "",
    "no letters": "%%%",
    "cut off": to_link(VIEW, "demo", "abc")[:-20],
    "no compressed text": base64.urlsafe_b64encode(b"hello").decode(),
    "no object": base64.urlsafe_b64encode(zlib.compress(b"[1]")).decode(),
    "a bomb": base64.urlsafe_b64encode(zlib.compress(b"0" * 2**24)).decode(),
    "amounts of another number": packed(amounts=[0.0]),
    "an amount that is no number": packed(amounts=[0.0, float("nan")]),
    "amounts that are text": packed(amounts=["a", "b"]),
    "a base of another length": packed(base=base64.b64encode(b"1234").decode()),
    "a base that is not finite": packed(
        base=base64.b64encode(np.full(3, np.nan, "<f4").tobytes()).decode()
    ),
    "looks that are none": packed(looks=3),
    "an axis that is no number": packed(looks={"first": "one"}),
    "a time that is not finite": packed(looks={"time": float("inf")}),
    "layers that are none": packed(layers=[1]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_link_is_said_to_be_damaged(name):
    with pytest.raises(BadLink, match=r"damaged|another version"):
        from_link(BROKEN[name], "abc", 3, 2)
    assert from_link(packed(), "abc", 3, 2).place.amounts == (0.0, 0.0)


# --- planes ---


def test_a_place_of_the_map_is_the_latent_that_is_seen_there():
    frame = coordinates.AffineCoordinates(
        jnp.array([1.0, 0.0, 0.0]), jnp.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    )
    anchor = np.array([0.5, 0.5, 6.0], np.float32)
    plane = Plane(anchor, frame, 0, 1)
    place = np.array([0.7, -0.4])
    np.testing.assert_allclose(plane.seen(plane.latents(place)), place, atol=1e-6)
    np.testing.assert_allclose(plane.latents(plane.seen(anchor)), anchor, atol=1e-6)
    assert plane.distance(plane.latents(place)) < 1e-5
    assert plane.distance(anchor + np.array([0, 0, 3.0], np.float32)) > 1


def test_a_plane_through_three_latents_holds_all_of_them():
    pins = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    plane = Plane(pins[0], through(pins), 0, 1)
    assert max(plane.distance(pin) for pin in pins) < 1e-5
    with pytest.raises(ValueError, match="2 of 3 are pinned"):
        through(pins[:2])
    with pytest.raises(ValueError, match="lie on one line"):
        through(np.stack([pins[0], pins[1], 2 * pins[1] - pins[0]]))


def test_a_map_is_square_and_shows_what_is_on_it():
    left, right, bottom, top = extent(np.array([[0.0, 0.0], [4.0, 1.0]]))
    assert right - left == pytest.approx(top - bottom)
    assert left < 0
    assert right > 4
    assert extent(np.zeros((3, 2)))[0] < 0


# --- sliders ---


def spin(rate, t, z):
    return rate * (1 + t) * jnp.array([-z[1], z[0]])


def test_one_flow_alone_is_the_flow_itself_either_way():
    rates, z = jnp.array([0.5, -0.2]), jnp.array([1.0, 0.3])
    move = combined([flow_part([slider("a"), slider("b")], spin, rates, None)])
    follow = traversals.motion(spin, rates)
    for k, t in ((0, 0.8), (1, -0.6)):
        amounts = np.zeros(2)
        amounts[k] = t
        found, missing = move(None, amounts, z)
        np.testing.assert_allclose(found, follow(k, t, z), atol=2e-3)
        assert not missing.any()


@pytest.mark.slow
def test_flows_together_do_not_depend_on_their_order():
    rates, z = jnp.array([0.5, -0.2]), jnp.array([1.0, 0.3])
    one = combined([flow_part([slider("a"), slider("b")], spin, rates, None)])
    other = combined([flow_part([slider("b"), slider("a")], spin, rates[::-1], None)])
    found, same = one(None, [0.7, -0.4], z)[0], other(None, [-0.4, 0.7], z)[0]
    np.testing.assert_allclose(found, same, atol=1e-6)


def test_sliders_at_rest_leave_a_latent_as_it_is_to_the_bit():
    line = jnp.array([0.0, 1.0])
    model = DirectionModel(jnp.array([0.6, 0.8]), line, 2 * line, 2 * line, *jnp.ones(2))
    parts = [
        flow_part([slider("a")], spin, jnp.ones(1), None),
        direction_part([slider("b")], [model]),
        axis_part([slider("c")], jnp.ones((1, 2))),
    ]
    z = np.array([0.1, 0.7], np.float32)
    np.testing.assert_array_equal(combined(parts)(None, np.zeros(3), z)[0], z)
    moved = combined(parts)(None, [0.0, 1.0, 0.5], z)[0]
    np.testing.assert_allclose(moved, z + np.array([0.8, 0.9]), atol=1e-6)


def bump(z):
    columns = jnp.arange(16.0)
    row = jnp.exp(-((columns - 8 - z[0]) ** 2) / 8)
    return jnp.tile(row[None, :, None], (16, 1, 1))


def test_a_steered_slider_moves_the_image_by_its_amount_and_says_what_is_missing():
    part = steered_part(slider("x"), "translate_x", hold=None, blur=1.0, damping=1e-4)
    move = combined([part])
    found, missing = move(jax.tree_util.Partial(bump), [0.125], jnp.zeros(2))
    assert float(found[0]) == pytest.approx(2, abs=0.1)
    assert missing[0] < 0.1
    still = jax.tree_util.Partial(lambda z: jnp.ones((16, 16, 1)) * (1 + 0 * z[0]))
    up = steered_part(slider("y"), "translate_y", hold=None, blur=1.0, damping=1e-4)
    assert combined([up])(still, [0.125], jnp.zeros(2))[1][0] == pytest.approx(1, abs=1e-3)


def test_attributes_move_together_by_their_amounts_and_those_without_a_slider_stay():
    """Of a picture of three numbers, the first of which goes round."""
    read = lambda place: lambda image: image[place, 0, 0]  # noqa: E731
    turns = ImageFactor("own hue", "turns", lambda image: image[0, 0, 0] % 1.0, period=1.0)
    rest = [ImageFactor(name, "", read(place)) for name, place in (("b", 1), ("still", 2))]
    measures = Measures((turns._replace(name="own_hue"), *rest))
    mixed = jax.tree_util.Partial(
        lambda z: (jnp.array([[1.0, 0.2, 0.1], [0.3, 1.0, z[2]], [0.0, 0.4, 1.0]]) @ z)[
            :, None, None
        ]
    )
    move = combined([attribute_part([slider("own hue"), slider("b")], [0, 1], measures)])
    z = jnp.array([0.9, 0.1, 0.2])
    there, missing = move(mixed, [0.3, -0.2], z)
    np.testing.assert_allclose((mixed(there) - mixed(z)).ravel(), [0.3, -0.2, 0.0], atol=5e-3)
    assert max(missing) < 0.05
    only, missing = move(mixed, [0.0, 0.1], z)
    np.testing.assert_allclose((mixed(only) - mixed(z)).ravel(), [0.0, 0.1, 0.0], atol=5e-3)
    assert missing[0] == 0


def test_a_range_of_values_is_one_of_amounts_from_where_one_is():
    relative = slider("a", good=(-1.0, 1.0))
    absolute = slider("b", good=(0.0, 2.0), value=lambda z: z[0])
    base = np.array([0.5, 0.0], np.float32)
    assert bounds(relative, base) == (-1.0, 1.0)
    assert bounds(absolute, base) == (-0.5, 1.5)
