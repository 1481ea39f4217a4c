"""Directed graphs: a joint density is a product of conditionals, p(v | u) = prod_j p(v_j |
Pa(v_j)), nats, over an acyclic graph.

Each factor is any conditional of the library, so a net gives its parameters. `DirectedGraph` is a
conditional itself: shown its inputs u it gives a `Joint`, a distribution over {name: value}. So a
graph can be a model, a prior, an encoder, or a factor of another graph.

Nodes with finitely many values are summed out exactly, by variable elimination: on a hidden Markov
model that is the forward pass.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax

from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.models.base import Conditional, Supports, density_of
from vaejax.models.joint import Joint
from vaejax.models.node import Structure, Values


@component
class DirectedGraph(Structure, Conditional):
    """log p(v | u) = sum_j log p(v_j | Pa(v_j)): nodes v, and `inputs` u that nothing here
    explains.

    `graph(params, given)` is the `Joint` at given = {input: value}, or the bare value of the one
    input; without inputs, `given` is what the roots are shown. params is {node: its parameters}.
    The order of the nodes is free; of their ancestral order the first one serves that keeps to it.
    ValueError for a cycle, an unknown parent, a name that is twice there.
    """

    @property
    def support(self) -> Supports:
        """{node: the values that it is for}."""
        return {node.name: node.conditional.support for node in self.nodes}

    def clamp(self, *names: str) -> "DirectedGraph":
        """The product of the other factors, with these nodes for inputs: prod_(j not clamped) p(v_j
        | Pa(v_j)).
        """
        clamped = tuple(self[name] for name in names)
        return replace(
            self,
            nodes=tuple(node for node in self.nodes if node.name not in names),
            inputs=(*self.inputs, *names),
            clamped=(*self.clamped, *clamped),
        )

    def init(
        self, key: Key, given: PyTree = None, values: Values | None = None
    ) -> dict[str, PyTree]:
        """{node: its parameters}. Each conditional is shown its parents' values, from `values`, or
        drawn ancestrally where they lack.
        """
        known, params = {**self._inputs(given), **(values or {})}, {}
        for name, node_key in zip(self.order, jax.random.split(key, len(self.nodes)), strict=True):
            node, (params_key, sample_key) = self[name], jax.random.split(node_key)
            shown = self.shown_to(node, known, given)
            params[name] = node.conditional.init(params_key, shown)
            if name not in known and any(name in other.parents for other in self.nodes):
                factor = density_of(node.conditional, params[name], shown)
                known[name] = factor.sample(sample_key)
        return params

    def __call__(self, params: Mapping[str, PyTree], given: PyTree = None) -> "Joint":
        inputs = self._inputs(given)
        ready, late = {}, {}
        for name in self.order:
            node = self[name]
            if set(node.parents) <= set(self.inputs):
                shown = self.shown_to(node, inputs, given)
                ready[name] = density_of(node.conditional, params[name], shown)
            else:
                late[name] = params[name]
        needed = {parent for name in late for parent in self[name].parents}
        return Joint(ready, late, {name: inputs[name] for name in inputs if name in needed}, self)

    def _inputs(self, given: PyTree) -> dict[str, Any]:
        """{input: value}, of a mapping that has them all, or of the bare value of one."""
        if not self.inputs:
            return {}
        if isinstance(given, Mapping):
            missing = [name for name in self.inputs if name not in given]
            if missing:
                raise ValueError(
                    f"DirectedGraph: no value for the input {missing[0]!r}; give one for each of"
                    f" {', '.join(self.inputs)}"
                )
            return {name: given[name] for name in self.inputs}
        if len(self.inputs) > 1:
            raise ValueError(
                f"DirectedGraph has the inputs {', '.join(self.inputs)}; give a mapping of them,"
                f" not {type(given).__name__}"
            )
        return dict.fromkeys(self.inputs, given)
