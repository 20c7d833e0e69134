"""How much memory there is, by every account of it, and what is refused."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from latent_flows import _memory


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Files in which a control group would say what it allows and uses."""
    pair = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(_memory, "_GROUPS", ((str(pair[0]), str(pair[1])),))
    return pair


def test_what_is_available_is_more_than_nothing_and_no_more_than_there_is():
    total = psutil.virtual_memory().total + psutil.swap_memory().total
    assert 0 < _memory.available() <= total


def test_a_container_allows_less_than_the_machine_has(groups):
    limit, used = groups
    free = _memory.available()
    limit.write_text("max\n")
    used.write_text("7\n")
    assert _memory.available() == pytest.approx(free, rel=0.5)
    limit.write_text(f"{2**20}\n")
    used.write_text(f"{2**19}\n")
    assert _memory.available() == 2**19
    used.write_text(f"{2**21}\n")
    assert _memory.available() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits")
def test_a_limit_of_the_shell_counts(groups, monkeypatch):
    import resource

    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 2**40, used + 2**40))
    assert _memory.available() > 2**20
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used // 2, used // 2))
    assert _memory.available() == 0


def test_an_accelerator_has_memory_of_its_own(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 80, "bytes_in_use": 30}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _memory.available() == 50


def test_the_size_of_a_tree_is_that_of_its_arrays():
    tree = {
        "half": jnp.ones(3, jnp.bfloat16),
        "double": np.ones((2, 5)),
        "shape": jax.ShapeDtypeStruct((4, 0), jnp.float32),
        "scalar": jax.ShapeDtypeStruct((), jnp.int8),
        "key": jax.random.key(0),
        "none": None,
        "number": 3,
    }
    assert _memory.size_of(tree) == 6 + 80 + 0 + 1 + 8


def test_what_just_fits_is_not_refused(monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda: 1000)
    _memory.require(1000, "it", "lower it")
    with pytest.raises(ValueError, match=r"^it takes at least 1e\+03 B of memory, and"):
        _memory.require(1001, "it", "lower it")


def test_nothing_is_allocated_to_find_a_size():
    before = psutil.Process().memory_info().rss
    shapes = jax.eval_shape(lambda: jnp.zeros((2**20, 2**20)))
    assert _memory.size_of(shapes) == 2**42
    assert psutil.Process().memory_info().rss - before < 2**28
