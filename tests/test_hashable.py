"""What holds arrays is equal to itself alone, so that a cache may have it as a key.

Equality by fields would ask whether arrays are equal, which has no single answer, and their hash,
which arrays do not have.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import jax.numpy as jnp
import pytest

import latent_flows
from latent_flows.geometry.interpolation import blend

ARRAYS = ("Array", "Latent", "Scalar", "PyTree", "Prior")


def classes() -> Iterator[type]:
    """The dataclasses of the library that hold arrays."""
    for module in pkgutil.walk_packages(latent_flows.__path__, "latent_flows."):
        for found in vars(importlib.import_module(module.name)).values():
            if not (isinstance(found, type) and is_dataclass(found)):
                continue
            if found.__module__ == module.name and any(
                any(name in str(field.type) for name in ARRAYS)
                and "Callable" not in str(field.type)
                for field in fields(found)
            ):
                yield found


HOLDING = [*classes()]


def test_there_are_some():
    assert {"Blend", "DirectionModel", "FrozenGenerator"} <= {each.__name__ for each in HOLDING}


@pytest.mark.parametrize("holding", HOLDING, ids=lambda found: found.__name__)
def test_the_hash_is_that_of_the_object(holding):
    assert holding.__hash__ is object.__hash__
    assert holding.__eq__ is object.__eq__


def test_a_blended_metric_is_a_key():
    points = jnp.eye(2)
    one, other = (blend(points, jnp.stack([jnp.eye(2)] * 2)) for _ in range(2))
    assert one != other
    assert {one: 1}[one] == 1
