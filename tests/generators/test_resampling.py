"""Resampling against its definition, and what up- and downsampling have to keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_flows.generators.resampling import fir_kernel, upfirdn


def by_definition(x, kernel, up, down, pad):
    """Loops over output pixels and taps."""
    height, width, channels = x.shape
    wide = np.zeros((height * up, width * up, channels))
    wide[::up, ::up] = x
    lo, hi = pad
    wide = np.pad(wide, ((max(lo, 0), max(hi, 0)), (max(lo, 0), max(hi, 0)), (0, 0)))
    wide = wide[max(-lo, 0) : len(wide) - max(-hi, 0), max(-lo, 0) : wide.shape[1] - max(-hi, 0)]
    a, b = kernel.shape
    rows, columns = (len(wide) - a) // down + 1, (wide.shape[1] - b) // down + 1
    out = np.zeros((rows, columns, channels))
    for i in range(rows):
        for j in range(columns):
            for p in range(a):
                for q in range(b):
                    pixel = wide[i * down + a - 1 - p, j * down + b - 1 - q]
                    out[i, j] += kernel[p, q] * pixel
    return out


@settings(max_examples=8, deadline=None)
@given(
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    low=st.integers(-1, 3),
    high=st.integers(-1, 3),
    seed=st.integers(0, 99),
)
def test_upfirdn_is_its_definition(up, down, low, high, seed):
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(4, 5, 2)), rng.normal(size=(2, 3))
    expected = by_definition(x, kernel, up, down, (low, high))
    options = {"up": up, "down": down, "pad": (low, high)}
    found = jax.jit(partial(upfirdn, **options))(jnp.asarray(x), jnp.asarray(kernel))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_flat_image_stays_flat_away_from_the_edge():
    bigger = upfirdn(jnp.ones((6, 6, 1)), fir_kernel([1, 3, 3, 1], 4.0), up=2, pad=(2, 1))
    np.testing.assert_allclose(bigger[2:-2, 2:-2], 1.0, atol=1e-6)
    assert bigger.shape == (12, 12, 1)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 4), {}, "image .height, width, channels."),
        ((4, 4, 1), {"up": 0}, "at least 1, got 0"),
        ((4, 4, 1), {"down": 0}, "at least 1, got 1 and 0"),
        ((2, 2, 1), {}, "does not fit"),
    ],
)
def test_what_cannot_be_filtered_is_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        upfirdn(jnp.ones(shape), jnp.ones((4, 4)), **options)
