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


def write(root: Path, name: str, shape: tuple, images: list[np.ndarray], damaged: int = -1) -> None:
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
        content = b"no image" if label == damaged else encoded.getvalue()
        example.features.feature["image"].bytes_list.value.append(content)
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


@pytest.fixture(scope="module")
def train_only(tmp_path_factory):
    root = tmp_path_factory.mktemp("train_only")
    images = [np.full((4, 4, 1), i, np.uint8) for i in range(60)]
    write(root, "tiny_whole", (4, 4, 1), images)
    write(root, "tiny_few", (4, 4, 1), images[:1])
    return root


def test_of_a_set_without_a_test_split_a_fixed_part_is_held_out_and_said_so(train_only):
    message = (
        "tiny_whole has no test split: (.*) of its 60 training examples, the same in every run"
    )
    labels = {}
    for part in ("train", "test"):
        with pytest.warns(UserWarning, match=message) as said:
            found = data.load_part("tiny_whole", part, data_dir=train_only)
        assert (found.split, found.image_shape) == (part, (4, 4, 1))
        batch = found.examples(np.arange(found.length))
        np.testing.assert_allclose(batch["image"][:, 0, 0, 0] * 255, batch["label"], rtol=1e-6)
        labels[part] = batch["label"].tolist()
        assert len(said) == 1
    assert sorted(labels["train"] + labels["test"]) == list(range(60))
    assert 2 <= len(labels["test"]) <= 12
    with pytest.warns(UserWarning, match=f": {len(labels['test'])} of its 60"):
        again = data.load_part("tiny_whole", "test", data_dir=train_only)
    assert again.examples(np.arange(again.length))["label"].tolist() == labels["test"]


def test_where_nothing_can_be_held_out_it_says_so(train_only):
    with pytest.raises(ValueError, match="tiny_few has no test split, and too few examples"):
        data.load_part("tiny_few", "train", data_dir=train_only)


@pytest.mark.parametrize("limit", [0, 2**30], ids=["streamed", "in memory"])
def test_a_damaged_image_is_named_with_its_set(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(tfds, "IN_MEMORY", limit)
    write(tmp_path, "tiny_damaged", (8, 6, 1), GREY, damaged=5)
    message = "tiny_damaged: record 5 of split 'train' cannot be read .UnidentifiedImageError"
    with pytest.raises(ValueError, match=message) as caught:
        data.load("tiny_damaged", data_dir=tmp_path).examples(np.arange(7))
    assert "\n" not in str(caught.value)
