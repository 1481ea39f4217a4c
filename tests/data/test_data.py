"""Data sets from every route that needs no network, binarisation, the order of the data, and
refusals.
"""

import gzip
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.oracles import assert_mean
from tests.lib.paths import SHARED, needs_mnist
from vaejax.base.supports import BINARY, COUNTS, REAL, UNIT_INTERVAL, levels
from vaejax.data.base import Dataset, Split, batch_rows
from vaejax.data.check import check_data
from vaejax.data.load import DEBIAN_FASHION_MNIST, load_dataset
from vaejax.data.pixels import prepare_pixels


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
        features = {"image": tfds.features.Tensor(shape=(4, 4, 1), dtype=np.uint8), "label": tfds.features.ClassLabel(num_classes=3)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 50), "test": self._generate_examples(50, 60)}
    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            yield i, {"image": np.full((4, 4, 1), i, np.uint8), "label": i % 3}

TinyShapes().download_and_prepare(file_format="array_record")
dataset = vaejax.load_dataset("tfds:tiny_shapes")
again = vaejax.load_dataset("tfds:tiny_shapes")
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
for one, other in zip((dataset.train, dataset.valid, dataset.test), (again.train, again.valid, again.test)):
    np.testing.assert_array_equal(one.images, other.images)
for split in (dataset.train, dataset.valid, dataset.test):
    assert (split.images == split.images[:, :1, :1]).all() and (split.images[:, 0, 0] % 3 == split.labels).all()
print([split.images.shape for split in (dataset.train, dataset.valid, dataset.test)], sorted(dataset.test.images[:, 0, 0].tolist()))
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


GREY = Dataset(
    "grey",
    *(Split(np.full((4000, 2, 2), [[0, 64], [128, 255]], np.uint8)) for _ in range(3)),
    maximum=255,
    source="here",
)


def test_dynamic_binarisation_is_drawn_from_the_key():
    dataset, transform = prepare_pixels(GREY, "dynamic")
    assert dataset is GREY and transform.policy == "dynamic"
    keys = jax.random.split(jax.random.key(0), 40_000)
    draws = jax.vmap(transform, (None, 0))(GREY.train.images[0], keys)
    assert set(np.unique(draws)) == {0.0, 1.0}
    assert_mean(draws.reshape(-1, 4)[:, 1:3], np.array([64, 128]) / 255, detectable=0.02)
    assert (draws[:, 0, 0] == 0).all() and (draws[:, 1, 1] == 1).all()
    np.testing.assert_array_equal(
        transform(GREY.train.images[0], keys[0]), transform(GREY.train.images[0], keys[0])
    )


