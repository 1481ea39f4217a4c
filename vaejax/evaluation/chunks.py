"""A function of one example over a data set, a chunk at a time, resumable from a file."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from vaejax.base.mapping import map_rows
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.data.sources import add_to_digest, as_source, read

Summaries = dict[str, np.ndarray]


def map_in_chunks(
    function: Callable,
    summary: Callable[[Any], Summaries],
    params: Params,
    xs: PyTree | Source,
    key: Key,
    *,
    batch_size: int = 100,
    path: str | Path | None = None,
    progress: bool = False,
    description: str = "examples",
) -> Summaries:
    """`summary(map_rows(function, ...))` of one chunk after another, joined: what leaves the
    device is a chunk's, then its summary.

    A chunk is `batch_size` examples, the last one filled up with repetitions that are dropped, so
    one program serves all. With `path` the summaries so far lie in that .npz file after every
    chunk, and a later call with the same arguments goes on from there. Raises ValueError if the
    file belongs to other arguments.
    """
    source = as_source(xs)
    size, batch_size = len(source), min(batch_size, len(source))
    kept = None
    if path is not None:
        kept = _Kept(Path(path), fingerprint(function, summary, params, source, key))
    parts = kept.parts() if kept else []
    begin = sum(map(_length, parts))
    with _bar(size, begin, description, progress) as bar:
        for start in range(begin, size, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), size - 1)
            count = min(batch_size, size - start)
            chunk = map_rows(function, params, read(source, rows), key, batch_size, start)
            parts.append(summary(jax.tree.map(lambda leaf, n=count: np.asarray(leaf)[:n], chunk)))
            if kept:
                kept.save(parts)
            bar.update(count)
    return _joined(parts)


def _bar(size: int, begin: int, description: str, progress: bool) -> tqdm:
    return tqdm(
        total=size,
        initial=begin,
        unit=" examples",
        desc=description,
        disable=not progress,
        dynamic_ncols=True,
    )


def fingerprint(function, summary, params: Params, source: Source, key: Key) -> str:
    """Of all that the result depends on; a function by its name, since it lies elsewhere in memory
    in every process.
    """
    digest = hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", repr((function, summary))).encode())
    _add_arrays(digest, params)
    add_to_digest(digest, source)
    _add_arrays(digest, jax.random.key_data(key))
    return digest.hexdigest()


def _add_arrays(digest: Any, tree: PyTree) -> None:
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + np.ascontiguousarray(leaf).tobytes())


def _length(part: Summaries) -> int:
    return len(next(iter(part.values())))


def _joined(parts: list[Summaries]) -> Summaries:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class _Kept:
    """What is done so far, in a file that belongs to one fingerprint."""

    def __init__(self, path: Path, wanted: str):
        self.path, self.wanted = path, wanted

    def save(self, parts: list[Summaries]) -> None:
        """In one move, so that a kill leaves the old file or the new one."""
        partial_file = self.path.with_name(self.path.name + ".partial")
        # Any, since one of savez's own keywords takes a bool.
        members: dict[str, Any] = {**_joined(parts), "_of": np.array(json.dumps(self.wanted))}
        with partial_file.open("wb") as file:
            np.savez(file, **members)
        os.replace(partial_file, self.path)

    def parts(self) -> list[Summaries]:
        """What the file holds, as one part; none where there is no file yet."""
        if not self.path.exists():
            return []
        with np.load(self.path, allow_pickle=False) as file:
            arrays = dict(file)
        if json.loads(str(arrays.pop("_of", "null"))) != self.wanted:
            raise ValueError(
                f"{self.path} holds the evaluation of another model, data set, key or setting;"
                " remove it, or name another file"
            )
        return [arrays]
