"""The sources of data that the library brings, and what it does with any source: read rows and
blocks, take a digest.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from vaejax.base.checks import require_count
from vaejax.base.types import PyTree
from vaejax.data.base import Source
from vaejax.data.dtypes import require_real
from vaejax.data.foreign import (
    as_array,
    as_arrays,
    is_by_number,
    is_on_disk,
    require_items,
    stacked,
)

BLOCK_BYTES = 2**26  # of examples on the host at once, where a source is read from end to end


class Arrays(Source):
    """Arrays with a leading axis of examples, which stay where they are: in the host's memory, or
    on disk where they are `np.memmap`.
    """

    def __init__(self, arrays: PyTree, name: str = "data"):
        self.arrays = jax.tree.map(np.asarray, as_arrays(arrays, name))
        self._size = require_rows(self.arrays, name)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: np.ndarray) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[rows], self.arrays)

    def block(self, start: int, stop: int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[start:stop], self.arrays)


class RandomAccess(Source):
    """What has a length and gives one item by its number, each an array or a dict, list or tuple of
    arrays: `tfds.data_source(...)`, a random-access source of Grain, a list.

    `example(item)` is the part of an item that is the example, where that is not all of it:
    `RandomAccess(tfds.data_source("mnist", split="train"), lambda item: item["image"])`.
    `num_threads` items are read at once, which pays where that means to wait for a disk, or to
    decode.
    """

    def __init__(
        self,
        items: Any,
        example: Callable[[Any], PyTree] | None = None,
        num_threads: int = 1,
    ):
        require_items(items)
        require_count(num_threads, "num_threads")
        self.items, self.example, self.num_threads = items, example, num_threads

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: np.ndarray) -> PyTree:
        if self.num_threads == 1 or len(rows) == 1:
            return stacked([self._item(row) for row in rows])
        with ThreadPoolExecutor(self.num_threads) as threads:
            return stacked(list(threads.map(self._item, rows)))

    def _item(self, row: int) -> PyTree:
        item = self.items[int(row)]
        return item if self.example is None else self.example(item)


class OnDisk(Source):
    """An array on disk with a shape, such as h5py's or Zarr's: read by slices, and by rows that are
    asked for in increasing order, each once.
    """

    def __init__(self, items: Any):
        self.items = items

    def __len__(self) -> int:
        return self.items.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        increasing, places = np.unique(rows, return_inverse=True)
        return np.asarray(self.items[increasing])[places]

    def block(self, start: int, stop: int) -> np.ndarray:
        return np.asarray(self.items[start:stop])


def as_data(data: PyTree, name: str = "data") -> PyTree | Source:
    """What a user hands over, as the library reads it: arrays of NumPy or JAX, or, of what lies on
    disk or gives one example by its number, a Source.

    TypeError, with the line to write instead, for what is neither.
    """
    if isinstance(data, Source):
        return data
    if is_on_disk(data):
        return OnDisk(data)
    if is_by_number(data):
        return RandomAccess(data)
    if any(isinstance(leaf, np.memmap) for leaf in jax.tree.leaves(data)):
        return Arrays(data, name)
    return as_arrays(data, name)


def as_source(data: PyTree, name: str = "data") -> Source:
    """`data` itself if it is a Source, else the source of its arrays; ValueError if they are none.

    `len(source)` is the number of examples, `source[rows]` some of them, on the host.
    """
    data = as_data(data, name)
    return data if isinstance(data, Source) else Arrays(data, name)


def require_rows(arrays: PyTree, name: str) -> int:
    """The common length of arrays of real numbers; ValueError if they have none."""
    leaves = jax.tree.leaves(arrays)
    if not leaves or any(leaf.ndim == 0 or leaf.size == 0 for leaf in leaves):
        raise ValueError(
            f"{name} is empty: shapes {[leaf.shape for leaf in leaves]}; give arrays with a leading"
            " axis of examples"
        )
    lengths = [len(leaf) for leaf in leaves]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"{name} has arrays of different lengths, {lengths}; give one row per example in each"
        )
    for leaf in leaves:
        require_real(leaf.dtype, name)
    return lengths[0]


def read(source: Source, rows: np.ndarray, name: str = "data") -> PyTree:
    """source[rows], as arrays; ValueError where those are not as many as were asked for."""
    return _held(source, source[rows], len(rows), name)


def blocks(
    source: Source, size: int, name: str = "data", first: int = 0
) -> Iterator[tuple[int, PyTree]]:
    """(start, the examples from start on, `size` of them or as many as are left), from the first
    asked for to the end.
    """
    for start in range(first, len(source), size):
        stop = min(start + size, len(source))
        yield start, _held(source, source.block(start, stop), stop - start, name)


def _held(source: Source, block: PyTree, size: int, name: str) -> PyTree:
    block = jax.tree.map(lambda leaf: np.asarray(as_array(leaf, name)), block)
    if require_rows(block, name) != size:
        raise ValueError(
            f"{name}: {type(source).__name__} was asked for {size} rows and gave arrays of shapes"
            f" {[leaf.shape for leaf in jax.tree.leaves(block)]}; give one row for each, in order"
        )
    return block


def first_example(source: Source, name: str = "data") -> PyTree:
    """Row 0, with its axis of length 1; ValueError if there is none."""
    if len(source) == 0:
        raise ValueError(f"{name} is empty: {type(source).__name__} has length 0")
    return read(source, np.arange(1), name)


def block_size(source: Source, name: str = "data") -> int:
    """As many examples as fill BLOCK_BYTES, at least one."""
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(first_example(source, name)))
    return max(1, BLOCK_BYTES // num_bytes)


def add_to_digest(digest: Any, source: Source) -> None:
    """Adds all of a source to a digest of hashlib: the same as for arrays with its contents.

    One leaf after another, each end to end, so a source of several leaves is read several times.
    """
    size = block_size(source)
    for number, leaf in enumerate(jax.tree.leaves(first_example(source))):
        digest.update(f"{(len(source), *leaf.shape[1:])} {leaf.dtype}".encode())
        for _, block in blocks(source, size):
            digest.update(np.ascontiguousarray(jax.tree.leaves(block)[number]).tobytes())


def digest_of_data(data: PyTree | Source) -> str:
    """SHA-256 of all examples: the same for arrays and for a source of them."""
    digest = hashlib.sha256()
    add_to_digest(digest, as_source(data))
    return digest.hexdigest()
