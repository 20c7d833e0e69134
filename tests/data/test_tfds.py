import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from latent_flows import data
from latent_flows.data import tfds

array_record = pytest.importorskip(
    "array_record.python.array_record_module", reason="array_record has no build for this platform"
)

RNG = np.random.default_rng(0)
GREY = [RNG.integers(0, 256, (8, 6, 1), np.uint8) for _ in range(7)]
VARIED = [
    RNG.integers(0, 256, (height, width, 3), np.uint8)
    for height, width in [(20, 10), (10, 20), (12, 12)]
]


def write(root: Path, name: str, shape: tuple, images: list[np.ndarray]) -> None:
    """A prepared set without TensorFlow: lossless records, labelled 0, 1, ..."""
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    features = {
        "image": tensorflow_datasets.features.Image(shape=shape),
        "label": tensorflow_datasets.features.ClassLabel(num_classes=len(images)),
    }
    tensorflow_datasets.features.FeaturesDict(features).save_config(folder)
    split = {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": "1",
        "shardLengths": [str(len(images))],
    }
    info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    writer = array_record.ArrayRecordWriter(
        str(folder / f"{name}-train.array_record-00000-of-00001"), "group_size:1"
    )
    for label, image in enumerate(images):
        encoded = io.BytesIO()
        Image.fromarray(image.squeeze()).save(encoded, "PNG")
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(encoded.getvalue())
        example.features.feature["label"].int64_list.value.append(label)
        writer.write(example.SerializeToString())
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    write(root, "tiny_grey", (8, 6, 1), GREY)
    write(root, "tiny_varied", (None, None, 3), VARIED)
    return root


@pytest.mark.parametrize("limit", [0, 2**30], ids=["streamed", "in memory"])
def test_images_come_back_as_written(folder, monkeypatch, limit):
    monkeypatch.setattr(tfds, "IN_MEMORY", limit)
    found = data.load("tiny_grey", data_dir=folder)
    assert (found.length, found.image_shape, found.split) == (7, (8, 6, 1), "train")
    batch = found.examples(np.array([5, 0, 5]))
    assert batch["image"].dtype == np.float32
    np.testing.assert_allclose(batch["image"] * 255, np.stack(GREY)[[5, 0, 5]], rtol=1e-6)
    np.testing.assert_array_equal(batch["label"], [5, 0, 5])


def test_slices_and_versions_in_names(folder):
    found = data.load("tiny_grey:1.0.0", split="train[2:4]", data_dir=folder)
    np.testing.assert_array_equal(found.examples(np.arange(2))["label"], [2, 3])


def test_the_folder_can_come_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    assert data.load("tiny_grey").length == 7


@pytest.mark.parametrize("limit", [0, 2**30], ids=["streamed", "in memory"])
def test_varied_sizes_are_resized_and_cropped_in_the_middle(folder, monkeypatch, limit):
    monkeypatch.setattr(tfds, "IN_MEMORY", limit)
    found = data.load("tiny_varied", size=10, data_dir=folder)
    images = found.examples(np.arange(3))["image"]
    assert images.shape == (3, 10, 10, 3)
    np.testing.assert_allclose(images[0] * 255, VARIED[0][5:15], rtol=1e-6)
    np.testing.assert_allclose(images[1] * 255, VARIED[1][:, 5:15], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tiny_varied", {}, "varied size.*size="),
        ("tiny_varied", {"size": 0}, "size must be"),
        ("tiny_grey", {"split": "val"}, "'val'.*train"),
        ("tiny_gray", {}, "did you mean tiny_grey"),
        ("sprits", {}, "did you mean sprites"),
        ("mnst", {}, "did you mean .*mnist"),
        ("cifar10", {}, r"not prepared in .*prepare.*TFDS_DATA_DIR.*sprites"),
        ("tiny_grey:9.9.9", {}, "not prepared in"),
    ],
)
def test_wrong_arguments_say_what_to_do(folder, name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.load(name, data_dir=folder, **options)
    assert "\n" not in str(caught.value)


def test_neither_tensorflow_nor_the_network_is_touched(folder):
    program = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from latent_flows import data\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "assert data.load('tiny_grey', data_dir=sys.argv[1]).length == 7\n"
        "try: data.load('cifar10', data_dir=sys.argv[1])\n"
        "except ValueError: pass\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(
    not Path(os.environ.get("TFDS_DATA_DIR", "/nowhere"), "mnist").exists(),
    reason="TFDS_DATA_DIR names no folder with a prepared mnist",
)
def test_mnist():
    found = data.load("mnist", split="test")
    assert (found.length, found.image_shape) == (10_000, (28, 28, 1))
    batch = found.examples(np.arange(10_000))
    assert batch["image"].mean() == pytest.approx(0.1325, abs=1e-3)
    assert np.bincount(batch["label"])[[0, 1, 9]].tolist() == [980, 1135, 1009]
