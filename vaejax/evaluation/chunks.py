"""A function of one example over a data set, a chunk at a time, resumable from a file."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from vaejax.base.describe import description
from vaejax.base.mapping import map_rows
from vaejax.base.types import Key, Params
from vaejax.data.base import Source
from vaejax.data.sources import digest_of_data, read
from vaejax.evaluation.pieces import Pieces, Summaries


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
) -> Summaries:
    """`summary(map_rows(function, ...))` of one chunk after another, joined: what leaves the
    device is a chunk's, then its summary.

    A chunk is `batch_size` examples, the last one filled up with repetitions that are dropped, so
    one program serves all. With `path` the summaries lie in that file after every chunk, each with
    a digest, and a later call with the same arguments computes those that are not there, or are
    damaged. Raises ValueError if the file belongs to other arguments; `same_as` is the function
    that says so, where others give the same but for rounding.
    """
    size = len(source)
    batch_size = min(batch_size, size)
    pieces = None
    if path is not None:
        pieces = Pieces(path, made_of(same_as or function, summary, params, source, key))
    kept = {} if pieces is None else dict(pieces.arrays)

    def computed(start: int, stop: int) -> Summaries:
        rows = np.minimum(np.arange(start, start + batch_size), size - 1)
        chunk = map_rows(function, params, read(source, rows), key, batch_size, start)
        part = summary(jax.tree.map(lambda leaf: np.asarray(leaf)[: stop - start], chunk))
        if pieces is not None:
            pieces.add(start, part)
        return part

    parts = []
    with _bar(size, description, progress) as bar:
        for start, stop in _stretches(kept, size, batch_size):
            parts.append(kept[start] if start in kept else computed(start, stop))
            bar.update(stop - start)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _stretches(
    kept: Mapping[int, Summaries], size: int, batch_size: int
) -> Iterator[tuple[int, int]]:
    """(start, stop) of every chunk in turn: those that are kept, and between them those that are
    not.
    """
    start = 0
    while start < size:
        if start in kept:
            stop = start + len(next(iter(kept[start].values())))
        else:
            next_kept = min((other for other in kept if other > start), default=size)
            stop = min(start + batch_size, next_kept)
        yield start, stop
        start = stop


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
