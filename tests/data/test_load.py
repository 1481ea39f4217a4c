"""Data sets from every route that needs no network, and refusals."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.files import write_idx, write_idx_set
from tests.lib.paths import SHARED, needs_mnist
from vaejax.base.supports import BINARY
from vaejax.data import load
from vaejax.data.check import check_data
from vaejax.data.load import DEBIAN_FASHION_MNIST, load_dataset

KEY = jax.random.key(0)


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


def test_what_is_held_out_of_a_sorted_set_is_of_all_classes(monkeypatch):
    """Of 400 examples sorted by class, 40 are held out for each: of both classes, and of none
    twice.
    """
    y = np.repeat([0, 1], 200)
    x = np.broadcast_to(np.arange(400)[:, None, None], (400, 2, 2)).astype(np.float32)
    arrays = {"x_train": x, "y_train": y}
    monkeypatch.setattr(load, "load_prepared", lambda name, missing: (arrays, "TFDS"))
    parts = load_dataset("tfds:sorted", maximum=399)[1:4]
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


def grey(size, side=4):
    """Bytes 0..255, with labels that their first pixel shows."""
    return np.random.default_rng(size).integers(0, 256, (size, side, side)).astype(np.uint8)


@pytest.mark.parametrize("subfolder", ["mnist", "MNIST/raw"])
def test_idx_files(tmp_path, subfolder):
    """In a folder whose name says of which set they are; bare or compressed, whatever the name."""
    folder = tmp_path / subfolder
    folder.mkdir(parents=True)
    arrays = {"train": grey(10_020), "t10k": grey(6)}
    write_idx(folder / "train-images-idx3-ubyte.gz", arrays["train"], compressed=False)
    write_idx(folder / "train-labels-idx1-ubyte", arrays["train"][:, 0, 0], compressed=False)
    write_idx(folder / "t10k-images-idx3-ubyte.gz", arrays["t10k"])
    write_idx(folder / "t10k-labels.idx1-ubyte", arrays["t10k"][:, 0, 0])
    for place in {tmp_path, folder}:
        dataset = load_dataset("mnist", place)
        np.testing.assert_array_equal(dataset.test.images, arrays["t10k"])
        np.testing.assert_array_equal(dataset.train.labels, dataset.train.images[:, 0, 0])
        assert len(dataset.train.images) == 20
        assert dataset.source.startswith(str(folder))


def test_no_set_is_served_under_the_name_of_another(tmp_path, monkeypatch):
    """The idx files of all sets have the same names; so a folder has to say of which they are."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(load, "DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    folder = tmp_path / "files"
    write_idx_set(folder, grey(10_020), grey(6))
    for name in ("mnist", "fashion_mnist", "cifar10"):
        with pytest.raises(FileNotFoundError, match=f"idx files in .* move them to {name}/ there"):
            load_dataset(name, folder)
    own = tmp_path / "fashion-mnist"
    folder.rename(own)
    assert load_dataset("fashion_mnist", own).name == "fashion_mnist"
    for place in (own, tmp_path):
        with pytest.raises(FileNotFoundError, match="mnist is not here"):
            load_dataset("mnist", place)
    np.savez(own / "mnist.npz", x_train=grey(10_020), x_test=grey(6))
    assert str(own) in load_dataset("mnist", own).source


def test_a_folder_that_is_none(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"data folder '.*nowhere' is not a folder"):
        load_dataset("mnist", tmp_path / "nowhere")
    monkeypatch.setenv("VAEJAX_DATA", "nowhere")
    with pytest.raises(ValueError, match=r"'nowhere' \(\$VAEJAX_DATA\) is not a folder"):
        load_dataset("mnist")


# What the arrays say, against what the name says. {case: (x_train, maximum or the error)}

