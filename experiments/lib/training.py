"""Training, as experiments do it: Adam, whose rate falls to zero along a cosine."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import optax

import vaejax


class Steps(Protocol):
    """How long, on what batches, at what rate: fields of a configuration."""

    @property
    def num_steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...


def cosine_adam(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Adam, its rate falling from `learning_rate` to zero along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))


def fitted(
    steps: Steps,
    objective: vaejax.Objective,
    start: vaejax.Params,
    data: Any,
    key,
    transform: Callable | None = None,
    **settings: Any,
) -> vaejax.Params:
    """The parameters that `cosine_adam`, or the optimiser among the settings of `vaejax.fit`, finds
    from `start`, the best by a validation; the batches are all of the data where there are fewer.
    """
    settings = {
        "optimizer": cosine_adam(steps.learning_rate, steps.num_steps),
        "num_steps": steps.num_steps,
        "batch_size": min(steps.batch_size, len(jax.tree.leaves(data)[0])),
        "transform": transform,
        **settings,
    }
    run = vaejax.fit(objective, start, data=data, key=key, **settings)
    return run.params if run.best_params is None else run.best_params


def fitted_seeds(
    steps: Steps,
    objective: vaejax.Objective,
    starts: vaejax.Params,
    data: Any,
    keys,
    transform: Callable | None = None,
    **settings: Any,
) -> list[vaejax.Params]:
    """`fitted` of each seed, from `starts` [seed, ...], by the settings of `vaejax.fit_seeds`."""
    settings = {
        "optimizer": cosine_adam(steps.learning_rate, steps.num_steps),
        "num_steps": steps.num_steps,
        "batch_size": steps.batch_size,
        "transform": transform,
        **settings,
    }
    run = vaejax.fit_seeds(objective, starts, data=data, keys=keys, **settings)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], run.params) for i in range(len(keys))]