def test_static_binarisation_is_drawn_once():
    dataset, transform = prepare_pixels(GREY, "static", seed=3)
    assert (
        dataset.maximum == 1
        and set(np.unique(dataset.train.images)) == {0, 1}
        and "binarised once with seed 3" in dataset.source
    )
    np.testing.assert_array_equal(
        prepare_pixels(GREY, "static", seed=3)[0].test.images, dataset.test.images
    )
    assert (prepare_pixels(GREY, "static", seed=4)[0].test.images != dataset.test.images).any()
    one, other = (transform(dataset.train.images[0], jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_threshold_and_none():
    x = GREY.train.images[0]
    np.testing.assert_array_equal(
        prepare_pixels(GREY, "threshold")[1](x, jax.random.key(0)), [[0, 0], [1, 1]]
    )
    np.testing.assert_allclose(
        prepare_pixels(GREY, "none")[1](x, jax.random.key(0)), x / 255, rtol=1e-6
    )
    with pytest.raises(ValueError, match="unknown binarisation 'dinamic'; did you mean dynamic"):
        prepare_pixels(GREY, "dinamic")  # pyright: ignore[reportArgumentType]


def test_every_epoch_takes_every_example_once():
    rows = batch_rows(jax.random.key(0), size=10, batch_size=4, start=0, stop=15).ravel()
    for epoch in rows.reshape(6, 10):
        assert sorted(epoch) == list(range(10))
    assert (rows[:10] != rows[10:20]).any()


@pytest.mark.parametrize("start, stop", [(0, 1), (2, 3), (4, 5), (3, 11), (14, 15)])
def test_order_is_a_function_of_key_and_step(start, stop):
    whole = batch_rows(jax.random.key(0), 10, 4, 0, 15)
    np.testing.assert_array_equal(
        batch_rows(jax.random.key(0), 10, 4, start, stop), whole[start:stop]
    )
    assert (batch_rows(jax.random.key(1), 10, 4, 0, 15) != whole).any()


GOOD = np.zeros((5, 3), np.float32)
BAD = {
    "0..255 into a Bernoulli": (
        GOOD + 255,
        BINARY,
        None,
        (
            r"values in \[255, 255\], and this likelihood is for 0 and 1:"
            r" .*transform=vaejax.Pixels\(255"
        ),
    ),
    "grey into a Bernoulli": (
        GOOD + 0.5,
        BINARY,
        None,
        r"is for 0 and 1: .*transform=vaejax.Pixels\(1, policy\)",
    ),
    "grey without a policy": (
        GREY.train.images,
        BINARY,
        vaejax.Pixels(255, "none"),
        "choose a binarisation, one of dynamic, static or threshold",
    ),
    "negative": (GOOD - 1, BINARY, None, "is for 0 and 1"),
    "grey into counts": (GOOD + 0.5, COUNTS, None, "is for 0, 1, 2, ...: round them"),
    "stored pixels into a unit interval": (
        GREY.train.images,
        UNIT_INTERVAL,
        None,
        r'numbers from 0 to 1: give transform=vaejax.Pixels\(255, "none"\)',
    ),
    "256 levels into 17": (
        GREY.train.images,
        levels(17),
        vaejax.Pixels(255, "none"),
        "multiples of 1/16 from 0 to 1.* num_levels=256",
    ),
    "off the grid": (GOOD + 0.3, levels(17), None, "multiples of 1/16"),
    "beyond the maximum": (
        GREY.train.images,
        BINARY,
        vaejax.Pixels(16),
        r"values in \[0, 255\], outside 0..16",
    ),
    "below zero": (GOOD - 1, BINARY, vaejax.Pixels(1), r"values in \[-1.0, -1.0\], outside 0..1"),
    "NaN": (
        np.where(np.arange(15).reshape(5, 3) == 7, np.nan, GOOD),
        REAL,
        None,
        "NaN or infinity, first in row 2",
    ),
    "infinity": (GOOD + np.inf, REAL, None, "NaN or infinity, first in row 0"),
    "no examples": (GOOD[:0], REAL, None, r"is empty: shapes \[\(0, 3\)\]"),
    "no pixels": (GOOD[:, :0], REAL, None, "is empty"),
    "a number": (np.float32(3), REAL, None, "is empty"),
    "nothing": ((), REAL, None, "is empty"),
    "ragged": ((GOOD, GOOD[:3]), REAL, None, r"different lengths, \[5, 3\]"),
    "strings": (np.array(["a", "b"]), REAL, None, "dtype <U1; give real numbers"),
    "objects": (np.array([{}, {}]), REAL, None, "dtype object"),
    "complex": (GOOD + 1j, REAL, None, "dtype complex"),
}


@pytest.mark.parametrize("data, support, transform, message", BAD.values(), ids=BAD)
def test_bad_data_are_refused(data, support, transform, message):
    with pytest.raises(ValueError, match=message) as error:
        check_data(data, support, transform)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data, support, transform",
    [
        (GOOD, BINARY, None),
        (GOOD > 1, BINARY, None),
        (GREY.train.images, BINARY, vaejax.Pixels(255)),
        (GREY.train.images, REAL, vaejax.Pixels(255, "none")),
        (GREY.train.images, UNIT_INTERVAL, vaejax.Pixels(255, "none")),
        (GREY.train.images, levels(256), vaejax.Pixels(255, "none")),
        (np.arange(17) / 16, levels(17), None),
        (np.arange(17, dtype=np.float32) / np.float32(16), levels(17), None),
        (GREY.train.images, COUNTS, None),
    ],
)
def test_good_data_pass(data, support, transform):
    check_data(data, support, transform)
    check_data({"x": data, "y": data}, REAL)


def test_digits_state_their_source_and_licence():
    text = (Path(vaejax.__file__).parent / "data.py").read_text()
    assert "CC BY 4.0" in text and "Alpaydin" in text
