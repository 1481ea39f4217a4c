"""The state of a training: parameters, optimiser state, step and history."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vaejax.base.checks import is_key
from vaejax.base.types import Params, PyTree, Terms


class Run(NamedTuple):
    """What `fit` returns. `best_params` are those of the best validation, None before the first;
    `step` is less than `num_steps` where the patience of a validation ended the run.

    `history` holds host arrays: `bound` [step], the value on each minibatch before its update, nats
    per example; `objective` [step], what was maximised, the same number where that is the bound
    (`Terms`); `validation_step` and `validation_bound` [v].
    """

    params: Params
    opt_state: PyTree
    step: int
    history: dict[str, np.ndarray]
    best_params: Params | None = None


NO_HISTORY = {
    "bound": np.zeros(0, np.float32),
    "objective": np.zeros(0, np.float32),
    "validation_step": np.zeros(0, np.int32),
    "validation_bound": np.zeros(0, np.float64),
}


class NonFiniteError(FloatingPointError):
    """A bound, a gradient, a parameter or the optimiser's state was NaN or infinite. `run` is the
    run before that step.
    """

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run


def handed_out(run: Run) -> Run:
    """The run as its owner sees it: there are no best parameters before the first validation.

    Within `fit` they are those of the start until then, so that every checkpoint has one structure.
    """
    return run if len(run.history["validation_step"]) else run._replace(best_params=None)


def for_callback(run: Run) -> Run:
    """The run for a callback, whose history is a copy: what is done to that changes nothing."""
    run = handed_out(run)
    return run._replace(history={name: values.copy() for name, values in run.history.items()})


def hand_back(error: BaseException, run: Run) -> None:
    """Puts the run so far in `error.run`, whatever the error is, and a line of its traceback that
    says so.
    """
    vars(error)["run"] = run
    if run.step:
        error.add_note(f"the run up to step {run.step} is in the attribute `run` of this error")


def recorded(history: dict[str, np.ndarray], terms: Terms) -> dict[str, np.ndarray]:
    """The history with the terms of more steps."""
    return history | {
        name: np.concatenate([history[name], values]) for name, values in terms._asdict().items()
    }


def completed(history: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A saved history with all its names: empty arrays are not saved, and revision 0.1 saved no
    `objective` where that is the bound.
    """
    objective = {"objective": history["bound"]} if "bound" in history else {}
    return NO_HISTORY | objective | history


def arrays_of(run: Run) -> tuple:
    """What of a run is on the device, and is saved beside its history; of a typed key its data."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, _own(run))


def _own(run: Run) -> tuple:
    return run.params, run.opt_state, () if run.best_params is None else run.best_params


def with_arrays(run: Run, arrays) -> Run:
    """The run with other arrays in place of its own; keys are of the kind that they were."""

    def of_kind(leaf, array):
        is_data = is_key(leaf) and not is_key(array)
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if is_data else array

    params, opt_state, best_params = jax.tree.map(of_kind, _own(run), arrays)
    best_params = None if run.best_params is None else best_params
    return run._replace(params=params, opt_state=opt_state, best_params=best_params)


def copied(tree: PyTree) -> PyTree:
    """In arrays of their own, of dtypes that say what they are (a Python number has a weak one)."""

    def copy(leaf):
        return jnp.array(leaf, None if is_key(leaf) else jnp.result_type(leaf))

    return jax.tree.map(copy, tree)


def is_real(leaf: ArrayLike) -> bool:
    """Whether its numbers can be NaN or infinite at all, unlike counts, flags and keys."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def first_non_finite(tree: PyTree, what: str = "") -> str | None:
    """The name of the first leaf with a NaN or infinity, after `what`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_real(leaf) and not np.isfinite(np.asarray(leaf)).all():
            return what + jax.tree_util.keystr(path).lstrip(".")
    return None
