"""Data sets from every route that needs no network, and refusals."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vaejax
from tests.lib.paths import SHARED, needs_mnist
from vaejax.data.load import DEBIAN_FASHION_MNIST, load_dataset


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No data folder and an empty cache, whatever the machine has."""
    monkeypatch.delenv("VAEJAX_DATA", raising=False)
    monkeypatch.setenv("VAEJAX_CACHE", str(tmp_path / "cache"))


def test_digits():
    digits = load_dataset("digits")
    assert [len(split.images) for split in (digits.train, digits.valid, digits.test)] == [
        1297,
        200,
        300,
    ]
    images = np.concatenate([digits.train.images, digits.valid.images, digits.test.images])
    assert (
        images.shape == (1797, 8, 8)
        and images.dtype == np.uint8
        and images.min() == 0
        and images.max() == 16 == digits.maximum
    )
    assert len(np.unique(images.reshape(1797, 64), axis=0)) == 1797  # so the splits share nothing
    np.testing.assert_array_equal(load_dataset("digits").train.images, digits.train.images)
    assert "drawn from train with seed 0" in digits.source
    labels = np.concatenate([split.labels for split in (digits.train, digits.valid, digits.test)])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_what_is_held_out_of_a_sorted_set_is_of_all_classes(tmp_path):
    """Of 400 examples sorted by class, 40 are held out for each: of both classes, and of none
    twice.
    """
    y = np.repeat([0, 1], 200)
    x = np.broadcast_to(np.arange(400)[:, None, None], (400, 2, 2))
    (tmp_path / "cache").mkdir()
    np.savez(tmp_path / "cache" / "sorted.npz", x_train=x.astype(np.float32), y_train=y)
    parts = load_dataset("tfds:sorted")[1:4]
    numbers = [part.images[:, 0, 0].astype(int) for part in parts]
    assert [len(part) for part in numbers] == [320, 40, 40]
    assert sorted(np.concatenate(numbers).tolist()) == list(range(400))
    for part, number in zip(parts, numbers, strict=True):
        np.testing.assert_array_equal(part.labels, number // 200)
        assert set(part.labels.tolist()) == {0, 1}


@pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.exists(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_as_debian_installs_it():
    fashion = load_dataset("fashion_mnist")
    assert [split.images.shape for split in (fashion.train, fashion.valid, fashion.test)] == [
        (50_000, 28, 28),
        (10_000, 28, 28),
        (10_000, 28, 28),
    ]
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    np.testing.assert_allclose(
        np.concatenate([fashion.train.images, fashion.valid.images]).mean() / 255, 0.2860, atol=5e-5
    )


@needs_mnist
def test_mnist_from_a_folder():
    mnist = load_dataset("mnist", SHARED)
    assert [len(split.images) for split in (mnist.train, mnist.valid, mnist.test)] == [
        50_000,
        10_000,
        10_000,
    ]
    assert np.bincount(mnist.test.labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


@needs_mnist
def test_binarised_mnist_from_packed_bits(monkeypatch):
    monkeypatch.setenv("VAEJAX_DATA", str(SHARED))
    binarized = load_dataset("binarized_mnist")
    means = [split.images.mean() for split in (binarized.train, binarized.valid, binarized.test)]
    np.testing.assert_allclose(means, [0.130562, 0.131127, 0.132512], atol=5e-7)
    assert binarized.maximum == 1 and "as the set brings them" in binarized.source


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_idx_files(tmp_path, subfolder):
    generator, folder = np.random.default_rng(0), tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    arrays = {
        "train": generator.integers(0, 256, (10_020, 4, 4)).astype(np.uint8),
        "t10k": generator.integers(0, 256, (6, 4, 4)).astype(np.uint8),
    }
    for name, images in arrays.items():
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", images[:, 0, 0])
    dataset = load_dataset("mnist", tmp_path)
    np.testing.assert_array_equal(dataset.test.images, arrays["t10k"])
    np.testing.assert_array_equal(dataset.train.labels, dataset.train.images[:, 0, 0])
    assert len(dataset.train.images) == 20
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x09abc"))
    with pytest.raises(ValueError, match="is not an idx file of bytes"):
        load_dataset("mnist", tmp_path)


def test_npz_without_pickle(tmp_path):
    (tmp_path / "mnist.npz").touch()
    np.savez(tmp_path / "mnist.npz", x_train=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_dataset("mnist", tmp_path)
    np.savez(tmp_path / "mnist.npz", images=np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"holds \['x_images'\]; it needs x_train"):
        load_dataset("mnist", tmp_path)


BUILDER = """
import sys
import numpy as np
import tensorflow_datasets as tfds
import vaejax

class TinyShapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        features = tfds.features.FeaturesDict({
            "image": tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=3),
        })
        return tfds.core.DatasetInfo(builder=self, features=features)
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 50), "test": self._generate_examples(50, 60)}
    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            yield i, {"image": np.full((4, 4, 1), i, np.uint8), "label": i % 3}

TinyShapes().download_and_prepare(file_format="array_record")
dataset = vaejax.load_dataset("tfds:tiny_shapes")
again = vaejax.load_dataset("tfds:tiny_shapes")
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
splits = dataset.train, dataset.valid, dataset.test
for split, other in zip(splits, (again.train, again.valid, again.test)):
    np.testing.assert_array_equal(split.images, other.images)
    assert (split.images == split.images[:, :1, :1]).all()
    assert (split.images[:, 0, 0] % 3 == split.labels).all()
print([split.images.shape for split in splits], sorted(dataset.test.images[:, 0, 0].tolist()))

# Or example by example, without loading it whole.
items = tfds.data_source("tiny_shapes", split="test")
source = vaejax.RandomAccess(items, lambda item: item["image"][..., 0])
assert len(source) == 10
np.testing.assert_array_equal(source[np.arange(10)], dataset.test.images)
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
"""


def test_tfds_for_real_and_without_tensorflow(tmp_path, monkeypatch):
    """A builder prepared into array_record, read back through tfds.data_source, and cached as
    npz.
    """
    script = tmp_path / "tiny_shapes.py"
    script.write_text(BUILDER)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        done.stdout.splitlines()[-1] == f"[(45, 4, 4), (5, 4, 4), (10, 4, 4)] {list(range(50, 60))}"
    )
    assert (tmp_path / "cache" / "tiny_shapes.npz").exists()


def test_a_set_that_is_nowhere_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(
        FileNotFoundError, match=r"cifar10 is not here .*pip install 'vaejax\[tfds-prepare\]'"
    ) as error:
        load_dataset("cifar10", tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "name, near",
    [
        ("fashon_mnist", "did you mean fashion_mnist"),
        ("mnits", "did you mean mnist"),
        ("zzz", "known: digits"),
    ],
)
def test_unknown_names(name, near):
    with pytest.raises(ValueError, match=f"unknown data set '{name}'; .*{near}"):
        load_dataset(name)


@pytest.mark.parametrize(
    "name",
    [
        "tfds:../x",
        "tfds:/etc/passwd",
        "tfds:a/../b",
        "tfds:",
        "tfds:a/b/c",
        "tfds:.hidden",
        "tfds:a b",
        "tfds:a;b",
        "tfds:a\n",
    ],
)
def test_hostile_names_are_refused_before_the_disk_is_touched(name, tmp_path):
    with pytest.raises(ValueError, match="a name is letters, digits"):
        load_dataset(name)
    assert not (tmp_path / "cache").exists()


def test_digits_state_their_source_and_licence():
    text = (Path(vaejax.__file__).parent / "data" / "load.py").read_text()
    assert "CC BY 4.0" in text and "Alpaydin" in text
