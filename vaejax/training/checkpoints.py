"""Verified checkpoints: what is restored is what was saved, bit for bit, or it is not restored.

A thin layer over Orbax's CheckpointManager, which saves atomically and in the background. It adds a
digest of every leaf and file, so that a damaged step is noticed, moved to `damaged/` and reported,
and the one before it used; and a comparison of the leaves, of the configuration and of what the run
is of, so that resuming as another run stops with the difference named. No file is unpickled.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vaejax.base.compare import differences, told
from vaejax.base.devices import fetched
from vaejax.base.files import nameable
from vaejax.base.types import PyTree
from vaejax.training.saved_step import (
    CheckpointError,
    DamagedError,
    folders_of_steps,
    is_ours,
    is_shown_damaged,
    leaf_table,
    move_aside,
    read_arrays,
    read_record,
    record_of,
    run_of,
    waiting_for_none,
    write_digests,
)

TRASH = "vaejax-trash"  # of steps that are being deleted
DAMAGED = "damaged"  # where such steps go when the next one is saved


class CheckpointMismatchError(ValueError):
    """The checkpoint belongs to another run: another model, configuration or data set. `parts` are
    the names of what differs.
    """

    def __init__(self, message: str, parts: tuple[str, ...] = ()):
        super().__init__(message)
        self.parts = parts


class CheckpointStore:
    """The checkpoints of one run, in `directory`. `config`, and what the run is `of`, are stored
    with each, and must be equal when one is restored.

    Nothing is written before the first step is saved, or `open` is called. Reading writes nothing.
    """

    def __init__(
        self,
        directory: str | Path,
        config: Mapping[str, Any] | None = None,
        max_to_keep: int | None = 3,
        origin: Mapping[str, Any] | None = None,
    ):
        self.directory = nameable(directory, "folder").resolve()
        self.config = json.loads(json.dumps(config or {}))
        self.origin = json.loads(json.dumps(origin or {}))
        self._max_to_keep = max_to_keep
        self._manager: Any = None
        self._saving = 0  # the step that is being saved
        self._damaged: list[int] = []  # the steps that `restore` has found to be so
        self._told_of_before = False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def require_writable(self) -> None:
        """Raises ValueError for a folder with other folders that Orbax would take for steps, and
        delete; CheckpointError for one that cannot be made or written. Nothing is made.
        """
        self.require_own()
        above = self.directory.parents
        nearest = next(path for path in (self.directory, *above) if os.path.lexists(path))
        if not nearest.is_dir():
            raise CheckpointError(f"{self.directory} cannot be made: {nearest} is a file")
        if not os.access(nearest, os.W_OK | os.X_OK):  # Orbax would find it out at the first save
            raise CheckpointError(f"{nearest} cannot be written to; name another folder")

    def open(self) -> None:
        """Makes the folder ready to be saved into, what `restore` found damaged being moved aside:
        left in place it would still be the latest, and Orbax would refuse to save below it. Raises
        what `require_writable` raises.
        """
        # takes a moment to import, and most notebooks need none of it
        import orbax.checkpoint as ocp

        if self._manager is not None:
            return
        self.require_writable()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._max_to_keep,
            # Deleting by renaming: a kill in the middle of a deletion would leave half a step that
            # still looks whole.
            todelete_subdir=TRASH,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
            create=False,  # it is made below
            multiprocessing_options=waiting_for_none(),
        )
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be made: {error}") from error
        while self._damaged:
            move_aside(self.directory / str(self._damaged.pop()), self.directory / DAMAGED)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def close(self) -> None:
        """Waits for the last save and releases the directory."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None
            self._empty_trash()

    def wait(self) -> None:
        """Returns once every save is on disk. CheckpointError where one went wrong, such as on a
        disk that is full.
        """
        if self._manager is not None:
            with self._told():
                self._manager.wait_until_finished()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """An error of Orbax's, of any kind and length, is a CheckpointError that says the step."""
        try:
            yield
        except Exception as error:
            raise CheckpointError(
                f"step {self._saving} could not be saved in {self.directory}, so the steps before"
                f" it are the last: {_cause(error)}"
            ) from error

    def require_own(self) -> None:
        """Raises ValueError for a folder that holds others' folders by the name of a step."""
        strangers = [path for path in self._folders() if not is_ours(path)]
        if strangers:
            raise ValueError(
                f"{self.directory} holds a folder {strangers[0].name} that is not a checkpoint of"
                " vaejax, and would be taken for a step; name a folder that holds only checkpoints"
            )

    def steps(self) -> list[int]:
        """Those that were saved, and the one that is being saved."""
        if self._manager is not None:
            return sorted(self._manager.all_steps())
        return [int(path.name) for path in self._folders() if is_ours(path)]

    def save(self, step: int, state: PyTree, history: Mapping[str, np.ndarray]) -> None:
        """Saves in the background. `state` is copied to the host first, so its buffers may be
        donated at once.
        """
        import orbax.checkpoint as ocp

        state, history = fetched(state), {k: v for k, v in history.items() if v.size}
        record = record_of(step, state, history, config=self.config, of=self.origin)
        items = {"state": ocp.args.StandardSave(state), "record": ocp.args.JsonSave(record)}
        if history:
            items["history"] = ocp.args.StandardSave(history)
        self.open()
        self.wait()  # the background thread may still be moving an old step into the trash
        self._empty_trash()
        self._saving = step
        with self._told():
            is_saved = self._manager.save(step, args=ocp.args.Composite(**items))
        if not is_saved:
            raise CheckpointError(
                f"step {step} was not saved: {self.directory} already holds step {self.steps()[-1]}"
            )

    def restore(self, like: PyTree) -> tuple[int, PyTree, dict[str, np.ndarray]] | None:
        """(step, state, history) of the newest intact step, as host arrays; None if there is none
        at all.

        `like` has the structure, shapes and dtypes to expect. Damaged steps after it are warned of,
        and moved aside by `open`. A step of another run raises CheckpointMismatchError; if all are
        damaged, or one cannot be read and is as it was saved, CheckpointError.
        """
        self.require_own()
        damaged: dict[int, DamagedError] = {}
        for step in reversed(self.steps()):
            try:
                state, history = self._read(step, like)
            except DamagedError as error:
                damaged[step] = error
                continue
            for error in damaged.values():
                place = self.directory / DAMAGED
                warnings.warn(f"checkpoint damaged, goes to {place}: {error}", stacklevel=2)
            self._damaged = [*damaged]
            return step, state, history
        if damaged:
            causes = "; ".join(map(str, damaged.values()))
            remedy = "name another folder to begin anew"
            raise CheckpointError(f"no intact checkpoint in {self.directory}: {remedy}; {causes}")
        return None

    def read(
        self, step: int, like: PyTree, common: bool = True
    ) -> tuple[PyTree, dict[str, np.ndarray]]:
        """(state, history) of one step, for looking back: with `common`, what one of the two
        configurations does not say may be anything. CheckpointError if it cannot be read.
        """
        return self._read(step, like, common)

    def _read(self, step: int, like: PyTree, common: bool = False):
        """DamagedError where damage is shown; CheckpointError for any other reason why a step
        cannot be read: damaged files, and much else, make Orbax raise almost anything.
        """
        folder = self.directory / str(step)
        try:
            record = read_record(folder)
            self._require_same(step, record, like, common)
            return read_arrays(folder, record, like)
        except CheckpointMismatchError:
            raise
        except DamagedError as error:
            raise DamagedError(f"step {step}: {error}") from error
        except Exception as error:
            cause = _cause(error)
            if is_shown_damaged(folder):
                raise DamagedError(f"step {step}: {cause}") from error
            raise CheckpointError(
                f"step {step} in {self.directory} cannot be read, and no damage is shown, so it"
                f" stays where it is: {cause}"
            ) from error

    def _require_same(self, step: int, record: dict, like: PyTree, common: bool) -> None:
        """Raises CheckpointMismatchError for a step of another run."""
        saved = run_of(record)
        now = {name: part for name, part in self.origin.items() if name in saved}
        # Format 1 kept what a run is of among its configuration.
        config = self.config | (now if record["format"] == 1 else {})
        names = {*config} & {*record["config"]} if common else {*config, *record["config"]}
        configs = ({k: part[k] for k in names & {*part}} for part in (record["config"], config))
        _compare(step, "with another configuration", *configs)
        _compare(step, "by another run", {name: saved[name] for name in now}, now)
        model = _shapes(leaf_table({"state": like}, digests=False))
        _compare(step, "with another model", _shapes(record["leaves"], "['state']"), model)
        if now.keys() != self.origin.keys() and not self._told_of_before:
            self._told_of_before = True
            unknown = ", ".join(name for name in self.origin if name not in now)
            warnings.warn(
                f"{self.directory} was saved by an earlier revision, which kept no {unknown}: they"
                " could not be compared",
                stacklevel=2,
            )

    def _folders(self) -> list[Path]:
        try:
            return folders_of_steps(self.directory)
        except OSError as error:
            raise CheckpointError(f"{self.directory} cannot be read: {error}") from error

    def _write_digests(self) -> None:
        """Called by Orbax when the files of a step are written, and before it has its name: so it
        has its digests when it is seen.
        """
        for folder in self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"):
            write_digests(folder)

    def _empty_trash(self) -> None:
        shutil.rmtree(self.directory / TRASH, ignore_errors=True)


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def clear(directory: Path) -> None:
    """Deletes the steps in a folder, and the folder where nothing else is in it."""
    for folder in filter(is_ours, folders_of_steps(directory)):
        shutil.rmtree(folder)
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _shapes(table: dict[str, list], prefix: str = "") -> dict[str, Any]:
    return {
        path: [shape, dtype] for path, (shape, dtype, _) in table.items() if path.startswith(prefix)
    }


def _compare(step: int, how: str, saved: Mapping, now: Mapping) -> None:
    lines = {
        name: differences(saved.get(name, "nothing"), now.get(name, "nothing"), name)
        for name in sorted({*saved, *now})
    }
    parts = tuple(name for name in lines if lines[name])
    if parts:
        message = told([line for name in parts for line in lines[name]])
        raise CheckpointMismatchError(f"step {step} was saved {how}: {message}", parts)
