"""Nets of vectors: no batch axis, any input shape, `heads` outputs of shape `out`.

The one example is an array, or a tuple (or other pytree) of arrays such as (x, context): all leaves
are taken, one after another. A class label is given one-hot. With one head a net returns an array,
with more a tuple of arrays.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from vaejax.base.checks import require_shape
from vaejax.base.values import component
from vaejax.networks.layers import (
    Dense,
    Norm,
    Shape,
    Sized,
    flat,
    normalise,
    num_entries,
    split_heads,
)


class MLP(Sized):
    """x -> Dense, norm, activation, ..., Dense. `out` is a size or a shape; `hidden` the widths
    between.
    """

    out: Shape
    hidden: tuple[int, ...] = (200, 200)
    heads: int = 1
    activation: Callable = nn.tanh
    norm: Norm = "none"

    @nn.compact
    def __call__(self, x):
        h = flat(x)
        for width in self.hidden:
            h = self.activation(normalise(self.norm, Dense(width)(h)))
        return split_heads(Dense(self.heads * num_entries(self.out))(h), self.out, self.heads)


class GatedMLP(Sized):
    """x -> h = a * sigmoid(g), (a, g) = norm(Dense(x)), ..., Dense.

    References: Dauphin et al. 2017; the nets of Tomczak & Welling 2018. The layer norm is of (a, g)
    together, as in Ba et al. 2016.
    """

    out: Shape
    hidden: tuple[int, ...] = (300, 300)
    heads: int = 1
    norm: Literal["none", "layer"] = "none"

    @nn.compact
    def __call__(self, x):
        if self.norm not in ("none", "layer"):
            raise ValueError(f'GatedMLP.norm = {self.norm!r}; give "none" or "layer"')
        h = flat(x)
        for width in self.hidden:
            linear, gate = jnp.split(normalise(self.norm, Dense(2 * width)(h)), 2)
            h = linear * nn.sigmoid(gate)
        return split_heads(Dense(self.heads * num_entries(self.out))(h), self.out, self.heads)


@component
class Free:
    """One learned array for each name, of shape `out`, whatever the example: q of one data point,
    with no amortisation.
    """

    out: Shape
    names: tuple[str, ...] = ("loc", "log_scale")

    def __post_init__(self):
        require_shape(self.out, "Free.out")

    def init(self, key, example):
        return {name: jnp.zeros(self.out) for name in self.names}

    def apply(self, params, example):
        arrays = [params[name] for name in self.names]
        return tuple(arrays) if len(arrays) > 1 else arrays[0]
