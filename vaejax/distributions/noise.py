"""How the K samples of one estimate depend on each other: each alone is a draw of q, so no mean
moves, only variances.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.base.checks import require_kind
from vaejax.base.contracts import Declared
from vaejax.base.types import Key
from vaejax.base.values import check_fields_of, component
from vaejax.distributions.base import Distribution, NotKnownError

BITS = 30  # of a Sobol coordinate


class Noise(Declared):
    """K sources of randomness, and the sample of q that each stands for.

    Your own is a value with these two methods, such as one that uses each source twice:

        @vaejax.component
        class Twice(vaejax.Noise):
            def sources(self, q, key, num_samples):
                return jnp.repeat(jax.random.split(key, num_samples // 2), 2, axis=0)

            def at(self, q, source):
                return q, source

    `OfUniforms` is for noises that draw uniform numbers, one for each coordinate.
    """

    def sources(self, q: Distribution, key: Key, num_samples: int) -> Any:
        """[K, ...], one source for each sample."""
        raise NotImplementedError(f"{type(self).__name__}.sources")

    def at(self, q: Distribution, source: Any) -> tuple[Distribution, Any]:
        """(distribution, key) whose sample is the one of this source."""
        raise NotImplementedError(f"{type(self).__name__}.at")


check_fields_of(Noise, lambda value, name: require_kind(value, Noise, name))


@component
class Independent(Noise):
    """K independent draws."""

    def sources(self, q: Distribution, key: Key, num_samples: int) -> Key:
        return jax.random.split(key, num_samples)

    def at(self, q: Distribution, source: Key) -> tuple[Distribution, Key]:
        return q, source


class OfUniforms(Noise):
    """What the noises share that draw uniform numbers [K, *event]."""

    def uniforms(
        self, key: Key, num_samples: int, shape: tuple[int, ...], dtype
    ) -> Float[Array, "k ..."]:
        """K arrays of this shape, each uniform on (0, 1), though not independent of each other."""
        raise NotImplementedError(f"{type(self).__name__}.uniforms")

    def sources(self, q: Distribution, key: Key, num_samples: int) -> jax.Array:
        event = q.event
        leaves = jax.tree.leaves(event)
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
            raise NotKnownError(
                f"{type(self).__name__} noise stands for samples of real numbers, and {q.name} has"
                " whole ones; use vaejax.Independent()"
            )
        # One uniform number for each coordinate; those of a graph stand in a row, node by node.
        shape = event.shape if leaves == [event] else (sum(leaf.size for leaf in leaves),)
        return self.uniforms(key, num_samples, shape, leaves[0].dtype)

    def at(self, q: Distribution, source: jax.Array) -> tuple[Distribution, None]:
        return q.at_uniform(source), None


@component
class Antithetic(OfUniforms):
    """K/2 independent pairs (u, 1 - u): for a normal q, noise (eps, -eps). Takes the odd part of an
    integrand away.

    Reference: Wu, Goodman & Ermon 2019.
    """

    def uniforms(
        self, key: Key, num_samples: int, shape: tuple[int, ...], dtype
    ) -> Float[Array, "k ..."]:
        if num_samples % 2:
            raise ValueError(
                f"num_samples = {num_samples}, but antithetic noise comes in pairs; give an even"
                " number"
            )
        u = open_uniform(key, (num_samples // 2, *shape), dtype)
        return jnp.concatenate([u, 1 - u])


@component
class Sobol(OfUniforms):
    """K points of a Sobol sequence, scrambled afresh for each key: randomised quasi-Monte Carlo.

    The scrambling is a random lower triangular matrix over the bits, and a shift. Best with K a
    power of 2. References: Buchholz, Wenzel & Mandt 2018; Matousek 1998 for the scrambling.
    """

    def uniforms(
        self, key: Key, num_samples: int, shape: tuple[int, ...], dtype
    ) -> Float[Array, "k ..."]:
        dim = max(1, int(np.prod(shape)))
        bits = jnp.asarray(_sobol_bits(num_samples, dim))  # [k, d, bits], the greatest first
        matrix_key, shift_key = jax.random.split(key)
        below = jnp.tril(jax.random.bernoulli(matrix_key, shape=(dim, BITS, BITS)), -1)
        matrix = below.astype(jnp.int32) + jnp.eye(BITS, dtype=jnp.int32)[None]
        shift = jax.random.bernoulli(shift_key, shape=(dim, BITS)).astype(jnp.int32)
        scrambled = (jnp.einsum("dij,kdj->kdi", matrix, bits) + shift[None]) % 2
        values = jnp.asarray(2.0 ** -np.arange(1, BITS + 1), dtype)
        half = jnp.asarray(2.0 ** -(BITS + 1), dtype)
        u = jnp.sum(scrambled.astype(dtype) * values[None, None], axis=-1) + half
        return _inside(u).reshape(num_samples, *shape)


def _sobol_bits(num_points: int, dim: int) -> np.ndarray:
    """The first points of the sequence as bits [n, d, BITS]; scipy has the direction numbers."""
    from scipy.stats import qmc  # a second of import that few need

    points = qmc.Sobol(dim, scramble=False, bits=BITS).random_base2(
        max(0, (num_points - 1).bit_length())
    )[:num_points]
    whole = np.round(points * 2**BITS).astype(np.int64)
    return (whole[..., None] >> np.arange(BITS - 1, -1, -1) & 1).astype(np.int32)


def open_uniform(key: Key, shape: tuple[int, ...], dtype) -> jax.Array:
    """Uniform on (0, 1), the ends left out."""
    return _inside(jax.random.uniform(key, shape, dtype) + jnp.finfo(dtype).epsneg / 2)


def _inside(u: jax.Array) -> jax.Array:
    """So far from 0 and 1 that a quantile is finite, and 1 - u as far."""
    edge = jnp.finfo(u.dtype).epsneg
    return jnp.clip(u, edge, 1 - edge)
