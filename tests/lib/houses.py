"""Nets of other libraries as a user writes them, x [d_in] -> tanh layer of 8, dropout or none,
`heads` arrays of shape [d_out].
"""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from flax import nnx

import vaejax


def split(h, heads):
    return tuple(jnp.split(h, heads)) if heads > 1 else h


class InNNX(nnx.Module):
    def __init__(self, d_in, d_out, heads=1, rate=0.0, *, rngs):
        self.layers = nnx.List(
            [nnx.Linear(d_in, 8, rngs=rngs), nnx.Linear(8, heads * d_out, rngs=rngs)]
        )
        self.dropout = nnx.Dropout(rate, rngs=rngs) if rate else None
        self.heads = heads

    def __call__(self, x):
        h = nnx.tanh(self.layers[0](x))
        h = h if self.dropout is None else self.dropout(h)
        return split(self.layers[1](h), self.heads)


class InEquinox(eqx.Module):
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    dropout: eqx.nn.Dropout | None
    heads: int

    def __init__(self, d_in, d_out, heads=1, rate=0.0, *, key):
        inner_key, outer_key = jax.random.split(key)
        self.inner = eqx.nn.Linear(d_in, 8, key=inner_key)
        self.outer = eqx.nn.Linear(8, heads * d_out, key=outer_key)
        self.dropout = eqx.nn.Dropout(rate) if rate else None
        self.heads = heads

    def __call__(self, x, *, key=None):
        h = jnp.tanh(self.inner(x))
        h = h if self.dropout is None else self.dropout(h, key=key)
        return split(self.outer(h), self.heads)


class InHaiku(hk.Module):
    def __init__(self, d_out, heads=1, rate=0.0, name=None):
        super().__init__(name=name)
        self.d_out, self.heads, self.rate = d_out, heads, rate

    def __call__(self, x):
        h = jnp.tanh(hk.Linear(8)(x))
        return split(hk.Linear(self.heads * self.d_out)(h), self.heads)


class InHaikuWithDropout(InHaiku):
    def __call__(self, x, is_training):
        h = jnp.tanh(hk.Linear(8)(x))
        h = hk.dropout(hk.next_rng_key(), self.rate, h) if is_training else h
        return split(hk.Linear(self.heads * self.d_out)(h), self.heads)


class InLinen(nn.Module):
    d_out: int
    heads: int = 1

    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(8)(x))
        return split(nn.Dense(self.heads * self.d_out)(h), self.heads)


class InLinenWithDropout(InLinen):
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, deterministic):
        h = nn.tanh(nn.Dense(8)(x))
        h = nn.Dropout(self.rate)(h, deterministic=deterministic)
        return split(nn.Dense(self.heads * self.d_out)(h), self.heads)


# {house: the net (d_in, d_out, heads) without dropout}, and with it.
PLAIN = {
    "NNX": lambda d_in, d_out, heads=1: vaejax.from_nnx(InNNX, d_in, d_out, heads),
    "Equinox": lambda d_in, d_out, heads=1: vaejax.from_equinox(InEquinox, d_in, d_out, heads),
    "Haiku": lambda d_in, d_out, heads=1: vaejax.from_haiku(InHaiku, d_out, heads=heads),
    "Linen": lambda d_in, d_out, heads=1: InLinen(d_out, heads),
}
DROPOUT = {
    "NNX": lambda d_in, d_out, heads=1: vaejax.from_nnx(InNNX, d_in, d_out, heads, rate=0.5),
    "Equinox": lambda d_in, d_out, heads=1: vaejax.from_equinox(
        InEquinox, d_in, d_out, heads, rate=0.5
    ),
    "Haiku": lambda d_in, d_out, heads=1: vaejax.from_haiku(
        InHaikuWithDropout, d_out, heads=heads, rate=0.5
    ),
    "Linen": lambda d_in, d_out, heads=1: vaejax.from_linen(InLinenWithDropout(d_out, heads)),
}


def model_of(nets, house):
    """A VAE of three binary numbers and two latents, both of its nets of one house."""
    return vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(nets[house](2, 3)),
        vaejax.DiagNormal(nets[house](3, 2, 2)),
    )
