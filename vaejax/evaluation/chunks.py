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

from vaejax.base.mapping import map_dataset
from vaejax.base.types import Key, Params, PyTree


def map_in_chunks(
    function,
    summary: Callable[[Any], dict[str, np.ndarray]],
    params: Params,
    xs: PyTree,
    key: Key,
    *,
    batch_size: int = 100,
    path: str | Path | None = None,
    progress: bool = False,
    description: str = "examples",
) -> dict[str, np.ndarray]:
    """`summary(map_dataset(function, ...))` of one chunk after another, joined: what leaves the
    device is a chunk's, then its summary.

    A chunk is `batch_size` examples, the last one filled up with repetitions that are dropped, so
    one program serves all. With `path` the summaries so far lie in that .npz file after every
    chunk, and a later call with the same arguments goes on from there. Raises ValueError if the
    file belongs to other arguments.
    """
    size = len(jax.tree.leaves(xs)[0])
    batch_size = min(batch_size, size)
    xs = jax.tree.map(np.asarray, xs)
    wanted = fingerprint(function, summary, params, xs, key) if path is not None else ""
    done = {} if path is None else _saved(Path(path), wanted)
    begin = len(next(iter(done.values()))) if done else 0
    parts = [done] if done else []
    with tqdm(
        total=size,
        initial=begin,
        unit=" examples",
        desc=description,
        disable=not progress,
        dynamic_ncols=True,
    ) as bar:
        for start in range(begin, size, batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), size - 1)
            part = map_dataset(
                function,
                params,
                jax.tree.map(lambda leaf, rows=rows: leaf[rows], xs),
                key,
                batch_size,
                start,
            )
            count = min(batch_size, size - start)
            part = summary(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], part))
            parts.append(part)
            if path is not None:
                _save(Path(path), _joined(parts), wanted)
            bar.update(count)
    return _joined(parts)


def fingerprint(function, summary, params: Params, xs: PyTree, key: Key) -> str:
    """Of all that the result depends on; a function by its name, since it lies elsewhere in memory
    in every process.
    """
    digest = hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", repr((function, summary))).encode())
    for leaf in map(np.asarray, jax.tree.leaves((params, xs, jax.random.key_data(key)))):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _save(path: Path, arrays: dict[str, np.ndarray], wanted: str) -> None:
    """In one move, so that a kill leaves the old file or the new one."""
    partial_file = path.with_name(path.name + ".partial")
    members: dict[str, Any] = {
        **arrays,
        "_of": np.array(json.dumps(wanted)),
    }  # Any, since one of savez's own keywords takes a bool
    with partial_file.open("wb") as file:
        np.savez(file, **members)
    os.replace(partial_file, path)


def _saved(path: Path, wanted: str) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    if json.loads(str(arrays.pop("_of", "null"))) != wanted:
        raise ValueError(
            f"{path} holds the evaluation of another model, data set, key or setting; remove it, or"
            " name another file"
        )
    return arrays
