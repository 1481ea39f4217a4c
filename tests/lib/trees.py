"""Trees of arrays, compared."""

import jax
import numpy as np


def assert_same_bits(tree, other):
    """Equal in structure, type and every bit."""
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for (path, leaf), other_leaf in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True
    ):
        leaf, other_leaf = np.asarray(leaf), np.asarray(other_leaf)
        np.testing.assert_array_equal(leaf, other_leaf, err_msg=jax.tree_util.keystr(path))
        assert leaf.dtype == other_leaf.dtype, jax.tree_util.keystr(path)
