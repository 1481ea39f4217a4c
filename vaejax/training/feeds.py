"""How the examples of a call come to the device: all data lie there, or they are brought a stretch
of steps at a time, read by a thread while the stretch before is in use.

Either way a call gets arrays and the places of its batches in them, so one program serves both, and
both give the same bits.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from vaejax.base.devices import placed, put_parts
from vaejax.base.types import Key, PyTree
from vaejax.data.base import Source, batch_rows
from vaejax.data.sources import first_example, read

MOST_STEPS, MOST_PLACES = 10_000, 2**19  # of one call: 2 MiB go to the device with it
STRETCH_BYTES = 2**25  # of examples of one stretch, where a source is read


def steps_per_call(places: int, most_places: int = MOST_PLACES) -> int:
    """How many steps a call may have, where each takes so many places; enough for a second on a
    device that takes 100 us a step. Arrays are made for so many: another number is another program.
    """
    return min(MOST_STEPS, max(1, most_places // places))


class Examples(NamedTuple):
    """Step i of a call takes data[places[i]]: its rows of examples [n, ...], or one of batches
    [steps, batch, ...].
    """

    data: PyTree
    places: np.ndarray


class Order(NamedTuple):
    """Which examples each step takes: a function of (key, step) alone."""

    key: Key
    size: int
    batch_size: int

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, batch_size] rows of the data, of the steps from start on."""
        return batch_rows(self.key, self.size, self.batch_size, start, stop)


class Feed:
    """The examples of each call, on the device. Nothing goes there, or is read, before the first
    one asks.
    """

    def __init__(self, order: Order):
        self.order = order

    def steps_from(self, step: int) -> int:
        """How many steps a call from this one on can have at most."""
        raise NotImplementedError(f"{type(self).__name__}.steps_from")

    def form(self) -> tuple[PyTree, jax.ShapeDtypeStruct]:
        """Shapes and dtypes as those of what `examples` gives, by which the steps are traced."""
        raise NotImplementedError(f"{type(self).__name__}.form")

    def examples(self, start: int, count: int) -> Examples:
        """Those of the steps start, ..., start + count - 1."""
        raise NotImplementedError(f"{type(self).__name__}.examples")

    def close(self) -> None:
        """Nothing more is asked for."""


class Resident(Feed):
    """All data on the device, in their own dtype."""

    def __init__(self, arrays: PyTree, order: Order, sharding: Sharding | None):
        super().__init__(order)
        self._arrays, self._sharding = arrays, sharding
        self._length = steps_per_call(order.batch_size)

    @cached_property
    def _data(self) -> PyTree:
        return placed(self._arrays, self._sharding)

    def steps_from(self, step: int) -> int:
        return self._length

    def form(self) -> tuple[PyTree, jax.ShapeDtypeStruct]:
        places = jax.ShapeDtypeStruct((self._length, self.order.batch_size), np.int32)
        return self._data, places

    def examples(self, start: int, count: int) -> Examples:
        rows = self.order.rows(start, start + count)
        return Examples(self._data, padded(rows, self._length))


class Streamed(Feed):
    """A source on the host, of which two stretches of steps are on their way: the one in use and
    the one after it, each of at most `stretch_bytes` of examples, or one batch.

    Stretch i is the steps i * length, ..., (i + 1) * length - 1 below `num_steps`, whatever calls
    they are run in. On a mesh each batch is split over its axis "data", and a process reads those
    examples alone that its own devices get. What goes wrong with reading is raised where the
    examples are asked for.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        num_steps: int,
        mesh: Mesh | None,
        stretch_bytes: int,
    ):
        super().__init__(order)
        self._source, self._num_steps, self._stretch_bytes = source, num_steps, stretch_bytes
        one_device = SingleDeviceSharding(jax.local_devices()[0])
        self._sharding = (
            one_device if mesh is None else NamedSharding(mesh, PartitionSpec(None, "data"))
        )
        self._thread = ThreadPoolExecutor(1, "vaejax-read") if source.reads_ahead else None
        self._stretches: dict[int, Callable[[], PyTree]] = {}

    @cached_property
    def _first(self) -> PyTree:
        """Row 0, with its axis of length 1."""
        return first_example(self._source)

    @cached_property
    def _length(self) -> int:
        """How many steps a stretch has."""
        num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._first))
        num_bytes *= self.order.batch_size
        return min(max(1, self._stretch_bytes // num_bytes), MOST_STEPS)

    def steps_from(self, step: int) -> int:
        return self._length - step % self._length

    def form(self) -> tuple[PyTree, jax.ShapeDtypeStruct]:
        def stretch(leaf: np.ndarray) -> jax.ShapeDtypeStruct:
            shape = self._length, self.order.batch_size, *leaf.shape[1:]
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
            return jax.ShapeDtypeStruct(shape, dtype, sharding=self._sharding)

        places = jax.ShapeDtypeStruct((self._length,), np.int32)
        return jax.tree.map(stretch, self._first), places

    def examples(self, start: int, count: int) -> Examples:
        number, offset = divmod(start, self._length)
        places = np.arange(offset, offset + count, dtype=np.int32)
        return Examples(self._stretch(number), padded(places, self._length))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _stretch(self, number: int) -> PyTree:
        """The examples of one stretch; the one after it begins to be read."""
        wanted = [number] if self._thread is None else [number, number + 1]
        begun = {n: self._stretches.get(n) or self._begun(n) for n in wanted if self._has_steps(n)}
        self._stretches = begun
        return begun[number]()

    def _has_steps(self, number: int) -> bool:
        return number * self._length < self._num_steps

    def _begun(self, number: int) -> Callable[[], PyTree]:
        """What gives the examples of a stretch, when they are there."""
        if self._thread is not None:
            return self._thread.submit(self._read, number).result
        examples = self._read(number)
        return lambda: examples

    def _read(self, number: int) -> PyTree:
        """Arrays [length, batch, ...]; after the last step there are zeros."""
        start = number * self._length
        rows = self.order.rows(start, min(start + self._length, self._num_steps))
        return put_parts(
            lambda index: self._read_batches(rows[:, index[1]]),
            (self._length, self.order.batch_size),
            self._sharding,
        )

    def _read_batches(self, rows: np.ndarray) -> PyTree:
        """[length, n, ...] of the examples rows[steps, n]."""
        steps, width = rows.shape

        def filled_up(leaf: np.ndarray) -> np.ndarray:
            batches = leaf.reshape(steps, width, *leaf.shape[1:])
            if steps == self._length:
                return batches
            nothing = np.zeros((self._length - steps, *batches.shape[1:]), leaf.dtype)
            return np.concatenate([batches, nothing])

        return jax.tree.map(filled_up, read(self._source, rows.ravel()))


def feed_of(
    data: PyTree | Source, key: Key, batch_size: int, num_steps: int, mesh: Mesh | None
) -> Feed:
    """Arrays go to each device once; a source is read on the host, a stretch after another."""
    if isinstance(data, Source):
        order = Order(key, len(data), batch_size)
        return Streamed(data, order, num_steps, mesh, STRETCH_BYTES)
    order = Order(key, len(jax.tree.leaves(data)[0]), batch_size)
    return Resident(data, order, None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def padded(places: np.ndarray, num_steps: int) -> np.ndarray:
    """[steps, ...] in an array for as many steps as any call has."""
    whole = np.zeros((num_steps, *places.shape[1:]), np.int32)
    whole[: len(places)] = places
    return whole
