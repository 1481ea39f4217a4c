"""A function of one example over a source, some examples at a time: on one device, or shared out
over the devices of a mesh, where a process reads, and computes, the examples of its own devices
alone.

A device of a mesh runs batches that one device alone would run, so the numbers are the same but for
rounding, and the same bits where both run as many of them in one program.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from vaejax.base.checks import require_count
from vaejax.base.devices import automatic, fetched, put, put_parts, under_mesh
from vaejax.base.mapping import map_rows, map_shares
from vaejax.base.processes import processes_of
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.dtypes import on_device
from vaejax.data.sources import block_size, blocks, read


@dataclass(frozen=True, eq=False)
class MappedSource:
    """[function(params, x_i, key_i) for every example i of a source that was looked at before]; the
    first of them has the number `first`.
    """

    function: Callable
    params: Params
    source: Source
    key: Key
    first: ArrayLike = 0

    def examples(self, rows: np.ndarray) -> PyTree:
        """Those of these rows; the last of all stands in for those beyond it."""
        rows = rows.clip(max=len(self.source) - 1)
        return on_device(read(self.source, rows), "data")


class Mapper:
    """Computes a mapped source, `batch_size` examples at once on each of its devices."""

    num_devices: int

    def chunks(self, bounds: Sequence[tuple[int, int]]) -> dict[int, PyTree]:
        """{start: the results of the examples start, ..., stop - 1, on the host} for each (start,
        stop) that falls to this process: at most a batch for each device. One program serves all.
        """
        raise NotImplementedError


class DeviceMapper(Mapper):
    """On one device."""

    num_devices = 1

    def __init__(self, mapped: MappedSource, batch_size: int):
        self._mapped, self._batch_size = mapped, batch_size

    def chunks(self, bounds: Sequence[tuple[int, int]]) -> dict[int, PyTree]:
        ((start, stop),) = bounds
        xs = self._mapped.examples(start + np.arange(self._batch_size))
        return {start: _first_rows(stop - start, self.results(xs, start))}

    def results(self, xs: PyTree, start: int) -> PyTree:
        """Those of the examples xs, of which the first is in row `start`."""
        mapped, number = self._mapped, self._mapped.first + start
        return map_rows(mapped.function, mapped.params, xs, mapped.key, self._batch_size, number)


class MeshMapper(Mapper):
    """On the devices of a mesh's axis "data"."""

    def __init__(self, mapped: MappedSource, batch_size: int, mesh: Mesh):
        self._mapped, self._batch_size = mapped, batch_size
        self._mesh, self._processes = automatic(mesh), processes_of(mesh)
        self.num_devices = self._mesh.shape["data"]
        self._split = NamedSharding(self._mesh, PartitionSpec("data"))
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        arguments = mapped.params, mapped.key
        self._params, self._key = jax.tree.map(lambda x: put(x, everywhere), arguments)

    def chunks(self, bounds: Sequence[tuple[int, int]]) -> dict[int, PyTree]:
        bounds = [*bounds, *[bounds[-1]] * (self.num_devices - len(bounds))]  # one for each device
        results = self._results(np.array([start for start, _ in bounds]), self._batch_size)
        own = [(*bounds[number], part) for number, part in self._own_parts(results).items()]
        return {start: _first_rows(stop - start, part) for start, stop, part in own}

    def whole_batches(self, longest: int) -> Iterator[PyTree]:
        """The results of all examples but those that fill no batch, as arrays of the host in each
        process, in blocks of at most `longest` examples on each device.
        """
        batch_size, num_devices = self._batch_size, self.num_devices
        size = len(self._mapped.source) // batch_size * batch_size
        length = min(longest, -(-size // (batch_size * num_devices)) * batch_size)
        for start in range(0, size, length * num_devices or 1):
            with self._processes.together():
                results = self._results(start + length * np.arange(num_devices), length)
            yield jax.tree.map(lambda leaf, count=size - start: leaf[:count], fetched(results))

    def _results(self, starts: np.ndarray, length: int) -> PyTree:
        """Those of the examples starts[d], ..., starts[d] + length - 1 on device d, joined, on the
        devices.
        """
        rows = np.add.outer(starts, np.arange(length)).ravel()

        def part(index: tuple[slice, ...]) -> PyTree:
            return self._mapped.examples(rows[index])

        with under_mesh(self._mesh):
            xs = put_parts(part, rows.shape, self._split)
            numbers = put(np.asarray(self._mapped.first + starts, np.int32), self._split)
            program = self._batch_size, numbers, self._mesh
            return map_shares(self._mapped.function, self._params, xs, self._key, *program)

    def _own_parts(self, results: PyTree) -> dict[int, PyTree]:
        """{number of a device: its results, on the host}, of those that lie with this process."""
        leaves, structure = jax.tree.flatten(results)
        parts: dict[int, list[np.ndarray]] = {}
        for leaf in leaves:
            length = len(leaf) // self.num_devices
            shards = {
                (shard.index[0].start or 0) // length: shard for shard in leaf.addressable_shards
            }
            for number, shard in shards.items():
                parts.setdefault(number, []).append(np.asarray(shard.data))
        return {number: structure.unflatten(leaves) for number, leaves in parts.items()}


def mapper_of(mapped: MappedSource, batch_size: int, mesh: Mesh | None) -> Mapper:
    """On the devices of a mesh, or on one where there is none."""
    if mesh is None:
        return DeviceMapper(mapped, batch_size)
    return MeshMapper(mapped, batch_size, mesh)


def _first_rows(size: int, results: PyTree) -> PyTree:
    """The first of the results, on the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:size], results)


def map_blocks(
    function: Callable,
    params: Params,
    source: Source,
    key: Key,
    batch_size: int = 100,
    mesh: Mesh | None = None,
    first: ArrayLike = 0,
) -> PyTree:
    """`map_rows` of a source that was looked at before, a block at a time: the results as arrays of
    the host, whole in each process that has devices in the mesh.

    The batches are shared out over the mesh; what is left of them, less than one, each process
    computes alone. `first` is the number of the source's first example.
    """
    require_count(batch_size, "batch_size")
    mapped = MappedSource(function, params, source, key, first)
    longest = max(block_size(source) // batch_size, 1) * batch_size
    parts = []
    if mesh is not None:
        parts.extend(MeshMapper(mapped, batch_size, mesh).whole_batches(longest))
    num_mapped = sum(len(jax.tree.leaves(part)[0]) for part in parts)
    device = DeviceMapper(mapped, batch_size)
    for start, block in blocks(source, longest, first=num_mapped):
        results = device.results(on_device(block, "data"), start)
        parts.append(jax.tree.map(np.asarray, results))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
