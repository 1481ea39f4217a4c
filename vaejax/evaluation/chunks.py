"""A function of one example over a data set, a chunk at a time, resumable from a file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from tqdm.auto import tqdm

from vaejax.base.describe import description
from vaejax.base.processes import Processes, processes_of
from vaejax.data.shares import MappedSource, mapper_of
from vaejax.data.sources import digest_of_data
from vaejax.evaluation.pieces import Pieces, Summaries, in_json, pieces_of


def map_in_chunks(
    mapped: MappedSource,
    summary: Callable[[Any], Summaries],
    *,
    batch_size: int = 100,
    path: str | Path | None = None,
    progress: bool = False,
    description: str = "examples",
    same_as: Callable | None = None,
    mesh: Mesh | None = None,
) -> Summaries:
    """`summary(...)` of the results of one chunk after another, joined: what leaves the device is a
    chunk's, then its summary.

    A chunk is `batch_size` examples, the last one filled up with repetitions that are dropped, so
    one program serves all. The chunks are shared out over the mesh, and each process has the
    summaries of all. With `path` they lie in that file, each with a digest, as soon as they are
    known, and a later call with the same arguments computes those that are not there, or are
    damaged. Raises ValueError if the file belongs to other arguments; `same_as` is the function
    that says so, where others give the same but for rounding.
    """
    size = len(mapped.source)
    batch_size = min(batch_size, size)
    identity = mapped if same_as is None else replace(mapped, function=same_as)
    kept = _Kept(processes_of(mesh), path, identity, summary)
    mapper = mapper_of(mapped, batch_size, mesh)
    due = missing(kept.summaries, size, batch_size)
    with _bar(size, description, progress) as bar:
        bar.update(size - sum(stop - start for start, stop in due))
        for first in range(0, len(due), mapper.num_devices):
            turn = due[first : first + mapper.num_devices]
            with kept.processes.together():
                own = {start: summary(chunk) for start, chunk in mapper.chunks(turn).items()}
            kept.add(own)
            bar.update(sum(stop - start for start, stop in turn))
    parts = in_order(kept.summaries, size)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Kept:
    """{start of a chunk: its summaries} of what is known so far, to the bit the same in each
    process, and in a file where there is one: the first process writes it.
    """

    def __init__(
        self,
        processes: Processes,
        path: str | Path | None,
        mapped: MappedSource,
        summary: Callable,
    ):
        self.processes = processes
        self._file: Pieces | None = None
        with processes.together():
            if path is not None and processes.is_first:
                self._file = Pieces(path, made_of(mapped, summary))
        self.summaries = dict(self._told({} if self._file is None else self._file.arrays)[0])

    def add(self, own: Mapping[int, Summaries]) -> None:
        """Those that this process has computed, and the others meanwhile."""
        added = dict(chain.from_iterable(part.items() for part in self._told(own)))
        with self.processes.together():
            if self._file is not None:
                self._file.add(added)
        self.summaries |= added

    def _told(self, pieces: Mapping[int, Summaries]) -> list[Mapping[int, Summaries]]:
        """The pieces of each process."""
        if not self.processes.are_several:
            return [pieces]
        return [pieces_of(told) for told in self.processes.told(in_json(pieces))]


def missing(kept: Mapping[int, Summaries], size: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of the chunks that are to be computed, where these pieces are there."""
    chunks, start = [], 0
    while start < size:
        if start in kept:
            start += _length(kept[start])
            continue
        next_kept = min((other for other in kept if other > start), default=size)
        stop = min(start + batch_size, next_kept)
        chunks.append((start, stop))
        start = stop
    return chunks


def in_order(kept: Mapping[int, Summaries], size: int) -> list[Summaries]:
    """The pieces one after another, each from where the one before it ends."""
    parts, start = [], 0
    while start < size:
        parts.append(kept[start])
        start += _length(kept[start])
    return parts


def _bar(size: int, description: str, progress: bool) -> tqdm:
    return tqdm(
        total=size,
        unit=" examples",
        desc=description,
        disable=not progress,
        dynamic_ncols=True,
    )


def made_of(mapped: MappedSource, summary: Callable) -> dict[str, Any]:
    """All that the result depends on."""
    parts = {
        "function": mapped.function,
        "summary": summary,
        "params": mapped.params,
        "key": mapped.key,
    }
    described = {name: description(part) for name, part in parts.items()}
    return {**described, "data": digest_of_data(mapped.source)}


def _length(part: Summaries) -> int:
    return len(next(iter(part.values())))
