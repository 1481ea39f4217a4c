"""How the K samples of one estimate depend on each other: each alone is a draw of q, so no mean
moves, only variances.

`noise.sources(q, key, num_samples)` has a leading axis of K sources, and `noise.at(q, source)`
gives (distribution, key) whose sample is the one of that source. All but `Independent` draw uniform
numbers, one for each coordinate, and want of q a method `from_uniform(u)`, such as the inverse of
its distribution function; or a method `at_uniform(u)`, which gives a distribution with that one
sample.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.types import Distribution, Key, PyTree, Scalar
from vaejax.base.values import component, pytree

BITS = 30  # of a Sobol coordinate


class Noise(Protocol):
    def sources(self, q: Distribution, key: Key, num_samples: int) -> Any: ...
    def at(self, q: Distribution, source: Any) -> tuple[Distribution, Any]: ...


@component
class Independent:
    """K independent draws."""

    def sources(self, q: Distribution, key: Key, num_samples: int) -> Key:
        return jax.random.split(key, num_samples)

    def at(self, q: Distribution, source: Key) -> tuple[Distribution, Key]:
        return q, source


class OfUniforms:
    """What the noises share that draw uniform numbers [K, *event]."""

    def uniforms(
        self, key: Key, num_samples: int, shape: tuple[int, ...], dtype
    ) -> Float[Array, "k ..."]:
        raise NotImplementedError

    def sources(self, q: Distribution, key: Key, num_samples: int) -> jax.Array:
        event = jax.eval_shape(q.sample, jax.random.key(0))
        leaves = jax.tree.leaves(event)
        shape = (
            event.shape if leaves == [event] else (sum(leaf.size for leaf in leaves),)
        )  # of a graph: node by node
        return self.uniforms(key, num_samples, shape, leaves[0].dtype)

    def at(self, q: Distribution, source: jax.Array) -> tuple[Distribution, None]:
        return at_uniform(q, source), None


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
        bits = jnp.asarray(
            _sobol_bits(num_samples, dim)
        )  # [k, d, bits], the most significant first
        matrix_key, shift_key = jax.random.split(key)
        below = jnp.tril(jax.random.bernoulli(matrix_key, shape=(dim, BITS, BITS)), -1)
        matrix = below.astype(jnp.int32) + jnp.eye(BITS, dtype=jnp.int32)[None]
        shift = jax.random.bernoulli(shift_key, shape=(dim, BITS)).astype(jnp.int32)
        scrambled = (jnp.einsum("dij,kdj->kdi", matrix, bits) + shift[None]) % 2
        values = jnp.asarray(2.0 ** -np.arange(1, BITS + 1), dtype)
        u = jnp.sum(scrambled.astype(dtype) * values[None, None], axis=-1) + jnp.asarray(
            2.0 ** -(BITS + 1), dtype
        )
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


@pytree
class AtUniform:
    """q, with the one sample that its uniforms u stand for."""

    q: Any
    u: Float[Array, "..."]

    @property
    def mean(self) -> Any:
        return self.q.mean

    def sample(self, key: Any) -> PyTree:
        return self.q.from_uniform(self.u)

    def log_prob(self, value: ArrayLike) -> Scalar:
        return self.q.log_prob(value)


def at_uniform(q: Any, u: jax.Array) -> Distribution:
    """A distribution whose sample is the one that has u for its uniforms; or a TypeError."""
    if hasattr(q, "at_uniform"):
        return q.at_uniform(u)
    if not hasattr(q, "from_uniform"):
        raise TypeError(
            f"{type(q).__name__} does not say which sample a uniform number stands for; use"
            " vaejax.noise.Independent()"
        )
    return AtUniform(q, u)
