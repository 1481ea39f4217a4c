"""What was decoded of TFDS is served for what it was decoded from, and for nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest

from vaejax.data import prepared
from vaejax.data.load import load_dataset


class Examples(list):
    def __getitems__(self, rows):
        return [self[row] for row in rows]


class Builder:
    """A stand-in for one of TFDS: images of one grey level, and how often they were decoded."""

    def __init__(self, folder, name, config=None, version="1.0.0", level=200, is_prepared=True):
        self.name, self.version, self.level, self.decoded = name, version, level, 0
        self.builder_config = None if config is None else SimpleNamespace(name=config)
        self.data_dir = folder / "tfds" / name / (config or "") / version
        self.info = SimpleNamespace(splits={"train": 30, "test": 10})
        if is_prepared:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            (self.data_dir / "dataset_info.json").write_text(f"{version} {level}")

    def as_data_source(self, split):
        self.decoded += 1
        image = np.full((4, 4, 1), self.level, np.uint8)
        return Examples([{"image": image, "label": 3}] * self.info.splits[split])


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """(builder, name) -> (the grey level that was served, how many splits were decoded for it)."""
    monkeypatch.setenv("VAEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAEJAX_DATA", raising=False)

    def load(builder, name):
        monkeypatch.setattr(prepared, "_builder", lambda name: builder)
        dataset = load_dataset(name)
        assert builder.version in dataset.source
        return int(dataset.train.images.max()), builder.decoded

    return load


def test_a_second_call_decodes_nothing(loaded, tmp_path):
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 2)
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 0)


OTHERS = {
    "another version": {"version": "1.0.1"},
    "the same version, prepared anew": {},
    "another configuration": {"config": "b"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_was_prepared_anew_is_decoded_anew(other, loaded, tmp_path):
    assert loaded(Builder(tmp_path, "own", "a"), "tfds:own/a") == (200, 2)
    again = Builder(tmp_path, "own", **({"config": "a", "level": 220} | other))
    assert loaded(again, "tfds:own/a") == (220, 2)


def test_names_that_look_alike_share_nothing(loaded, tmp_path):
    assert loaded(Builder(tmp_path, "a", "b", level=210), "tfds:a/b") == (210, 2)
    assert loaded(Builder(tmp_path, "a-b", level=220), "tfds:a-b") == (220, 2)
    assert loaded(Builder(tmp_path, "a", "b", level=210), "tfds:a/b") == (210, 0)


SPOILT = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-40],
    "of something else": lambda content: b"<html>",
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_damaged_file_is_decoded_anew(spoil, loaded, tmp_path):
    loaded(Builder(tmp_path, "own"), "tfds:own")
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(spoil(cache.read_bytes()))
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 2)
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 0)


def test_a_file_without_a_record_or_with_other_arrays_is_not_served(loaded, tmp_path):
    loaded(Builder(tmp_path, "own"), "tfds:own")
    (cache,) = (tmp_path / "cache").iterdir()
    with np.load(cache) as file:
        members = dict(file)
    np.savez(cache, **(members | {"x_train": members["x_train"] - 1}))
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 2)
    del members[prepared.ORIGIN]
    np.savez(cache, **members)
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 2)


def test_a_set_that_tfds_has_no_longer_is_served_from_its_file(loaded, tmp_path):
    loaded(Builder(tmp_path, "own"), "tfds:own")
    builder = Builder(tmp_path / "empty", "own", is_prepared=False)
    assert loaded(builder, "tfds:own") == (200, 0)


def test_a_cache_that_cannot_be_written_costs_time_alone(loaded, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    for _ in range(2):
        assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 2)


def test_a_full_disk_leaves_no_half_of_a_file(loaded, tmp_path, monkeypatch):
    def full(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert loaded(Builder(tmp_path, "own"), "tfds:own") == (200, 2)
    assert list((tmp_path / "cache").iterdir()) == []


def test_images_of_several_sizes_and_no_training_split(loaded, tmp_path):
    builder = Builder(tmp_path, "own")
    images = [{"image": np.zeros((n, 4, 1), np.uint8)} for n in (4, 5)]
    builder.as_data_source = lambda split: Examples(images)
    with pytest.raises(ValueError, match=r"images of 2 sizes, such as \(4, 4, 1\) and \(5, 4, 1\)"):
        loaded(builder, "tfds:own")
    builder = Builder(tmp_path, "own")
    builder.info.splits = {"test": 10}
    with pytest.raises(ValueError, match="has the splits test; load_dataset needs train"):
        loaded(builder, "tfds:own")


@pytest.mark.parametrize(
    "name, message",
    [
        ("tfds:mnsit", "unknown data set 'tfds:mnsit'; did you mean .*tfds:mnist"),
        ("tfds:qqqqzzzz", "unknown data set 'tfds:qqqqzzzz'; https://"),
        ("tfds:mnist_corrupted/nothing", "tfds:mnist_corrupted/nothing: "),
    ],
)
def test_unknown_names_of_tfds_are_one_line(name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
