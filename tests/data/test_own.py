"""Data of one's own: files, folders and arrays become the same data set, or a refusal in a line."""

import io
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import vaejax
from tests.lib.cases import cases
from vaejax.base.supports import BINARY, REAL
from vaejax.data.check import check_data
from vaejax.data.own import absolute, is_path, read_path
from vaejax.data.splits import count_of

GREY = np.random.default_rng(0).integers(0, 256, (60, 4, 3)).astype(np.uint8)
GREY[0, 0, 0] = 255
LABELS = np.arange(60) % 3
TABLE = np.random.default_rng(1).normal(size=(50, 3)) * [1, 10, 100]


def load(path, **settings):
    return vaejax.load_dataset(str(path), **settings)


def splits(dataset):
    return dataset.train, dataset.valid, dataset.test


def same(first, second):
    for left, right in zip(splits(first), splits(second), strict=True):
        np.testing.assert_array_equal(left.images, right.images)
        np.testing.assert_array_equal(left.labels, right.labels)
    assert first.maximum == second.maximum


def write_table(path, rows, header="a,b,c"):
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join([header, *lines] if header else lines) + "\n")
    return path


def write_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03}{suffix}")


# The same data from every form.


def test_arrays_files_and_folders_are_one_data_set(tmp_path):
    np.savez(tmp_path / "pair.npz", images=GREY, labels=LABELS)
    for label in range(3):
        write_images(tmp_path / "folder" / f"class {label}", GREY[label == LABELS])
    expected = vaejax.dataset(GREY, LABELS)
    same(load(tmp_path / "pair.npz"), expected)
    order = np.argsort(LABELS, kind="stable")
    folder = load(tmp_path / "folder")
    same(folder, vaejax.dataset(GREY[order], LABELS[order]))
    assert "labels: 0 is class 0, 1 is class 1, 2 is class 2" in folder.source
    assert "48 / 6 / 6 train / valid / test, valid and test drawn from train with seed 0" in (
        folder.source
    )
    assert "each 4x3 of uint8 in [0, 255], pixels 0..255" in folder.source
    for name, array in {"one.npz": None, "one.npy": GREY}.items():
        path = tmp_path / name
        np.save(path, array) if array is not None else np.savez(path, anything=GREY)
        same(load(path), vaejax.dataset(GREY))


def test_a_table_is_its_numbers(tmp_path):
    rows = [[*map(repr, map(float, row)), "ba"[i % 2]] for i, row in enumerate(TABLE)]
    path = write_table(tmp_path / "t.csv", rows, "x,y,z,kind")
    dataset = load(path, label="kind")
    same(dataset, vaejax.dataset(TABLE, 1 - np.arange(50) % 2))  # by the alphabet, not by row
    assert dataset.maximum is None and "0 is a, 1 is b" in dataset.source
    assert "real numbers" in dataset.source
    bare = write_table(tmp_path / "bare.csv", rows, "")
    same(load(bare, label="4"), dataset)
    tabs = tmp_path / "t.tsv"
    tabs.write_text(path.read_text().replace(",", "\t"))
    same(load(tabs, label="kind"), dataset)
    spreadsheet = tmp_path / "bom.csv"
    spreadsheet.write_text(path.read_text(), encoding="utf-8-sig")
    same(load(spreadsheet, label="kind"), dataset)
    numbers = write_table(tmp_path / "n.csv", [[*row, 7 - i % 2] for i, row in enumerate(TABLE)],
                          "x,y,z,kind")  # fmt: skip
    assert set(load(numbers, label="kind").train.labels.tolist()) == {6, 7}


