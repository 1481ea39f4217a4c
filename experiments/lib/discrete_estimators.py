"""Gradient estimators through discrete latents, by the names of `vaejax.runs.registry` where they
are there: how each is made, what it costs, and how it is drawn.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import vaejax
from experiments.lib.bernoulli import RELAX_NET, TEMPERATURE
from vaejax.base.checks import unknown_name
from vaejax.base.fields import Rule
from vaejax.estimators.base import Estimator


class Entry(NamedTuple):
    """An estimator with n evaluations of f, for how many of which it also takes the gradient of f,
    and how it is drawn.
    """

    make: Callable[[int], Estimator]
    gradients: Callable[[int], int]
    colour: str
    marker: str
    biased: bool = False


def none(n: int) -> int:
    return 0


def every(n: int) -> int:
    return n


def every_second(n: int) -> int:
    return n // 2


ESTIMATORS = {
    "plain-score-function": Entry(
        lambda n: vaejax.ScoreFunction(n, vaejax.NoBaseline()), none, "#7f8c8d", "o"
    ),
    "score-function": Entry(lambda n: vaejax.ScoreFunction(n), none, "#2c6fbb", "s"),
    "disarm": Entry(lambda n: vaejax.DisARM(n), none, "#d9730d", "D"),
    "double-control-variate": Entry(
        lambda n: vaejax.DoubleControlVariate(n), every, "#1e8449", "^"
    ),
    "rebar": Entry(lambda n: vaejax.REBAR(n // 2), every_second, "#8e44ad", "v"),
    "relax": Entry(lambda n: vaejax.RELAX(RELAX_NET, n // 2), every_second, "#c0392b", "P"),
    "relaxed": Entry(lambda n: vaejax.Relaxed(TEMPERATURE, n), every, "#b7950b", "X", biased=True),
    "straight-through": Entry(
        lambda n: vaejax.StraightThrough(None, n), every, "#17a2a2", "*", biased=True
    ),
}


@dataclasses.dataclass(frozen=True)
class Known(Rule):
    """A name of the table."""

    def check(self, value: str, name: str) -> None:
        if value not in ESTIMATORS:
            raise ValueError(unknown_name(name, value, list(ESTIMATORS)))


def full_name(name: str) -> str:
    return name + " (biased)" * ESTIMATORS[name].biased


def costs(name: str, evaluations: int) -> dict[str, Any]:
    """For a table: the name, and how often the estimator takes f and its gradient."""
    gradients = ESTIMATORS[name].gradients(evaluations)
    return {"name": full_name(name), "f": evaluations, "grad_f": gradients}


def look(name: str) -> dict[str, Any]:
    """The colour, marker and line of an estimator in every picture."""
    entry = ESTIMATORS[name]
    return {"color": entry.colour, "marker": entry.marker, "ls": "--" if entry.biased else "-"}
