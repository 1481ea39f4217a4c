"""Variances of gradients: where they are measured, and what was measured beside what is exact."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import vaejax
from vaejax import Params
from vaejax.variance.groups import Groups
from vaejax.variance.intervals import Spread

# Along a training.


def measured_steps(fractions: Iterable[float], num_steps: int) -> list[int]:
    """The steps after these fractions of a run."""
    return sorted({round(fraction * num_steps) for fraction in fractions})


def params_at(step: int, folder: str | Path, start: Params, **settings: Any) -> Params:
    """The parameters after so many steps of one training from `start`, which goes on from its
    checkpoints in `folder`; `settings` are the arguments of `vaejax.fit`.
    """
    if step == 0:
        return start
    checkpoints = vaejax.Checkpoints(folder, resume=True)
    return vaejax.fit(params=start, num_steps=step, checkpoints=checkpoints, **settings).params


# What is measured.


def interval_of(spread: Spread, name: str = "trace") -> dict[str, float]:
    """The trace of the covariance of a gradient, and its interval at 95 %."""
    return {name: spread.trace, "low": spread.low, "high": spread.high}


def measured_intervals(
    estimator: vaejax.Estimator, model: vaejax.Model, params, x, key, num_draws: int, groups: Groups
) -> dict[str, dict[str, float]]:
    """{group: the variance of one sample's gradient, and its interval at 95 %}."""
    objective = vaejax.per_example(estimator, model)
    moments = vaejax.gradient_moments(
        objective, params, x, key, num_draws, groups=groups, chunk=500
    )
    return {
        name: interval_of(spread, "measured")
        for name, spread in vaejax.gradient_spread(moments, groups).items()
    }


# Rows of what was measured, and beside what is exact.


def covers(row: dict) -> bool:
    """Whether the interval of a row covers the exact variance."""
    return row["low"] <= row["exact"] <= row["high"]


def coverage(rows: Iterable[dict]) -> float:
    """The share of the rows whose interval covers the exact variance."""
    return float(np.mean([covers(row) for row in rows]))


def worst_relative_error(rows: Iterable[dict]) -> float:
    """Of what was measured, against what is exact."""
    return max(abs(row["measured"] / row["exact"] - 1) for row in rows)
