"""The state of a training: parameters, optimiser state, step and history."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vaejax.base.checks import is_key
from vaejax.base.devices import fetched
from vaejax.base.types import Params, PyTree, Scalar, numbers_of


class Run(NamedTuple):
    """What `fit` returns. `best_params` are those of the best validation, None before the first;
    `step` is less than `num_steps` where the patience of a validation ended the run.

    `history` holds host arrays. Of each step, on its minibatch before its update, nats per example:
    `bound`; `objective`, what was maximised, the same number where that is the bound (`Terms`);
    `reconstruction`, E_q log p(x | z), and `rate`, what the bound takes from it, such as KL(q ||
    p), where the objective knows the two apart; `rate_NODE`, what a latent node takes of that,
    where it is known by node, as by `KLByNode`; `gradient_norm`, over all parameters and before any
    clipping; `learning_rate`, where the optimiser's state has it, as that of
    `optax.inject_hyperparams` does. What was not recorded of some steps, as by earlier revisions,
    is NaN there. `validation_step` and `validation_bound` [v] are of the held-out examples.
    """

    params: Params
    opt_state: PyTree
    step: int
    history: dict[str, np.ndarray]
    best_params: Params | None = None

    def __repr__(self) -> str:
        """Without its arrays, which fill screens."""
        return f"Run(step={self.step}, history of {', '.join(self.history)})"


class Record(NamedTuple):
    """What the history has of one step: the terms of the objective, nats per example; the norm of
    the gradient over all parameters, before the optimiser does anything with it; and the learning
    rate. None for what is not known.
    """

    bound: Scalar
    objective: Scalar
    reconstruction: Scalar | None
    rates: dict[str, Scalar] | None
    gradient_norm: Scalar
    learning_rate: Scalar | None


BY_STEP = "bound", "objective", "reconstruction", "rate", "gradient_norm", "learning_rate"
NO_HISTORY = {
    "bound": np.zeros(0, np.float32),
    "objective": np.zeros(0, np.float32),
    "gradient_norm": np.zeros(0, np.float32),
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
    return run if num_validations(run) else run._replace(best_params=None)


def num_validations(run: Run) -> int:
    """How many there were so far; a run of several seeds has none."""
    return len(run.history.get("validation_step", ()))


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


def by_step(history: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those arrays of a history that have a number for each step, in one order."""
    of_nodes = sorted(name for name in history if name.startswith("rate_"))
    return {name: history[name] for name in (*BY_STEP, *of_nodes) if name in history}


def recorded(history: dict[str, np.ndarray], record: Record) -> dict[str, np.ndarray]:
    """The history with the records of more steps."""
    more = numbers_of(record)
    if record.reconstruction is not None:
        more["rate"] = record.reconstruction - record.bound
    length = len(history["bound"])
    for name in by_step(history).keys() - more.keys():
        more[name] = np.full_like(record.bound, np.nan)
    unknown = np.full((length, *record.bound.shape[1:]), np.nan, np.float32)
    before = {name: history.get(name, unknown) for name in more}
    return history | {name: np.concatenate([before[name], more[name]]) for name in more}


def completed(history: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A saved history with all its names: empty arrays are not saved, revision 0.1 saved no
    `objective` where that is the bound, and no norm of the gradient.
    """
    if "bound" not in history:
        return NO_HISTORY | history
    unknown = np.full_like(history["bound"], np.nan)
    return NO_HISTORY | {"objective": history["bound"], "gradient_norm": unknown} | history


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


@jax.jit
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
        if is_real(leaf) and not np.isfinite(fetched(leaf)).all():
            return what + jax.tree_util.keystr(path).lstrip(".")
    return None
