"""Verified checkpoints: what is restored is what was saved, bit for bit, or it is not restored.

A thin layer over Orbax's CheckpointManager, which saves atomically and in the background. It adds a
digest of every leaf, so that a damaged step is noticed, moved to `damaged/` and reported, and the
one before it used; and a comparison of the leaves and of the configuration, so that resuming as
another run stops with the difference named. No file is unpickled.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaejax.base.types import PyTree

FORMAT = 1


class CheckpointError(RuntimeError):
    """No step could be restored, or one could not be saved."""


class CheckpointMismatchError(ValueError):
    """The checkpoint belongs to another run: another model, configuration or data set."""


class CheckpointStore:
    """The checkpoints of one run, in `directory`. `config` is stored with each, and must be equal
    when one is restored.
    """

    def __init__(
        self,
        directory: str | Path,
        config: Mapping[str, Any] | None = None,
        max_to_keep: int | None = 3,
    ):
        # takes a moment to import, and most notebooks need none of it
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self.directory = Path(directory).resolve()
        self.config = json.loads(json.dumps(config or {}))
        # Deleting by renaming: a kill in the middle of a deletion would leave half a step that
        # still looks whole.
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep, todelete_subdir="trash"
        )
        self._manager = ocp.CheckpointManager(self.directory, options=self._options)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        """Waits for the last save and releases the directory."""
        self._manager.close()
        self._empty_trash()

    def wait(self) -> None:
        """Returns once every save is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, history: Mapping[str, np.ndarray]) -> None:
        """Saves in the background. `state` is copied to the host first, so its buffers may be
        donated at once.
        """
        args = self._ocp.args
        state, history = jax.device_get(state), {k: v for k, v in history.items() if v.size}
        record = {
            "format": FORMAT,
            "config": self.config,
            "leaves": _leaf_table({"state": state, "history": history}),
        }
        record["digest"] = _digest(record)
        items = {"state": args.StandardSave(state), "record": args.JsonSave(record)}
        if history:
            items["history"] = args.StandardSave(history)
        self.wait()  # the background thread may still be moving an old step into the trash
        self._empty_trash()
        if not self._manager.save(step, args=args.Composite(**items)):
            raise CheckpointError(
                f"step {step} was not saved: {self.directory} already holds step {self.steps()[-1]}"
            )

    def restore(self, like: PyTree) -> tuple[int, PyTree, dict[str, np.ndarray]] | None:
        """(step, state, history) of the newest intact step, as host arrays; None if there is none
        at all.

        `like` has the structure, shapes and dtypes to expect. A damaged step is moved aside with a
        warning and the one before it tried; a step of another run raises CheckpointMismatchError;
        if all are damaged, CheckpointError.
        """
        causes = []
        for step in reversed(self.steps()):
            try:
                return step, *self._restore(step, like)
            except CheckpointMismatchError:
                raise
            except Exception as error:  # damaged files make Orbax raise almost anything
                causes.append(
                    f"step {step}: {type(error).__name__}:"
                    f" {str(error).splitlines()[0][:200] if str(error) else ''}"
                )
                self._quarantine(step)
                warnings.warn(
                    f"checkpoint damaged, moved to {self.directory / 'damaged'}: {causes[-1]}",
                    stacklevel=2,
                )
        if causes:
            raise CheckpointError(f"no intact checkpoint in {self.directory}; " + "; ".join(causes))
        return None

    def read(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, np.ndarray]]:
        """(state, history) of one step, whatever its configuration, for looking back;
        CheckpointError if it is damaged.
        """
        try:
            return self._restore(step, like, any_config=True)
        except (CheckpointError, CheckpointMismatchError):
            raise
        except Exception as error:  # damaged files make Orbax raise almost anything
            raise CheckpointError(
                f"step {step} in {self.directory} is damaged: {type(error).__name__}"
            ) from error

    def _restore(self, step: int, like: PyTree, any_config: bool = False):
        args, manager = self._ocp.args, self._manager
        record = manager.restore(step, args=self._ocp.args.Composite(record=args.JsonRestore()))[
            "record"
        ]
        if record.pop("digest") != _digest(record):
            raise CheckpointError("its record does not match its digest")
        table = record["leaves"]
        _require_same(
            step,
            "model",
            _shapes(_leaf_table({"state": like}, digests=False)),
            _shapes(table, "['state']"),
        )
        if not any_config:
            _require_same(step, "configuration", self.config, record["config"])
        history_like = {
            path.removeprefix("['history']['").removesuffix("']"): np.zeros(shape, dtype)
            for path, (shape, dtype, _) in table.items()
            if path.startswith("['history']")
        }
        # Zeros, not shapes: a template of host arrays restores to host arrays, whatever devices the
        # run was saved on.
        items = {
            "state": args.StandardRestore(
                jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
            )
        }
        if history_like:
            items["history"] = args.StandardRestore(history_like)
        restored = manager.restore(step, args=args.Composite(**items))
        state, history = restored["state"], restored["history"] if history_like else {}
        for path, (_, _, digest) in _leaf_table({"state": state, "history": history}).items():
            if digest != table[path][2]:
                raise CheckpointError(f"the contents of {path} do not match their digest")
        return state, dict(history)

    def _quarantine(self, step: int) -> None:
        """Moves a step aside; left in place it would still be the latest, and Orbax would refuse to
        save below it.
        """
        self._manager.close()
        target = self.directory / "damaged" / str(step)
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(self.directory / str(step), target)
        self._manager = self._ocp.CheckpointManager(self.directory, options=self._options)

    def _empty_trash(self) -> None:
        shutil.rmtree(self.directory / "trash", ignore_errors=True)


def _leaf_table(tree: PyTree, digests: bool = True) -> dict[str, list]:
    """path -> [shape, dtype, sha256 of the bytes]."""
    table = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest = (
            hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest() if digests else None
        )
        table[jax.tree_util.keystr(path)] = [list(leaf.shape), str(leaf.dtype), digest]
    return table


def _shapes(table: dict[str, list], prefix: str = "") -> dict[str, Any]:
    return {
        path: [shape, dtype] for path, (shape, dtype, _) in table.items() if path.startswith(prefix)
    }


def _digest(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _require_same(step: int, what: str, now: Mapping, saved: Mapping) -> None:
    differences = [
        f"{name}: saved {saved.get(name, 'nothing')}, now {now.get(name, 'nothing')}"
        for name in sorted({*now, *saved})
        if now.get(name) != saved.get(name)
    ]
    if differences:
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise CheckpointMismatchError(
            f"step {step} was saved with another {what}: " + "; ".join(differences[:5]) + more
        )
