"""Variances of gradients: what was measured beside what is exact."""

from collections.abc import Iterable

import numpy as np

from vaejax.variance.intervals import Spread


def interval(spread: Spread, unit: float = 1.0) -> dict[str, float]:
    """A measured trace with its interval at 95 %, times `unit`."""
    return {"measured": spread.trace * unit, "low": spread.low * unit, "high": spread.high * unit}


def coverage(rows: Iterable[dict]) -> float:
    """The share of the rows whose interval covers the exact variance."""
    return float(np.mean([row["low"] <= row["exact"] <= row["high"] for row in rows]))


def worst_relative_error(rows: Iterable[dict]) -> float:
    """Of what was measured, against what is exact."""
    return max(abs(row["measured"] / row["exact"] - 1) for row in rows)
