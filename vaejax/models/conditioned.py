"""What a directed graph says of its other nodes, where some are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import Array, Float

from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution
from vaejax.models.elimination import take
from vaejax.models.node import Values

if TYPE_CHECKING:
    from vaejax.models.joint import Joint


@pytree
class Conditioned(Distribution):
    """p(rest | values, u) = p(rest, values | u) / p(values | u): normalised where the nodes above
    the given ones are finite.

    `log_joint` is the numerator, which is always there, for MCMC and bounds.
    """

    joint: Joint
    values: dict[str, Any]

    @property
    def reparameterised(self) -> bool:
        """Whether no hidden node stands above the given ones, and the samples of all move."""
        outline = self.joint.outline()
        return not self.above and all(
            moves for name, (_, moves) in outline.items() if name not in self.values
        )

    @property
    def above(self) -> list[str]:
        """The hidden nodes above the given ones, parents first: they are drawn by their tables."""
        graph = self.joint.graph
        ancestors = graph.ancestors(tuple(self.values))
        return [name for name in graph.order if name in ancestors and name not in self.values]

    def log_joint(self, rest: Values) -> Scalar:
        """log p(rest, values | u)."""
        return self.joint.log_prob({**rest, **self.values})

    @property
    def log_evidence(self) -> Scalar:
        """log p(values | u), exact."""
        return self.joint.log_marginal(self.values)

    def log_prob(self, rest: Values) -> Scalar:
        return self.log_joint(rest) - self.log_evidence

    def marginal(self, name: str) -> tuple[PyTree, Float[Array, " n"]]:
        """The states of a finite node, and p(state | values, u) of each."""
        (states,), table = self.joint.log_marginals(self.values, name)
        return states, jax.nn.softmax(table)

    def sample(self, key: Key) -> dict[str, Any]:
        """Exact: each hidden node above the given ones from its conditional given all before it,
        then the others ancestrally.
        """
        values, above = dict(self.values), self.above
        *keys, last = jax.random.split(key, len(above) + 1)
        for name, node_key in zip(above, keys, strict=True):
            (states,), table = self.joint.log_marginals(values, name)
            values[name] = take(states, jax.random.categorical(node_key, table))
        values = self.joint.complete(values, last)
        return {name: values[name] for name in self.joint.graph.order if name not in self.values}