def test_splits_that_are_brought(tmp_path):
    write_images(tmp_path / "s" / "Train" / "a", GREY[:20])
    write_images(tmp_path / "s" / "Train" / "b", GREY[20:30], ".PNG")
    write_images(tmp_path / "s" / "test" / "b", GREY[30:33])
    (tmp_path / "s" / ".DS_Store").write_text("hidden")
    dataset = load(tmp_path / "s")
    np.testing.assert_array_equal(dataset.test.images, GREY[30:33])
    assert dataset.test.labels is not None and dataset.test.labels.tolist() == [1, 1, 1]
    assert [len(split.images) for split in splits(dataset)] == [27, 3, 3]
    given = vaejax.dataset(GREY, LABELS, valid=GREY[:5], test=(GREY[5:9], LABELS[5:9]))
    assert [len(split.images) for split in splits(given)] == [60, 5, 4]
    assert given.valid.labels is None and "as the set brings them" in given.source


def test_what_is_held_out_is_by_the_stated_rule():
    """The first of default_rng(seed).permutation(n) are valid, the next test; nothing is twice."""
    order = np.random.default_rng(7).permutation(60)
    dataset = vaejax.dataset(GREY, LABELS, valid=0.25, test=7, seed=7)
    for split, rows in zip(splits(dataset), (order[22:], order[:15], order[15:22]), strict=True):
        np.testing.assert_array_equal(split.images, GREY[rows])
        np.testing.assert_array_equal(split.labels, LABELS[rows])


def test_a_share_is_a_fraction_or_a_count():
    sizes = {share: count_of(share, 60) for share in (0.25, 0.999, 1, 1.0, 30)}
    assert sizes == {0.25: 15, 0.999: 59, 1: 1, 30: 30}


VALUES = {
    "bytes": (GREY, 255),
    "bits": ((GREY > 99).astype(np.uint8), 1),
    "booleans": (GREY > 99, 1),
    "fractions": (GREY / 255, 1),
    "16 bits": (GREY.astype(np.uint16) * 257, 65535),
    "real": (GREY / 128 - 1, None),
    "floats above 1": (GREY / 100, None),
    "whole numbers": (GREY.astype(np.int64), None),
    "one negative": (np.where(GREY == 7, -1e-6, GREY / 255), None),
}


@pytest.mark.parametrize("case", cases(VALUES))
def test_pixels_and_real_numbers(case):
    """What the model sees of each has the same brightness, and real numbers are themselves."""
    stored, maximum = case
    dataset = vaejax.dataset(stored)
    assert dataset.maximum == maximum and dataset.unit == (maximum or 1)
    prepared, transform = vaejax.prepare_pixels(dataset, "none")
    key = jax.random.key(0)
    seen = jax.vmap(lambda x: transform(x, key))(prepared.train.images)
    np.testing.assert_allclose(seen, dataset.train.images / dataset.unit, rtol=1e-6)
    check_data(prepared.train.images, REAL, transform)
    if maximum is None:
        with pytest.raises(ValueError, match="choose one of real numbers, such as Gaussian"):
            check_data(prepared.train.images, BINARY, transform)
        for policy in ("dynamic", "static", "threshold"):
            with pytest.raises(ValueError, match=r"--binarisation none --likelihood gaussian"):
                vaejax.prepare_pixels(dataset, policy)


def test_a_table_without_names_says_so(tmp_path):
    """Else names that are numbers would be an example without a word."""
    table = load(write_table(tmp_path / "years.csv", TABLE, "1990,1991,1992"))
    assert len(table.train.images) + len(table.valid.images) + len(table.test.images) == 51
    assert "no line of names, so the first line is an example" in table.source
    rows = np.abs(TABLE).round().astype(int)
    labelled = load(write_table(tmp_path / "t.csv", rows, ""), label="1")
    assert "the first line is an example" in labelled.source
    assert "the first line" not in load(write_table(tmp_path / "named.csv", TABLE)).source


# Refusals.

