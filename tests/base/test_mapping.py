"""Means over a whole data set: every example once, whatever the batches."""

import jax
import numpy as np
import pytest

from vaejax.base.mapping import estimate
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
