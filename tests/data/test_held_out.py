import unicodedata

import numpy as np
import pytest

from latent_flows.data.held_out import held_out

MANY = [f"{kind}/{number:05d}.png" for kind in "abc" for number in range(1000)]


def test_one_in_ten_is_held_out():
    assert held_out(MANY).mean() == pytest.approx(0.1, abs=0.02)


def test_a_file_stays_in_its_part_whatever_is_added_or_in_which_order():
    before = dict(zip(MANY[::3], held_out(MANY[::3]), strict=True))
    shuffled = np.random.default_rng(0).permutation(MANY).tolist()
    after = dict(zip(shuffled, held_out(shuffled), strict=True))
    assert all(after[name] == is_out for name, is_out in before.items())


def test_an_accent_is_written_in_two_ways_and_is_one_name():
    names = [f"é{i}.png" for i in range(200)]
    other = [unicodedata.normalize("NFD", name) for name in names]
    assert other != names
    np.testing.assert_array_equal(held_out(names), held_out(other))


@pytest.mark.parametrize("count", range(2, 12))
def test_of_a_handful_neither_part_is_empty(count):
    chosen = held_out([f"{i}.png" for i in range(count)])
    assert 0 < chosen.sum() < count


def test_where_all_are_below_the_quantile_one_is_learnt_from():
    out = [name for name, is_out in zip(MANY, held_out(MANY), strict=True) if is_out]
    assert 0 < held_out(out[:5]).sum() == 4


def test_a_name_that_is_no_text_has_a_hash():
    assert held_out([b"\xff.png".decode(errors="surrogateescape"), "a.png"]).sum() == 1
