"""Samples of NumPyro's families with the density that they had before they were rounded."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd

from vaejax.base.types import Key
from vaejax.distributions.quantiles import innermost
from vaejax.distributions.saturation import (
    FAMILIES,
    log_probs_of_rounded,
    parameters_of,
    rounded_inside,
)
from vaejax.distributions.support_masks import held_to_support, support_of
from vaejax.distributions.tails import cells_of


def is_by_transforms(p: Any) -> bool:
    """Whether its density is that of the change of variables, as a folded normal's is not."""
    is_transformed = isinstance(p, npd.TransformedDistribution)
    return is_transformed and type(p).log_prob is npd.TransformedDistribution.log_prob


def exact_draw(p: npd.Distribution, key: Key) -> tuple[jax.Array, jax.Array] | None:
    """A sample of p and its log-density before rounding, nats, of each number or vector, where p is
    made of a family of the table, or of numbers by transforms; p is without `to_event`.
    """
    coordinate = innermost(p)
    family = FAMILIES.get(type(coordinate))
    if family is not None:
        draw = family.draw(key, *parameters_of(family, p, coordinate))
        return rounded_inside(coordinate, jnp.exp(draw.log_z)), draw.log_q
    if not is_by_transforms(coordinate) or any(t.domain.event_dim for t in coordinate.transforms):
        return None
    return _draw_through_transforms(p, coordinate, key)


def _draw_through_transforms(
    p: npd.Distribution, coordinate: Any, key: Key
) -> tuple[jax.Array, jax.Array]:
    """log q(T(x)) = log q(x) - log |dT/dx|, x before it is rounded and the slope after.

    Where x was rounded and T(x) is not the last float before an end, that float has a mass, so that
    its density is infinite: a bound is -inf there.
    """
    base = coordinate.base_dist
    start = innermost(base)
    family = FAMILIES.get(type(start))
    if family is None:
        raw = jnp.asarray(p.sample_with_intermediates(key)[1][0][0])
        x = rounded_inside(start, raw)
        log_q = log_probs_of_rounded(held_to_support(base, x.dtype), start, x)
    else:
        draw = family.draw(key, *parameters_of(family, p, start))
        raw, log_q = jnp.exp(draw.log_z), draw.log_q
        x = rounded_inside(start, raw)
    was_rounded = x != raw
    for transform in coordinate.transforms:
        y = jnp.asarray(transform(x))
        log_q -= transform.log_abs_det_jacobian(x, y)
        x = y
    below, above = cells_of(support_of(coordinate), x.dtype)
    is_last = (x <= below.end) | (x >= above.end)
    # A sample of its own has no density 0: then the digits were lost.
    log_q = jnp.where(jnp.isneginf(log_q), jnp.nan, log_q)
    log_q = jnp.where(was_rounded & ~is_last, jnp.inf, log_q)
    value = rounded_inside(coordinate, x)
    at_last = log_probs_of_rounded(held_to_support(p, x.dtype), coordinate, value)
    has_overflowed = jnp.abs(value) >= jnp.finfo(value.dtype).max
    return value, jnp.where(has_overflowed, at_last, log_q)
