"""What a run writes as JSON, and settings made again of it."""

import contextlib
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from latent_flows._validation import choose


def jsonable(value: Any, lost: list[str] | None = None, name: str = "") -> Any:
    """A value as JSON can hold it: dataclasses as objects, arrays as lists, NaN as null.

    Args:
        value: dataclasses, mappings, sequences, arrays, paths, enums and numbers, nested.
        lost: if given, collects the names of the numbers that became null.
        name: the name of `value` itself in that list.

    >>> lost = []
    >>> jsonable({"a": (1, float("nan")), "b": np.ones(2)}, lost), lost
    ({'a': [1, None], 'b': [1.0, 1.0]}, ['a.1'])
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    elif hasattr(value, "tolist"):
        value = np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {str(k): jsonable(v, lost, _below(name, k)) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [jsonable(v, lost, _below(name, i)) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        if lost is not None:
            lost.append(name)
        return None
    if isinstance(value, enum.Enum):
        return value.name
    return value if isinstance(value, str | int | float | None) else str(value)


def revive(kind: Any, value: Any, name: str = "") -> Any:
    """The inverse of `jsonable` for dataclasses of numbers, texts, tuples and dataclasses.

    Raises:
        ValueError: a value of another type than its field's; the message names the field.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return revive(inner[0], value, name)
    if origin in (Union, UnionType):
        for one in inner:
            with contextlib.suppress(ValueError):
                return revive(one, value, name)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {shown(value)}, not settings by name")
        types = get_type_hints(kind, include_extras=True)
        for key in value:
            choose("setting", key, dict.fromkeys(types))
        return kind(
            **{key: revive(types[key], child, _below(name, key)) for key, child in value.items()}
        )
    several = origin is tuple and isinstance(value, list)
    if several and inner[1:] == (...,):
        inner = (inner[0],) * len(value)
    if several and len(inner) == len(value):
        pairs = zip(inner, value, strict=True)
        return tuple(revive(k, v, _below(name, i)) for i, (k, v) in enumerate(pairs))
    if origin in (tuple, Union, UnionType) or not is_of(kind, value):
        raise ValueError(f"{name} is {shown(value)}, expected {_described(kind)}")
    return value


def is_number(value: Any) -> bool:
    """Whether a value that JSON holds is a finite number."""
    return is_of(float, value)


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value that JSON holds is of a type: None, bool, int, float, str, or a choice."""
    if get_origin(kind) is Literal:
        return isinstance(value, str | int | bool) and value in get_args(kind)
    if kind is float:
        return (is_of(int, value) or isinstance(value, float)) and abs(value) <= sys.float_info.max
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is None or kind is type(None):
        return value is None
    return isinstance(value, kind) if isinstance(kind, type) else True


def _below(name: str, key: Any) -> str:
    return f"{name}.{key}".lstrip(".")


def _described(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def shown(value: Any) -> str:
    """A value of JSON, cut off where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What nested objects hold, by dotted names."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from leaves(child, _below(name, key))
    else:
        yield name, value
