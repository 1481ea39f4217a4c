"""The quantile function of NumPyro's distributions, where it is that of their own density."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd

from vaejax.distributions.support_masks import support_of


def innermost(p: npd.Distribution) -> Any:
    """The distribution of one coordinate, without the wrappers of `expand` and `to_event`."""
    while isinstance(p, npd.Independent | npd.ExpandedDistribution):
        p = p.base_dist
    return p


def quantile(p: npd.Distribution, u: jax.Array) -> jax.Array:
    """The z with P(Z <= z) = u, coordinate by coordinate.

    NotImplementedError where p has independent coordinates with a quantile function no more than
    NumPyro says: of vectors, of discrete families, and of those that change the density or the
    sampler of the class from which they have their `icdf`.
    """
    coordinate = innermost(p)
    support = support_of(coordinate)
    if coordinate.event_shape or (support is not None and support.is_discrete):
        raise NotImplementedError(f"the quantiles of {type(coordinate).__name__}")
    if isinstance(coordinate, npd.TransformedDistribution) and inherits_icdf(coordinate):
        return _through_transforms(coordinate, u)
    require_own_icdf(type(coordinate))
    return jnp.asarray(coordinate.icdf(u))


def inherits_icdf(p: npd.TransformedDistribution) -> bool:
    return type(p).icdf is npd.TransformedDistribution.icdf


def _through_transforms(p: npd.TransformedDistribution, u: jax.Array) -> jax.Array:
    """Of z = T(x): T(quantile of x at u), at 1 - u where T decreases.

    A transform without a sign, such as the absolute value, is not monotone: NotImplementedError.
    """
    require_own_icdf(type(p))
    sign: Any = 1
    for transform in p.transforms:
        if transform.domain.event_dim:
            raise NotImplementedError(f"{type(transform).__name__} mixes coordinates")
        sign = sign * transform.sign
    z = quantile(p.base_dist, jnp.where(sign < 0, 1 - u, u))
    for transform in p.transforms:
        z = transform(z)
    return jnp.asarray(z)


def require_own_icdf(family: type[npd.Distribution]) -> None:
    """NotImplementedError where a subclass changes the density or the sampler of its parent, but
    has the `icdf` of the parent still, as NumPyro's folded distributions do.
    """
    homes = {
        name: next(kind for kind in family.__mro__ if name in vars(kind))
        for name in ("icdf", "log_prob", "sample")
    }
    for name in ("log_prob", "sample"):
        if not issubclass(homes["icdf"], homes[name]):
            raise NotImplementedError(f"{family.__name__}.icdf is not of its own {name}")
