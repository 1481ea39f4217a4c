"""The checkpoints of a training: what `fit` saves, goes on from, and shows afterwards."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from vaejax.base.checks import require_count
from vaejax.base.describe import description
from vaejax.base.devices import fetched
from vaejax.base.processes import ALONE, Processes
from vaejax.base.settings import settings_of_numbers
from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import with_plain_numbers
from vaejax.data.base import Source
from vaejax.data.sources import digest_of_data
from vaejax.objectives.base import Objective
from vaejax.training.checkpoints import CheckpointError, CheckpointStore
from vaejax.training.optimizers import ByStructure, started
from vaejax.training.run import NO_HISTORY, Run, arrays_of, completed, handed_out, with_arrays


@dataclass(frozen=True)
class Checkpoints:
    """The run is saved in `folder` every `every` steps, at its end, and on Ctrl-C or SIGTERM, which
    then leave by KeyboardInterrupt or SystemExit(143). The newest `max_to_keep` stay; None keeps
    all.

    With `resume` the run goes on from the newest intact checkpoint, if there is one, to the same
    bits. `config`, of JSON's types, is stored in each and must then be equal; so must the data, the
    key, the batch size, the objective, the transform and the optimiser, which are stored anyway, by
    their descriptions, and JAX's settings of precision and of random numbers. Free are the number
    of steps, the validation, the mesh and the callbacks. Several processes that train
    together name one folder, which all of them see: the first writes, and all read.
    """

    folder: str | Path
    every: int = 1_000
    resume: bool = False
    config: Mapping[str, Any] | None = None
    max_to_keep: int | None = 3

    def __post_init__(self):
        with_plain_numbers(self)
        require_count(self.every, "Checkpoints.every")
        if self.max_to_keep is not None:
            require_count(self.max_to_keep, "Checkpoints.max_to_keep")


class Saver:
    """Checkpoints at work, of such a run. Of several processes the first writes, and all read."""

    def __init__(self, checkpoints: Checkpoints, origin: Mapping[str, Any], processes: Processes):
        self.every, self._resume = checkpoints.every, checkpoints.resume
        self._processes, self._saved = processes, 0
        self._store = CheckpointStore(
            checkpoints.folder, checkpoints.config, checkpoints.max_to_keep, origin
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._store.close()

    def restored(self, run: Run) -> Run:
        """The run of the newest checkpoint, or `run` where there is none; ValueError where there is
        one and it is not to be resumed, CheckpointError where it could not be saved. The folder is
        made when the first step is saved.
        """
        store, newest = self._store, None
        with self._processes.together():
            if store.steps() and not self._resume:
                raise ValueError(
                    f"{store.directory} already holds step {store.steps()[-1]}: resume, by"
                    " vaejax.Checkpoints(..., resume=True), or name another folder"
                )
        with self._processes.together():
            if self._processes.is_first:  # one of them warns of what is damaged
                store.require_writable()
                newest = store.restore(arrays_of(run))
        step = self._processes.told(None if newest is None else newest[0])[0]
        if step is None:
            return run
        with self._processes.together():
            _, arrays, history = newest or (step, *store.read(step, arrays_of(run), common=False))
        self._saved = step
        return with_arrays(run._replace(step=step, history=completed(history)), arrays)

    @property
    def last_step(self) -> int | None:
        """The newest that was saved."""
        return max(self._store.steps(), default=None)

    def is_due(self, step: int) -> bool:
        return step % self.every == 0

    def save(self, run: Run) -> None:
        arrays = fetched(arrays_of(run))  # by all processes, of parts that lie with each
        with self._processes.together():
            if self._processes.is_first:
                self._store.save(run.step, arrays, run.history)
        self._saved = run.step

    def finish(self, run: Run) -> None:
        """Saves the run as it is, unless that was done or no step was, and waits for the disk."""
        if run.step != self._saved:
            self.save(run)
        with self._processes.together():
            self._store.wait()


def open_saver(
    checkpoints: Checkpoints | None,
    key: Key,
    batch_size: int,
    data: PyTree | Source,
    processes: Processes = ALONE,
    **parts: Any,
) -> AbstractContextManager[Saver | None]:
    """The saver of a run, with all that must be the same for it to be continued: `parts` are what
    it computes with, by name.
    """
    if checkpoints is None:
        return nullcontext()
    described = {name: description(part) for name, part in parts.items()}
    own = {
        "batch_size": int(batch_size),
        "key": jax.random.key_data(key).tolist(),
        "settings": settings_of_numbers(),
    }
    return Saver(checkpoints, {**own, "data": digest_of_data(data), **described}, processes)


def saved_runs(
    folder: str | Path,
    objective: Objective,
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    transform: Callable[[PyTree, Key], PyTree] | None,
    validated: bool,
    data: PyTree | Source | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[int, Run]:
    """{step: the run at that step}, of what `fit` has kept in `Checkpoints(folder)`; `validated` if
    it had a validation. Nothing in the folder changes.

    `params` and `optimizer` are like those that it started from. Another objective or transform,
    and with it another model, raises CheckpointMismatchError that names the difference; so do other
    `data`, and other values of what both configurations say, where they are given. A step that
    cannot be read is left out with a warning; if all are, CheckpointError.
    """
    if not Path(folder).is_dir():
        raise ValueError(
            f"{folder} is not a folder of checkpoints; name the one that fit was given"
        )
    opt_state = started(ByStructure(optimizer), params)
    like = Run(params, opt_state, 0, NO_HISTORY, params if validated else None)
    origin = {"objective": description(objective), "transform": description(transform)}
    if data is not None:
        origin["data"] = digest_of_data(data)
    store, runs, causes = CheckpointStore(folder, config, origin=origin), {}, []
    for step in store.steps():
        try:
            arrays, history = store.read(step, arrays_of(like))
        except CheckpointError as error:
            causes.append(str(error))
            warnings.warn(f"a checkpoint is left out: {error}", stacklevel=2)
            continue
        run = like._replace(step=step, history=completed(history))
        runs[step] = handed_out(with_arrays(run, arrays))
    if causes and not runs:
        raise CheckpointError(f"no intact checkpoint in {folder}; " + "; ".join(causes))
    return runs
