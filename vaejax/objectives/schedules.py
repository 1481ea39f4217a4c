"""Schedules: weights of an objective as functions of the step, each of known length, so that `fit`
can hold it against the run's.
"""

from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import (
    Reals,
    require_count,
    require_no_class,
    require_numbers,
    shortened,
)
from vaejax.base.contracts import Declared
from vaejax.base.values import component


class Schedule(Declared):
    """A weight as a function of the step, of known length, so that `fit` can hold it against the
    length of the run. Your own:

        @vaejax.component
        class Late(vaejax.Schedule):
            start: int

            @property
            def length(self):
                return self.start

            def __call__(self, step):
                return jnp.where(step < self.start, 0.0, 1.0)
    """

    @property
    def length(self) -> int:
        """The step from which it has been where it leads."""
        raise NotImplementedError(f"{type(self).__name__}.length")

    def __call__(self, step: ArrayLike) -> Any:
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def check(self, num_steps: int, name: str) -> None:
        """Raises ValueError if a run of `num_steps` would stop before the weight is where it
        leads.
        """
        if num_steps < self.length:
            raise ValueError(
                f"{name} moves over {self.length} steps, but num_steps = {num_steps}: train for at"
                f" least {self.length}"
            )


Weight = float | Schedule


@component
class WarmUp(Schedule):
    """start + (end - start) min(step / num_steps, 1). Reference: Bowman et al. 2016; Sønderby et
    al. 2016, for beta.

    >>> beta = vaejax.WarmUp(100)
    >>> print([float(beta(step)) for step in (0, 50, 200)])
    [0.0, 0.5, 1.0]
    """

    num_steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        require_count(self.num_steps, "WarmUp.num_steps")
        require_numbers(self, start=self.start, end=self.end)

    @property
    def length(self) -> int:
        return self.num_steps

    def __call__(self, step: ArrayLike) -> jax.Array:
        return self.start + (self.end - self.start) * jnp.minimum(step / self.num_steps, 1)

    def check(self, num_steps: int, name: str) -> None:
        if num_steps < self.num_steps:
            reached = self.start + (self.end - self.start) * num_steps / self.num_steps
            raise ValueError(
                f"{name} is warmed up over {self.num_steps} steps, but num_steps = {num_steps}: the"
                f" run would end at {name} {reached:.3g}; warm up over at most {num_steps} steps,"
                f" or train for at least {self.num_steps}"
            )


@component
class Cyclical(Schedule):
    """Of each `period` steps the first part, `ramp` of them, rises from start to end; the rest
    stays at end. Reference: Fu et al. 2019.

    >>> beta = vaejax.Cyclical(100)
    >>> print([float(beta(step)) for step in (0, 25, 75, 100)])
    [0.0, 0.5, 1.0, 0.0]
    """

    period: int
    ramp: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        require_count(self.period, "Cyclical.period")
        require_numbers(self, start=self.start, end=self.end)
        rises = self.ramp in Reals(0, 1, is_open=True)
        if not (rises and self.ramp * self.period <= self.period - 1):
            raise ValueError(
                f"Cyclical.ramp = {self.ramp!r}; it is the part of a period that rises, above 0,"
                f" and leaves a step of {self.period} at end"
            )

    @property
    def length(self) -> int:
        return self.period

    def __call__(self, step: ArrayLike) -> jax.Array:
        return self.start + (self.end - self.start) * jnp.minimum(
            jnp.mod(step, self.period) / (self.ramp * self.period), 1
        )

    def check(self, num_steps: int, name: str) -> None:
        into_cycle = (num_steps - 1) % self.period
        if num_steps < self.period or into_cycle < self.ramp * self.period:
            last = self.start + (self.end - self.start) * min(
                into_cycle / (self.ramp * self.period), 1
            )
            whole = -(-num_steps // self.period) * self.period
            raise ValueError(
                f"{name} has a cycle of {self.period} steps, and num_steps = {num_steps} is"
                f" not a whole number of cycles: the last step would be at {name} {last:.3g}; train"
                f" for {whole} steps, or choose a period that divides num_steps"
            )


def require_weights(owner: Any, **weights: Weight) -> None:
    """Raises an error for a weight that is neither a number, at least 0, nor a `Schedule`."""
    for name, weight in weights.items():
        if isinstance(weight, Schedule):
            continue
        role = f"{type(owner).__name__}.{name}"
        require_no_class(weight, role)
        if callable(weight):
            raise TypeError(
                f"{role} = {shortened(weight)} does not say how long it is, so it cannot be held"
                " against the run; use vaejax.WarmUp or vaejax.Cyclical, or derive it from"
                " vaejax.Schedule"
            )
        if not isinstance(weight, Real):
            raise ValueError(
                f"{role} = {shortened(weight)}; it must be a number, at least 0, or a schedule such"
                " as vaejax.WarmUp"
            )
        require_numbers(owner, **{name: weight})


def scheduled(**weights: Weight) -> tuple[tuple[str, Schedule], ...]:
    """Those of the weights that move with the step."""
    return tuple((name, weight) for name, weight in weights.items() if callable(weight))


def at_step(weight: Weight, step: ArrayLike) -> Any:
    """The weight at a step."""
    return weight(step) if callable(weight) else weight
