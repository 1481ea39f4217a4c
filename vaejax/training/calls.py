"""One call of the compiled steps: many of them at once, and the diagnosis where one breaks down."""

import jax
import numpy as np

from vaejax.base.types import Key, PyTree, Terms
from vaejax.training.feeds import Examples, Feed, padded
from vaejax.training.optimizers import skipped_steps
from vaejax.training.run import NonFiniteError, Record, Run, first_non_finite, recorded
from vaejax.training.trainer import Trainer, run_steps, terms_and_gradient

# What the number of steps in a call aims at: how soon the progress bar and Ctrl-C are answered.
SECONDS_PER_CALL = 1.0


def next_count(count: int, seconds: float) -> int:
    """The number of steps of the next call; at most ten times as many, since the first call's time
    is the compiler's.
    """
    return min(10 * count, max(1, int(count * SECONDS_PER_CALL / seconds)))


def advance(trainer: Trainer, run: Run, feed: Feed, noise_key: Key, count: int) -> Run:
    """The run `count` steps later; NonFiniteError if one of them breaks down."""
    examples = feed.examples(run.step, count)
    params, opt_state, record, finite = run_steps(
        trainer, run.params, run.opt_state, *examples, noise_key, run.step, count
    )
    record = jax.tree.map(lambda values: values[:count], jax.device_get(record))
    if not finite or not are_acceptable(record, opt_state):
        rows = feed.order.rows(run.step, run.step + count)
        raise diagnosis(trainer, run, examples, rows, noise_key)
    return Run(params, opt_state, run.step + count, recorded(run.history, record), run.best_params)


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
    terms, gradient = terms_and_gradient(trainer, run.params, data, places[i], noise_key, run.step)
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
