"""A linear net whose numbers are fields: nothing is learned."""

import jax.numpy as jnp

import vaejax


@vaejax.component
class Linear:
    """x -> (A x, log s), or with one head A x; as rows of a tuple, so that the value is
    hashable.
    """

    matrix: tuple[tuple[float, ...], ...]
    shift: tuple[float, ...] | None = None
    log_scale: tuple[float, ...] | None = None

    def init(self, key, example):
        return ()

    def apply(self, params, x):
        loc = jnp.asarray(self.matrix, x.dtype) @ x + (
            0 if self.shift is None else jnp.asarray(self.shift, x.dtype)
        )
        return loc if self.log_scale is None else (loc, jnp.asarray(self.log_scale, x.dtype))
