"""Gradient estimators through discrete latents, by the names of `vaejax.runs.registry` where they
are there: what each costs, how it is drawn, and which parameters learn.
"""

import dataclasses
from functools import cache
from typing import Any, NamedTuple

import optax

import vaejax
from experiments.lib.bernoulli import RELAX_NET, TEMPERATURE
from vaejax import Params
from vaejax.base.checks import unknown_name
from vaejax.base.fields import Rule

# Of f, that each has for one gradient: single samples, pairs and triples share them.
EVALUATIONS = 6


class Entry(NamedTuple):
    """An estimator, how many of its evaluations take grad f too, and how it is drawn."""

    estimator: vaejax.Estimator
    gradients: int
    colour: str
    marker: str
    biased: bool = False


ESTIMATORS = {
    "plain-score-function": Entry(vaejax.ScoreFunction(6, vaejax.NoBaseline()), 0, "#7f8c8d", "o"),
    "score-function": Entry(vaejax.ScoreFunction(6), 0, "#2c6fbb", "s"),
    "disarm": Entry(vaejax.DisARM(6), 0, "#d9730d", "D"),
    "double-control-variate": Entry(vaejax.DoubleControlVariate(6), 6, "#1e8449", "^"),
    "rebar": Entry(vaejax.REBAR(3), 3, "#8e44ad", "v"),
    "relax": Entry(vaejax.RELAX(RELAX_NET, 3), 3, "#c0392b", "P"),
    "relaxed": Entry(vaejax.Relaxed(TEMPERATURE, 6), 6, "#b7950b", "X", biased=True),
    "straight-through": Entry(vaejax.StraightThrough(None, 6), 6, "#17a2a2", "*", biased=True),
}


@dataclasses.dataclass(frozen=True)
class Known(Rule):
    """A name of the table."""

    def check(self, value: str, name: str) -> None:
        if value not in ESTIMATORS:
            raise ValueError(unknown_name(name, value, list(ESTIMATORS)))


def full_name(name: str) -> str:
    return name + " (biased)" * ESTIMATORS[name].biased


def look(name: str) -> dict[str, Any]:
    """The colour, marker and line of an estimator in every picture."""
    entry = ESTIMATORS[name]
    return {"color": entry.colour, "marker": entry.marker, "ls": "--" if entry.biased else "-"}


@cache
def adam_on(parts: tuple[str, ...], rate: float, num_steps: int | None = None, eps: float = 1e-8):
    """Adam on these parts of the parameters; the others stay. The rate is constant, or falls to
    zero along a cosine of `num_steps`.
    """
    schedule = rate if num_steps is None else optax.cosine_decay_schedule(rate, num_steps)
    labels = Params(*("learned" if name in parts else "held" for name in Params._fields))
    return optax.multi_transform(
        {"learned": optax.adam(schedule, eps=eps), "held": optax.set_to_zero()}, labels
    )
