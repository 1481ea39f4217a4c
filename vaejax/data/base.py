"""The contract of a source of data, a data set in three splits, and the order in which training
takes its examples.
"""

from functools import lru_cache
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from vaejax.base.types import Key, PyTree


class Source:
    """Examples on the host, read by their rows: any of 0, ..., len(source) - 1, in any order.

    Training asks for the rows that (key, step) alone decide, so a source has no iterator, no
    shuffle and no state, and a run resumes to the same bits. Yours may read a disk or a database:

        class Recordings(vaejax.Source):
            def __init__(self, paths):
                self.paths = paths

            def __len__(self):
                return len(self.paths)

            def __getitem__(self, rows):
                return np.stack([np.load(self.paths[row]) for row in rows])

    `vaejax.Arrays(arrays)` leaves arrays, or memory-mapped ones, on the host;
    `vaejax.RandomAccess(items)` is for what gives one example by its number, such as a list or
    `tfds.data_source(...)`. Every row must have the shape and dtype of row 0.

    Training reads in a thread of its own, one read at a time, while the steps before are computed.
    Where what you read may be touched by the thread alone that opened it, such as a connection to
    SQLite, set `reads_ahead = False`.
    """

    reads_ahead: ClassVar[bool] = True

    def __len__(self) -> int:
        """The number of examples."""
        raise NotImplementedError(f"{type(self).__name__}.__len__")

    def __getitem__(self, rows: np.ndarray) -> PyTree:
        """The examples with these numbers: arrays with a leading axis of len(rows)."""
        raise NotImplementedError(f"{type(self).__name__}.__getitem__")

    def block(self, start: int, stop: int) -> PyTree:
        """The examples start, ..., stop - 1: where reading in order is cheaper, say how."""
        return self[np.arange(start, stop)]


class Split(NamedTuple):
    images: np.ndarray
    labels: np.ndarray | None = None


class Dataset(NamedTuple):
    """Stored pixels 0..maximum in three splits, or, where the maximum is None, real numbers.
    `source` says where they came from and how they were split.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    maximum: float | None
    source: str

    @property
    def unit(self) -> float:
        """What a stored number is divided by: the maximum of pixels, 1 of real numbers."""
        return 1 if self.maximum is None else self.maximum


def batch_rows(key: Key, size: int, batch_size: int, start: int, stop: int) -> np.ndarray:
    """[stop - start, batch_size] rows of the data for steps start..stop: a function of (key, step)
    alone.

    Batches are cut from one endless sequence of permutations, one an epoch, so that every epoch
    takes every example once. The shuffle is the host's: NumPy permutes 60,000 rows in 1 ms,
    `jax.random.permutation` takes tens on a CPU.
    """
    seed = tuple(np.asarray(jax.random.key_data(key)).ravel().tolist())
    first, last = start * batch_size, stop * batch_size
    epochs = range(first // size, -(-last // size))
    rows = np.concatenate([_permutation(seed, epoch, size) for epoch in epochs])
    offset = epochs.start * size
    return rows[first - offset : last - offset].reshape(-1, batch_size)


@lru_cache(maxsize=4)
def _permutation(seed: tuple[int, ...], epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([*seed, epoch]).permutation(size).astype(np.int32)


def random_rows(key: Key, size: int, count: int | None = None) -> np.ndarray:
    """`count` of so many rows, or all, in random order: some data sets are sorted by class."""
    return np.asarray(jax.random.permutation(key, size))[:count]
