"""A function of one example over a data set, a chunk at a time, resumable from a file."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm.auto import tqdm

from vaejax.base.describe import description
from vaejax.base.mapping import map_rows
from vaejax.base.processes import Processes, processes_of
from vaejax.base.types import Key, Params
from vaejax.data.base import Source
from vaejax.data.shares import Shares, of_own_devices
from vaejax.data.sources import digest_of_data, read
from vaejax.evaluation.pieces import Pieces, Summaries, in_json, pieces_of


def map_in_chunks(
    function: Callable,
    summary: Callable[[Any], Summaries],
    params: Params,
    source: Source,
    key: Key,
    *,
    batch_size: int = 100,
    path: str | Path | None = None,
    progress: bool = False,
    description: str = "examples",
    same_as: Callable | None = None,
    mesh: Mesh | None = None,
) -> Summaries:
    """`summary(map_rows(function, ...))` of one chunk after another, joined: what leaves the
    device is a chunk's, then its summary.

    A chunk is `batch_size` examples, the last one filled up with repetitions that are dropped, so
    one program serves all. The chunks are shared out over the mesh, and each process has the
    summaries of all. With `path` they lie in that file, each with a digest, as soon as they are
    known, and a later call with the same arguments computes those that are not there, or are
    damaged. Raises ValueError if the file belongs to other arguments; `same_as` is the function
    that says so, where others give the same but for rounding.
    """
    size, processes = len(source), processes_of(mesh)
    pieces = None
    with processes.together():
        if path is not None and processes.is_first:
            pieces = Pieces(path, made_of(same_as or function, summary, params, source, key))
    kept = _told(processes, {} if pieces is None else pieces.arrays)[0]
    call = ChunkedCall(function, params, source, key, min(batch_size, size), mesh)
    due = missing(kept, size, call.batch_size)
    with _bar(size, description, progress) as bar:
        bar.update(size - sum(stop - start for start, stop in due))
        for first in range(0, len(due), call.at_once):
            turn = due[first : first + call.at_once]
            with processes.together():
                own = {start: summary(chunk) for start, chunk in call.computed(turn).items()}
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


class ChunkedCall:
    """A function of chunks of `batch_size` examples, of which so many are computed at once as the
    mesh has devices on its axis "data".
    """

    def __init__(
        self,
        function: Callable,
        params: Params,
        source: Source,
        key: Key,
        batch_size: int,
        mesh: Mesh | None,
    ):
        self.batch_size = batch_size
        self._call = function, params, source, key
        self._shares = None if mesh is None else Shares(*self._call, batch_size, mesh)
        self.at_once = 1 if self._shares is None else self._shares.num_devices

    def computed(self, turn: Sequence[tuple[int, int]]) -> dict[int, Any]:
        """{start: the results of the examples start, ..., stop - 1} for each (start, stop) that
        falls to this process.
        """
        if self._shares is None:
            ((start, stop),) = turn
            return {start: _first_rows(stop - start, self._on_one_device(start))}
        chunks = [*turn, *[turn[-1]] * (self.at_once - len(turn))]  # a device each
        starts = np.array([start for start, _ in chunks])
        results = of_own_devices(self._shares.mapped(starts, self.batch_size), self.at_once)
        own = [(*chunks[number], part) for number, part in results.items()]
        return {start: _first_rows(stop - start, part) for start, stop, part in own}

    def _on_one_device(self, start: int) -> Any:
        function, params, source, key = self._call
        batch_size = self.batch_size
        rows = np.minimum(np.arange(start, start + batch_size), len(source) - 1)
        return map_rows(function, params, read(source, rows), key, batch_size, start)


def _first_rows(size: int, results: Any) -> Any:
    """The first of the results, on the host."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:size], results)


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


def made_of(
    function: Callable, summary: Callable, params: Params, source: Source, key: Key
) -> dict[str, Any]:
    """All that the result depends on."""
    parts = {"function": function, "summary": summary, "params": params, "key": key}
    described = {name: description(part) for name, part in parts.items()}
    return {**described, "data": digest_of_data(source)}


def _length(part: Summaries) -> int:
    return len(next(iter(part.values())))
