"""Means over a whole data set: every example once, whatever the batches."""

import jax
import numpy as np
import pytest

from tests.lib.oracles import assert_mean
from vaejax.base.mapping import Transformed, estimate
from vaejax.data.mapping import map_dataset

XS = np.linspace(-2, 2, 23, dtype=np.float32)[:, None]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_example_once_and_the_same_for_any_batch(batch_size):
    def noisy(params, x, key):
        return x[0] + jax.random.uniform(key)

    expected = [
        x[0] + jax.random.uniform(jax.random.fold_in(jax.random.key(0), i))
        for i, x in enumerate(XS)
    ]
    np.testing.assert_allclose(
        map_dataset(noisy, None, XS, jax.random.key(0), batch_size), expected, rtol=1e-6
    )


def test_estimates_are_means_in_double_precision():
    values = np.full(10_001, 1e4, np.float32)
    values[0] = 0
    assert estimate(values).mean == pytest.approx(1e8 / 10_001, rel=1e-14)
    assert estimate(values).standard_error == pytest.approx(1e4 / 10_001, rel=1e-9)


def test_a_part_of_a_data_set_has_the_keys_of_the_whole():
    """Example i has the key fold_in(key, i), whatever the part begins with."""
    key = jax.random.key(3)

    def draw(params, x, key):
        return jax.random.uniform(key)

    whole = map_dataset(draw, None, XS, key)
    assert len(set(np.asarray(whole).tolist())) == len(XS)
    for start, stop in ((0, 9), (9, 23), (20, 23)):
        part = map_dataset(draw, None, XS[start:stop], key, 5, start)
        np.testing.assert_array_equal(part, whole[start:stop])


def test_a_transform_and_the_function_have_noise_of_their_own():
    """E[t f] = 0 for a normal number t of the transform and f of the function; with one key it
    would be 1.
    """

    def transform(stored, key):
        return jax.random.normal(key)

    def function(params, x, key):
        return x, jax.random.normal(key)

    drawn = Transformed(function, transform)
    keys = jax.random.split(jax.random.key(0), 20_000)
    t, f = jax.vmap(lambda key: drawn(None, None, key))(keys)
    assert_mean(np.stack([t * f, t, f], axis=1), 0, detectable=0.1)
    assert_mean(np.stack([t * t, f * f], axis=1), 1, detectable=0.1)


def test_the_standard_error_is_that_of_the_mean():
    """sqrt(sum (v - mean)^2 / (n - 1) / n)."""
    assert estimate([1.0, 2.0, 6.0]) == pytest.approx((3, np.sqrt(14 / 2 / 3)))


def test_of_one_example_there_is_no_standard_error():
    single = estimate([2.0])
    assert np.isnan(single.standard_error) and str(single) == "2.00 (no standard error)"
