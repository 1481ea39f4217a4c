"""Running sums over draws of one leaf g of the gradient, for the variance by examples: a class for
each of the three forms that a leaf has.

    Whole           g [b, ...] itself, kept for each example b
    MovingProduct   g_b = h_b^T d_b, h [b, r, in] and d [b, r, out], both of which move with the key
    FixedProduct    the same, but h is the same in all draws
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.base.asserts import assert_equal_shape_prefix, assert_rank
from vaejax.base.types import Params, PyTree
from vaejax.variance.program import GradientProgram, Leaf, NotByExamplesError

Rows = Float[Array, "draws b r n"]
Traces = Float[Array, "draws groups"]


@dataclass(frozen=True)
class LeafSums:
    """What the three share. `columns` are what the groups take of the leaf, [out, groups] of a
    product and [*shape, groups] of another; `variables` those of the program that are evaluated at
    each draw, and given to `add` as [draws, b, ...].
    """

    variables: PyTree
    columns: np.ndarray

    def reference(self, parts: Any, first_draw: Callable[[PyTree], Any]) -> Any:
        """What the sums are about, from the parts of the first chunk; `first_draw` evaluates
        variables at one draw.
        """
        raise NotImplementedError

    def add(self, reference: Any, parts: Any) -> tuple[Any, Traces]:
        """The sums over a chunk, and of each draw its estimate of the trace of each group."""
        raise NotImplementedError

    def result(
        self, reference: Any, total: Any, n: int
    ) -> tuple[jax.Array, jax.Array, Float[Array, " groups"]]:
        """The mean and the variance, each summed over the examples, from the sums over n draws, and
        what is to come off the traces.
        """
        raise NotImplementedError


class Whole(LeafSums):
    """A gradient that is kept for each example: sums about a point c_b near its mean."""

    def reference(self, parts: Any, first_draw: Callable[[PyTree], Any]) -> Any:
        return jnp.mean(parts, axis=0, keepdims=True)

    def add(self, reference: Any, parts: Any) -> tuple[Any, Traces]:
        # sum_s (g_bs - c_b), and sum_s sum_b (g_bs - c_b)^2
        step = parts - reference
        squares = jnp.sum(step**2, axis=1)
        return (_added(step), _added(squares)), self._by_group(squares)

    def result(
        self, reference: Any, total: Any, n: int
    ) -> tuple[jax.Array, jax.Array, Float[Array, " groups"]]:
        # Var = (sum_s (g_s - c)^2 - n (mean - c)^2) / (n - 1)
        mean = total[0] / n
        squared_mean = jnp.sum(mean**2, axis=0)
        variance = (total[1] - n * squared_mean) / (n - 1)
        offset = self._by_group(squared_mean[None])[0]
        return jnp.sum(reference[0] + mean, axis=0), variance, offset

    def _by_group(self, squares: Float[Array, "n ..."]) -> Float[Array, "n groups"]:
        return jnp.tensordot(squares, self.columns, squares.ndim - 1)


class MovingProduct(LeafSums):
    """A product whose two factors move: sums of g_s^2 - g_s g_(s+1)."""

    def reference(self, parts: Any, first_draw: Callable[[PyTree], Any]) -> Any:
        return ()

    def add(self, reference: Any, parts: Any) -> tuple[Any, Traces]:
        h, d = map(_rows, parts)
        assert_equal_shape_prefix((h, d), 3)
        # g_s^2 = sum_ij (h_i h_j) (d_i d_j), and g_s g_(s+1) with h_j and d_j of the next draw
        (hh, hh_next), (dd, dd_next) = jax.lax.optimization_barrier(
            ([_pairs(h, h), _pairs(h, _next(h))], [_pairs(d, d), _pairs(d, _next(d))])
        )
        squares = _norms(_norm(hh), dd, self.columns, len(h))
        crossed = _norms(_norm(hh_next), dd_next, self.columns, len(h))
        # sum_b |g_s - g_(s+1)|^2 / 2 of each draw s
        traces = (squares + _next(squares)) / 2 - crossed
        # sum_s sum_b h^T d, and sum_s sum_b [g_s^2 - g_s g_(s+1)]
        return (_flat(h).T @ _flat(d), hh.T @ dd - hh_next.T @ dd_next), traces

    def result(
        self, reference: Any, total: Any, n: int
    ) -> tuple[jax.Array, jax.Array, Float[Array, " groups"]]:
        return total[0] / n, total[1] / n, jnp.zeros(self.columns.shape[-1])


@dataclass(frozen=True)
class FixedProduct(LeafSums):
    """A product whose left factor h is the same in all draws: sums of the right one alone, about a
    point c near its mean. `left` are the variables of h.
    """

    left: tuple[Any, ...]

    def reference(self, parts: Any, first_draw: Callable[[PyTree], Any]) -> Any:
        """h, the norms of its pairs, and c."""
        h = _rows(first_draw(self.left))
        return h, _norm(_pairs(h, h)), jnp.mean(_rows(parts), axis=0, keepdims=True)

    def add(self, reference: Any, parts: Any) -> tuple[Any, Traces]:
        h, norm, centre = reference
        d = _rows(parts) - centre
        assert_equal_shape_prefix((h[0], d[0]), 2)
        # sum_s (d_s - c), and sum_s (d_i - c_i) (d_j - c_j)
        pairs = _pairs(d, d)
        total = _added(pairs.reshape(len(d), -1, d.shape[-1]))
        traces = _norms(jnp.tile(norm, (len(d), 1)), pairs, self.columns, len(d))
        return (_added(d)[None], total), traces

    def result(
        self, reference: Any, total: Any, n: int
    ) -> tuple[jax.Array, jax.Array, Float[Array, " groups"]]:
        h, norm, centre = reference
        mean = total[0] / n
        squared_mean = _pairs(mean, mean)
        # sum_b Var(h^T d) = sum_ij (h_i h_j)^T Cov(d_i, d_j)
        variance = _pairs(h, h).T @ (total[1] - n * squared_mean) / (n - 1)
        offset = _norms(norm, squared_mean, self.columns, 1)[0]
        return _flat(h).T @ _flat(centre + mean), variance, offset


def leaf_sums(
    program: GradientProgram, selectors: Sequence[Callable[[Params], PyTree]], params: Params
) -> list[LeafSums]:
    """The sums for each leaf of the gradient."""
    masks = _masks(selectors, params)
    return [_sums_for(leaf, mask) for leaf, mask in zip(program.leaves, masks, strict=True)]


def _sums_for(leaf: Leaf, mask: np.ndarray) -> LeafSums:
    product = leaf.product
    if product is None:
        return Whole(leaf.variable, mask)
    if (mask != mask[:1]).any():
        raise NotByExamplesError("a group takes some of the inputs of a kernel and not others")
    if product.moves:
        return MovingProduct((product.left, product.right), mask[0])
    return FixedProduct(product.right, mask[0], product.left)


def _masks(selectors: Sequence[Callable[[Params], PyTree]], params: Params) -> list[np.ndarray]:
    """[*shape, groups] for each leaf of params: 1 where a group takes the parameter, else 0."""
    with jax.ensure_compile_time_eval():
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)
        # A selector is linear, so its mask is the gradient of the sum of what it takes.
        masks = [
            jax.grad(lambda tree, select=select: sum(map(jnp.sum, jax.tree.leaves(select(tree)))))(
                ones
            )
            for select in selectors
        ]
        by_leaf = zip(*map(jax.tree.leaves, masks), strict=True)
        return [np.stack(groups, axis=-1) for groups in by_leaf]


def _added(draws: jax.Array) -> jax.Array:
    """The sum over the leading axis, written out: as a reduction of so few it cost a CPU an eighth
    of all.
    """
    return reduce(jnp.add, draws)


def _next(draws: jax.Array) -> jax.Array:
    """The draw after each; after the last comes the first."""
    return jnp.roll(draws, -1, axis=0)


def _rows(factors: Sequence[jax.Array]) -> Rows:
    """The factors of several products, as rows of one; a vector is one row."""
    matrices = [factor[:, :, None] if factor.ndim == 3 else factor for factor in factors]
    rows = jnp.concatenate(matrices, axis=2)
    assert_rank(rows, 4)
    return rows


def _flat(rows: jax.Array) -> Float[Array, "rows n"]:
    return rows.reshape(-1, rows.shape[-1])


def _pairs(a: Rows, b: Rows) -> Float[Array, "draws*b*r*r n"]:
    """a_i b_j for all rows i and j of each example: (sum_i h_i d_i) (sum_j h'_j d'_j) is sum_ij
    (h_i h'_j) (d_i d'_j).
    """
    return _flat(a[:, :, :, None] * b[:, :, None])


def _norm(pairs: Float[Array, "rows n"]) -> Float[Array, "rows 1"]:
    """The sum over the last axis, by a product, which is faster."""
    return pairs @ jnp.ones((pairs.shape[-1], 1), pairs.dtype)


def _norms(
    left: Float[Array, "rows 1"], right: Float[Array, "rows n"], columns: np.ndarray, num_draws: int
) -> Traces:
    """For each draw, the sum over examples and the columns of each group of (sum of the left pairs)
    (the right ones).
    """
    return jnp.sum((left * (right @ columns)).reshape(num_draws, -1, columns.shape[-1]), axis=1)
