import gc
import os
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from latent_flows import data


def numbers(length):
    return data.from_arrays("numbers", value=np.arange(length))


def drawn(stream, count):
    return np.stack([np.asarray(batch["value"]) for batch in islice(stream, count)])


def test_every_epoch_shows_every_example_once_in_a_new_order():
    stream = drawn(data.batches(numbers(10), batch_size=4, seed=0), 10)  # four epochs
    epochs = stream.reshape(4, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len(np.unique(epochs, axis=0)) == 4


def test_the_seed_alone_decides_the_order():
    first, again, other = (
        drawn(data.batches(numbers(1000), batch_size=100, seed=seed), 3) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_neighbouring_seeds_share_no_epoch():
    """Seed 0's second epoch is not seed 1's first."""
    first = drawn(data.batches(numbers(50), batch_size=50, seed=0), 3)
    other = drawn(data.batches(numbers(50), batch_size=50, seed=1), 3)
    assert not any(np.array_equal(a, b) for a in first for b in other)


def test_order_is_close_to_uniform():
    """Each example is equally likely to stand at each place."""
    epochs = drawn(data.batches(numbers(4), batch_size=4, seed=5), 2000)
    for place in range(4):
        shares = np.bincount(epochs[:, place], minlength=4) / 2000
        np.testing.assert_allclose(shares, 0.25, atol=0.06)


@pytest.mark.parametrize("start", [1, 5, 123])
def test_going_on_from_a_step_equals_never_having_stopped(start):
    whole = drawn(data.batches(numbers(17), batch_size=5, seed=3), start + 4)
    resumed = drawn(data.batches(numbers(17), batch_size=5, seed=3, start=start, prefetch=4), 4)
    np.testing.assert_array_equal(whole[start:], resumed)


def test_batches_are_jax_arrays_with_all_the_parts_of_an_example():
    images = np.full((6, 4, 4, 1), 255, np.uint8)
    found = data.from_arrays("squares", image=images, label=np.arange(6))
    assert (found.length, found.image_shape) == (6, (4, 4, 1))
    batch = next(data.batches(found, batch_size=3, seed=0))
    assert isinstance(batch["image"], jax.Array)
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 4, 4, 1), jnp.float32)
    assert float(batch["image"].min()) == 1.0
    assert batch["label"].shape == (3,)


def test_sprites_come_with_their_factors():
    batch = next(data.batches(data.load("sprites", size=32), batch_size=4, seed=0))
    assert batch["image"].shape == (4, 32, 32, 1)
    found = jax.vmap(data.sprites.moments)(batch["image"])
    np.testing.assert_allclose(found.x, data.sprites.centre(batch["factors"].x), atol=0.005)


def test_batches_can_be_split_over_devices():
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    found = numbers(64)
    size = 2 * jax.device_count()
    split = next(data.batches(found, batch_size=size, seed=0, sharding=sharding))["value"]
    plain = next(data.batches(found, batch_size=size, seed=0))["value"]
    assert split.sharding == sharding
    np.testing.assert_array_equal(split, plain)


def test_several_devices_each_hold_their_share():
    program = (
        "import jax, numpy as np\n"
        "from latent_flows import data\n"
        "mesh = jax.sharding.Mesh(jax.devices(), 'batch')\n"
        "sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('batch'))\n"
        "found = data.from_arrays('numbers', value=np.arange(40))\n"
        "batch = next(data.batches(found, batch_size=8, seed=0, sharding=sharding))['value']\n"
        "assert [part.data.shape for part in batch.addressable_shards] == [(2,)] * 4\n"
    )
    run(program, XLA_FLAGS="--xla_force_host_platform_device_count=4")


def test_threads_end_when_the_stream_is_dropped():
    before = threading.active_count()
    stream = data.batches(numbers(100), batch_size=10, seed=0)
    next(stream)
    assert threading.active_count() > before
    del stream
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "last", [pytest.param("", marks=pytest.mark.slow), "raise KeyboardInterrupt"]
)
def test_the_process_ends_with_a_stream_still_open(last):
    run(
        "import numpy as np\n"
        "from latent_flows import data\n"
        "stream = data.batches(data.load('sprites', size=16), batch_size=4, seed=0)\n"
        f"next(stream)\n{last}\n",
        interrupted=bool(last),
    )


def run(program, interrupted=False, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program],
        timeout=60,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == interrupted, done.stderr
    if interrupted:
        assert done.stderr.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be .* from 1 to 10, .* numbers, got 0"),
        ({"batch_size": 11}, "batch_size must be .* got 11"),
        ({"start": -1}, "start must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"prefetch": 0}, "prefetch must be at least 1"),
    ],
)
def test_wrong_arguments_say_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        data.batches(numbers(10), **{"batch_size": 2, "seed": 0, **options})


@pytest.mark.parametrize(
    "arrays",
    [{}, {"a": np.zeros(3), "b": np.zeros(4)}, {"a": np.zeros(0)}, {"a": np.zeros(())}],
)
def test_arrays_must_have_one_length(arrays):
    with pytest.raises(ValueError, match="odd: expected arrays of one length"):
        data.from_arrays("odd", **arrays)
