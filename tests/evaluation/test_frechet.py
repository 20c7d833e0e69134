"""The Fréchet distance of features."""

import numpy as np
import pytest

from latent_flows.evaluation.frechet import frechet_distance


@pytest.fixture
def points():
    return np.random.RandomState(0).standard_normal((500, 4)) @ np.diag([1.0, 2.0, 0.5, 0.0])


def test_a_set_has_no_distance_from_itself_in_any_order(points):
    assert frechet_distance(points, points[::-1]) == pytest.approx(0, abs=1e-6)


def test_diagonal_covariances_add_the_squared_differences_of_deviations(points):
    # Scaling the features that vary changes each deviation by that factor.
    white = np.linalg.qr(points[:, :3] - points[:, :3].mean(0))[0] * np.sqrt(len(points) - 1)
    one, other = white * [1.0, 2.0, 3.0], white * [2.0, 2.0, 1.0] + [0.0, 5.0, 0.0]
    assert frechet_distance(one, other) == pytest.approx(1 + 4 + 25)


def test_it_is_symmetric_and_does_not_see_rotations(points):
    random = np.random.RandomState(1)
    other = random.standard_normal((300, 4)) @ random.standard_normal((4, 4)) + 1
    turn = np.linalg.qr(random.standard_normal((4, 4)))[0]
    distance = frechet_distance(points, other)
    assert distance > 1
    assert frechet_distance(other, points) == pytest.approx(distance)
    assert frechet_distance(points @ turn, other @ turn) == pytest.approx(distance)


@pytest.mark.parametrize(
    "other", [np.zeros(3), np.zeros((5, 3)), np.zeros((1, 4)), np.full((5, 4), np.nan)]
)
def test_features_that_do_not_fit_are_refused(points, other):
    with pytest.raises(ValueError, match="two finite sets of features"):
        frechet_distance(points, other)
