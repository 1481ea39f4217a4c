"""Files of images that are not what their names say: each error names the file and the remedy."""

import gzip
import io
import json
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from tests.lib.cases import cases
from tests.lib.files import idx_bytes, write_idx_set
from vaejax.data.files import read_npz
from vaejax.data.load import load_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (10_020, 4, 4)).astype(np.uint8)
LABELS = IMAGES[:, 0, 0]
GOOD = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:6], "y_test": LABELS[:6]}
PAGE = b"<!DOCTYPE html>\n<html><body>404</body></html>"


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def flipped(content):
    """One byte in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


WHOLE = npz(**GOOD)
OBJECTS = np.array([IMAGES[0], IMAGES[0, :2], None], object)
FILES = {
    "empty": (b"", "is empty: copy or download it anew"),
    "truncated": (WHOLE[: len(WHOLE) // 2], "cut off or damaged"),
    "its end alone": (WHOLE[-100:], "something else"),
    "damaged": (flipped(WHOLE), "cut off or damaged"),
    "a page": (PAGE, "is a page of HTML, .*: download the file itself"),
    "a page after blanks": (b"\n\n " + PAGE, "is a page of HTML"),
    "gzip": (gzip.compress(WHOLE, 1), "compressed by gzip: gunzip it first"),
    "gzip of something else": (gzip.compress(b"hello"), "compressed by gzip"),
    "npy": (npy(IMAGES), r"one array, as np.save writes it: np.savez"),
    "pickle": (pickle.dumps(GOOD), "is a pickle, which is not loaded"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    "json": (json.dumps({"x_train": [0]}).encode(), "something else, it starts with"),
    "pickled objects": (npz(x_train=OBJECTS), "holds Python objects, which are not loaded"),
    "nothing in it": (npz(), "holds nothing; it needs x_train"),
    "no x_train": (npz(x_test=IMAGES, y_test=LABELS), "holds x_test, y_test; it needs x_train"),
    "a slip": (npz(**GOOD, x_vaild=IMAGES[:5]), "holds x_test, x_train, x_vaild, .*nothing else"),
    "twice": (npz(**GOOD, x_val=IMAGES[:5], x_valid=IMAGES[:5]), "each once"),
    "labels of no images": (npz(**GOOD, y_valid=LABELS[:5]), "y_valid has labels of no images"),
    "too few labels": (
        npz(**(GOOD | {"y_train": LABELS[:-1]})),
        r"y_train has shape \(10019,\) for",
    ),
    "one-hot labels": (npz(**(GOOD | {"y_test": np.eye(6)})), r"y_test has shape \(6, 6\)"),
    "labels of halves": (npz(**(GOOD | {"y_test": np.full(6, 0.5)})), "has the label 0.5"),
    "no label": (
        npz(**(GOOD | {"y_test": np.arange(6) - 1})),
        "has the label -1; give whole numbers from 0",
    ),
    "labels of names": (npz(**(GOOD | {"y_test": np.full(6, "a")})), "y_test has dtype <U1"),
    "a row": (npz(x_train=LABELS), r"x_train has shape \(10020,\); images are"),
    "no images": (
        npz(**(GOOD | {"x_test": IMAGES[:0], "y_test": LABELS[:0]})),
        r"shape \(0, 4, 4\)",
    ),
    "another shape": (
        npz(**(GOOD | {"x_test": IMAGES[:6, :2]})),
        r"x_test has images \(2, 4\) of uint8, and x_train \(4, 4\)",
    ),
    "another dtype": (npz(**(GOOD | {"x_test": IMAGES[:6] / 255})), "of float64, and x_train"),
    "NaN": (
        npz(x_train=np.where(IMAGES == 7, np.nan, IMAGES), x_test=IMAGES[:6] * 1.0),
        r"x_train has a NaN or infinity, first at \(",
    ),
    "complex": (npz(x_train=IMAGES * 1j), "dtype complex128; give real numbers"),
    "too few for validation": (
        npz(x_train=IMAGES[:100], x_test=IMAGES[:6]),
        "100 training images, of which 10000 for valid .* bring x_valid in the file",
    ),
    "as many as validation takes": (
        npz(x_train=IMAGES[:10_000], x_test=IMAGES[:6]),
        "of which 10000",
    ),
    "one image": (npz(x_train=IMAGES[:1], x_valid=IMAGES[:1]), "1 for test would be held out"),
}


@pytest.mark.parametrize("case", cases(FILES))
def test_an_npz_file_that_is_not_what_its_name_says(case, tmp_path):
    content, message = case
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("mnist", tmp_path)
    assert str(tmp_path / "mnist.npz") in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / "mnist.npz").read_bytes() == content


def test_what_a_file_holds_twice_is_refused(tmp_path):
    """One of two arrays would be taken without a word."""
    path = tmp_path / "one.npy"
    with path.open("wb") as file:
        np.save(file, IMAGES[:50])
        np.save(file, IMAGES[:50])
    with pytest.raises(ValueError, match=r"goes on after its array of shape \(50, 4, 4\)"):
        load_dataset(str(path))
    path = tmp_path / "two.npz"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own, of the second
        for images in (IMAGES[:50], IMAGES[50:100]):
            archive.writestr("x_train.npy", npy(images))
    with pytest.raises(ValueError, match="holds arrays of one name, x_train, x_train; save it"):
        load_dataset(str(path))


SPELT = ({"x_valid"}, {"valid"}, {"x_val"}, {"val"}, {"x_validation"}, {"val_images"}, {"X_valid"})


@pytest.mark.parametrize("names", SPELT, ids=str)
def test_the_names_that_a_validation_split_has(names, tmp_path):
    (name,) = names
    np.savez(tmp_path / "mnist.npz", **GOOD, **{name: IMAGES[7:9]})
    dataset = load_dataset("mnist", tmp_path)
    np.testing.assert_array_equal(dataset.valid.images, IMAGES[7:9])
    assert len(dataset.train.images) == len(IMAGES)
    assert dataset.valid.labels is None


def test_names_of_labels_and_labels_of_a_column(tmp_path):
    names = {"train_images": IMAGES, "train_labels": LABELS[:, None], "val_images": IMAGES[:3]}
    np.savez(tmp_path / "a.npz", **names, val_labels=LABELS[:3].astype(np.float64))
    assert set(read_npz(tmp_path / "a.npz", packed=False)) == {
        *("x_train", "y_train", "x_valid", "y_valid")
    }
    (tmp_path / "a.npz").rename(tmp_path / "mnist.npz")
    dataset = load_dataset("mnist", tmp_path)
    assert dataset.train.labels is not None and dataset.train.labels.ndim == 1
    assert dataset.valid.labels is not None and dataset.valid.labels.dtype == np.int64


IDX_FILES = {
    "empty": (b"", "is empty"),
    "a page": (PAGE, "is a page of HTML"),
    "gzip of something else": (gzip.compress(b"hello"), r"starts with b'hell'.*not an idx file"),
    "gzip of a page": (gzip.compress(PAGE), "is a page of HTML"),
    "truncated gzip": (gzip.compress(idx_bytes(IMAGES[:6]))[:-20], "cut off or damaged"),
    "damaged gzip": (flipped(gzip.compress(idx_bytes(IMAGES[:6]))), "cut off or damaged"),
    "truncated": (idx_bytes(IMAGES[:6])[:-1], r"95 bytes for shape \(6, 4, 4\)"),
    "longer": (idx_bytes(IMAGES[:6]) + b"\0", "97 bytes for shape"),
    "half a header": (idx_bytes(IMAGES[:6])[:9], "not an idx file of bytes"),
    "floats": (b"\0\0\x0d" + idx_bytes(IMAGES[:6])[3:], "not an idx file of bytes"),
    "labels": (idx_bytes(LABELS[:6]), r"shape \(6,\); images are"),
    "missing": (None, "has no t10k-images-idx3-ubyte; put all four files there"),
}


@pytest.mark.parametrize("case", cases(IDX_FILES))
def test_an_idx_file_that_is_not_what_its_name_says(case, tmp_path):
    content, message = case
    folder = tmp_path / "mnist"
    write_idx_set(folder, IMAGES[:20], IMAGES[:6])
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("mnist", tmp_path)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
