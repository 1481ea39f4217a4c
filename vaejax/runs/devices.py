"""The devices and the processes that a command runs on."""

import sys

import jax
from jax.sharding import Mesh

from vaejax.base.processes import ALL, ALONE, Processes, join_others
from vaejax.runs.command import nowhere


def joined(distributed: bool) -> Processes:
    """All processes of the job, of which the first writes the files and prints; else this one
    alone.
    """
    if not distributed:
        return ALONE
    join_others()
    if not ALL.is_first:
        sys.stdout = nowhere()
    return ALL


def mesh_of(devices: int | None, distributed: bool) -> Mesh:
    """So many devices, or all of all processes; ValueError for more than there are."""
    everywhere = jax.device_count()
    number = devices or (everywhere if distributed else 1)
    if number > everywhere:
        raise ValueError(f"devices = {number}, but there are {everywhere}; give no more")
    if distributed and number != everywhere:
        raise ValueError(
            f"devices = {number} with --distributed, which takes all {everywhere} devices of all"
            f" processes; leave out --devices, or give --devices {everywhere}"
        )
    return jax.make_mesh((number,), ("data",))
