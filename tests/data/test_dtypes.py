"""The numbers that are checked are those that the device has: others are refused."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.kinds import KINDS, params_of
from vaejax.base.supports import COUNTS, ONE_HOT, REAL
from vaejax.data.check import check_data, check_values
from vaejax.data.dtypes import first_not_finite, on_device, require_digits
from vaejax.data.mapping import map_dataset, map_source
from vaejax.data.pixels import Pixels

GENERATOR = np.random.default_rng(0)
NORMAL = GENERATOR.normal(size=(50, 3))
COLUMN = np.arange(50.0)[:, None]
OTHERS = {
    "beyond int32": (np.full((5, 3), 2**32 + 7), r"whole numbers in \[4294967303, 4294967303\]"),
    "beyond the sign": (np.full((5, 3), 2**31 + 5), "would be others: subtract an offset"),
    "below int32": (np.full((5, 3), -(2**31) - 1), "the device's are int32"),
    "uint64": (np.full((5, 3), 2**63, np.uint64), "the device's are uint32"),
    "beyond float32": (np.full((5, 3), 1e300), r"numbers up to 1e\+300, .* they are infinite"),
    "long double": (np.full((5, 3), 1e300, np.longdouble), "they are infinite"),
    "big-endian": (np.full((5, 3), 2**32 + 7, ">i8"), "whole numbers in"),
}
LOST = {
    "seconds since 1970": 1.7e9 + COLUMN,
    "milliseconds, whole": (1.7e12 + 10 * COLUMN).astype(np.int64) % 2**31,
    "seconds, whole": (1.7e9 + COLUMN).astype(np.int32),
    "one of several columns": np.concatenate([NORMAL, 1e9 + NORMAL], axis=1),
    "near one": 1 + 1e-9 * NORMAL,
    "in the other byte order": (1.7e9 + COLUMN).astype(">f8"),
}
ORDINARY = {
    "normals": NORMAL,
    "large normals": 1e20 * NORMAL,
    "tiny normals": 1e-20 * NORMAL,
    "an outlier": np.where(np.arange(50)[:, None] == 3, 1e9, NORMAL),
    "pixels": GENERATOR.integers(256, size=(50, 4, 4)) / 255,
    "0 and 1": GENERATOR.integers(2, size=(50, 4)).astype(np.float64),
    "constant": np.full((50, 2), 0.1),
    "constant but for rounding": 0.1 + np.where(COLUMN % 2 == 0, 0, 1.4e-17),
    "counts": GENERATOR.poisson(1e5, size=(50, 4)),
    "large counts": GENERATOR.poisson(1e9, size=(50, 4)),
    "a day in seconds": 86_400 * GENERATOR.random((50, 1)),
    "centred times": 1.7e9 + COLUMN - (1.7e9 + COLUMN).mean(0),
    "two rows": 1e6 + NORMAL[:2],
    "one number an example": NORMAL[:, 0],
    "big-endian": NORMAL.astype(">f4"),
    "bfloat16": NORMAL.astype(jnp.bfloat16),
    "float16": NORMAL.astype(np.float16),
    "four bits": np.arange(16).reshape(8, 2).astype(ml_dtypes.uint4),
    "booleans": NORMAL > 0,
}


@pytest.mark.parametrize("case", cases(OTHERS))
def test_what_is_another_number_on_the_device_is_refused_at_every_door(case):
    (data, message), model = case, KINDS["VAE"]
    for door in (
        lambda: check_data(data, COUNTS),
        lambda: check_data(vaejax.Arrays(data)),
        lambda: check_data(vaejax.RandomAccess(data), transform=Pixels(1e19)),
        lambda: check_data(data, transform=lambda x, key: x),
        lambda: check_values(data, REAL),
        lambda: map_dataset(lambda params, x, key: x, None, data, jax.random.key(0)),
        lambda: map_source(lambda params, x, key: x, None, vaejax.Arrays(data), jax.random.key(0)),
        lambda: vaejax.elbo(model, params_of(model), data, jax.random.key(0)),
    ):
        with pytest.raises(ValueError, match=message) as error:
            door()
        assert "\n" not in str(error.value) and "jax_enable_x64" in str(error.value)


@pytest.mark.parametrize("data", cases(LOST))
def test_differences_that_float32_loses_are_refused(data):
    with pytest.raises(ValueError, match=r"varies by .* subtract an offset") as error:
        check_data({"t": data}, REAL)
    assert "\n" not in str(error.value)


def test_they_are_lost_before_a_transform_too_unless_they_are_whole():
    """float64 becomes float32 on the way to the device; int32 stays, and an offset can be taken."""
    double = lambda x, key: 2 * x  # noqa: E731
    times = LOST["seconds since 1970"]
    for door in (
        lambda: check_data(times, REAL, double),
        lambda: map_dataset(lambda params, x, key: x, None, times, jax.random.key(0)),
        lambda: map_source(lambda params, x, key: x, None, times, jax.random.key(0)),
    ):
        with pytest.raises(ValueError, match="varies by"):
            door()
    check_data(LOST["seconds, whole"], REAL, lambda x, key: (x - 1_700_000_000) * 1.0)


@pytest.mark.parametrize("data", cases(ORDINARY))
def test_ordinary_numbers_pass_and_are_those_of_the_device(data):
    check_data(data)
    native = data.astype(data.dtype.newbyteorder("=")) if data.dtype.kind == "f" else data
    expected = np.asarray(jax.device_put(native))
    seen = on_device(data, "data")
    assert seen.dtype == expected.dtype
    np.testing.assert_array_equal(seen, expected)


def test_with_64_bits_nothing_is_lost(x64):
    for data in (*[case[0] for case in OTHERS.values()], *LOST.values()):
        check_data(data)
        assert on_device(data, "data").dtype.itemsize in (4, 8)


def test_what_float32_has_is_not_copied():
    data = NORMAL.astype(np.float32)
    assert on_device({"x": data}, "data")["x"] is data
    require_digits(data, "data")


def test_the_support_is_that_of_the_rounded_number():
    """2e-46 is above 0 in float64, and 0 on the device."""
    with pytest.raises(ValueError, match=r"values in \[0, 0\], .* numbers above 0"):
        check_data(np.full((5, 3), 2e-46), vaejax.supports.POSITIVE)


def test_the_place_of_what_is_not_finite_wherever_it_is():
    """In a piece after the first, too."""
    for shape in ((7,), (3, 5), (3000, 1000)):
        x = np.zeros(shape, np.float32)
        place = tuple(n - 1 for n in shape)
        assert first_not_finite(x) is None
        x[place] = np.nan
        assert first_not_finite(x) == place
    assert first_not_finite(np.float32(np.inf)) == ()


def test_labels_of_no_class_in_any_row_are_seen_behind_a_plain_transform():
    """-1 in the last row of many becomes a vector of zeros."""
    one_hot = partial(jax.nn.one_hot, num_classes=3)
    labels = np.arange(3000) % 3
    check_data(labels, ONE_HOT, lambda y, key: one_hot(y))
    labels[-1] = -1
    with pytest.raises(ValueError, match=r"transformed data has values .* of one 1 and else 0"):
        check_data(labels, ONE_HOT, lambda y, key: one_hot(y))
