"""Distributions that NumPyro makes by transforms, rewritten as equal ones that lose no digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
from numpyro.distributions.transforms import StickBreakingTransform


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


def rewritten(p: Any) -> Any:
    """p, or an equal distribution: T(X).to_event() in place of T(X.to_event()), where T keeps the
    coordinates apart, so that the distribution of one coordinate is seen; and an exact
    stick-breaking.
    """
    if isinstance(p, npd.Independent):
        inside = rewritten(p.base_dist)
        same = inside is p.base_dist
        return p if same else inside.to_event(p.reinterpreted_batch_ndims)
    if type(p) is not npd.TransformedDistribution:
        return p
    transforms = [
        ExactStickBreaking() if type(t) is StickBreakingTransform else t for t in p.transforms
    ]
    if isinstance(p.base_dist, npd.Independent) and not any(t.domain.event_dim for t in transforms):
        apart = npd.TransformedDistribution(rewritten(p.base_dist.base_dist), transforms)
        return apart.to_event(p.base_dist.reinterpreted_batch_ndims)
    same = all(new is old for new, old in zip(transforms, p.transforms, strict=True))
    return p if same else npd.TransformedDistribution(p.base_dist, transforms)
