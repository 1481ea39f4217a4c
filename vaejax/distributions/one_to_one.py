"""Transforms of NumPyro's that take two values to one: its density of what they give counts one of
the two.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from numpyro.distributions import constraints, transforms

from vaejax.distributions.support_masks import (
    REAL_LINE,
    coordinate_constraint,
    interval_of,
    support_of,
)

Interval = tuple[float, float]
_ROUNDING = 1e-5  # of the ends, which are computed in float32


def require_one_to_one(p: npd.TransformedDistribution) -> None:
    """Raises TypeError for a transform of numbers that is given some outside of its domain.

    p(y) = p(x) |dx/dy| has one x for each y: of y = x^2 or |x|, x ~ N(0, 1), NumPyro's density has
    the mass 1/2. A class with a density of its own, such as FoldedDistribution, counts both.
    """
    if type(p).log_prob is not npd.TransformedDistribution.log_prob:
        return
    values = _ends(support_of(p.base_dist))
    for step in _steps(p.transforms):
        low, high = _domain(step)
        if values[0] < low - _ROUNDING or values[1] > high + _ROUNDING:
            raise TypeError(
                f"{type(step).__name__} is one to one only on [{low:g}, {high:g}], and"
                f" {type(p.base_dist).__name__} has values on [{values[0]:g}, {values[1]:g}]: the"
                " density would have a mass below 1; use FoldedDistribution for |x|, and a base"
                " with values in the domain for others"
            )
        values = _image(step, values)


def _steps(parts: Sequence[Any]) -> Iterator[Any]:
    """The transforms one after another, without those that hold others."""
    for part in parts:
        if isinstance(part, transforms.ComposeTransform):
            yield from _steps(part.parts)
        elif isinstance(part, transforms.IndependentTransform):
            yield from _steps([part.base_transform])
        else:
            yield part


def _ends(constraint: Any) -> Interval:
    """The interval of each number, or of what is known to hold it; none of a vector's own set."""
    coordinate = coordinate_constraint(constraint)
    if coordinate is None or constraints.is_dependent(coordinate) or coordinate.event_dim:
        return math.nan, math.nan
    return interval_of(coordinate)


def _domain(transform: Any) -> Interval:
    if isinstance(transform, transforms.AbsTransform):  # NumPyro says all of R
        return 0.0, math.inf
    # A shift and a scale are one to one wherever they are said to be used.
    if isinstance(transform, transforms.AffineTransform):
        return REAL_LINE
    low, high = _ends(transform.domain)
    return REAL_LINE if math.isnan(low) else (low, high)


def _image(transform: Any, values: Interval) -> Interval:
    """Where a transform of numbers, which rises or falls throughout, takes an interval; not known
    where it has a parameter for each number, or one that is traced.
    """
    try:
        with jax.ensure_compile_time_eval():
            ends = sorted(float(transform(jnp.float32(end))) for end in values)
    except Exception:  # whatever a transform raises of what is no single number
        return math.nan, math.nan
    return ends[0], ends[1]
