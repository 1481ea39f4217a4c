"""Conditionals p(. | given), whose parameters a net gives: likelihoods, encoders, classifiers,
nodes of a graph.

What a docstring calls raw passes through `soft_bound`, so that no output of a
net, however large, makes a density overflow: log-scales to +-7, log-rates to +-15.

A net may compute in bfloat16 or float16 (`vaejax.HalfPrecision`): its outputs are taken as float32,
and the density is that of the same numbers in float32. So are outputs that are whole numbers.
"""

from typing import Any

import jax

from vaejax.base.types import Key, PyTree
from vaejax.models.base import Conditional
from vaejax.networks.base import Net, apply_net, init_net

MAX_LOG_SCALE = 7.0  # in float32 exp(2 s) overflows at s = 44


def take_heads(
    owner: Any, output: Any, names: str, at_least: int | None = None, at_most: int | None = None
) -> tuple[jax.Array, ...]:
    """The outputs of a net, as many as its owner has names for and the first two of one shape, or a
    TypeError that says what to write.
    """
    count = len(names.split(", "))
    if not isinstance(output, tuple) or not (at_least or count) <= len(output) <= (
        at_most or count
    ):
        raise TypeError(
            f"{type(owner).__name__} needs a net that returns ({names}), such as vaejax.MLP(dim,"
            f" heads={at_least or count})"
        )
    if output[0].shape != output[1].shape:
        raise TypeError(
            f"{type(owner).__name__} needs ({names}) of one shape; its net's have"
            f" {[head.shape for head in output]}"
        )
    return output


def require_vectors(owner: Any, output: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """These heads, or a TypeError where they are no vectors: for densities that mix the coordinates
    of one.
    """
    if any(head.ndim != 1 for head in output):
        raise TypeError(
            f"{type(owner).__name__} is a density of vectors, so its net's heads have shape [d],"
            f" not {[head.shape for head in output]}; write vaejax.MLP(d, ...) with a number d"
        )
    return output


def take_one_head(owner: Any, output: Any, name: str) -> jax.Array:
    """The one output of a net, or a TypeError that says what to write."""
    if isinstance(output, tuple):
        raise TypeError(
            f"{type(owner).__name__} needs a net that returns {name} only, such as"
            f" vaejax.MLP(dim), not {len(output)} heads"
        )
    return output


class OfNet(Conditional, abstract=True):
    """What a conditional has whose only parameters are its net's."""

    net: Net

    def init(self, key: Key, given) -> PyTree:
        return init_net(self.net, key, given)

    def logits(self, params: PyTree, given) -> jax.Array:
        """The net's one head, where it is logits."""
        return take_one_head(self, apply_net(self.net, params, given), "logits")
