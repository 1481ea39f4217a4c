"""Statements of what arrays are, by chex. It is imported when the first one is made: that takes a
tenth of a second, and many notebooks make none.
"""

from typing import Any


def assert_rank(arrays: Any, rank: Any) -> None:
    import chex

    chex.assert_rank(arrays, rank)


def assert_shape(arrays: Any, shape: Any) -> None:
    import chex

    chex.assert_shape(arrays, shape)


def assert_equal_shape(arrays: Any) -> None:
    import chex

    chex.assert_equal_shape(arrays)


def assert_equal_shape_prefix(arrays: Any, length: int) -> None:
    import chex

    chex.assert_equal_shape_prefix(arrays, length)


def assert_leading(arrays: Any, length: int) -> None:
    """Each leaf has a first axis of this length."""
    import chex

    chex.assert_tree_shape_prefix(arrays, (length,))
