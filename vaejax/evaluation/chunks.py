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
    size, processes = len(mapped.source), processes_of(mesh)
    pieces = None
    with processes.together():
        if path is not None and processes.is_first:
            identity = mapped if same_as is None else replace(mapped, function=same_as)
            pieces = Pieces(path, made_of(identity, summary))
    kept = _told(processes, {} if pieces is None else pieces.arrays)[0]
    batch_size = min(batch_size, size)
    mapper = mapper_of(mapped, batch_size, mesh)
    due = missing(kept, size, batch_size)
    with _bar(size, description, progress) as bar:
        bar.update(size - sum(stop - start for start, stop in due))
        for first in range(0, len(due), mapper.num_devices):
            turn = due[first : first + mapper.num_devices]
            with processes.together():
                own = {start: summary(chunk) for start, chunk in mapper.chunks(turn).items()}
            summaries = dict(chain.from_iterable(part.items() for part in _told(processes, own)))
            with processes.together():
                if pieces is not None:
                    pieces.add(summaries)
            kept |= summaries
            bar.update(sum(map(_length, summaries.values())))
    parts = in_order(kept, size)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _told(processes: Processes, pieces: dict[int, Summaries]) -> list[dict[int, Summaries]]:
    """The pieces of each process, to the bit."""
    if not processes.are_several:
        return [pieces]
    return [pieces_of(told) for told in processes.told(in_json(pieces))]


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
