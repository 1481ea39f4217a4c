"""How the examples of a call come to the device: all data lie there, or a call's are brought.

Either way a call gets arrays and the places of its batches in them, so one program serves both, and
both give the same bits.
"""

from typing import NamedTuple

import jax
import numpy as np

from vaejax.base.devices import placed
from vaejax.base.types import PyTree
from vaejax.data.base import Source
from vaejax.data.sources import first_example, read

# At most; the array of rows is made for so many, so another number is another program.
STEPS_PER_CALL = 1_000
CALL_BYTES = 2**25  # of examples of one call, where a source is read call by call


class Examples(NamedTuple):
    """Step i of a call takes data[places[i]]."""

    data: PyTree
    places: np.ndarray


class Resident:
    """All data on the device, in their own dtype."""

    most_steps = STEPS_PER_CALL

    def __init__(self, arrays: PyTree, sharding):
        self.size = len(jax.tree.leaves(arrays)[0])
        self._data = placed(arrays, sharding)

    def examples(self, rows: np.ndarray) -> Examples:
        """Those of some steps, from their rows [steps, batch]."""
        return Examples(self._data, padded(rows))


class Streamed:
    """A source on the host, of which the examples of one call at a time are on the device: at most
    `call_bytes` of them, or one batch.
    """

    def __init__(self, source: Source, batch_size: int, sharding, call_bytes: int = CALL_BYTES):
        self.size = len(source)
        self._source, self._sharding = source, sharding
        self._first = first_example(source)
        num_bytes = batch_size * sum(leaf.nbytes for leaf in jax.tree.leaves(self._first))
        self.most_steps = min(max(1, call_bytes // num_bytes), STEPS_PER_CALL)

    def examples(self, rows: np.ndarray) -> Examples:
        """Those of some steps, from their rows [steps, batch]."""
        num_steps, batch_size = rows.shape
        read_now = read(self._source, rows.ravel())
        num_places = self.most_steps * batch_size  # of any call, so that one program serves all

        def filled_up(first, leaf):
            whole = np.zeros((num_places, *first.shape[1:]), first.dtype)
            whole[: len(leaf)] = leaf
            return whole

        data = jax.device_put(jax.tree.map(filled_up, self._first, read_now), self._sharding)
        places = np.arange(num_steps * batch_size, dtype=np.int32)
        return Examples(data, padded(places.reshape(rows.shape)))


def feed_of(data: PyTree | Source, batch_size: int, sharding) -> Resident | Streamed:
    """Arrays go to the device once; a source is read on the host, call by call."""
    if isinstance(data, Source):
        return Streamed(data, batch_size, sharding)
    return Resident(data, sharding)


def padded(rows: np.ndarray) -> np.ndarray:
    """[steps, batch] in an array for as many steps as any call has."""
    whole = np.zeros((STEPS_PER_CALL, rows.shape[1]), np.int32)
    whole[: len(rows)] = rows
    return whole
