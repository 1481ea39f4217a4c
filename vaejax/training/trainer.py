"""The compiled step, and the run that it advances."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vaejax.base.types import Key, Params, PyTree, Terms
from vaejax.base.values import component
from vaejax.data.base import batch_rows
from vaejax.objectives.base import Objective, terms_of
from vaejax.training.optimizers import ByStructure

STEPS_PER_CALL = (
    1_000  # at most; the array of rows is made for so many, so another number is another program
)


# what the number of steps in a call aims at: how soon the progress bar and Ctrl-C are answered
SECONDS_PER_CALL = 1.0


class Run(NamedTuple):
    """What `fit` returns. `best_params` are those of the best validation, None where there was
    none.

    `history` holds host arrays: `bound` [step], the value on each minibatch before its update, nats
    per example; `objective` [step], what was maximised, where that is something else (`Terms`);
    `validation_step` and `validation_bound` [v].
    """

    params: Params
    opt_state: PyTree
    step: int
    history: dict[str, np.ndarray]
    best_params: Params | None = None


NO_HISTORY = {
    "bound": np.zeros(0, np.float32),
    "validation_step": np.zeros(0, np.int32),
    "validation_bound": np.zeros(0, np.float64),
}


class NonFiniteError(FloatingPointError):
    """A bound or a gradient was NaN or infinite. `run` is the run before that step."""

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run


@component
class Trainer:
    """The compiled step and all that it is compiled for. `advance` runs `count` of them."""

    objective: Objective
    optimizer: ByStructure
    transform: Callable[[PyTree, Key], PyTree] | None
    mesh: Mesh | None
    batch_size: int

    def value(
        self, params: Params, data: PyTree, rows: jax.Array, noise_key: Key, step: jax.Array
    ) -> Any:
        """The objective at one step: a bound, or Terms."""
        transform_key, objective_key = jax.random.split(jax.random.fold_in(noise_key, step))
        xs = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), data)
        if self.transform is not None:
            xs = jax.vmap(self.transform)(xs, jax.random.split(transform_key, self.batch_size))
        if self.mesh is not None:
            xs = jax.lax.with_sharding_constraint(
                xs, NamedSharding(self.mesh, PartitionSpec("data"))
            )
        return terms_of(self.objective, params, xs, objective_key, step)

    def value_and_gradient(self, params: Params, *args) -> tuple[Any, Params]:
        """The objective at one step, and the gradient of what it maximises."""

        def maximised(params):
            value = self.value(params, *args)
            return value.objective, value

        (_, value), gradient = jax.value_and_grad(maximised, has_aux=True)(params)
        return value, gradient

    def rows(self, data: PyTree, order_key: Key, start: int, count: int) -> np.ndarray:
        """The examples of `count` steps from step `start`, in an array for as many steps as any
        call has.
        """
        rows = np.zeros((STEPS_PER_CALL, self.batch_size), np.int32)
        rows[:count] = batch_rows(
            order_key, len(jax.tree.leaves(data)[0]), self.batch_size, start, start + count
        )
        return rows

    def advance(self, run: Run, data: PyTree, order_key: Key, noise_key: Key, count: int) -> Run:
        rows = self.rows(data, order_key, run.step, count)
        before = copied((run.params, run.opt_state))
        params, opt_state, values, finite = run_steps(
            self, run.params, run.opt_state, data, rows, noise_key, run.step, count
        )
        values = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], values)
        if not (finite and _first_non_finite(values) is None):
            params, opt_state = before
            raise self.diagnosis(
                run._replace(params=params, opt_state=opt_state), data, rows, noise_key, count
            )
        return run._replace(
            params=params,
            opt_state=opt_state,
            step=run.step + count,
            history=recorded(run.history, values),
        )

    def diagnosis(
        self, run: Run, data: PyTree, rows: np.ndarray, noise_key: Key, count: int
    ) -> NonFiniteError:
        """The error that names the first step at fault, found by running the call again one step at
        a time.

        So the check costs the training step nothing.
        """
        for i in range(count):
            value, gradient = _value_and_gradient(
                self, run.params, data, rows[i], noise_key, run.step
            )
            fault = _first_non_finite(value, "the ") or _first_non_finite(
                gradient, "the gradient of "
            )
            one = np.tile(rows[i], (len(rows), 1))
            params, opt_state, _, finite = run_steps(
                self, *copied((run.params, run.opt_state)), data, one, noise_key, run.step, 1
            )
            if fault is None and not finite:
                fault = _first_non_finite(params, "the update of ")
            if fault is not None:
                return NonFiniteError(
                    f"step {run.step}: {fault} is not finite; rows of the batch:"
                    f" {rows[i].tolist()}",
                    run,
                )
            history = recorded(
                run.history, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32)[None], value)
            )
            run = run._replace(
                params=params, opt_state=opt_state, step=run.step + 1, history=history
            )
        return NonFiniteError(
            f"steps {run.step - count}..{run.step - 1}: not finite once, but finite when run again",
            run,
        )


@partial(jax.jit, static_argnames="trainer", donate_argnames=("params", "opt_state"))
def run_steps(trainer: Trainer, params, opt_state, data, rows, noise_key, start, count):
    """`count` steps from step `start`, step i on the examples rows[i]: new parameters, optimiser
    state, values, all finite.
    """

    def step(i, carry):
        params, opt_state, values = carry
        value, gradient = trainer.value_and_gradient(params, data, rows[i], noise_key, start + i)
        # Optax minimises: this is the one minus sign.
        updates, opt_state = trainer.optimizer.update(
            jax.tree.map(jnp.negative, gradient), opt_state, params
        )
        values = jax.tree.map(
            lambda all_steps, one: all_steps.at[i].set(one.astype(all_steps.dtype)), values, value
        )
        return optax.apply_updates(params, updates), opt_state, values

    one = jax.eval_shape(
        trainer.value, params, data, rows[0], noise_key, start
    )  # whether it is a bound alone, or Terms
    carry = jax.lax.fori_loop(
        0, count, step, (params, opt_state, jax.tree.map(lambda _: jnp.zeros(rows.shape[0]), one))
    )
    return *carry, jax.tree.reduce(
        jnp.logical_and, jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), carry[0]), True
    )


@partial(jax.jit, static_argnames="trainer")
def _value_and_gradient(trainer: Trainer, *args):
    return trainer.value_and_gradient(*args)


def recorded(history: dict[str, np.ndarray], terms: Terms) -> dict[str, np.ndarray]:
    """The history with the terms of more steps."""
    objective = history.get("objective", history["bound"])  # which runs of before did not record
    return history | {
        "bound": np.concatenate([history["bound"], terms.bound]),
        "objective": np.concatenate([objective, terms.objective]),
    }


def _first_non_finite(tree: PyTree, what: str = "") -> str | None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(np.asarray(leaf)).all():
            return what + jax.tree_util.keystr(path).lstrip(".")
    return None


def next_count(count: int, seconds: float) -> int:
    """For the next call; at most ten times as many, since the first call's time is the
    compiler's.
    """
    return min(STEPS_PER_CALL, 10 * count, max(1, int(count * SECONDS_PER_CALL / seconds)))


def arrays_of(run: Run) -> tuple:
    return run.params, run.opt_state, run.best_params or ()


def with_arrays(run: Run, arrays) -> Run:
    params, opt_state, best_params = arrays
    return run._replace(params=params, opt_state=opt_state, best_params=best_params or None)


def copied(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.array, tree)
