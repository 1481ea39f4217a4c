"""Several processes that train on one mesh do the same at the same step."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from vaejax.base.types import PyTree


class LostProcessError(RuntimeError):
    """The processes that train on one mesh could not go on together."""


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


def require_together(mesh: Mesh | None, error: BaseException, saved: int | None) -> None:
    """Raises LostProcessError in place of an error of a mesh of several processes. What was
    computed since the checkpoint `saved` cannot be saved: that too takes all of them.
    """
    if is_shared(mesh) and isinstance(error, jax.errors.JaxRuntimeError):
        cause = (str(error).splitlines() or [""])[0][:200]
        remedy = "give checkpoints=, to go on from"
        if saved is not None:
            remedy = f"start all of them again with resume=True: they go on from step {saved}"
        raise LostProcessError(
            f"process {jax.process_index()} of {jax.process_count()} waits for another that is gone"
            f" or does not answer; {remedy} ({cause})"
        ) from error


def fetched(tree: PyTree) -> PyTree:
    """The arrays on the host, whole: each process gets what lies with the others."""

    def whole(leaf):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(jax.device_get(leaf))

    return jax.tree.map(whole, tree)
