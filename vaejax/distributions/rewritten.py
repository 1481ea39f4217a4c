"""Distributions that NumPyro makes by transforms, rewritten as equal ones that lose no digits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
from numpyro.distributions import constraints
from numpyro.distributions.transforms import PowerTransform, StickBreakingTransform

from vaejax.distributions.support_masks import coordinate_constraint


class ExactStickBreaking(StickBreakingTransform):
    """y_k = v_k prod_(j < k) (1 - v_j), v = sigmoid(x - offsets), y_d what is left of the stick.

    NumPyro's clips v, and takes what is left as 1 - sum_k y_k: of a normal of scale 5 the density
    of its own samples is off by 6 nats. Here it stays in logarithms, and what is left is the sum of
    the y after k. Reference: Stan's reference manual, the simplex transform.
    """

    def __call__(self, x: Any) -> jax.Array:
        log_v, log_rest = _log_fractions(x)
        left = jnp.cumsum(log_rest, axis=-1)  # log prod_(j <= k) (1 - v_j)
        end = jnp.zeros_like(left[..., :1])
        log_y = jnp.concatenate([log_v, end], axis=-1) + jnp.concatenate([end, left], axis=-1)
        return jnp.exp(log_y)

    def _inverse(self, y: Any) -> jax.Array:
        after = jax.lax.cumsum(y, axis=y.ndim - 1, reverse=True)[..., 1:]
        tiny = jnp.finfo(y.dtype).tiny
        ratios = jnp.log(jnp.maximum(y[..., :-1], tiny)) - jnp.log(jnp.maximum(after, tiny))
        return ratios + _offsets(ratios)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> jax.Array:
        log_v, log_rest = _log_fractions(x)
        left = jnp.cumsum(log_rest, axis=-1) - log_rest  # log prod_(j < k) (1 - v_j)
        return jnp.sum(log_v + log_rest + left, axis=-1)


def _log_fractions(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log v and log(1 - v)."""
    logits = x - _offsets(x)
    return jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)


def _offsets(x: jax.Array) -> jax.Array:
    """log(number of pieces after k), so that x = 0 gives equal pieces."""
    count = x.shape[-1]
    return jnp.broadcast_to(np.log(np.arange(count, 0, -1)).astype(x.dtype), x.shape)


class ExactPower(PowerTransform):
    """y = x^c with log |dy/dx| = log |c| + (c - 1) log x: NumPyro's is the logarithm of c y / x,
    which overflows, so that a sample of 2e38 had the density 0.
    """

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> jax.Array:
        return jnp.log(jnp.abs(self.exponent)) + (self.exponent - 1) * jnp.log(x)


class _Interval(constraints.interval):
    """[low, high], of which an end may be infinite."""

    def feasible_like(self, prototype: Any) -> jax.Array:
        low, high = (jnp.asarray(end, float) for end in (self.lower_bound, self.upper_bound))
        from_low = jnp.where(jnp.isinf(high), low + 1, (low + high) / 2)
        return jnp.broadcast_to(jnp.where(jnp.isinf(low), high - 1, from_low), jnp.shape(prototype))


class TransformedDistribution(npd.TransformedDistribution):
    """NumPyro's T(X), with the support that its values have: 2 X + 1 of an X > 0 lies above 1, and
    NumPyro says all of R unless the transform is told the set of X.
    """

    @property
    def support(self) -> Any:
        support = super().support
        image = _image(self)
        if image is None:
            return support
        num_events = self.event_dim
        return constraints.independent(image, num_events) if num_events else image


REAL_LINE = -math.inf, math.inf


def _image(p: npd.TransformedDistribution) -> _Interval | None:
    """Where the transforms take the values of the base, coordinate by coordinate, if some of them
    is declared for all of R and is given less; else NumPyro knows.
    """
    if any(t.domain.event_dim or t.codomain.event_dim for t in p.transforms):
        return None
    ends = _ends(p.base_dist.support)
    narrower = False
    for transform in p.transforms:
        if transform.domain is constraints.real and ends is not REAL_LINE:
            images = [jnp.asarray(transform(jnp.asarray(end, float))) for end in ends]
            ends, narrower = (jnp.minimum(*images), jnp.maximum(*images)), True
        else:
            ends = _ends(transform.codomain)
    return _Interval(*ends) if narrower else None


def _ends(constraint: Any) -> tuple[Any, Any]:
    """`REAL_LINE` itself where there are none, for the ends may be traced."""
    bounds = vars(coordinate_constraint(constraint))
    if not {"lower_bound", "upper_bound"} & set(bounds):
        return REAL_LINE
    return bounds.get("lower_bound", -math.inf), bounds.get("upper_bound", math.inf)


def _exact(transform: Any) -> Any:
    """The same transform, where NumPyro's loses digits."""
    if type(transform) is PowerTransform:
        return ExactPower(transform.exponent)
    return ExactStickBreaking() if type(transform) is StickBreakingTransform else transform


def rewritten(p: Any) -> Any:
    """p, or an equal distribution: T(X).to_event() in place of T(X.to_event()), where T keeps the
    coordinates apart, so that the distribution of one coordinate is seen; with exact transforms,
    and the support that its values have.
    """
    if isinstance(p, npd.Independent):
        inside = rewritten(p.base_dist)
        same = inside is p.base_dist
        return p if same else inside.to_event(p.reinterpreted_batch_ndims)
    if type(p) is not npd.TransformedDistribution:
        return p
    transforms = [_exact(transform) for transform in p.transforms]
    if isinstance(p.base_dist, npd.Independent) and not any(t.domain.event_dim for t in transforms):
        apart = TransformedDistribution(rewritten(p.base_dist.base_dist), transforms)
        return apart.to_event(p.base_dist.reinterpreted_batch_ndims)
    return TransformedDistribution(p.base_dist, transforms)
