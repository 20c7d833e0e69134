"""safetensors whose bytes are the same whenever their content is."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors

__all__ = ["read", "save"]


def save(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> bytes:
    """The content of a safetensors file.

    The library writes the header's texts in an order of chance; here it is that of their names.

    Args:
        arrays: by name.
        texts: of the header, by name.

    Returns:
        The content, equal for equal arrays and texts.

    >>> texts = {name: "x" for name in "abcdefgh"}
    >>> len({save({"w": np.ones(3)}, texts) for _ in range(5)})
    1
    """
    content = safetensors.save({name: arrays[name] for name in sorted(arrays)}, dict(texts))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The texts of the header of a safetensors file, and its arrays, by name.

    Args:
        path: of the file.

    Returns:
        Texts and arrays.

    Raises:
        ValueError: there is no such file, or it is truncated, corrupt or of another kind.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, arrays
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated, corrupt or no safetensors file ({error})") from None
