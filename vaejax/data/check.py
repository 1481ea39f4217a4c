"""Data that a likelihood cannot have are refused on the host, before anything compiles.

There is one question, whether values lie in a support, and it is asked in one place:

    check_data      of a whole data set, stored, before a transform or without one
    check_values    of one example or one batch, as the model sees it

Every door of a model asks the second (`vaejax.models.base.check_example`). Inside `jax.jit`,
`jax.vmap` or `jax.lax.map` the values of an argument are not known, so there it passes, and the
compiled program has no trace of the question. Who maps a function over data asks what the function
would have asked, by `asked_of`, and puts the question to the data themselves.
"""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vaejax.base.supports import BINARY, COUNTS, ONE_HOT, UNIT_INTERVAL, Support
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.dtypes import first_not_finite, is_floating, on_device, require_digits
from vaejax.data.foreign import as_array
from vaejax.data.sources import as_source, block_size, blocks, first_example
from vaejax.data.transforms import Transform, supports_of_leaves

AT_ONCE = 1024  # rows that a plain transform is tried on at once


def check_data(
    data: PyTree | Source,
    support: Any = None,
    transform: Callable | None = None,
    name: str = "data",
) -> None:
    """Raises ValueError for data that a likelihood with this support cannot have, in any row: on
    the host, before anything compiles.

    `data` are arrays or a `vaejax.Source`; `support` is that of a model, by name where examples are
    mappings, and None where nothing is known but that numbers are finite. What is looked at are the
    numbers that the device will have. What a plain function as `transform` gives is looked at in
    each row, drawn once.
    """
    source = as_source(data, name)
    first = first_example(source, name)
    for start, block in blocks(source, block_size(source, name), name):
        _require_alike(block, first, start, name)
        seen = _seen(block, start, name)
        require_digits(block, name, whole=transform is None)
        if isinstance(transform, Transform):
            transform.check(seen, support, name)
            continue
        for rows, shown in shown_rows(seen, transform, name):
            wanted = dict(enumerate(supports_of_leaves(rows, support)))
            check_leaves(rows, wanted, shown, by_name=isinstance(support, Mapping), batch=True)


def check_values(x: PyTree, support: Any, name: str = "data") -> None:
    """Raises ValueError for numbers that are not finite or not in the support: of one example, or
    of a batch of them. Of arrays whose values are not known, because they are traced, none is.
    """
    wanted = dict(enumerate(supports_of_leaves(x, support)))
    check_leaves(x, wanted, name, by_name=isinstance(support, Mapping))


def check_leaves(
    x: PyTree, wanted: Mapping[int, Support], name: str, *, by_name: bool, batch: bool = False
) -> None:
    """`check_values` of some leaves of x, by their numbers; messages have their paths `by_name`. Of
    a `batch` the first axis is known to be no part of an event.
    """
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(x)):
        if number not in wanted:
            continue
        if isinstance(leaf, Tracer):
            _note(leaf, wanted[number])
            continue
        part = name + jax.tree_util.keystr(path) if by_name else name
        values = _numbers(leaf, part)
        if values is not None:
            _require_inside(values, wanted[number], part, values.ndim - batch)


def shown_rows(
    block: PyTree, transform: Callable | None, name: str
) -> Iterator[tuple[PyTree, str]]:
    """(what the model is shown of some rows, how messages call it), all rows of a block in turn; a
    transform draws from keys of its own.
    """
    if transform is None:
        yield block, name
        return
    size = len(jax.tree.leaves(block)[0])
    for start in range(0, size, AT_ONCE):
        numbers = np.minimum(np.arange(start, start + min(size, AT_ONCE)), size - 1)
        rows = jax.tree.map(lambda leaf, numbers=numbers: leaf[numbers], block)
        keys = jax.random.split(jax.random.key(start), len(numbers))
        seen = _transformed(transform, rows, keys)
        if not jax.tree.leaves(seen):
            raise ValueError(
                f"the transform of {name} gives {seen}, no array: is there a `return`?"
            )
        yield seen, f"transformed {name}"


@partial(jax.jit, static_argnums=0)
def _transformed(transform: Callable, rows: PyTree, keys: Key) -> PyTree:
    return jax.vmap(transform)(rows, keys)


def _numbers(leaf: Any, name: str) -> np.ndarray | None:
    """A leaf as the real numbers that the device will have, on the host, or None where it has none
    that can be seen here.
    """
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return None  # a part of it lies with another process
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return None  # a key
    values = np.asarray(as_array(leaf, name))
    if values.size == 0 or not is_floating(values.dtype):
        return None
    values = on_device(values, name)
    # Of bfloat16 and its kin NumPy knows no order.
    return values.astype(np.float32) if values.dtype.kind == "V" else values


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


def _seen(block: PyTree, start: int, name: str) -> PyTree:
    """The numbers that the device will have of some stored examples, all of them finite."""
    for leaf in jax.tree.leaves(block):
        place = first_not_finite(leaf)
        if place is not None:
            raise ValueError(
                f"{name} has a NaN or infinity, first in row {start + place[0]}; remove or repair"
                " such rows"
            )
    return on_device(block, name)


def _require_inside(values: np.ndarray, wanted: Support, name: str, rank: int) -> None:
    """`rank` is that of one event, at most."""
    place = first_not_finite(values)
    if place is not None:
        raise ValueError(f"{name} has a NaN or infinity, first at {place}; remove or repair it")
    if (wanted.unit is not None and rank == 0) or not wanted.contains(values):
        low, high = float(values.min()), float(values.max())
        raise ValueError(
            f"{name} has values in [{low:g}, {high:g}], and this likelihood is for"
            f" {wanted.description}: {_remedy(wanted, low, high, rank)}"
        )


def _remedy(wanted: Support, low: float, high: float, rank: int) -> str:
    maximum = "1" if high <= 1 else "maximum"
    largest = (
        ""
        if high <= 1
        else (f"; maximum is the largest value that a pixel can have, here at least {high:g}")
    )
    if wanted.unit is not None and rank == 0:
        return "give vectors; of labels jax.nn.one_hot(labels, num_classes) makes some"
    if wanted == ONE_HOT:
        return "jax.nn.one_hot(labels, num_classes) makes them; leave out rows without a class"
    if wanted.unit == "length":
        return "divide each by its length, np.linalg.norm(x, axis=-1, keepdims=True)"
    if wanted.unit == "sum":
        return "divide each by its sum, x.sum(-1, keepdims=True)"
    if wanted in (BINARY, UNIT_INTERVAL) and low < 0:
        return "scale the data to the numbers from 0 to 1 first"
    if wanted == BINARY:
        return (
            f"give transform=vaejax.Pixels({maximum}, policy) with policy dynamic or threshold,"
            f" or binarise the data yourself{largest}"
        )
    if wanted == COUNTS:
        return "round them, or choose a likelihood of real numbers, such as Gaussian"
    if (wanted.low, wanted.high, wanted.unit) == (UNIT_INTERVAL.low, UNIT_INTERVAL.high, None):
        return (
            f'give transform=vaejax.Pixels({maximum}, "none"), which scales stored pixels, or scale'
            f" the data yourself{largest}"
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
    supports: dict[int, Support] = {}

    def traced(params, example, key):
        notes = _Notes(example)
        token = _NOTES.set(notes)
        try:
            return function(params, example, key)
        finally:
            _NOTES.reset(token)
            supports.update(notes.supports)

    jax.eval_shape(traced, params, example, key)
    return supports
