"""The structure of a directed graph: its nodes, their order, and what each is shown."""

from collections.abc import Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from vaejax.base.checks import require_kind, shortened, unknown_name
from vaejax.base.supports import shown
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.models.base import Factor, require_factor

Values = Mapping[str, Any]


@component
class Node:
    """v_name ~ conditional( . | parents): shown the value of its one parent, or a tuple of several,
    in this order.

    A node without parents is shown what the graph is shown: a prior serves, and so does any
    conditional on `vaejax.Free`.
    """

    name: str
    conditional: Factor
    parents: tuple[str, ...] | str = ()

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise TypeError(
                f"the name of a node is {shortened(self.name)}; write Node(name, factor, parents)"
            )
        require_factor(self.conditional, Factor, f"the node {self.name!r}")
        if isinstance(self.parents, str):
            object.__setattr__(self, "parents", (self.parents,))


@component
class Structure:
    """Nodes, and `inputs` that no node explains: acyclic, every parent known, each name once.

    `clamped` are the inputs that were nodes; of a node that does not know its support, such as a
    VampPrior, it is one that does.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...] = ()
    clamped: tuple[Node, ...] = ()

    def __post_init__(self):
        for node in self.nodes:
            require_kind(node, Node, "a node of DirectedGraph")
        names = [*self.inputs, *(node.name for node in self.nodes)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"DirectedGraph: {twice[0]!r} stands for more than one node or input; give each its"
                " own name"
            )
        for node in self.nodes:
            for parent in node.parents:
                if parent not in names:
                    reason = unknown_name("parent", parent, names)
                    raise ValueError(f"DirectedGraph: node {node.name!r}: {reason}")
        try:
            TopologicalSorter({node.name: node.parents for node in self.nodes}).prepare()
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise ValueError(
                f"DirectedGraph: {path} is a cycle; a graph of conditionals has none, so take one"
                " arrow out"
            ) from None

    def __getitem__(self, name: str) -> Node:
        if name not in self.by_name:
            raise ValueError(unknown_name("node", name, list(self.by_name)))
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def shown_to(self, node: Node, values: Values, given: PyTree) -> PyTree:
        """What a conditional is shown: the value of its one parent, a tuple of several, or, a root,
        what the graph is shown.
        """
        parents = tuple(self._shown(parent, values[parent]) for parent in node.parents)
        if len(parents) > 1:
            return parents
        return parents[0] if parents else given

    def _shown(self, name: str, value: PyTree) -> PyTree:
        """What others are shown of a node or of an input."""
        supports = [(node.name, node.conditional.support) for node in (*self.clamped, *self.nodes)]
        known = {name: support for name, support in supports if support is not None}
        return shown(known.get(name), value)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes, parents before children."""
        sorter = TopologicalSorter(
            {
                node.name: [parent for parent in node.parents if parent not in self.inputs]
                for node in self.nodes
            }
        )
        return tuple(sorter.static_order())

    def ancestors(self, names: tuple[str, ...]) -> set[str]:
        """These nodes, their parents, and so on."""
        found: set[str] = set()
        for name in reversed(self.order):
            if name in names or any(name in self[child].parents for child in found):
                found.add(name)
        return found

    def dot(self, observed: tuple[str, ...] = ()) -> str:
        """The graph in Graphviz's language: observed nodes filled, inputs without a border."""
        lines = [f'  "{name}" [shape=plaintext];' for name in self.inputs]
        lines += [
            f'  "{name}"'
            f" [shape=circle{', style=filled, fillcolor=lightgrey' * (name in observed)}];"
            for name in self.order
        ]
        lines += [
            f'  "{parent}" -> "{name}";' for name in self.order for parent in self[name].parents
        ]
        return "\n".join(["digraph {", *lines, "}"])
