"""Exact sums over finite nodes of a directed graph, by variable elimination."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.floats import log_sum_exp
from vaejax.base.types import PyTree
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.models.node import Structure, Values

MAX_TABLE = 2**22  # entries of one table of a variable elimination


class NotFiniteError(NotKnownError, ValueError):
    """A node was to be summed out that has no finite list of values."""


def eliminate(
    factors: list[tuple[tuple[str, ...], jax.Array]], names: list[str]
) -> tuple[tuple[str, ...], jax.Array]:
    """(scope, log sum over `names` of exp(sum of the factors)), a factor being (scope, table with
    one axis for each name of it).

    Greedily: next comes the name whose elimination makes the smallest table. Reference: Koller &
    Friedman 2009, chapter 9.
    """
    factors, names = list(factors), list(names)
    sizes = {
        name: size
        for scope, table in factors
        for name, size in zip(scope, table.shape, strict=True)
    }

    def merged_scope(factors) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for scope, _ in factors for name in scope))

    def cost(name):
        return math.prod(
            sizes[other]
            for other in merged_scope([factor for factor in factors if name in factor[0]])
        )

    while names:
        name = min(names, key=cost)
        names.remove(name)
        touched = [factor for factor in factors if name in factor[0]]
        factors = [factor for factor in factors if name not in factor[0]]
        scope = merged_scope(touched)
        table = log_sum_exp(_product(touched, scope, sizes), axis=scope.index(name))
        factors.append((tuple(other for other in scope if other != name), table))
    scope = merged_scope(factors)
    return scope, _product(factors, scope, sizes)


def _product(factors, scope: tuple[str, ...], sizes: Mapping[str, int]) -> jax.Array:
    """The sum of log-factors over the union of their scopes."""
    require_table(scope, [sizes[name] for name in scope])
    total = jnp.zeros([sizes[name] for name in scope])
    for names, table in factors:
        axes = sorted(range(len(names)), key=[scope.index(name) for name in names].__getitem__)
        aligned = jnp.transpose(table, axes)
        total += aligned.reshape([sizes[name] if name in names else 1 for name in scope])
    return total


def require_table(scope: tuple[str, ...], sizes: list[int]) -> None:
    """Raises ValueError for a table that is too large to hold."""
    if math.prod(sizes) > MAX_TABLE:
        raise ValueError(
            f"{', '.join(scope)} have {math.prod(sizes)} states together, more than {MAX_TABLE};"
            " give values for some of them, or sample"
        )


# The states of nodes, and the tables of their factors. `factor_at(name, values)` is the factor of a
# node at its parents' values.

FactorAt = Callable[[str, Values], Distribution]


def log_table(
    graph: Structure, factor_at: FactorAt, values: Values, names: tuple[str, ...]
) -> tuple[list[PyTree], jax.Array]:
    """The states of `names`, and log p(values, state, ..., state) with one axis for each of them:
    all other nodes are summed out.
    """
    ancestors = graph.ancestors((*values, *names))
    relevant = [name for name in graph.order if name in ancestors]
    hidden = [name for name in relevant if name not in values]
    states: dict[str, PyTree] = {}
    for name in hidden:  # parents first: which states there are may depend on their shapes
        first = {other: take(other_states, 0) for other, other_states in states.items()}
        states[name] = node_states(factor_at, name, {**values, **first})
    factors = [_factor_table(graph, factor_at, name, values, states) for name in relevant]
    scope, table = eliminate(factors, [name for name in hidden if name not in names])
    axes = [scope.index(name) for name in names]
    return [states[name] for name in names], jnp.transpose(table, axes)


def _factor_table(
    graph: Structure, factor_at: FactorAt, name: str, values: Values, states: Mapping[str, PyTree]
) -> tuple[tuple[str, ...], jax.Array]:
    """(scope, log p(v_name | parents) at every combination of the hidden nodes that take part)."""
    scope = tuple(other for other in (*graph.drawn_parents(name), name) if other in states)
    require_table(scope, [num_states(states[other]) for other in scope])

    def log_prob(*scope_values):
        all_values = {**values, **dict(zip(scope, scope_values, strict=True))}
        return factor_at(name, all_values).log_prob(all_values[name])

    for i in reversed(range(len(scope))):
        log_prob = jax.vmap(log_prob, [0 if j == i else None for j in range(len(scope))])
    return scope, log_prob(*(states[other] for other in scope))


def node_states(factor_at: FactorAt, name: str, values: Values) -> PyTree:
    """All values of a finite node, its parents' among `values`; ValueError for a node that is not
    finite.
    """
    factor = factor_at(name, values)
    try:
        return factor.states()
    except NotKnownError:
        raise NotFiniteError(
            f"{name!r} is not a finite node ({factor.name}), so it cannot be summed out; give its"
            " value, or infer it: a bound (vaejax.GraphModel) or MCMC on log_prob"
        ) from None


def product_of_states(states: Mapping[str, PyTree]) -> dict[str, Any]:
    """{name: [n, ...]} of every combination of the states of these nodes."""
    sizes = [num_states(node_states) for node_states in states.values()]
    require_table(tuple(states), sizes)
    index = np.array(list(itertools.product(*map(range, sizes))), int)  # [n, nodes]
    return {
        name: take(node_states, rows)
        for (name, node_states), rows in zip(states.items(), index.T, strict=True)
    }


def num_states(states: PyTree) -> int:
    """How many there are along the leading axis: a graph that is a node has a dict of them."""
    return len(jax.tree.leaves(states)[0])


def take(states: PyTree, rows: Any) -> PyTree:
    """Some of the states, by their index."""
    return jax.tree.map(lambda leaf: leaf[rows], states)
