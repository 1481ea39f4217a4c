"""One saved step on disk: its record, its arrays, and whether its files are those that were saved.

`N/record` says of what it is, `N/state` and `N/history` are the arrays, and `N/digests.json` has a
digest of every file of these. So damage is shown, never supposed: what cannot be read, and is as it
was saved, is another fault.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax.base.describe import array_digest, digest_of
from vaejax.base.types import PyTree

FORMAT = 2
RECORD, DIGESTS = Path("record") / "metadata", "digests.json"
HISTORY = "['history']"  # how the path of an array of the history begins
OF_BEFORE = ("batch_size", "key", "data")  # what format 1 says, among the configuration, of a run


class CheckpointError(RuntimeError):
    """No step could be restored, or one could not be saved."""


class DamagedError(CheckpointError):
    """A step is not what was saved."""


def is_named_as_step(folder: Path) -> bool:
    """Whether Orbax would take it for a step."""
    return bool(re.fullmatch("[0-9]+", folder.name)) and folder.is_dir()


def is_ours(folder: Path) -> bool:
    """Whether it carries our record, or the digests that were saved beside it."""
    return folder.name == str(int(folder.name)) and (
        (folder / DIGESTS).is_file() or (folder / RECORD).is_file()
    )


def folders_of_steps(directory: Path) -> list[Path]:
    """All that Orbax would take for steps, the oldest first."""
    folders = directory.iterdir() if directory.is_dir() else []
    return sorted(filter(is_named_as_step, folders), key=lambda folder: int(folder.name))


def move_aside(folder: Path, place: Path) -> None:
    """Moves a step into `place`, under a name that is free there."""
    names = [folder.name, *(f"{folder.name}-{number}" for number in range(2, 1_000))]
    name = next(name for name in names if not (place / name).exists())
    try:
        place.mkdir(exist_ok=True)
        shutil.move(folder, place / name)
    except OSError as error:
        raise CheckpointError(f"{folder} is damaged, and cannot be moved: {error}") from error


# Digests of files.


def write_digests(folder: Path) -> None:
    """Of a step that is about to be complete."""
    (folder / DIGESTS).write_text(json.dumps({"files": _digests(folder)}), encoding="utf-8")


def is_shown_damaged(folder: Path) -> bool:
    """Whether a file of a step is missing, or not what was saved."""
    try:
        kept = json.loads((folder / DIGESTS).read_bytes())["files"]
        digests = _digests(folder)
        return any(digests.get(path) != digest for path, digest in kept.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # then nothing is shown
        return False


def _digests(folder: Path) -> dict[str, str]:
    """{path: SHA-256} of the files in the folders of a step."""
    digests = {}
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(folder).as_posix()] = digest
    return digests


# The record.


def record_of(
    step: int, state: PyTree, history: Mapping[str, np.ndarray], **facts: Any
) -> dict[str, Any]:
    """What is saved beside the arrays."""
    leaves = leaf_table({"state": state, "history": dict(history)})
    record = {"format": FORMAT, "step": step, **facts, "leaves": leaves}
    return record | {"digest": digest_of(record)}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a step; DamagedError if it is not as it was saved, or not of this step."""
    record = json.loads((folder / RECORD).read_bytes())
    if record["format"] > FORMAT:
        raise CheckpointError(
            f"it has format {record['format']}, and this vaejax knows the formats up to {FORMAT};"
            " use the vaejax that saved it"
        )
    if record.pop("digest") != digest_of(record):
        raise DamagedError("its record does not match its digest")
    step = _step_of(record)
    if step is not None and step != int(folder.name):
        raise DamagedError(f"its record is that of step {step}")
    return record


def _step_of(record: dict) -> int | None:
    """Format 1 does not say it, but the history has a bound for each step."""
    if "step" in record:
        return record["step"]
    bound = record["leaves"].get(f"{HISTORY}['bound']")
    return None if bound is None else bound[0][0]


def run_of(record: dict) -> dict[str, Any]:
    """What the run was of."""
    if record["format"] == 1:
        return {name: record["config"][name] for name in OF_BEFORE if name in record["config"]}
    return record["of"]


def leaf_table(tree: PyTree, digests: bool = True) -> dict[str, list]:
    """path -> [shape, dtype, SHA-256 of the bytes]."""
    return {
        jax.tree_util.keystr(path): [
            list(leaf.shape),
            str(leaf.dtype),
            array_digest(leaf) if digests else None,
        ]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


# The arrays.


def read_arrays(folder: Path, record: dict, like: PyTree) -> tuple[PyTree, dict[str, np.ndarray]]:
    """(state, history) of a step, as host arrays; DamagedError if a digest says otherwise."""
    table = record["leaves"]
    history_like = {
        path.removeprefix(f"{HISTORY}['").removesuffix("']"): np.zeros(shape, dtype)
        for path, (shape, dtype, _) in table.items()
        if path.startswith(HISTORY)
    }
    # Zeros, not shapes: a template of host arrays restores to host arrays, whatever devices the
    # run was saved on.
    state = _read(folder / "state", jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like))
    history = _read(folder / "history", history_like) if history_like else {}
    for path, (_, _, digest) in leaf_table({"state": state, "history": history}).items():
        if digest != table[path][2]:
            raise DamagedError(f"the contents of {path} do not match their digest")
    return state, dict(history)


def _read(folder: Path, like: PyTree) -> PyTree:
    """By Orbax, without its manager, which would write into the folder that it opens."""
    import orbax.checkpoint as ocp  # takes a moment to import

    alone = waiting_for_none()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        return checkpointer.restore(folder, args=ocp.args.StandardRestore(like))


def waiting_for_none() -> Any:
    """Orbax's options for what one of several processes does alone: it waits for no other."""
    import orbax.checkpoint as ocp

    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process {this}"
    )