LEVELS = np.arange(4, dtype=np.uint8).repeat(3000).reshape(-1, 1, 1) * np.ones((1, 2, 2), np.uint8)
EVIDENT = {
    "bytes 0..255": (LEVELS * 85, 255),
    "floats 0..255": (LEVELS * np.float32(85), 255),
    "not quite 255": (LEVELS * 84, 255),
    "floats 0..1": (LEVELS / np.float32(3), 1),
    "float64 0..1": (LEVELS / 3, 1),
    "float16 0..1": ((LEVELS / 3).astype(np.float16), 1),
    "0/1 bytes": (LEVELS // 2, 1),
    "0/1 integers": ((LEVELS // 2).astype(np.int64), 1),
    "0/1 floats": ((LEVELS // 2).astype(np.float32), 1),
    "booleans": (LEVELS > 1, 1),
    "big-endian": ((LEVELS / 3).astype(">f4"), 1),
}
CONTRADICTED = {
    "4 bits": (LEVELS * 5, r"no pixel above 15, far below 255, the usual maximum of mnist"),
    "percent": (LEVELS * 33.0, r"above 99.*maximum=99 or --maximum 99 if it is that"),
    "floats a little above 1": (LEVELS / 3 + 1e-3, "above 1.001"),
    "16 bits": (LEVELS.astype(np.uint16) * 21845, "up to 65535, above 255"),
    "-1..1": (LEVELS / 1.5 - 1, r"in \[-1, 1\], and stored pixels are 0..maximum"),
    "black": (LEVELS * 0, r"in \[0, 0\]"),
}


@pytest.mark.parametrize("case", cases(EVIDENT))
def test_pixels_are_what_they_evidently_are(case, tmp_path):
    """And what the model sees of them has their brightness, under each policy."""
    stored, maximum = case
    np.savez(tmp_path / "mnist.npz", x_train=stored, x_test=stored[::2], x_valid=stored[::3])
    dataset = load_dataset("mnist", tmp_path)
    assert dataset.maximum == maximum
    assert ("pixels 0..1" in dataset.source) == (maximum == 1)
    for policy in ("dynamic", "threshold", "static", "none"):
        prepared, pixels = vaejax.prepare_pixels(dataset, policy)
        keys = jax.random.split(KEY, len(prepared.train.images))
        seen = np.asarray(jax.vmap(pixels)(prepared.train.images, keys))
        assert seen.min() >= 0 and seen.max() <= 1
        assert seen.mean() == pytest.approx(dataset.train.images.mean() / maximum, abs=0.02)
        if policy != "none":
            check_data(prepared.train.images, BINARY, pixels)


@pytest.mark.parametrize("case", cases(CONTRADICTED))
def test_pixels_that_contradict_the_name_are_refused(case, tmp_path):
    stored, message = case
    np.savez(tmp_path / "mnist.npz", x_train=stored, x_test=stored[::2])
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("mnist", tmp_path)
    assert "\n" not in str(error.value) and "mnist.npz" in str(error.value)


def test_a_maximum_that_is_said(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_train=LEVELS * 5, x_test=LEVELS * 5)
    dataset = load_dataset("mnist", tmp_path, maximum=15)
    assert dataset.maximum == 15 and "pixels 0..15" in dataset.source
    with pytest.raises(ValueError, match="up to 15, above 14, the maximum that was given"):
        load_dataset("mnist", tmp_path, maximum=14)
    with pytest.raises(ValueError, match="maximum = -1"):
        load_dataset("mnist", tmp_path, maximum=-1)


def test_rows_of_98_bytes_are_bits_only_where_the_file_says_so(tmp_path):
    rows = grey(10_020, 14).reshape(10_020, 196)[:, :98]
    np.savez(tmp_path / "mnist.npz", x_train=rows, x_test=rows[:5])
    assert load_dataset("mnist", tmp_path).train.images.shape == (20, 98)
    (tmp_path / "mnist.npz").rename(tmp_path / "mnist_packbits.npz")
    dataset = load_dataset("mnist", tmp_path)
    assert dataset.train.images.shape == (20, 28, 28) and dataset.maximum == 1


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
dataset = vaejax.load_dataset("tfds:tiny_shapes", maximum=59)
again = vaejax.load_dataset("tfds:tiny_shapes", maximum=59)
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
    assert (tmp_path / "cache" / "tiny_shapes@1.0.0.npz").exists()


def test_fashion_mnist_on_a_fresh_machine_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(load, "DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as error:
        load_dataset("fashion_mnist")
    assert "\n" not in str(error.value)


def test_a_set_that_is_nowhere_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(
        FileNotFoundError, match=r"cifar10 is not here: .*pip install 'vaejax\[tfds-prepare\]'"
    ) as error:
        load_dataset("cifar10", tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(
        FileNotFoundError, match=r"kmnist is not here: .* To have it, prepare it once"
    ):
        load_dataset("tfds:kmnist", tmp_path)


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
