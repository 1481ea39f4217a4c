"""Sums over finite nodes by variable elimination."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

MAX_TABLE = 2**22  # entries of one table of a variable elimination


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
        table = logsumexp(_product(touched, scope, sizes), axis=scope.index(name))
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
