"""What training maximises: an objective of a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count
from vaejax.base.types import Key, Params, PyTree, Scalar, Terms
from vaejax.base.values import by_value, component

Objective = Callable[..., Scalar | Terms]


def minibatch(objective: Objective, dataset_size: int | None = None) -> "Minibatch":
    """(params, xs, key) -> (1/M) sum_m objective(params, x_m, key_m): the mean bound of a batch,
    nats per example.

    With `dataset_size=N` it is N/M times the sum over the batch instead, an unbiased estimate of
    the sum over the data set. `objective` is a function of one example:
    `minibatch(partial(vaejax.Pathwise(), model))`. If it gives `Terms`, so does this.
    """
    if dataset_size is not None:
        require_count(dataset_size, "dataset_size")
    return Minibatch(objective, dataset_size)


@component
class Minibatch:
    """What `minibatch` returns: a value, so that two made of equal parts share one compiled
    program.
    """

    objective: Objective
    dataset_size: int | None = None

    def __call__(self, params: Params, xs: PyTree, key: Key, step: ArrayLike | None = None) -> Any:
        size = len(jax.tree.leaves(xs)[0])
        objective = self.objective if step is None else partial(self.objective, step=step)
        values = jax.vmap(objective, (None, 0, 0))(params, xs, jax.random.split(key, size))
        return Terms(*map(self._mean, values)) if isinstance(values, Terms) else self._mean(values)

    def _mean(self, values: jax.Array) -> Scalar:
        if values.ndim != 1:
            raise ValueError(
                f"the objective gave shape {values.shape[1:]} for one example; it must give one"
                " number"
            )
        return jnp.mean(values) * (self.dataset_size or 1)


@component
class Reported:
    """(params, x, key) -> the bound that an objective of one example reports. No schedule moves it,
    so any step will do.
    """

    objective: Objective

    def __call__(self, params: Params, x: PyTree, key: Key) -> Scalar:
        result = self.objective(params, x, key, **step_of(self.objective, 0))
        return result.bound if isinstance(result, Terms) else result


def of_one_example(objective: Any) -> Objective:
    """The function of one example that an objective of a batch shows as `objective`; itself, if it
    shows none.
    """
    while hasattr(objective, "objective"):
        objective = objective.objective
    return by_value(objective)


def model_of(objective: Any) -> Any:
    """The model that an objective was put together from, among the arguments of its innermost
    partial; None if there is none.
    """
    parts = getattr(of_one_example(objective), "args", ())
    return next((part for part in parts if hasattr(part, "log_joint")), None)


def schedules_of(objective: Any) -> tuple[tuple[str, Any], ...]:
    """(name, schedule) of each weight that moves with the step; if there is one, the objective is
    called with `step=`.

    An objective says so by an attribute `schedules`; a partial, or a mean over a batch, has those
    of what is inside.
    """
    if hasattr(objective, "schedules"):
        return objective.schedules
    inner = getattr(objective, "objective", getattr(objective, "func", None))
    return () if inner is None else schedules_of(inner)


def step_of(objective: Any, step: ArrayLike) -> dict[str, ArrayLike]:
    """The keyword `step`, for an objective with a schedule."""
    return {"step": step} if schedules_of(objective) else {}
