"""The bound of held-out examples along a training, and the patience without a better one."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from vaejax.base.checks import require_count, shortened
from vaejax.base.devices import placed
from vaejax.base.mapping import Transformed, estimate, map_rows
from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import with_plain_numbers
from vaejax.data.base import Source
from vaejax.data.shares import map_blocks
from vaejax.data.sources import as_data, first_example
from vaejax.objectives.base import Objective, Reported
from vaejax.training.run import NonFiniteError, Run


@dataclass(frozen=True, eq=False)
class Validation:
    """Every `every` steps the mean bound over all of `data` is recorded, nats per example, each
    time with the same noise, and the parameters of the best are kept (`Run.best_params`).

    Training stops after `patience` validations without a better one, counted from the end of the
    objective's schedules, if it has any; with None it goes on. `data` are held-out examples, stored
    as those of the training: arrays, or a `vaejax.Source`. What is validated, and kept, are the
    parameters of the step, or `params_of(run)`, such as `vaejax.averaged_params`.
    """

    data: PyTree | Source
    every: int = 1_000
    patience: int | None = None
    params_of: Callable[[Run], Params] | None = None

    def __post_init__(self):
        with_plain_numbers(self)
        object.__setattr__(self, "data", as_data(self.data, "validation"))
        require_count(self.every, "Validation.every")
        if self.patience is not None:
            require_count(self.patience, "Validation.patience")
        if self.params_of is not None and not callable(self.params_of):
            raise TypeError(
                f"Validation.params_of = {shortened(self.params_of)} cannot be called; give a"
                " function of the run, such as vaejax.averaged_params"
            )


class NoValidator:
    """Where nothing is held out."""

    def check(self, params: Params) -> None:
        """Raises whatever the validation refuses, by shapes."""

    def caught_up(self, run: Run) -> Run:
        return run

    def is_out_of_patience(self, run: Run) -> bool:
        return False


class Validator(NoValidator):
    """A validation at work: of this bound, with this noise, from the step `settled` on."""

    def __init__(
        self, validation: Validation, bound: Transformed, key: Key, settled: int, sharding
    ):
        self.every, self._patience = validation.every, validation.patience
        self._bound, self._key, self._settled = bound, key, settled
        self._params_of = validation.params_of
        self._streamed = isinstance(validation.data, Source)
        self._data = validation.data if self._streamed else placed(validation.data, sharding)

    def check(self, params: Params) -> None:
        if self._params_of is not None:  # they are what a function of a later run gives
            return
        xs = first_example(self._data) if self._streamed else self._data
        x = jax.eval_shape(partial(jax.tree.map, lambda leaf: leaf[0]), xs)
        jax.eval_shape(self._bound, params, x, self._key)

    def caught_up(self, run: Run) -> Run:
        """The run with the validation of its step, if one is due and was not made."""
        was_made = run.step in run.history["validation_step"]
        is_due = run.step > 0 and run.step % self.every == 0
        return self.validated(run) if is_due and not was_made else run

    def validated(self, run: Run) -> Run:
        """The run with one more validation in its history, and its parameters kept if they are the
        best yet.
        """
        mapped = map_blocks if self._streamed else map_rows
        params = run.params if self._params_of is None else self._params_of(run)
        bound = estimate(mapped(self._bound, params, self._data, self._key)).mean
        if not np.isfinite(bound):
            raise NonFiniteError(f"step {run.step}: the validation bound is {bound}", run)
        previous = run.history["validation_bound"]
        is_best = bound > max(previous, default=-np.inf)
        history = run.history | {
            "validation_step": np.append(run.history["validation_step"], np.int32(run.step)),
            "validation_bound": np.append(previous, bound),
        }
        best_params = params if is_best else run.best_params
        return run._replace(history=history, best_params=best_params)

    def is_out_of_patience(self, run: Run) -> bool:
        """Whether the last validations were no better; those before the step `settled` do not
        count.
        """
        counted = run.history["validation_step"] >= self._settled
        bounds = run.history["validation_bound"][counted]
        return (
            self._patience is not None
            and len(bounds) > 0
            and len(bounds) - 1 - int(bounds.argmax()) >= self._patience
        )


def validator_of(
    validation: Validation | None,
    objective: Objective,
    transform: Callable | None,
    key: Key,
    sharding: Any,
) -> NoValidator:
    """The validation at work, or what does nothing where there is none."""
    if validation is None:
        return NoValidator()
    bound = Transformed(Reported(objective), transform)
    return Validator(validation, bound, key, settled_step(objective), sharding)


def settled_step(objective: Objective) -> int:
    """The step from which every weight has been where its schedule leads."""
    return max((schedule.length for _, schedule in objective.schedules), default=0)
