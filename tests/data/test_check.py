"""Data that a likelihood cannot have are refused: arrays and sources alike."""

import tracemalloc

import numpy as np
import pytest

import vaejax
from tests.lib.images import GREY
from tests.lib.training import Counted
from vaejax.base.supports import (
    BINARY,
    COUNTS,
    ONE_HOT,
    REAL,
    SIMPLEX,
    SPHERE,
    UNIT_INTERVAL,
    levels,
)
from vaejax.data.check import check_data, check_values
from vaejax.data.sources import BLOCK_BYTES

GOOD = np.zeros((5, 3), np.float32)
TWO_HOT = np.eye(5, 3, dtype=np.float32) + np.eye(5, 3, 1, dtype=np.float32)
MISTAKES = {
    "0..255 into a Bernoulli": (
        GOOD + 255,
        BINARY,
        None,
        (
            r"values in \[255, 255\], and this likelihood is for 0 and 1:"
            r" .*transform=vaejax.Pixels\(maximum, policy\).*, here at least 255"
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
    "0..16 into a Bernoulli": (GOOD + 16, BINARY, None, "that a pixel can have, here at least 16$"),
    "0..1 divided by 255": (
        GOOD + 0.3,
        BINARY,
        vaejax.Pixels(255),
        r"values in \[0.3, 0.3\] of float32, .* divided by 255; .* give the maximum 1",
    ),
    "booleans divided by 255": (GOOD > 1, BINARY, vaejax.Pixels(255), "give the maximum 1"),
    "scaled to -1..1": (GOOD - 1, UNIT_INTERVAL, None, "scale the data to the numbers from 0 to 1"),
    "no class": (GOOD, ONE_HOT, None, r"jax.nn.one_hot\(labels, .* leave out rows without a class"),
    "two classes": (TWO_HOT, ONE_HOT, None, "leave out rows without a class"),
    "labels": (np.arange(5), ONE_HOT, None, r"give vectors; of labels jax.nn.one_hot"),
    "one label of one": (np.arange(5) == 2, ONE_HOT, None, "give vectors; of labels"),
    "a direction of length 1.7": (GOOD + 1, SPHERE, None, "divide each by its length"),
    "a direction of length 0": (GOOD, SPHERE, None, "divide each by its length"),
    "angles": (GOOD[:, 0] + 1, SPHERE, None, "give vectors"),
    "no point of the simplex": (GOOD + 0.4, SIMPLEX, None, "divide each by its sum"),
    "negative": (GOOD - 1, BINARY, None, "is for 0 and 1"),
    "grey into counts": (GOOD + 0.5, COUNTS, None, "is for 0, 1, 2, ...: round them"),
    "stored pixels into a unit interval": (
        GREY.train.images,
        UNIT_INTERVAL,
        None,
        r'from 0 to 1: give transform=vaejax.Pixels\(maximum, "none"\).*, here at least 255',
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


@pytest.mark.parametrize("data, support, transform, message", MISTAKES.values(), ids=MISTAKES)
def test_bad_data_are_refused(data, support, transform, message):
    with pytest.raises(ValueError, match=message) as error:
        check_data(data, support, transform)
    assert "\n" not in str(error.value)


ROWS = {
    name: case
    for name, case in MISTAKES.items()
    if isinstance(case[0], np.ndarray) and case[0].size > 0
}


@pytest.mark.parametrize("data, support, transform, message", ROWS.values(), ids=ROWS)
def test_bad_sources_are_refused_alike(data, support, transform, message):
    with pytest.raises(ValueError, match=message) as error:
        check_data(Counted(np.asarray(data)), support, transform)
    assert "\n" not in str(error.value)


GOOD_DATA = (
    (GOOD, BINARY, None),
    (GOOD > 1, BINARY, None),
    (GREY.train.images, BINARY, vaejax.Pixels(255)),
    (GREY.train.images, REAL, vaejax.Pixels(255, "none")),
    (GREY.train.images, UNIT_INTERVAL, vaejax.Pixels(255, "none")),
    (GREY.train.images, levels(256), vaejax.Pixels(255, "none")),
    (np.arange(17) / 16, levels(17), None),
    (np.arange(17, dtype=np.float32) / np.float32(16), levels(17), None),
    (GREY.train.images, COUNTS, None),
    (GREY.train.images, None, None),
    (GREY.train.images, BINARY, lambda x, key: x > 100),
    (GREY.train.images, {"x": BINARY}, vaejax.Pixels(255)),
)


@pytest.mark.parametrize("data, support, transform", GOOD_DATA)
def test_good_data_pass(data, support, transform):
    check_data(data, support, transform)
    check_data(Counted(data), support, transform)
    check_data({"x": data, "y": data}, REAL)


# Supports by name, as of the nodes of a graph.


NAMED = {
    "a node": ({"x": GOOD + 0.5, "y": GOOD}, {"x": BINARY}, r"data\['x'\] has values in \[0.5"),
    "a node of a node": (
        {"x": {"a": GOOD, "b": GOOD - 1}},
        {"x": {"a": BINARY, "b": COUNTS}},
        r"data\['x'\]\['b'\] has values in \[-1, -1\], .* 0, 1, 2",
    ),
    "the only one, without its name": (GOOD + 0.5, {"x": BINARY}, "data has values in .* 0 and 1"),
    "an input": ({"u": GOOD * np.nan, "x": GOOD}, {"x": BINARY}, "NaN or infinity, first in row 0"),
}


@pytest.mark.parametrize("data, support, message", NAMED.values(), ids=NAMED)
def test_supports_by_name(data, support, message):
    for source in (data, vaejax.Arrays(data)):
        with pytest.raises(ValueError, match=message):
            check_data(source, support)


def test_what_has_no_name_there_is_held_against_nothing():
    check_data({"u": GOOD + 0.5, "x": GOOD}, {"x": BINARY})
    check_data({"x": GOOD + 0.5}, {"x": None})
    check_data(GOOD + 0.5, {"x": BINARY, "y": BINARY})
    check_data((GOOD, GOOD + 0.5), BINARY)


# Sources, read end to end a block at a time.


class Large(vaejax.Source):
    """Rows of half a block each, of which one is not as the others."""

    def __init__(self, other):
        self.other, self.asked = other, []

    def __len__(self):
        return 5

    def __getitem__(self, rows):
        self.asked.append(len(rows))
        block = np.zeros((len(rows), BLOCK_BYTES // 16), np.float64)
        return self.other(block) if 3 in rows else block


def test_every_row_is_looked_at_and_few_at_once():
    def with_nan(block):
        block[-1, 7] = np.nan
        return block

    source = Large(with_nan)
    with pytest.raises(ValueError, match="NaN or infinity, first in row 3"):
        check_data(source)
    assert max(source.asked) == 2
    with pytest.raises(ValueError, match="is for 0 and 1"):
        check_data(Large(lambda block: block - 1), BINARY)
    source = Large(lambda block: block)
    check_data(source, BINARY)
    assert sum(source.asked) >= 5


UNLIKE = {
    "too few rows": (lambda block: block[:1], "was asked for 2 rows and gave arrays of shapes"),
    "a number": (lambda block: np.float32(0), r"data is empty: shapes \[\(\)\]"),
    "another shape": (lambda block: block[:, :9], "examples that differ in form: .* from row 2 on"),
    "another dtype": (lambda block: block > 1, "differ in form: .*float64.*bool"),
    "another structure": (lambda block: {"x": block}, "differ in form"),
    "words": (lambda block: np.array(["a", "b"]), "dtype <U1; give real numbers"),
}


@pytest.mark.parametrize("other, message", UNLIKE.values(), ids=UNLIKE)
def test_rows_that_are_not_as_the_others(other, message):
    with pytest.raises(ValueError, match=message) as error:
        check_data(Large(other))
    assert "\n" not in str(error.value)


def test_objects_that_are_neither_arrays_nor_a_source():
    with pytest.raises(
        TypeError, match=r"of type object, which is not an array: .* vaejax.RandomAccess"
    ):
        check_data({"x": object()})


def test_a_look_at_data_costs_little_memory():
    """0/1 floats into a Bernoulli, which once took five times their size."""
    data = np.zeros((8000, 1000), np.float32)
    for look in (check_values, check_data):
        look(data[:2], BINARY)
        tracemalloc.start()
        look(data, BINARY)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.5 * data.nbytes
    data[-1, -1] = 0.5
    with pytest.raises(ValueError, match="is for 0 and 1"):
        check_values(data, BINARY)
