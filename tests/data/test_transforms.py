"""A transform that knows what it takes says so, and is asked before anything runs."""

import numpy as np
import pytest

import vaejax
from tests.lib.recipes import recipe
from vaejax.base.supports import BINARY, REAL
from vaejax.data.check import check_data
from vaejax.data.transforms import supports_of_leaves

Logarithm = recipe("Transform")


def test_a_users_transform_is_asked():
    data = np.array([[1.0, 2.0], [3.0, 0.0]])
    check_data(data[:1], BINARY, Logarithm())
    with pytest.raises(ValueError, match="validation has the value 0.0; give positive numbers"):
        check_data(data, REAL, Logarithm(), name="validation")
    with pytest.raises(ValueError, match="NaN or infinity"):
        check_data(np.array([[1.0, np.inf]]), REAL, Logarithm())


def test_a_transform_that_does_not_say():
    class Silent(vaejax.Transform):
        pass

    with pytest.raises(NotImplementedError, match="Silent.check"):
        check_data(np.ones((2, 2)), REAL, Silent())


def test_supports_of_leaves():
    """By name, however the mapping is ordered; of one support, the first leaf."""
    example = {"b": np.ones(2), "a": {"d": np.ones(2), "c": np.ones(2)}}
    assert supports_of_leaves(example, {"b": BINARY, "a": {"d": BINARY}}) == [REAL, BINARY, BINARY]
    assert supports_of_leaves(example, {"a": BINARY}) == [BINARY, REAL, REAL]
    assert supports_of_leaves((np.ones(2), np.ones(2)), BINARY) == [BINARY, REAL]
    assert supports_of_leaves(np.ones(2), {"x": {"y": BINARY}}) == [BINARY]
    assert supports_of_leaves(np.ones(2), {"x": BINARY, "y": REAL}) == [REAL]
    assert supports_of_leaves(np.ones(2), None) == [REAL]
