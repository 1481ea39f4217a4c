"""The state of a training: parameters, optimiser state, step and history."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.types import Params, PyTree, Terms


class Run(NamedTuple):
    """What `fit` returns. `best_params` are those of the best validation, None where there was
    none.

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
    """A bound or a gradient was NaN or infinite. `run` is the run before that step."""

    def __init__(self, message: str, run: Run):
        super().__init__(message)
        self.run = run


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
    """What of a run is on the device, and is saved beside its history."""
    return run.params, run.opt_state, run.best_params or ()


def with_arrays(run: Run, arrays) -> Run:
    params, opt_state, best_params = arrays
    return run._replace(params=params, opt_state=opt_state, best_params=best_params or None)


def copied(tree: PyTree) -> PyTree:
    """In buffers of its own, which a compiled step may write over."""
    return jax.tree.map(jnp.array, tree)


def first_non_finite(tree: PyTree, what: str = "") -> str | None:
    """The name of the first leaf with a NaN or infinity, after `what`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not np.isfinite(np.asarray(leaf)).all():
            return what + jax.tree_util.keystr(path).lstrip(".")
    return None
