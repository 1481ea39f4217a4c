"""`fit`: maximise an objective by minibatch stochastic gradient ascent, many steps to one compiled
call.

The order of the data and all noise are functions of (key, step) alone. How many steps one call runs
is an argument of the compiled program, not a part of it: every cut of a run into calls gives the
same bits, a second run with the same shapes compiles nothing, and a call can be made as long as the
clock allows.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm.auto import tqdm

from vaejax.base.checks import require_count, require_key
from vaejax.base.devices import automatic, placed, under_mesh
from vaejax.base.processes import Processes, processes_of
from vaejax.base.types import Key, Params, PyTree
from vaejax.data.base import Source
from vaejax.objectives.base import Objective
from vaejax.training.arguments import (
    check_functions,
    check_mesh,
    check_nouns,
    check_params,
    data_for,
)
from vaejax.training.callbacks import Callback, Callbacks
from vaejax.training.calls import CallsOfFit
from vaejax.training.feeds import feed_of
from vaejax.training.interrupts import Signals
from vaejax.training.optimizers import ByStructure, skipped_steps, started, watched
from vaejax.training.run import (
    NO_HISTORY,
    NonFiniteError,
    Run,
    arrays_of,
    copied,
    hand_back,
    handed_out,
    with_arrays,
)
from vaejax.training.saving import Checkpoints, Saver, open_saver
from vaejax.training.sharding import ShardingRule, checked_rule, placed_by
from vaejax.training.trainer import Trainer
from vaejax.training.validation import NoValidator, Validation, validator_of


def fit(
    objective: Objective,
    params: Params,
    optimizer: optax.GradientTransformation,
    data: PyTree | Source,
    key: Key,
    *,
    num_steps: int,
    batch_size: int,
    transform: Callable[[PyTree, Key], PyTree] | None = None,
    validation: Validation | None = None,
    checkpoints: Checkpoints | None = None,
    mesh: Mesh | None = None,
    sharding: ShardingRule | None = None,
    callbacks: Sequence[Callback | Callable[[Run], Any]] = (),
    progress: bool = True,
) -> Run:
    """argmax_params E objective(params, batch, key, step), by `num_steps` steps of an Optax
    optimiser. Returns a `Run`.

    A step whose bound, gradient, parameters or optimiser state are not finite stops the run, before
    it: what starts infinite in a state may be so. `optax.apply_if_finite(optimizer, n)` skips steps
    whose bound or gradient is not finite instead, `vaejax.SkipSteps(optimizer, above)` also those
    whose gradient exploded; their bound stands in the history as it was, and a warning says how
    many there were.

    Whatever stops a run hands it back: Ctrl-C and SIGTERM, which wait for the call in hand, an
    error of the callback, of the data, of a validation or of the disk. The run so far is in the
    attribute `run` of the exception (`except KeyboardInterrupt as stopped: run = stopped.run`) and,
    where there are checkpoints, saved.

    Args:
      objective: such as `vaejax.minibatch(vaejax.Pathwise(), model)`. Its `Terms` are recorded,
        nats per example, and the second is maximised.
      optimizer: any of Optax. It gets the value, the gradient and the function of the batch where
        it asks for them, as `reduce_on_plateau` and `lbfgs` do; what it asks for beside them, as
        `dpsgd` and `lookahead` do, is refused.
      data: arrays with a leading axis of examples, which go to the device once, in their own dtype;
        or what stays on the host and is read there while the steps run, to the same bits: a
        `vaejax.Source`, a `np.memmap`, h5py's and Zarr's arrays, `tfds.data_source`, Grain's
        sources.
      transform: `transform(x, key)` of one stored example, applied inside the step: scaling,
        binarisation. One value has one program. A lambda, or a function whose cell is run again, is
        another value each time, and JAX keeps the program of each (about 15 MiB): name the function
        once, or write a `vaejax.component` with `__call__`, which equals any other of equal fields.
        The same holds for a function in an objective or in an optimiser. `jax.clear_caches()` lets
        go of all.
      validation: held-out examples, and how often and how patiently to look at them.
      checkpoints: where and how often to save the run, and whether to go on from there.
      mesh: each batch is sharded over the mesh's axis "data", and so are the examples that are
        read of a source; data that are arrays lie on each device. The devices may be those of all
        processes of a job, which then call `fit` alike: an error in one of them ends the others by
        an `OtherProcessError`, and one that is gone by a `LostProcessError`.
      sharding: how parameters and the optimiser's state lie on the mesh: whole on each device, or
        by `vaejax.FullyShardedDataParallel()` in parts.
      callbacks: each is called with the run so far after each compiled call, about once a second:
        functions of the run, or values such as `vaejax.CSVLog(path)`; see `vaejax.Callback`. One
        that raises `vaejax.StopTraining` ends the run, which is returned.

    Raises ValueError or TypeError before anything compiles if the arguments do not fit each other,
    NonFiniteError, a FloatingPointError, if training breaks down.
    """
    require_key(key)
    require_count(num_steps, "num_steps")
    require_count(batch_size, "batch_size")
    check_nouns(validation, checkpoints)
    check_functions(transform=transform)
    told = Callbacks(callbacks)
    check_mesh(mesh, batch_size)
    rule = checked_rule(sharding, mesh)
    check_params(params)
    processes = processes_of(mesh)
    with processes.together():
        data = data_for(objective, data, validation, transform, num_steps, batch_size)
    mesh = None if mesh is None else automatic(mesh)
    replicated = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    by_structure = ByStructure(optimizer)
    with under_mesh(mesh):
        order_key, noise_key, validation_key = jax.random.split(placed(key, replicated), 3)
        params = copied(placed(params, None))
        opt_state = started(by_structure, params)
    program = objective, by_structure, transform, mesh, batch_size
    trainer = Trainer(*program, watched(opt_state), rule)
    feed = feed_of(data, order_key, batch_size, num_steps, mesh)
    calls = CallsOfFit(trainer, feed, noise_key, processes)
    validator = validator_of(validation, objective, transform, validation_key, replicated)
    run = Run(params, opt_state, 0, NO_HISTORY, params if validation is not None else None)
    parts = {"objective": objective, "transform": transform, "optimizer": optimizer}
    with processes.together():
        opened = open_saver(checkpoints, key, batch_size, data, processes, **parts)
    with opened as saver, Signals() as signals:
        # What the steps and the validation refuse is refused before a file is looked at or made.
        with under_mesh(mesh), processes.together():
            calls.check(run.params, run.opt_state)
            validator.check(run.params)
        run = run if saver is None else saver.restored(run)
        run = with_arrays(run, placed_by(rule, mesh, arrays_of(run)))
        periods = [noun.every for noun in (validation, checkpoints) if noun is not None]
        course = _Course(run, calls, validator, saver, told, processes, signals, mesh, periods)
        try:
            course.complete(num_steps, progress)
        except NonFiniteError as error:
            course.keep(error.run, error)
            raise
        except BaseException as error:
            course.keep(course.run, error)
            raise
        finally:
            feed.close()
    warn_of_skipped(course.run.opt_state, course.run.step)
    return handed_out(course.run)


@dataclass
class _Course:
    """A run on its way to the last step: the calls of the steps, and between two of them what is
    due. `run` is as far as it has come, whatever stops it.
    """

    run: Run
    calls: CallsOfFit
    validator: NoValidator
    saver: Saver | None
    callbacks: Callbacks
    processes: Processes
    signals: Signals
    mesh: Mesh | None
    periods: list[int]  # of the validations and the checkpoints, in steps

    def complete(self, num_steps: int, progress: bool) -> None:
        """The steps that are left, unless patience, a signal or a callback ends the run before."""
        with self.processes.together():
            self.callbacks.start(self.run)
        # A run that was cut before a validation that was due has it first.
        with under_mesh(self.mesh):
            self._validate()
        with progress_bar(num_steps, self.run.step, progress) as bar:
            while self.run.step < num_steps and not self.validator.is_out_of_patience(self.run):
                if _agreed_to_stop(self.processes, self.calls, self.signals, self.callbacks):
                    break
                self._advance(_next_due(self.run.step, num_steps, self.periods), bar)
        if self.saver is not None:
            self.saver.finish(self.run)
        with self.processes.together():
            self.callbacks.finish()
        self.signals.raise_received()

    def _advance(self, end: int, bar: tqdm) -> None:
        """One call of the steps, and what is due after it."""
        with under_mesh(self.mesh):
            self.run = self.calls.advance(self.run, end)
            show(bar, self.run)
            self._validate()
        if self.saver is not None and self.saver.is_due(self.run.step):
            self.saver.save(self.run)
        with self.processes.together():
            self.callbacks(self.run)

    def _validate(self) -> None:
        with self.processes.together():
            self.run = self.validator.caught_up(self.run)

    def keep(self, run: Run, error: BaseException) -> None:
        """The run so far goes into the error and, where there are checkpoints, into one of them; if
        that fails too, the first error stays the one that is raised. Raises LostProcessError in
        place of one that says that another process is gone, without which nothing can be saved.
        """
        lost = self.processes.lost(error, None if self.saver is None else self.saver.last_step)
        if lost is not None:
            hand_back(lost, handed_out(run))
            self.callbacks.finish_after(lost)
            raise lost from error
        hand_back(error, handed_out(run))
        if self.saver is not None:
            try:
                self.saver.finish(run)
            except Exception as second:
                error.add_note(f"and it could not be saved: {type(second).__name__}: {second}")
        self.callbacks.finish_after(error)


def _agreed_to_stop(
    processes: Processes, calls: CallsOfFit, signals: Signals, callbacks: Callbacks
) -> bool:
    """Whether the run stops here, since any of the processes got a signal or a callback of any
    stopped it; else they agree on how many steps the next call has, the least count.

    They differ since clocks do, and since a signal may reach one process alone. All of them run the
    same program at the same time, or wait for each other for ever.
    """
    mine = calls.count, signals.received, callbacks.stopped
    counts, received, stops = zip(*processes.told(mine), strict=True)
    calls.count = min(counts)
    signals.received = max(filter(None, received), default=None)
    callbacks.stopped = any(stops)
    return bool(signals.received or callbacks.stopped)


def _next_due(step: int, num_steps: int, periods: list[int]) -> int:
    """The step of the next validation, the next checkpoint, or the end."""
    return min([num_steps, *(step - step % period + period for period in periods)])


def progress_bar(total: int, initial: int, progress: bool, description: str | None = None) -> tqdm:
    return tqdm(
        total=total,
        initial=initial,
        unit="step",
        desc=description,
        disable=not progress,
        dynamic_ncols=True,
    )


def show(bar: tqdm, run: Run) -> None:
    """Moves the bar on to the step of the run, beside the mean bound of the steps since then."""
    if bar.disable:
        return
    count = run.step - bar.n
    bounds = run.history["bound"][-count:]
    bounds = bounds[np.isfinite(bounds)]  # not those of steps that were skipped
    if len(bounds):
        bar.set_postfix(bound=f"{bounds.mean():.2f}", refresh=False)
    bar.update(count)


def warn_of_skipped(opt_state: PyTree, num_steps: int) -> None:
    """A warning that says how many steps the optimiser skipped, if any."""
    skipped = skipped_steps(opt_state)
    number = 0 if skipped is None else int(np.max(skipped))
    if number:
        warnings.warn(
            f"{number} of {num_steps} steps were skipped: their bound or gradient was not finite,"
            " or longer than vaejax.SkipSteps allows",
            stacklevel=3,
        )
