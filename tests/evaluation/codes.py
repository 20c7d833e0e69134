"""Representations of known quality, for the tests of the scores that judge them."""

import numpy as np

SIZES = (3, 4, 5)


def grid(repeats=4):
    """Every combination of three factors, several times over."""
    axes = np.meshgrid(*(range(size) for size in SIZES), indexing="ij")
    return np.tile(np.stack(axes, -1).reshape(-1, len(SIZES)), (repeats, 1))


def random(rows=300, codes=5, seed=0):
    """Codes that know a little of some factors: neither perfect nor useless."""
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, rows) for size in SIZES], -1)
    mixing = rng.normal(size=(len(SIZES), codes)) * (rng.random((len(SIZES), codes)) < 0.6)
    return factors @ mixing + 0.5 * rng.normal(size=(rows, codes)), factors


def quarter(codes):
    """Codes after a turn by 45 degrees in the plane of the first two."""
    turned = np.array(codes, float)
    turned[:, :2] = turned[:, :2] @ np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    return turned
