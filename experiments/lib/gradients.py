"""Variances of gradients: where they are measured, and what was measured beside what is exact."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import optax
from matplotlib.axes import Axes

import vaejax
from experiments.lib.figures import interval_bars
from vaejax import Params
from vaejax.variance.groups import Groups

# Along a training.


def measured_steps(fractions: Iterable[float], num_steps: int) -> list[int]:
    """The steps after these fractions of a run."""
    return sorted({round(fraction * num_steps) for fraction in fractions})


def params_at(
    step: int,
    folder: str | Path,
    objective: vaejax.Objective,
    start: Params,
    optimizer: optax.GradientTransformation,
    data: Any,
    key,
    **settings: Any,
) -> Params:
    """The parameters after so many steps of one training, which goes on from its checkpoints in
    `folder`; `settings` are those of `vaejax.fit`.
    """
    if step == 0:
        return start
    checkpoints = vaejax.Checkpoints(folder, resume=True)
    settings |= {"num_steps": step, "checkpoints": checkpoints}
    return vaejax.fit(objective, start, optimizer, data, key, **settings).params


# What is measured.


def measured_intervals(
    estimator: vaejax.Estimator, model: vaejax.Model, params, x, key, num_draws: int, groups: Groups
) -> dict[str, dict[str, float]]:
    """{group: the variance of one sample's gradient, and its interval at 95 %}."""
    objective = vaejax.per_example(estimator, model)
    moments = vaejax.gradient_moments(
        objective, params, x, key, num_draws, groups=groups, chunk=500
    )
    return {
        name: {"measured": spread.trace, "low": spread.low, "high": spread.high}
        for name, spread in vaejax.gradient_spread(moments, groups).items()
    }


# Rows of what was measured, and beside what is exact.


def where(rows: Iterable[dict], **columns: Any) -> list[dict]:
    """The rows that have these values in these columns."""
    return [row for row in rows if columns.items() <= row.items()]


def covers(row: dict) -> bool:
    """Whether the interval of a row covers the exact variance."""
    return row["low"] <= row["exact"] <= row["high"]


def coverage(rows: Iterable[dict]) -> float:
    """The share of the rows whose interval covers the exact variance."""
    return float(np.mean([covers(row) for row in rows]))


def worst_relative_error(rows: Iterable[dict]) -> float:
    """Of what was measured, against what is exact."""
    return max(abs(row["measured"] / row["exact"] - 1) for row in rows)


def draw_measured(axes: Axes, rows: list[dict], x: str, **style: Any) -> None:
    """Points with their intervals, against the column `x`."""
    places, values = ([row[name] for row in rows] for name in (x, "measured"))
    axes.errorbar(places, values, interval_bars(rows), **{"fmt": "o", "ms": 4, **style})
