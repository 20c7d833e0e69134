"""Equivariance error of flows that are right, wrong, or stand still."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latent_flows import flows
from latent_flows.evaluation import equivariance_error

TS = jnp.linspace(0.0, 1.0, 5)
VELOCITY = jnp.array([0.5, -2.0])


def follow(field):
    return lambda z0, ts: flows.integrate(field, z0, ts).zs


def sequence():
    return jnp.array([1.0, 3.0]) + TS[:, None] * VELOCITY


def same(x):
    return x


def test_the_true_flow_makes_no_error_and_standing_still_one_in_closed_form():
    xs = sequence()
    found = jax.jit(
        lambda xs: equivariance_error(same, same, follow(lambda t, z: VELOCITY), xs, TS)
    )(xs)
    assert float(found.total) == pytest.approx(0, abs=1e-4)
    assert float(found.rebuilt) == 0
    # Times 1/4 + 2/4 + 3/4 + 1, speed 0.5 + 2.
    assert float(found.still) == pytest.approx(2.5 * 2.5)


def test_it_is_the_sum_over_pixels_and_later_times_of_absolute_differences():
    # Pictures of two by two; the second column of those that are decoded has the wrong sign.
    xs = jnp.stack([sequence(), -sequence()], -1)
    half_right = follow(lambda t, z: VELOCITY.at[1].set(0.0))
    found = equivariance_error(
        lambda x: x[:, 0], lambda z: jnp.stack([z, z], -1), half_right, xs, TS
    )
    times = np.asarray(TS[1:])
    frames = 2 * times + (2 + times) + (6 - 2 * times)
    np.testing.assert_allclose(found.frames, frames, rtol=1e-3)
    assert float(found.total) == pytest.approx(frames.sum(), rel=1e-3)
    assert float(found.rebuilt) == pytest.approx((2 + times + 6 - 4 * times).sum())


def test_a_flow_that_stands_still_scores_as_one_that_does():
    found = equivariance_error(same, same, follow(lambda t, z: 0 * z), sequence(), TS)
    assert float(found.total) == pytest.approx(float(found.still))


def test_later_samples_are_not_shown_to_the_flow():
    seen = []

    def encode(x):
        seen.append(x)
        return x

    def still(z0, ts):
        assert len(seen) == 1
        return jnp.tile(z0, (len(ts), 1))

    equivariance_error(encode, same, still, sequence(), TS)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got shapes \(5, 2\) and \(4,\)"):
        equivariance_error(same, same, follow(lambda t, z: z), sequence(), TS[1:])
    with pytest.raises(ValueError, match="at least 2 samples"):
        equivariance_error(same, same, follow(lambda t, z: z), sequence()[:1], TS[:1])
    with pytest.raises(ValueError, match=r"follow must give one code of shape \(2,\) for each"):
        equivariance_error(same, same, lambda z0, ts: z0, sequence(), TS)
    with pytest.raises(ValueError, match=r"decode gives shape \(1,\), the sequence has \(2,\)"):
        equivariance_error(same, lambda z: z[:1], follow(lambda t, z: z), sequence(), TS)
