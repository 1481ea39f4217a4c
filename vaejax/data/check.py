"""Data that a likelihood cannot have are refused on the host, before anything compiles."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vaejax.base.supports import BINARY, COUNTS, Support
from vaejax.base.types import PyTree
from vaejax.data.base import Source
from vaejax.data.sources import as_source, block_size, blocks, first_example
from vaejax.data.transforms import Transform, supports_of_leaves


def check_data(
    data: PyTree | Source,
    support: Support | Mapping[str, Any] | None = None,
    transform: Callable | None = None,
    name: str = "data",
) -> None:
    """Raises ValueError for data that a likelihood with this support cannot have, in any row: on
    the host, before anything compiles.

    `data` are arrays or a `vaejax.Source`; `support` is that of a model, by name where examples are
    mappings, and None where nothing is known but that numbers are finite.
    """
    source = as_source(data, name)
    first = first_example(source, name)
    for start, block in blocks(source, block_size(source, name), name):
        _require_alike(block, first, start, name)
        _require_finite(block, start, name)
        if isinstance(transform, Transform):
            transform.check(block, support, name)
        elif transform is None:
            _require_inside(block, support, name)


def _require_alike(block: PyTree, first: PyTree, start: int, name: str) -> None:
    """Raises ValueError unless every example is as the first one."""
    forms = [
        {
            jax.tree_util.keystr(path): (leaf.shape[1:], str(leaf.dtype))
            for path, leaf in jax.tree_util.tree_leaves_with_path(examples)
        }
        for examples in (first, block)
    ]
    if forms[0] != forms[1]:
        raise ValueError(
            f"{name} has examples that differ in form: {forms[0]} in row 0, {forms[1]} from row"
            f" {start} on; give all one shape and dtype"
        )


def _require_finite(block: PyTree, start: int, name: str) -> None:
    for leaf in jax.tree.leaves(block):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            row = start + int(np.argwhere(~np.isfinite(leaf))[0][0])
            raise ValueError(
                f"{name} has a NaN or infinity, first in row {row}; remove or repair such rows"
            )


def _require_inside(block: PyTree, support: Any, name: str) -> None:
    """Raises ValueError for values that go to the model as they are, and are outside its
    support.
    """
    leaves = jax.tree_util.tree_leaves_with_path(block)
    for (path, x), wanted in zip(leaves, supports_of_leaves(block, support), strict=True):
        if wanted.contains(x):
            continue
        low, high = x.min(), x.max()
        maximum = 255 if high > 1 else 1
        remedy = {
            BINARY: (
                f"give transform=vaejax.Pixels({maximum}, policy) with policy dynamic or threshold,"
                " or binarise the data yourself"
            ),
            COUNTS: "round them, or choose a likelihood of real numbers, such as Gaussian",
        }.get(
            wanted,
            f'give transform=vaejax.Pixels({maximum}, "none"), which scales stored pixels, or scale'
            " the data yourself",
        )
        part = jax.tree_util.keystr(path) if isinstance(support, Mapping) else ""
        raise ValueError(
            f"{name}{part} has values in [{low:g}, {high:g}], and this likelihood is for"
            f" {wanted.description}: {remedy}"
        )
