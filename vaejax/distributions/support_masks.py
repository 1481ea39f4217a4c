"""NumPyro's densities, held to their supports: -inf off them, with a finite gradient.

NumPyro masks a density by its support only where it validates, and `jax.vmap`,
`jax.lax.stop_gradient` and every other operation on pytrees turn its validation off in silence: of
a uniform on (0, 1) that went through one of them the density is 1 everywhere.
"""

import copy
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
from jax.core import Tracer
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from vaejax.distributions.masses import mass_of

# Their events are those of the distribution inside, which is held to its support itself.
WRAPPERS = (npd.Independent, npd.ExpandedDistribution, npd.MaskedDistribution)


def held_to_support(p: npd.Distribution, dtype: Any = jnp.float32) -> npd.Distribution:
    """p, with log p(x) = -inf off its own support and those of the distributions that it is made
    of; the gradient there is finite. Nothing is added where a support is all of R.

    `dtype` is that in which values were stored, to whose rounding a point is on a simplex or a
    sphere. Where NumPyro's density loses digits, p has that of `masses`.
    """
    held = copy.copy(p)
    held._validate_args = False  # NumPyro's own masks are finer than float32 on a simplex
    for name, part in vars(p).items():
        if isinstance(part, npd.Distribution):
            setattr(held, name, held_to_support(part, dtype))
        elif isinstance(part, list | tuple) and any(isinstance(q, npd.Distribution) for q in part):
            setattr(held, name, type(part)(held_to_support(q, dtype) for q in part))
    support = None if isinstance(p, WRAPPERS) else support_of(p)
    if support is not None and _is_bounded(support, p.event_dim):
        held.__class__ = _masked_class(type(p))
        vars(held).update(mask_support=support, value_dtype=dtype)
    return held


def support_of(p: npd.Distribution) -> Any:
    """The NumPyro constraint that p's values satisfy, None where its family names none.

    NumPyro's Levy loses it in a pytree operation; it is read off a new one. TypeError where there
    is none to be had.
    """
    support = p.support
    names_none = type(p).support is npd.Distribution.support
    if support is not None or names_none:
        return support
    try:
        return type(p)(**p.get_args(), validate_args=False).support
    except TypeError:
        raise TypeError(
            f"{type(p).__name__} lost its support in an operation on pytrees, such as jax.vmap;"
            " name the field that holds it in its `pytree_data_fields`"
        ) from None


def _is_bounded(support: Any, event_dim: int) -> bool:
    """Whether it can be asked of one event, and is not all of R^d."""
    if constraints.is_dependent(support) or support.event_dim != event_dim:
        return False
    return coordinate_constraint(support) is not constraints.real


def coordinate_constraint(constraint: Any) -> Any:
    """The constraint of one coordinate, without the wrappers of `to_event`."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


REAL_LINE = -math.inf, math.inf


def ends_of(constraint: Any) -> tuple[Any, Any] | None:
    """The ends of a NumPyro interval as it holds them, numbers or arrays that may be traced; None
    where it names none.
    """
    named = vars(constraint)
    if not {"lower_bound", "upper_bound"} & set(named):
        return None
    return named.get("lower_bound", -math.inf), named.get("upper_bound", math.inf)


def interval_of(constraint: Any) -> tuple[float, float]:
    """The ends of a NumPyro interval, as far as it has one number for each."""
    low, high = ends_of(constraint) or REAL_LINE
    return _one_end(low, -math.inf), _one_end(high, math.inf)


def _one_end(end: Any, unknown: float) -> float:
    """An end of all coordinates alike, or `unknown`."""
    if isinstance(end, Tracer):
        return unknown
    numbers = np.unique(end)
    return float(numbers[0]) if len(numbers) == 1 else unknown


@functools.cache
def _masked_class(family: type[npd.Distribution]) -> type[npd.Distribution]:
    """The family with a mask around its density: still an instance of it, for what asks."""
    density = mass_of(family)

    def log_prob(self, value: ArrayLike, *intermediates: Any) -> jax.Array:
        value, support = jnp.asarray(value), self.mask_support
        if not support.is_discrete and not jnp.issubdtype(value.dtype, jnp.inexact):
            value = value.astype(float)
        inside = contains(support, value, self.value_dtype)
        # A point of the support stands in for those off it, so that no derivative there is NaN.
        safe = jnp.asarray(support.feasible_like(value))
        if jnp.issubdtype(value.dtype, jnp.inexact):
            safe = safe.astype(value.dtype)
        axes = tuple(range(-self.event_dim, 0))
        point = jnp.where(jnp.expand_dims(inside, axes), value, safe)
        outside = jnp.where(jnp.isnan(value).any(axes), jnp.nan, -jnp.inf)
        return jnp.where(inside, density(self, point, *intermediates), outside)

    return type(family.__name__, (family,), {"log_prob": log_prob})


def contains(constraint: Any, x: jax.Array, dtype: Any) -> jax.Array:
    """Whether each event of x, stored in a dtype, satisfies a NumPyro constraint.

    On sets without a volume up to the rounding of the numbers, of float32 at the least, in which
    data are stored: NumPyro's own test knows neither half precision nor float32 data in double.
    """
    match constraint:
        case constraints.independent():
            inside = contains(constraint.base_constraint, x, dtype)
            return inside.all(tuple(range(-constraint.reinterpreted_batch_ndims, 0)))
        case _ if constraint is constraints.simplex:
            return (x >= 0).all(-1) & _is_one(x, dtype)
        case _ if constraint is constraints.sphere:
            return _is_one(x**2, dtype)
        case constraints.multinomial():
            return jnp.asarray(constraint(x)) & (x == jnp.round(x)).all(-1)
    return jnp.asarray(constraint(x))


def _is_one(terms: jax.Array, dtype: Any) -> jax.Array:
    """Whether they sum to 1, but for the rounding of each number and of the sum."""
    stored = jnp.finfo(dtype).eps if jnp.issubdtype(dtype, jnp.floating) else 0
    single = float(jnp.finfo(jnp.float32).eps)
    tolerance = 4 * float(stored) + 10 * single * terms.shape[-1] ** 0.5
    return jnp.abs(terms.sum(-1) - 1) <= tolerance
