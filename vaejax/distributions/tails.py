"""The mass that lies beyond the last float, of families that NumPyro makes by transforms: of a
logit-normal, of its relaxed Bernoulli, of exp(X) for an X with a distribution function.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
from jax.scipy.stats import norm

from vaejax.distributions.quantiles import innermost
from vaejax.distributions.support_masks import REAL_LINE, coordinate_constraint, ends_of, support_of


class Cell(NamedTuple):
    """All that is rounded to one float: what lies beyond `end`, above or below, up to the end of
    the support; `width` is its length, of a cell without an end that of the numbers before it.
    """

    end: jax.Array
    width: jax.Array
    above: bool


def cells_of(constraint: Any, dtype: Any) -> list[Cell]:
    """The lower and the upper cell of the interval that a NumPyro constraint allows; none where it
    is a grid. Its ends may depend on parameters, and are those of each coordinate.
    """
    constraint = coordinate_constraint(constraint)
    if constraint.is_discrete:
        return []
    low, high = (jnp.asarray(end, dtype) for end in ends_of(constraint) or REAL_LINE)
    largest = float(jnp.finfo(dtype).max)
    size = jnp.maximum(*(jnp.where(jnp.isinf(end), 0, jnp.abs(end)) for end in (low, high)))
    # Of 0 and 1 the last floats are known; a map onto another interval rounds.
    margin = jnp.where(size == 0, lowest(dtype), 4 * jnp.finfo(dtype).eps * size)
    is_unit = (low == 0) & (high == 1)
    after_low = jnp.where(is_unit, lowest(dtype), margin)
    before_high = jnp.where(is_unit, 1 - highest(dtype), margin)
    return [
        _cell(low + after_low, after_low, -largest, above=False),
        _cell(high - before_high, before_high, largest, above=True),
    ]


def _cell(end: jax.Array, width: jax.Array, largest: float, *, above: bool) -> Cell:
    is_finite = jnp.abs(end) < jnp.inf
    return Cell(
        jnp.where(is_finite, end, largest), jnp.where(is_finite, width, abs(largest)), above
    )


def lowest(dtype: Any) -> float:
    """The last float before 0: so far above underflow that a density's slope c/z is finite."""
    return float(jnp.finfo(dtype).tiny / jnp.finfo(dtype).eps)


def highest(dtype: Any) -> float:
    """The last float before 1 but one: NumPyro's sigmoid goes no further."""
    return float(1 - jnp.finfo(dtype).eps)


def with_tails(log_probs: jax.Array, coordinate: npd.Distribution, value: jax.Array) -> jax.Array:
    """The log-density of each number or vector, nats; in a cell the log of its mean density there.
    Where the mass underflows, the log-density stays as it is; where NumPyro has no distribution
    function, so that nothing is known of the mass, it is NaN at a finite end.
    """
    if not isinstance(coordinate, npd.TransformedDistribution):
        return log_probs
    axes = tuple(range(-coordinate.event_dim, 0))
    support = support_of(coordinate)
    for cell in (_cells_of_events if axes else cells_of)(support, value.dtype):
        is_there = (value >= cell.end) if cell.above else (value <= cell.end)
        inside = is_there & jnp.expand_dims(log_probs > -jnp.inf, axes)
        try:
            if axes:
                raise NotImplementedError(f"{type(coordinate).__name__} mixes coordinates")
            log_mass = log_tail(coordinate, cell.end, above=cell.above)
        except NotImplementedError:  # NumPyro has no distribution function, or no sign
            has_end = cell.width < jnp.finfo(value.dtype).max
            log_probs = jnp.where((inside & has_end).any(axes), jnp.nan, log_probs)
            continue
        known = inside & jnp.isfinite(log_mass)
        log_probs = jnp.where(known, log_mass - jnp.log(cell.width), log_probs)
    return log_probs


def _cells_of_events(constraint: Any, dtype: Any) -> list[Cell]:
    """The cells of each coordinate of a vector, none where they have no end; a simplex has none at
    1, where other coordinates say more.
    """
    constraint = coordinate_constraint(constraint)
    if constraint is npd.constraints.simplex:
        return cells_of(npd.constraints.unit_interval, dtype)[:1]
    return cells_of(constraint, dtype) if ends_of(constraint) else []


SYMMETRIC = (npd.Normal, npd.Logistic, npd.Laplace, npd.Cauchy, npd.StudentT)


def _laplace_log_cdf(x: jax.Array) -> jax.Array:
    below = -jnp.abs(x) - jnp.log(2)
    return jnp.where(x < 0, below, jnp.log1p(-jnp.exp(below)))


def _cauchy_log_cdf(x: jax.Array) -> jax.Array:
    return jnp.log(jnp.arctan2(1, -x) / jnp.pi)


# Of the standard member, where the probability itself would underflow or lose digits.
LOG_CDFS = {
    npd.Normal: norm.logcdf,
    npd.Logistic: jax.nn.log_sigmoid,
    npd.Laplace: _laplace_log_cdf,
    npd.Cauchy: _cauchy_log_cdf,
}


def log_tail(p: npd.Distribution, z: jax.Array, *, above: bool) -> jax.Array:
    """log P(Z >= z) of each coordinate, or log P(Z <= z), nats; -inf where it underflows.

    Through transforms, Z = T(X), it is that of X at T^-1(z), and of the other side where T
    decreases.
    """
    q, point = innermost(p), jnp.asarray(z)
    if _is_through_transforms(q):
        return _log_tail_through(q, point, above)
    if type(q) is npd.Kumaraswamy:  # of which NumPyro has no distribution function
        a, b = jnp.asarray(q.concentration1), jnp.asarray(q.concentration0)
        log_above = b * jnp.log1p(-(point**a))
        return log_above if above else jnp.log(-jnp.expm1(log_above))
    is_symmetric = type(q) in SYMMETRIC
    if is_symmetric and above:
        point = 2 * q.loc - point
    if type(q) in LOG_CDFS:
        return LOG_CDFS[type(q)]((point - q.loc) / q.scale)
    mass = q.cdf(point) if is_symmetric or not above else 1 - q.cdf(point)
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)), -jnp.inf)


def _log_tail_through(q: Any, point: jax.Array, above: bool) -> jax.Array:
    """That of Z = T(X), by the inverse of each transform in turn, from the last to the first."""
    sign: Any = 1
    for transform in reversed(q.transforms):
        if transform.domain.event_dim:
            raise NotImplementedError(f"{type(transform).__name__} mixes coordinates")
        sign, point = sign * transform.sign, transform.inv(point)
    same, other = (log_tail(q.base_dist, point, above=side) for side in (above, not above))
    return jnp.where(jnp.asarray(sign) > 0, same, other)


def _is_through_transforms(p: Any) -> bool:
    is_transformed = isinstance(p, npd.TransformedDistribution)
    return is_transformed and type(p).cdf is npd.TransformedDistribution.cdf
