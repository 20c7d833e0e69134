"""Which files of a folder are held out, so that a file stays in its part whatever is added."""

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool

__all__ = ["SHARE", "held_out"]

SHARE = 0.1
"""Of all files, on average."""


def held_out(names: Sequence[str]) -> Bool[np.ndarray, "n"]:
    """Which files are held out, by a hash of their names alone.

    A name below the quantile `SHARE` of all hashes is held out, whatever else is there. Where no
    name is, as among a handful, the one with the smallest hash is: there is a held-out part
    wherever there are two files.

    Args:
        names: paths relative to the folder, with `/` between their parts.

    Returns:
        For each, whether it is held out.

    >>> few = held_out([f"{i}.png" for i in range(100)])
    >>> more = held_out([f"{i}.png" for i in range(1000)])
    >>> bool((few == more[:100]).all()), int(more.sum())
    (True, 95)
    """
    if not len(names):
        return np.zeros(0, bool)
    hashes = np.array([_hash(name) for name in names])
    chosen = hashes < SHARE
    if not chosen.any():
        chosen[hashes.argmin()] = True
    if chosen.all():
        chosen[hashes.argmax()] = False
    return chosen


def _hash(name: str) -> float:
    """In [0, 1). Systems differ in how they write an accent, so the name is normalised."""
    text = unicodedata.normalize("NFC", name).encode(errors="surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") / 2**64
