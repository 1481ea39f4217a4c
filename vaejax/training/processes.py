"""Several processes that train on one mesh do the same at the same step."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh


def is_shared(mesh: Mesh | None) -> bool:
    """Whether devices of several processes are in the mesh."""
    return mesh is not None and len({device.process_index for device in mesh.devices.flat}) > 1


def agreed(
    mesh: Mesh | None, count: int, signal: int | None, stopped: bool
) -> tuple[int, int | None, bool]:
    """How many steps the next call has, and what stops the run instead: the least count, a signal
    that any of the processes got, and whether a callback of any stopped.

    They differ since clocks do, and since a signal may reach one process alone. All of them run the
    same program at the same time, or wait for each other for ever.
    """
    if not is_shared(mesh):
        return count, signal, stopped
    mine = np.array([-count, signal or 0, stopped])
    fewest, signal, stopped = np.asarray(multihost_utils.process_allgather(mine)).max(0).tolist()
    return -fewest, signal or None, bool(stopped)


def fetched(tree):
    """The arrays on the host, whole: each process gets what lies with the others."""

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(jax.device_get(leaf))

    return jax.tree.map(whole, tree)
