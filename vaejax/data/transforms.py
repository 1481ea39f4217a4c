"""The contract of what stands between stored examples and the model."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from vaejax.base.contracts import Declared
from vaejax.base.supports import ONE_HOT, REAL, Support
from vaejax.base.types import Key, PyTree


class Transform(Declared):
    """x = transform(stored, key): what the model sees of one stored example.

    Any function will do, but of a plain one nothing is known, so what it is given is held against
    nothing but finiteness. One that knows what it takes says so, and is asked before anything
    compiles:

        @vaejax.component
        class Logarithm(vaejax.Transform):
            def __call__(self, stored, key):
                return jnp.log(stored)

            def check(self, stored, support, name):
                if stored.min() <= 0:
                    raise ValueError(f"{name} has the value {stored.min()}; give positive numbers")
    """

    def __call__(self, stored: Any, key: Key) -> PyTree:
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def check(self, stored: PyTree, support: Any, name: str) -> None:
        """Raises ValueError if stored examples, [n, ...] on the host, are not what it takes, or do
        not become values of the model's support: a `Support`, {name: Support}, or None where
        nothing is known.
        """
        raise NotImplementedError(f"{type(self).__name__}.check")

    def originals(self, stored: Any) -> Any:
        """Stored images [n, ...] in [0, 1], to be shown beside what the model sees of them; None
        where it sees them as they are.
        """
        return None


def supports_of_leaves(example: PyTree, support: Any) -> list[Support]:
    """The values that each leaf of an example is for, REAL where nothing is known.

    {name: support} goes by name. One support, or one name, for something else is that of the first
    leaf.
    """
    structure = jax.tree.structure(example)
    known = _known(structure.unflatten(range(structure.num_leaves)), support)
    return [known.get(leaf, REAL) for leaf in range(structure.num_leaves)]


def countable_dimensions(example: PyTree, support: Any) -> int | None:
    """How many numbers an example has, if each has countably many values, so that there are bits of
    it. Of the example the shapes are asked alone.
    """
    supports = supports_of_leaves(example, support)
    if any(support.steps is None or support == ONE_HOT for support in supports):
        return None
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(example))


def _known(leaves: PyTree, support: Any) -> dict[int, Support]:
    """{number of a leaf: its support}, of those that have one."""
    if isinstance(support, Mapping) and isinstance(leaves, Mapping):
        parts = [_known(leaves[name], support[name]) for name in support if name in leaves]
        return {leaf: known for part in parts for leaf, known in part.items()}
    if isinstance(support, Mapping):
        return _known(leaves, next(iter(support.values()))) if len(support) == 1 else {}
    numbers = jax.tree.leaves(leaves)
    return {} if support is None or not numbers else {numbers[0]: support}
