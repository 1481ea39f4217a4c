"""Files that stay on disk give the rows that are in them."""

import threading

import numpy as np
import PIL.Image
import pytest

import vaejax
from vaejax.data.sources import as_data, as_source, read

XS = np.random.default_rng(0).integers(0, 255, (30, 4, 3), np.uint8)
ROWS = np.array([4, 0, 29, 4])


def test_every_array_of_an_npz_is_mapped(tmp_path):
    """Of each order and dtype, of no numbers, of a name with a folder."""
    arrays = {
        "x": XS,
        "columns first": np.asfortranarray(XS[:, :, 0]),
        "half": XS.astype(np.float16),
        "big-endian": XS.astype(">f8"),
        "folder/inside": np.arange(3),
    }
    np.savez(tmp_path / "all.npz", **arrays)
    opened = vaejax.open_npz(tmp_path / "all.npz")
    assert opened.keys() == arrays.keys()
    for name, array in arrays.items():
        assert isinstance(opened[name], np.memmap) and opened[name].dtype == array.dtype, name
        np.testing.assert_array_equal(opened[name], array)
    with pytest.raises(ValueError, match="read-only"):
        opened["x"][0] = 0


def compressed(path):
    np.savez_compressed(path, x=XS)


def cut(path):
    np.savez(path, x=XS)
    path.write_bytes(path.read_bytes()[:100])


def objects(path):
    np.savez(path, x=np.array([1, "a"], object))


REFUSED = {
    "compressed": (compressed, r"x\.npy compressed.*np\.savez"),
    "cut": (cut, r"cut off or damaged"),
    "objects": (objects, r"Python objects in x\.npy"),
    "empty": (lambda path: path.write_bytes(b""), r"empty"),
    "one array": (lambda path: np.save(path.open("wb"), XS), r"np\.savez"),
}


@pytest.mark.parametrize("write, message", REFUSED.values(), ids=REFUSED)
def test_what_has_no_rows_on_disk_is_refused(tmp_path, write, message):
    path = tmp_path / "a.npz"
    write(path)
    with pytest.raises(ValueError, match=message) as error:
        vaejax.open_npz(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_arrays_that_are_mapped_stay_on_disk(tmp_path):
    np.save(tmp_path / "xs.npy", XS)
    mapped = np.load(tmp_path / "xs.npy", mmap_mode="r")
    for data in (mapped, {"x": mapped, "label": np.arange(30)}):
        assert isinstance(as_data(data), vaejax.Arrays)
    np.testing.assert_array_equal(read(as_source(mapped), ROWS), XS[ROWS])
    assert np.shares_memory(as_source(mapped).block(3, 9), mapped)


def test_a_folder_of_images_is_read_by_rows(tmp_path):
    """By the order of their names, whatever folder of classes they are in."""
    for i, x in enumerate(XS):
        (tmp_path / str(i // 10)).mkdir(exist_ok=True)
        PIL.Image.fromarray(x).save(tmp_path / str(i // 10) / f"{i:02}.png")
    for num_threads in (1, 4):
        source = vaejax.ImageFolder(tmp_path, num_threads)
        assert len(source) == 30 and source.paths[29].name == "29.png"
        np.testing.assert_array_equal(read(source, ROWS), XS[ROWS])
    PIL.Image.fromarray(XS[0, :2]).save(tmp_path / "0" / "odd.png")
    with pytest.raises(ValueError, match=r"odd\.png is an image \(2, 3\).*make all of one size"):
        read(vaejax.ImageFolder(tmp_path), np.arange(31))
    with pytest.raises(ValueError, match="no PNG or JPEG"):
        vaejax.ImageFolder(tmp_path / "nothing")


def test_items_are_read_by_so_many_threads_at_once():
    """Two items that wait for each other: one thread alone would wait for ever."""
    both = threading.Barrier(2, timeout=30)

    def example(item):
        both.wait()
        return np.full(2, item)

    source = vaejax.RandomAccess(list(range(4)), example, num_threads=2)
    np.testing.assert_array_equal(source[np.array([3, 1])], [[3, 3], [1, 1]])
    with pytest.raises(ValueError, match="num_threads"):
        vaejax.RandomAccess([1], num_threads=0)


def stand_in(name):
    """A random-access source of another library, of its name."""
    module, _, kind = name.rpartition(".")
    methods = {
        "__len__": lambda self: len(XS),
        "__getitem__": lambda self, row: {"image": XS[row], "label": np.int64(row)},
    }
    return type(kind, (), {"__module__": module, **methods})()


@pytest.mark.parametrize(
    "name",
    [
        "grain._src.python.dataset.dataset.MapDataset",
        "grain.sources.ArrayRecordDataSource",
        "tensorflow_datasets.core.data_sources.array_record.ArrayRecordDataSource",
    ],
)
def test_random_access_sources_of_other_libraries_are_taken_as_they_are(name):
    rows = read(as_source(stand_in(name)), ROWS)
    np.testing.assert_array_equal(rows["image"], XS[ROWS])
    np.testing.assert_array_equal(rows["label"], ROWS)