BAD_ARRAYS = {
    "a row": ((GREY[0, 0],), {}, r"shape \(3,\); images are"),
    "text": ((np.array([["a"]]),), {}, "dtype <U1"),
    "a path": (("x.npz",), {}, "load it first"),
    "NaN": ((np.where(GREY == 7, np.nan, GREY),), {}, "NaN or infinity"),
    "labels short": ((GREY, LABELS[1:]), {}, r"y_train has shape \(59,\)"),
    "another shape": ((GREY,), {"test": GREY[:, :2]}, r"x_test has images \(2, 3\)"),
    "another dtype": ((GREY,), {"valid": GREY / 255}, "of float64, and x_train"),
    "valid 1.5": ((GREY,), {"valid": 1.5}, "valid = 1.5; give a fraction below 1, or a whole"),
    "test 0": ((GREY,), {"test": 0}, "test = 0"),
    "test -1": ((GREY,), {"test": -1}, "test = -1"),
    "all of them": ((GREY,), {"valid": 40, "test": 20}, "60 training images, of which 40 for"),
    "none of them": ((GREY,), {"valid": 0.001}, "1 for valid"),
    "beyond the maximum": ((GREY,), {"maximum": 99}, "up to 255, above 99"),
    "dark": ((GREY // 16,), {}, "no pixel above 15, far below 255, the usual maximum of uint8"),
    "a label beyond counts": ((GREY, LABELS * 1e300), {}, r"has the label 1e\+300; give whole"),
    "a label of 64 bits": (
        (GREY, (LABELS + 2**62).astype(np.uint64)),
        {},
        r"has the label 4611686018",
    ),
    "a split of three": ((GREY,), {"valid": (GREY, LABELS, LABELS)}, "valid is a tuple of 3; give"),
    "negative pixels": ((GREY - 1.0,), {"maximum": 255}, r"pixels in \[-1, 254\]"),
}


@pytest.mark.parametrize("case", cases(BAD_ARRAYS))
def test_arrays_that_are_refused(case):
    arguments, settings, message = case
    with pytest.raises((ValueError, TypeError), match=message) as error:
        vaejax.dataset(*arguments, **settings)
    assert "\n" not in str(error.value)


BAD_TABLES = {
    "empty": ("", None, "is empty"),
    "header alone": ("a,b\n", None, "no row of numbers"),
    "a word": ("a,b\n1,2\n3,x\n", None, r"line 3, column 'b' is 'x', not a finite number"),
    "a hole": ("a,b\n1,\n", None, r"line 2, column 'b' is empty"),
    "NaN": ("a,b\n1,2\n1,nan\n", None, r"line 3, column 'b' is 'nan'"),
    "infinite": ("1,2\n1,1e999\n", None, r"line 2, column '2' is '1e999'"),
    "ragged": ("a,b\n1,2\n1,2,3\n", None, "line 3 has 3 columns, and the first line 2"),
    "ragged beside a label": ("a,b\n1,x\n1,y,3\n", "b", "line 3 has 3 columns"),
    "semicolons": ("a;b\n1;2\n", None, r"line 2, column 'a;b' is '1;2'"),
    "an index": (",a\n0,1\n1,2\n", None, r"column 1 has no name.*to_csv\(index=False\)"),
    "a name twice": ("a,a\n1,2\n", None, "the column 'a' twice"),
    "a name twice but for spaces": ("a, a\n1,2\n", None, "the column 'a' twice"),
    "a label that is none": ("a,b\n1,2\n", "c", "has the columns a, b; name one"),
    "a label by number": ("1,2\n3,4\n", "b", "has the columns 1, 2 .it names none"),
    "labels alone": ("a\nx\ny\n", "a", "no column but the labels"),
    "labels of halves": ("a,b\n1,0.5\n2,1\n" * 1, "b", "has the label 0.5"),
    "no label": ("a,b\n1,x\n2,\n", "b", "a row without a label"),
    "numbers of columns": ("0,1,2\n5,6,7\n", None, "numbers of columns as pandas writes them"),
    "underscores": ("a,b\n1_000,2\n", None, "is not a table of numbers"),
    "latin-1": ("a,b\n1,\udcff\n", None, "is not a table in UTF-8"),
    "half a header": ("a,2\n1,2\n", None, "line 1, column '1' is 'a'"),
}


@pytest.mark.parametrize("case", cases(BAD_TABLES))
def test_tables_that_are_refused(case, tmp_path):
    text, label, message = case
    path = tmp_path / "t.csv"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=message) as error:
        load(path, label=label)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def broken_image(folder: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(GREY[0]).save(file, "PNG")
    (folder / "x.png").write_bytes(file.getvalue()[:40])


def beside(folder: Path) -> None:
    write_images(folder / "a", GREY[:3])
    write_images(folder, GREY[3:4])


BAD_FOLDERS = {
    "another size": (
        lambda folder: Image.fromarray(GREY[0, :2]).save(folder / "x.png"),
        r"x.png is an image \(2, 3\) .*and 000.png \(4, 3\).*make all of one size",
    ),
    "colour": (
        lambda folder: Image.fromarray(np.stack([GREY[0]] * 3, -1)).save(folder / "x.png"),
        r"x.png .*make all grey or all coloured",
    ),
    "transparent": (
        lambda folder: Image.fromarray(np.stack([GREY[0]] * 4, -1)).save(folder / "x.png"),
        "x.png has the mode RGBA",
    ),
    "cut off": (broken_image, "x.png cannot be read"),
    "text": (
        lambda folder: (folder / "notes.txt").write_text("x"),
        "notes.txt is not a PNG or JPEG",
    ),
    "a gif": (lambda folder: Image.fromarray(GREY[0]).save(folder / "x.gif"), "x.gif is not a PNG"),
}
FOLDERS = {
    "empty": (lambda folder: None, "holds no PNG or JPEG"),
    "files beside classes": (beside, "and the file 000.png beside them"),
    "an empty class": (
        lambda folder: [(folder / "a").mkdir(), write_images(folder / "b", GREY[:3])],
        "a holds no PNG or JPEG",
    ),
    "two deep": (
        lambda folder: [write_images(folder / "a" / "b", GREY[:3])],
        "b is a folder: folders are classes, one deep",
    ),
    "test without train": (lambda folder: write_images(folder / "test", GREY), "must be train"),
    "a class beside train": (
        lambda folder: [write_images(folder / name, GREY[:9]) for name in ("train", "cats")],
        "and cats beside them",
    ),
    "a split twice": (
        lambda folder: [write_images(folder / n, GREY[:9]) for n in ("train", "val", "valid")],
        "each split once",
    ),
}


@pytest.mark.parametrize("case", cases(BAD_FOLDERS | FOLDERS))
def test_folders_that_are_refused(case, tmp_path):
    spoil, message = case
    if case in BAD_FOLDERS.values():
        write_images(tmp_path, GREY[:20])
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_photographs_stand_upright(tmp_path):
    """As their camera says they were held."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(GREY[0]).save(tmp_path / "turned.png", exif=exif)
    arrays, _ = read_path(tmp_path)
    np.testing.assert_array_equal(arrays["x_train"][0], np.rot90(GREY[0], -1))


def test_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("digits") == "digits" and absolute("tfds:a/b") == "tfds:a/b"
    assert absolute("my.csv") == str(tmp_path / "my.csv")
    assert is_path("folder/") and is_path("./x") and not is_path("mnist")
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="'photos' is a folder here; write photos/"):
        load("photos")
    with pytest.raises(FileNotFoundError, match=r"my.csv is not there; .* by --data-folder"):
        load("my.csv")
    with pytest.raises(ValueError, match="none of .npz"):
        (tmp_path / "x.pdf").write_text("")
        load("./x.pdf")
    with pytest.raises(ValueError, match="names a column of a table, and digits is none"):
        load("digits", label="y")
    np.save(tmp_path / "moved.npy", GREY)
    same(load("/nowhere/moved.npy", folder=tmp_path), vaejax.dataset(GREY))


def test_a_split_that_is_there_is_not_held_out_again(tmp_path):
    np.savez(tmp_path / "s.npz", x_train=GREY, x_test=GREY[:9])
    with pytest.raises(ValueError, match="brings 9 test examples, and 0.5 are to be held out"):
        load(tmp_path / "s.npz", test=0.5)
    assert len(load(tmp_path / "s.npz", valid=20).valid.images) == 20
    assert len(load("digits", valid=20, test=30).test.images) == 30
