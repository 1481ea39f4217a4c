"""A node of a directed graph."""

from collections.abc import Mapping
from typing import Any

from vaejax.base.checks import require_kind
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.models.base import Factor

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
        require_kind(self.conditional, Factor, f"the node {self.name!r}")
        if isinstance(self.parents, str):
            object.__setattr__(self, "parents", (self.parents,))


def shown_to(node: Node, values: Values, given: PyTree) -> PyTree:
    """What a conditional is shown: the value of its one parent, a tuple of several, or, a root,
    what the graph is shown.
    """
    shown = tuple(values[parent] for parent in node.parents)
    if len(shown) > 1:
        return shown
    return shown[0] if shown else given
