"""The order of the data, and the contract of a source."""

import jax
import numpy as np
import pytest

import vaejax
from vaejax.data.base import batch_rows


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


def test_a_source_that_does_not_say_how_it_is_read():
    class Silent(vaejax.Source):
        pass

    with pytest.raises(NotImplementedError, match="Silent.__len__"):
        len(Silent())
    with pytest.raises(NotImplementedError, match="Silent.__getitem__"):
        Silent()[np.arange(2)]
    with pytest.raises(NotImplementedError, match="Silent.__getitem__"):
        Silent().block(0, 2)
