"""Keys that hold their own random numbers, so that what draws from them runs as it stands at noise
that is chosen.

JAX lets its random bits come from anywhere: here a key is a row of numbers u in (0, 1), `split`
cuts the row into equal parts, and a draw takes the bits of the first ones. `jax.random.normal`
makes ndtri(u) of them, `jax.random.bernoulli` u < p.
"""

import math
from functools import cache

import jax
import jax.extend.random
import jax.numpy as jnp
from jax.scipy.special import erf

BITS = 32  # of one number: two of these words


@cache
def _implementation(num_numbers: int):
    """Of keys [1 + n, 2]: how many numbers are left in a first row, and two words for each."""

    def split(key, shape):
        num_parts = math.prod(shape)
        size = key[0, 0] // num_parts
        head = jnp.stack([size, jnp.zeros_like(size)])[None]
        starts = jnp.arange(num_parts, dtype=key.dtype) * size
        rolled = [jnp.roll(key[1:], -start.astype(jnp.int32), axis=0) for start in starts]
        parts = jnp.stack([jnp.concatenate([head, numbers]) for numbers in rolled])
        return parts.reshape(*shape, *key.shape)

    def random_bits(key, bit_width, shape):
        count = math.prod(shape)
        assert count <= num_numbers, f"{count} numbers are drawn of {num_numbers}"
        high, low = key[1 : 1 + count].T
        if bit_width == BITS:
            return high.reshape(shape)
        assert bit_width == 2 * BITS, f"numbers of {bit_width} bits are drawn"
        words = high.astype(jnp.uint64) << jnp.uint64(BITS) | low.astype(jnp.uint64)
        return words.reshape(shape)

    def refuse(*_):
        raise NotImplementedError("a given key is neither seeded nor folded in")

    return jax.extend.random.define_prng_impl(
        key_shape=(1 + num_numbers, 2),
        seed=refuse,
        split=split,
        random_bits=random_bits,
        fold_in=refuse,
        name=f"given{num_numbers}",
        tag="given",
    )


def key_of_uniforms(u):
    """The key whose draws are these numbers in [0, 1), in a row."""
    u = jnp.ravel(jnp.asarray(u))
    scaled = u * 2.0**BITS
    high = jnp.floor(scaled)
    words = jnp.stack([high, jnp.floor((scaled - high) * 2.0**BITS)], axis=1).astype(jnp.uint32)
    head = jnp.asarray([[u.size, 0]], jnp.uint32)
    return jax.random.wrap_key_data(jnp.concatenate([head, words]), impl=_implementation(u.size))


def key_of_normals(noise):
    """The key whose normal draws are these numbers: to 1e-16 in their probability, so that sums
    over a quadrature's nodes are as exact as its weights.
    """
    noise = jnp.ravel(noise)
    edge = jnp.finfo(noise.dtype).epsneg
    return key_of_uniforms(jnp.clip((1 + erf(noise / math.sqrt(2))) / 2, 0, 1 - edge))
