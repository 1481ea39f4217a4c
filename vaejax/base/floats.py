"""Floats: the dtype that densities are computed in, and logarithms some of which are -inf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def full_dtype(*arrays: Any) -> Any:
    """The widest float among these arrays, and float32 at least: what a density of them is in.

    Whole numbers, booleans and floats of fewer than 32 bits count as float32; float64 stays.
    """
    wide = [array for array in arrays if _is_full(array)]
    return jnp.result_type(jnp.float32, *wide)


def _is_full(array: Any) -> bool:
    """Whether its dtype is a float of 32 bits or more."""
    dtype = jnp.result_type(np.asarray(array) if isinstance(array, list | tuple) else array)
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32


def _is_half(array: Any) -> bool:
    """Whether its dtype is a float of fewer than 32 bits, such as bfloat16."""
    return jnp.issubdtype(jnp.result_type(array), jnp.floating) and not _is_full(array)


def _is_whole(array: Any) -> bool:
    """Whether its dtype has whole numbers alone, or booleans."""
    dtype = jnp.result_type(array)
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def widened(leaf: Any) -> Any:
    """An array in its `full_dtype`; what is no array of numbers stays as it is."""
    if _is_array(leaf) and (_is_half(leaf) or _is_whole(leaf)):
        return jnp.asarray(leaf, jnp.float32)
    return leaf


def without_half(leaf: Any) -> Any:
    """As `widened`, but whole numbers stay whole."""
    return jnp.asarray(leaf, jnp.float32) if _is_array(leaf) and _is_half(leaf) else leaf


def log_sum_exp(x: jax.Array, axis: int | None = None) -> jax.Array:
    """log sum exp x over an axis, or over all. Where every x is -inf it is -inf, and its gradient
    is 0: that of `jax.scipy.special.logsumexp` is NaN there.
    """
    peak = jax.lax.stop_gradient(jnp.max(x, axis, keepdims=True))
    peak = jnp.where(jnp.isfinite(peak), peak, 0)
    total = jnp.sum(jnp.exp(x - peak), axis, keepdims=True)
    log_total = peak + jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1, total)))
    return jnp.squeeze(log_total, axis)


def times_log(x: jax.Array, log_p: jax.Array) -> jax.Array:
    """x log p, and 0 for x = 0 where log p is infinite: what is impossible and did not happen."""
    return x * jnp.where((x == 0) & jnp.isinf(log_p), 0, log_p)
