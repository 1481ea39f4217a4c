"""A function of one example over a source, a block at a time: on one device, or shared out over the
devices of a mesh, where a process reads, and computes, the examples of its own devices alone.

A device of a mesh runs batches that one device alone would run, so the numbers are the same but for
rounding, and the same bits where both run as many of them in one program.
"""

from collections.abc import Callable, Iterator
from typing import Any

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


class Shares:
    """`function(params, x_i, key_i)` of examples i that are shared out over the devices of a mesh's
    axis "data", `batch_size` of them at once on each.
    """

    def __init__(
        self,
        function: Callable,
        params: Params,
        source: Source,
        key: Key,
        batch_size: int,
        mesh: Mesh,
        first: ArrayLike = 0,
    ):
        self._mesh, self.processes = automatic(mesh), processes_of(mesh)
        self.num_devices = self._mesh.shape["data"]
        self._split = NamedSharding(self._mesh, PartitionSpec("data"))
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        self._function, self._source, self.batch_size = function, source, batch_size
        self._first = first
        self._params, self._key = jax.tree.map(lambda x: put(x, everywhere), (params, key))

    def mapped(self, starts: np.ndarray, length: int) -> PyTree:
        """The results of the examples starts[d], ..., starts[d] + length - 1 on device d, joined,
        on the devices. The last example of all stands in for those beyond it.
        """
        rows = np.add.outer(starts, np.arange(length)).clip(max=len(self._source) - 1).ravel()

        def part(index: tuple[slice, ...]) -> PyTree:
            return on_device(read(self._source, rows[index]), "data")

        with under_mesh(self._mesh):
            xs = put_parts(part, rows.shape, self._split)
            numbers = put(np.asarray(self._first + starts, np.int32), self._split)
            program = self.batch_size, numbers, self._mesh
            return map_shares(self._function, self._params, xs, self._key, *program)


def of_own_devices(results: PyTree, num_shares: int) -> dict[int, Any]:
    """{number of a share: its results, on the host}, of those that lie with this process."""
    leaves, structure = jax.tree.flatten(results)
    shares: dict[int, list[np.ndarray]] = {}
    for leaf in leaves:
        length = len(leaf) // num_shares
        parts = {(shard.index[0].start or 0) // length: shard for shard in leaf.addressable_shards}
        for number, shard in parts.items():
            shares.setdefault(number, []).append(np.asarray(shard.data))
    return {number: structure.unflatten(parts) for number, parts in shares.items()}


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
    length = max(block_size(source) // batch_size, 1) * batch_size
    parts = []
    if mesh is not None:
        shares = Shares(function, params, source, key, batch_size, mesh, first)
        parts = list(_shared_blocks(shares, len(source) // batch_size * batch_size, length))
    num_mapped = sum(len(jax.tree.leaves(part)[0]) for part in parts)
    for start, block in blocks(source, length, first=num_mapped):
        xs, number = on_device(block, "data"), first + start
        mapped = map_rows(function, params, xs, key, batch_size, number)
        parts.append(jax.tree.map(np.asarray, mapped))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _shared_blocks(shares: Shares, size: int, longest: int) -> Iterator[PyTree]:
    """The results of the first `size` examples, in blocks of at most `longest` on each device."""
    batch_size, num_devices = shares.batch_size, shares.num_devices
    length = min(longest, -(-size // (batch_size * num_devices)) * batch_size)
    for start in range(0, size, length * num_devices or 1):
        with shares.processes.together():
            results = shares.mapped(start + length * np.arange(num_devices), length)
        yield jax.tree.map(lambda leaf, count=size - start: leaf[:count], fetched(results))
