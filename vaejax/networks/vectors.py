"""Nets of vectors: no batch axis, any input shape, `heads` outputs of shape `out`.

The one example is an array, or a tuple (or other pytree) of arrays such as (x, context): all leaves
are taken, one after another. A class label is given one-hot. With one head a net returns an array,
with more a tuple of arrays.
"""

from collections.abc import Callable
from functools import reduce
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vaejax.base.checks import require_count, require_shape
from vaejax.base.floats import widened
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


@component
class Table:
    """One learned array of shape `out` for each name and each combination of the states of discrete
    parents: params[name][state of parent 1, ..., state of parent n].

    `states` counts the values of each parent: k of a one-hot vector [k], 2 of one binary number,
    shape [1]. As logits the arrays are conditional probability tables,
    `OneHotCategorical(Table(3, (2,)))`; with `names=("loc", "log_scale")`, the components of a
    mixture. Between the states the arrays are interpolated, linearly in each parent, so that
    relaxed parents have gradients; the numbers are finite, therefore.
    """

    out: Shape
    states: tuple[int, ...]
    names: tuple[str, ...] = ("logits",)

    def __post_init__(self):
        require_shape(self.out, "Table.out")
        if not isinstance(self.states, tuple):
            raise TypeError(f"Table.states = {self.states!r}; give a tuple, such as (2,)")
        for count in self.states:
            require_count(count, "Table.states", least=2)

    def init(self, key, example):
        out = self.out if isinstance(self.out, tuple) else (self.out,)
        return {name: jnp.zeros((*self.states, *out)) for name in self.names}

    def apply(self, params, example):
        weights = self._weights(example)
        # sum over the states of parent 1 of its weights * table, and so on
        arrays = [
            reduce(lambda table, weight: jnp.tensordot(weight, table, 1), weights, params[name])
            for name in self.names
        ]
        return tuple(arrays) if len(arrays) > 1 else arrays[0]

    def _weights(self, example) -> list[jax.Array]:
        """One-hot [k] of each parent."""
        parents = jax.tree.leaves(example) if self.states else []
        shapes = [jnp.shape(parent) for parent in parents]
        fit = [
            shape == (count,) or (shape, count) == ((1,), 2)
            for shape, count in zip(shapes, self.states, strict=False)
        ]
        if len(parents) != len(self.states) or not all(fit):
            raise ValueError(
                f"Table.states = {self.states}, and the parents have the shapes {shapes}; count"
                " the states of each parent: k of a one-hot vector [k], 2 of one binary number [1]"
            )
        return [
            jnp.concatenate([1 - parent, parent]) if len(parent) == 1 else parent
            for parent in map(widened, parents)
        ]
