"""The structure of a directed graph: its nodes, their order, and what each is shown."""

from collections.abc import Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from vaejax.base.checks import require_kind, shortened, unknown_name
from vaejax.base.supports import shown
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.models.base import Factor, density_of, require_factor
from vaejax.models.latents import no_prior_to_show
from vaejax.models.learned import require_params_of_part
from vaejax.networks.base import Net, apply_net

Values = Mapping[str, Any]


class BesidePrior(NamedTuple):
    """What a conditional that `is_shown_prior` gets: what its parents show, and p(z | Pa(z)), the
    prior's factor of the same node.
    """

    given: PyTree
    prior: Distribution


@component
class Node:
    """v_name ~ conditional( . | parents): shown the value of its one parent, or a tuple of several,
    in this order.

    A node without parents is shown what the graph is shown: a prior serves, and so does any
    conditional on `vaejax.Free`. What is a function of others, without a density, is a
    `Deterministic`.
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
class Deterministic:
    """h_name = net(parents): a function of its one parent, or of a tuple of several.

    It has no density and nothing is drawn. It is computed once, however many nodes it is a parent
    of: the path that the layers of an encoder, or of a decoder, share.
    """

    name: str
    net: Net
    parents: tuple[str, ...] | str

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise TypeError(
                f"the name of a deterministic node is {shortened(self.name)}; write"
                " Deterministic(name, net, parents)"
            )
        if isinstance(self.parents, str):
            object.__setattr__(self, "parents", (self.parents,))
        if not self.parents:
            raise ValueError(
                f"the deterministic node {self.name!r} has no parents, so it would be a constant;"
                " name what it is a function of"
            )


@component
class Structure:
    """Nodes, and `inputs` that no node explains: acyclic, every parent known, each name once.

    `deterministic` are functions of nodes and inputs, parents themselves. `clamped` are the inputs
    that were nodes; of a node that does not know its support, such as a VampPrior, it is one that
    does. `prior` is the graph of the factors that nodes of an encoder are shown; a `GraphModel`
    says it.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...] = ()
    deterministic: tuple[Deterministic, ...] = ()
    clamped: tuple[Node, ...] = ()
    prior: Any = None

    def __post_init__(self):
        for node in self.nodes:
            require_kind(node, Node, "a node of DirectedGraph")
        for node in self.deterministic:
            require_kind(node, Deterministic, "a deterministic node of DirectedGraph")
        names = [*self.inputs, *(node.name for node in (*self.nodes, *self.deterministic))]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"DirectedGraph: {twice[0]!r} stands for more than one node or input; give each its"
                " own name"
            )
        for node in (*self.nodes, *self.deterministic):
            for parent in node.parents:
                if parent not in names:
                    reason = unknown_name("parent", parent, names)
                    raise ValueError(f"DirectedGraph: node {node.name!r}: {reason}")
        try:
            TopologicalSorter({name: self.above(name) for name in self._parents}).prepare()
        except CycleError as error:
            path = " -> ".join(error.args[1])
            raise ValueError(
                f"DirectedGraph: {path} is a cycle; a graph of conditionals has none, so take one"
                " arrow out"
            ) from None

    def __getitem__(self, name: str) -> Node:
        if name in self.functions:
            raise ValueError(
                f"{name!r} is a deterministic node, a function of {', '.join(self.parents(name))}:"
                " it has no density and no value of its own; name a node that has"
            )
        if name not in self.by_name:
            raise ValueError(unknown_name("node", name, list(self.by_name)))
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def functions(self) -> dict[str, Deterministic]:
        """{name: the deterministic node}."""
        return {node.name: node for node in self.deterministic}

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        return {node.name: tuple(node.parents) for node in (*self.nodes, *self.deterministic)}

    def parents(self, name: str) -> tuple[str, ...]:
        """The parents of a node, deterministic or not."""
        return self._parents[name]

    def above(self, name: str) -> tuple[str, ...]:
        """What is known before a node is: its parents, and those of the prior's factor that it is
        shown.
        """
        parents = self._parents[name]
        if self.prior is None or name not in self.prior.by_name:
            return parents
        drawn = [parent for parent in self.prior.drawn_parents(name) if parent in self.by_name]
        return (*parents, *drawn)

    def drawn_parents(self, name: str) -> tuple[str, ...]:
        """The nodes and inputs that a node depends on, directly or by deterministic nodes."""
        parents: dict[str, None] = {}
        for parent in self._parents[name]:
            is_function = parent in self.functions
            parents |= dict.fromkeys(self.drawn_parents(parent) if is_function else (parent,))
        return tuple(parents)

    def functions_above(self, *names: str) -> list[str]:
        """The deterministic nodes that these are functions of, parents first."""
        functions: set[str] = set()
        for name in reversed(self.order_of_all):
            is_parent = any(name in self._parents[child] for child in (*names, *functions))
            if name in self.functions and is_parent:
                functions.add(name)
        return [name for name in self.order_of_all if name in functions]

    def shown_to(self, name: str, values: Values, given: PyTree) -> PyTree:
        """What a node is shown: the value of its one parent, a tuple of several, or, a root, what
        the graph is shown.
        """
        parents = tuple(self._shown(parent, values[parent]) for parent in self._parents[name])
        if len(parents) > 1:
            return parents
        return parents[0] if parents else given

    def shown_prior(self, name: str, known: Values, prior: Any) -> Distribution | None:
        """The prior's factor that a node is shown, of the `Joint` of them; None of others."""
        conditional = self[name].conditional
        if not conditional.is_shown_prior:
            return None
        if prior is None:
            raise no_prior_to_show(conditional, f"the node {name!r}")
        parents = self.prior.drawn_parents(name)
        return prior.factor(name, {parent: known[parent] for parent in parents if parent in known})

    def factor_at(
        self,
        name: str,
        params: PyTree,
        known: Values,
        prior: Distribution | None = None,
        given: PyTree = None,
    ) -> Distribution:
        """The density of a node whose parents are known, and that is shown the prior's factor where
        there is one.
        """
        shown = self.shown_to(name, known, given)
        if prior is not None:
            shown = BesidePrior(shown, prior)
        return density_of(self[name].conditional, params, shown)

    def function_at(self, name: str, params: PyTree, known: Values) -> PyTree:
        """The value of a deterministic node whose parents are known."""
        net, shown = self.functions[name].net, self.shown_to(name, known, None)
        value = apply_net(net, params, shown)
        require_params_of_part(net, params, shown)
        return value

    def _shown(self, name: str, value: PyTree) -> PyTree:
        """What others are shown of a node or of an input."""
        supports = [(node.name, node.conditional.support) for node in (*self.clamped, *self.nodes)]
        known = {name: support for name, support in supports if support is not None}
        return shown(known.get(name), value)

    @cached_property
    def order_of_all(self) -> tuple[str, ...]:
        """The nodes and the deterministic ones, parents before children."""
        sorter = TopologicalSorter(
            {
                name: [parent for parent in self.above(name) if parent not in self.inputs]
                for name in self._parents
            }
        )
        return tuple(sorter.static_order())

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The nodes, parents before children."""
        return tuple(name for name in self.order_of_all if name in self.by_name)

    def ancestors(self, names: tuple[str, ...]) -> set[str]:
        """These nodes, their parents, and so on."""
        names_above: set[str] = set()
        for name in reversed(self.order_of_all):
            if name in names or any(name in self.above(child) for child in names_above):
                names_above.add(name)
        return names_above

    def dot(self, observed: tuple[str, ...] = ()) -> str:
        """The graph in Graphviz's language: observed nodes filled, deterministic ones as diamonds,
        inputs without a border; dashed are the arrows of the prior's factors that nodes are shown.
        """
        lines = [f'  "{name}" [shape=plaintext];' for name in self.inputs]
        for name in self.order_of_all:
            shape = "diamond" if name in self.functions else "circle"
            fill = ", style=filled, fillcolor=lightgrey" * (name in observed)
            lines.append(f'  "{name}" [shape={shape}{fill}];')
        for name in self.order_of_all:
            for parent in self.above(name):
                style = "" if parent in self._parents[name] else " [style=dashed]"
                lines.append(f'  "{parent}" -> "{name}"{style};')
        return "\n".join(["digraph {", *lines, "}"])
