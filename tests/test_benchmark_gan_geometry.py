"""The benchmark of a GAN's geometry measures all three parts, and ends what takes too long."""

import pytest

from benchmarks import gan_geometry
from benchmarks.gan_geometry import Config

SMALL = {
    "resolution": 8,
    "channels": (2, 2),
    "latent": 70,
    "directions": 2,
    "knots": 2,
    "segments": 4,
    "repeats": 1,
    "iterations": 3,
}


@pytest.mark.slow
def test_every_part_is_measured_in_a_process_of_its_own(capsys):
    rows = {row["part"]: row for row in gan_geometry.main(Config(**SMALL)).rows}
    assert [*rows] == ["product", "directions", "geodesic"]
    for row in rows.values():
        assert row["done"]
        assert min(row["seconds"], row["cpu_s"], row["compiling_s"]) > 0
        assert row["peak_mib"] > 1
    assert rows["directions"]["largest_gain"] >= rows["directions"]["smallest_gain"] > 0
    assert 0 < rows["geodesic"]["of_straight"] <= 1.001
    assert rows["geodesic"]["images"] > 5
    assert "a path of 2 knots and 4 chords: " in capsys.readouterr().out


def test_what_is_not_done_in_time_is_ended_and_said():
    config = Config(**SMALL, minutes=1e-4)
    row = gan_geometry.measured(config, "directions")
    assert not row["done"]
    assert "2 principal directions: not done after 0.0 minutes (nothing known yet)" in (
        gan_geometry.said(config, row)
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"segments": 1}, "segments must be at least knots, got 1 and 2"),
        ({"minutes": 0.0}, "minutes must be positive, got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**{**SMALL, **wrong})
