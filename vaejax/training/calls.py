"""The calls of the compiled steps, many steps to each, and the diagnosis where one breaks down."""

import time
from contextlib import suppress
from typing import NamedTuple

import jax
import numpy as np

from vaejax.base.processes import ALONE, Processes
from vaejax.base.types import Key, Params, PyTree, Terms
from vaejax.training.feeds import Examples, Feed, padded
from vaejax.training.optimizers import skipped_steps
from vaejax.training.run import NonFiniteError, Record, Run, first_non_finite, recorded
from vaejax.training.trainer import Trainer, keys_of_step, run_steps, terms_and_gradient

# What the number of steps in a call aims at: how soon the progress bar and Ctrl-C are answered.
SECONDS_PER_CALL = 1.0


def next_count(count: int, seconds: float) -> int:
    """The number of steps of the next call; at most ten times as many, since the first call's time
    is the compiler's.
    """
    return min(10 * count, max(1, int(count * SECONDS_PER_CALL / seconds)))


class Call(NamedTuple):
    """The steps start, ..., end - 1, which the device is at, or has done: their examples, and what
    they give, `finite` for whether parameters and state are so at the end.
    """

    start: int
    end: int
    examples: Examples
    params: Params
    opt_state: PyTree
    record: Record
    finite: jax.Array


class Calls:
    """The calls of a run one after another, each about a second long. Where nothing is due after
    one, the device has the next already while the host reads the record of this one.

    `count` is the number of steps that a call begun now has at most.
    """

    begins_ahead = True

    def __init__(self):
        self.count = 1
        self._ahead: Call | None = None

    def steps_from(self, step: int) -> int:
        """How many steps a call from this one on can have at most."""
        raise NotImplementedError(f"{type(self).__name__}.steps_from")

    def check(self, params: Params, opt_state: PyTree) -> None:
        """Raises whatever the steps refuse, by shapes: they are traced, which the first call need
        not do again, and nothing is compiled.
        """
        raise NotImplementedError(f"{type(self).__name__}.check")

    def begin(self, params: Params, opt_state: PyTree, start: int, count: int) -> Call:
        """Gives the device so many steps, and does not wait for it."""
        raise NotImplementedError(f"{type(self).__name__}.begin")

    def complete(self, run: Run, call: Call) -> Run:
        """The run after a call; NonFiniteError if one of its steps broke down."""
        raise NotImplementedError(f"{type(self).__name__}.complete")

    def advance(self, run: Run, due: int) -> Run:
        """The run one call later, at step `due` or before."""
        began = time.perf_counter()
        call = self._ahead or self._begun(run.params, run.opt_state, run.step, due)
        self._ahead = None
        if self.begins_ahead and call.end < due:
            # What goes wrong here does so again when it is the turn of these steps.
            with suppress(Exception):
                self._ahead = self._begun(call.params, call.opt_state, call.end, due)
        run = self.complete(run, call)
        self.count = next_count(call.end - call.start, time.perf_counter() - began)
        return run

    def _begun(self, params: Params, opt_state: PyTree, start: int, due: int) -> Call:
        count = min(self.count, self.steps_from(start), due - start)
        return self.begin(params, opt_state, start, count)


class CallsOfFit(Calls):
    """Those of `fit`."""

    def __init__(self, trainer: Trainer, feed: Feed, noise_key: Key, processes: Processes = ALONE):
        super().__init__()
        self._trainer, self._feed, self._noise_key = trainer, feed, noise_key
        self._processes = processes
        # Several processes agree on each call before any of them begins it.
        self.begins_ahead = not processes.are_several

    def steps_from(self, step: int) -> int:
        return self._feed.steps_from(step)

    def check(self, params: Params, opt_state: PyTree) -> None:
        state = self._trainer, params, opt_state
        run_steps.eval_shape(*state, *self._feed.form(), self._noise_key, 0, 1)

    def begin(self, params: Params, opt_state: PyTree, start: int, count: int) -> Call:
        with self._processes.together():
            examples = self._feed.examples(start, count)
        results = run_steps(
            self._trainer, params, opt_state, *examples, self._noise_key, start, count
        )
        return Call(start, start + count, examples, *results)

    def complete(self, run: Run, call: Call) -> Run:
        count = call.end - call.start
        record = jax.tree.map(lambda values: values[:count], jax.device_get(call.record))
        if not call.finite or not are_acceptable(record, call.opt_state):
            rows = self._feed.order.rows(call.start, call.end)
            raise diagnosis(self._trainer, run, call.examples, rows, self._noise_key)
        history = recorded(run.history, record)
        return Run(call.params, call.opt_state, call.end, history, run.best_params)


def are_acceptable(terms: Terms | Record, opt_state: PyTree) -> bool:
    """Whether a bound or an objective that is not finite has moved nothing: all are finite, or
    the optimiser skipped their steps.
    """
    finite = np.isfinite(terms.bound).all() and np.isfinite(terms.objective).all()
    return bool(finite) or skipped_steps(opt_state) is not None


def diagnosis(
    trainer: Trainer, run: Run, examples: Examples, rows: np.ndarray, noise_key: Key
) -> NonFiniteError:
    """The error that names the first step at fault, found by running the call again one step at a
    time.

    So the check costs the training step nothing.
    """
    first = run.step
    for i, batch in enumerate(rows):
        fault, following = _one_step(trainer, run, examples, i, noise_key)
        if fault is not None:
            message = f"step {run.step}: {fault} is not finite; rows of the batch: {batch.tolist()}"
            return NonFiniteError(message, run)
        run = following
    return NonFiniteError(
        f"steps {first}..{run.step - 1}: not finite once, but finite when run again", run
    )


def _one_step(
    trainer: Trainer, run: Run, examples: Examples, i: int, noise_key: Key
) -> tuple[str | None, Run]:
    """What of step i of the call is not finite, if anything, and the run after it."""
    data, places = examples
    keys = keys_of_step(noise_key, run.step)
    terms, gradient = terms_and_gradient(trainer, run.params, data, places[i], keys, run.step)
    place = padded(places[i : i + 1], len(places))
    params, opt_state, record, finite = run_steps(
        trainer, run.params, run.opt_state, data, place, noise_key, run.step, 1
    )
    fault = None
    if not finite or not are_acceptable(terms, opt_state):
        fault = (
            first_non_finite(terms, "the ")
            or first_non_finite(gradient, "the gradient of ")
            or first_non_finite(params, "the update of ")
            or first_non_finite(
                trainer.watched_of(opt_state),
                f"the bound is {float(terms.bound):.3g}, and the optimiser's state ",
            )
        )
    record = jax.tree.map(lambda values: values[:1], jax.device_get(record))
    history = recorded(run.history, record)
    return fault, Run(params, opt_state, run.step + 1, history, run.best_params)
