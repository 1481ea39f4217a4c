"""Data that a likelihood cannot have are refused on the host, before anything compiles.

There is one question, whether values lie in a support, and it is asked in one place:

    check_data      of a whole data set, stored, before a transform or without one
    check_values    of one example or one batch, as the model sees it

Every door of a model asks the second (`vaejax.models.base.check_example`). Inside `jax.jit`,
`jax.vmap` or `jax.lax.map` the values of an argument are not known, so there it passes, and the
compiled program has no trace of the question. Who maps a function over data asks what the function
would have asked, by `asked_of`, and puts the question to the data themselves.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vaejax.base.supports import BINARY, COUNTS, UNIT_INTERVAL, Support
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.sources import as_source, block_size, blocks, first_example
from vaejax.data.transforms import Transform, supports_of_leaves

MOST_TRANSFORMED = 64  # rows on which a plain transform is tried


def check_data(
    data: PyTree | Source,
    support: Any = None,
    transform: Callable | None = None,
    name: str = "data",
) -> None:
    """Raises ValueError for data that a likelihood with this support cannot have, in any row: on
    the host, before anything compiles.

    `data` are arrays or a `vaejax.Source`; `support` is that of a model, by name where examples are
    mappings, and None where nothing is known but that numbers are finite. A plain function as
    `transform` is tried on the first rows, and what it gives is looked at.
    """
    source = as_source(data, name)
    first = first_example(source, name)
    for start, block in blocks(source, block_size(source, name), name):
        _require_alike(block, first, start, name)
        _require_finite(block, start, name)
        if isinstance(transform, Transform):
            transform.check(block, support, name)
        elif transform is None:
            check_values(block, support, name)
        elif start == 0:
            check_values(first_transformed(block, transform), support, f"transformed {name}")


def check_values(x: PyTree, support: Any, name: str = "data") -> None:
    """Raises ValueError for numbers that are not finite or not in the support: of one example, or
    of a batch of them. Of arrays whose values are not known, because they are traced, none is.
    """
    wanted = dict(enumerate(supports_of_leaves(x, support)))
    check_leaves(x, wanted, name, by_name=isinstance(support, Mapping))


def check_leaves(x: PyTree, wanted: Mapping[int, Support], name: str, *, by_name: bool) -> None:
    """`check_values` of some leaves of x, by their numbers; messages have their paths `by_name`."""
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(x)):
        if number not in wanted:
            continue
        if isinstance(leaf, Tracer):
            _note(leaf, wanted[number])
            continue
        values = _numbers(leaf)
        if values is not None:
            part = jax.tree_util.keystr(path) if by_name else ""
            _require_inside(values, wanted[number], name + part)


def first_transformed(block: PyTree, transform: Callable) -> PyTree:
    """What a transform gives of the first rows of a block."""
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[:MOST_TRANSFORMED]), block)
    size = len(jax.tree.leaves(rows)[0])
    return jax.vmap(transform)(rows, jax.random.split(jax.random.key(0), size))


def _numbers(leaf: Any) -> np.ndarray | None:
    """A leaf as real numbers on the host, or None where it has none that can be seen here."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return None  # a part of it lies with another process
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return None  # a key
    values = np.asarray(leaf)
    if values.dtype.kind == "V" and jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(np.float32)  # of bfloat16 and its kin NumPy knows no order
    return values if values.dtype.kind in "biuf" and values.size else None


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


def _require_inside(values: np.ndarray, wanted: Support, name: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        place = tuple(np.argwhere(~np.isfinite(values))[0].tolist())
        raise ValueError(f"{name} has a NaN or infinity, first at {place}; remove or repair it")
    if not wanted.contains(values):
        low, high = values.min(), values.max()
        raise ValueError(
            f"{name} has values in [{low:g}, {high:g}], and this likelihood is for"
            f" {wanted.description}: {_remedy(wanted, high)}"
        )


def _remedy(wanted: Support, high: float) -> str:
    maximum = 255 if high > 1 else 1
    if wanted == BINARY:
        return (
            f"give transform=vaejax.Pixels({maximum}, policy) with policy dynamic or threshold,"
            " or binarise the data yourself"
        )
    if wanted == COUNTS:
        return "round them, or choose a likelihood of real numbers, such as Gaussian"
    if (wanted.low, wanted.high, wanted.unit) == (UNIT_INTERVAL.low, UNIT_INTERVAL.high, None):
        return (
            f'give transform=vaejax.Pixels({maximum}, "none"), which scales stored pixels, or scale'
            " the data yourself"
        )
    return "change the data, or choose a likelihood of such values; Gaussian is for any"


# What a function would ask of its example, found by tracing it: nothing is computed.


class _Notes:
    """The leaves of a traced example, and the supports that were asked of them."""

    def __init__(self, example: PyTree):
        self.leaves = jax.tree.leaves(example)
        self.supports: dict[int, Support] = {}


# Of the example that is being traced, if any: what is asked of a tracer is asked deep in a function
# of the user's own, which hands nothing back but its result.
_NOTES: ContextVar[_Notes | None] = ContextVar("notes", default=None)


def _note(leaf: Any, wanted: Support) -> None:
    notes = _NOTES.get()
    if notes is not None:
        for number, known in enumerate(notes.leaves):
            if known is leaf:
                notes.supports[number] = wanted


def asked_of(function: Callable, params: Params, example: PyTree, key: Key) -> dict[int, Support]:
    """{number of a leaf: the support that `function(params, example, key)` asks of it}, of those
    leaves of its example that it hands on as they are, outside of a `jax.jit` of its own.
    """
    found: dict[int, Support] = {}

    def traced(params, example, key):
        notes = _Notes(example)
        token = _NOTES.set(notes)
        try:
            return function(params, example, key)
        finally:
            _NOTES.reset(token)
            found.update(notes.supports)

    jax.eval_shape(traced, params, example, key)
    return found
