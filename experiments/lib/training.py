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
    progress: bool = True,
    optimizer: optax.GradientTransformation | None = None,
) -> vaejax.Params:
    """The parameters that `cosine_adam`, or the optimiser, finds from `start`; the batches are all
    of the data where there are fewer.
    """
    return vaejax.fit(
        objective,
        start,
        optimizer or cosine_adam(steps.learning_rate, steps.num_steps),
        data,
        key,
        num_steps=steps.num_steps,
        batch_size=min(steps.batch_size, len(jax.tree.leaves(data)[0])),
        transform=transform,
        progress=progress,
    ).params


def each_of(params: vaejax.Params) -> list[vaejax.Params]:
    """The parameters of each seed, of those that `vaejax.fit_seeds` gives stacked."""
    count = len(jax.tree.leaves(params)[0])
    return [jax.tree.map(lambda leaf, seed=seed: leaf[seed], params) for seed in range(count)]
