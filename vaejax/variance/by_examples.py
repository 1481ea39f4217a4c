"""The variance of a minibatch gradient as the sum of its examples' variances: their noise is
independent, so no cross term is measured.

A sample variance over draws of the whole batch estimates those cross terms, which are zero, with
noise; without them a draw says as much as some B draws. And nothing is kept for each example and
parameter: what a dense layer's kernel gets from one example is a product h^T d of its inputs h [r,
in] and what comes back to its outputs d [r, out], with r rows for r uses (K samples, say). With
successive draws s and s + 1 in place of the unknown mean,

    sum_b Var(g_b) = E sum_b (g_s - g_(s+1))^2 / 2 = E sum_b [g_s^2 - g_s g_(s+1)],

and at r = 1 the sum of the squares is one matrix product (h*h)^T (d*d), that of the cross terms
another. Where h does not move with the noise, as in an encoder, sum_b Var(g_b) = (h*h)^T Var(d),
with no product in the loop at all. Other gradients are kept for each example, and their sample
variances added.

Which gradients are such products is read off the program that computes them, so that any objective
of one example qualifies.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Minibatch
from vaejax.variance.program import GradientProgram, NotByExamplesError, Product, program_of


@partial(jax.jit, static_argnames=("objective", "selectors", "num_draws"))
def moments_by_examples(
    objective: Minibatch, selectors: tuple, params: Params, xs: PyTree, key: Key, num_draws: int
):
    """Of each draw the value [n] and an estimate of each group's trace [n, groups]; the mean
    gradient, and its variance.

    Draw s has the key fold_in(key, s), as everywhere. Draws are taken some at once, and after the
    last of them comes the first of them.
    """
    program = program_of(objective, params, xs, key)
    size = len(jax.tree.leaves(xs)[0])
    at_once = max(
        2,
        min(
            DRAWS_AT_ONCE,
            NUMBERS_AT_ONCE // (size * max(program.numbers, program.width)),
            num_draws,
        ),
    )
    at_once += num_draws == at_once + 1
    num_chunks = num_draws // at_once - (
        num_draws % at_once == 1
    )  # no rest of one draw, which has no next one
    rest = num_draws - num_chunks * at_once

    def at(draws, variables):
        """[draws, examples, ...] of each variable."""

        def of_draw(s):
            keys = jax.random.split(jax.random.fold_in(key, s), size)
            return jax.vmap(lambda x, key: program(variables, params, x, key))(xs, keys)

        return jax.vmap(of_draw)(draws)

    def parts_of(draws):
        """The values of some draws, and what is wanted of each leaf."""
        return jax.lax.optimization_barrier(
            at(draws, (program.value, [_wanted(leaf) for leaf in program.leaves]))
        )

    def added(parts):
        """The sums over some draws, and the value and the traces of each."""
        value, of_leaves = parts
        totals, traces = zip(
            *(leaf.of(part) for leaf, part in zip(sums, of_leaves, strict=True)), strict=True
        )
        return list(totals), (jnp.mean(value, axis=1), sum(traces))

    def add(i, carry):
        totals, kept = carry
        some, of_each = added(parts_of(i * at_once + jnp.arange(at_once)))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * at_once, axis=0)
        return jax.tree.map(jnp.add, totals, some), jax.tree.map(put, kept, of_each)

    first = parts_of(jnp.arange(at_once))
    columns = _columns(selectors, params, program)
    sums = [
        _sums_of(*of, partial(at, jnp.arange(1)))
        for of in zip(program.leaves, columns, first[1], strict=True)
    ]
    totals, of_each = added(first)
    kept = jax.tree.map(
        lambda leaf: (
            jnp.zeros((num_chunks * at_once, *leaf.shape[1:]), leaf.dtype).at[:at_once].set(leaf)
        ),
        of_each,
    )
    totals, kept = jax.lax.fori_loop(1, num_chunks, add, (totals, kept))
    if rest:
        some, of_each = added(parts_of(num_chunks * at_once + jnp.arange(rest)))
        totals, kept = (
            jax.tree.map(jnp.add, totals, some),
            jax.tree.map(lambda *parts: jnp.concatenate(parts), kept, of_each),
        )
    values, traces = kept

    means, variances, offsets = zip(
        *(leaf.result(total, num_draws) for leaf, total in zip(sums, totals, strict=True)),
        strict=True,
    )
    scale = (objective.dataset_size or 1) / size
    mean, variance = (
        jax.tree.unflatten(jax.tree.structure(params), of) for of in (means, variances)
    )
    mean = jax.tree.map(lambda leaf: scale * leaf, mean)
    variance = jax.tree.map(lambda leaf: scale**2 * jnp.maximum(leaf, 0), variance)
    return (
        values * scale * size,
        scale**2 * (traces - jnp.stack(offsets).sum(axis=0, keepdims=True)),
        mean,
        variance,
    )


def _columns(selectors: tuple, params: Params, program: GradientProgram) -> list[np.ndarray]:
    """For each leaf what the groups take of it, [out, groups] of a product and [*shape, groups] of
    another.
    """
    with jax.ensure_compile_time_eval():
        ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), params)
        masks = [
            jax.grad(lambda tree, select=select: sum(map(jnp.sum, jax.tree.leaves(select(tree)))))(
                ones
            )
            for select in selectors
        ]
        stacked = [
            np.stack(of_leaf, axis=-1) for of_leaf in zip(*map(jax.tree.leaves, masks), strict=True)
        ]
    for leaf, mask in zip(program.leaves, stacked, strict=True):
        if isinstance(leaf, Product) and (mask != mask[:1]).any():
            raise NotByExamplesError("a group takes some of the inputs of a kernel and not others")
    return [
        mask[0] if isinstance(leaf, Product) else mask
        for leaf, mask in zip(program.leaves, stacked, strict=True)
    ]


Rows = Float[Array, "draws b r n"]


class _Kept:
    """The sums of a leaf whose gradient is kept for each example: about a point near its mean."""

    def __init__(self, columns: np.ndarray, some: Float[Array, "draws b ..."]):
        self.columns, self.centre = columns, jnp.mean(some, axis=0, keepdims=True)

    def of(self, g: Float[Array, "draws b ..."]) -> tuple[tuple, Float[Array, "draws groups"]]:
        step = g - self.centre
        squares = jnp.sum(step**2, axis=1)
        return (_added(step), _added(squares)), self._by_group(squares)

    def result(self, total: tuple, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The mean, the variance, and what is to come off the traces."""
        mean = total[0] / n
        of_mean = jnp.sum(mean**2, axis=0)
        return (
            jnp.sum(self.centre[0] + mean, axis=0),
            (total[1] - n * of_mean) / (n - 1),
            self._by_group(of_mean[None])[0],
        )

    def _by_group(self, squares: Float[Array, "n ..."]) -> Float[Array, "n groups"]:
        return jnp.tensordot(squares, self.columns, squares.ndim - 1)


class _Moving:
    """The sums of a product whose two factors move."""

    def __init__(self, columns: np.ndarray):
        self.columns = columns

    def of(self, factors: tuple) -> tuple[tuple, Float[Array, "draws groups"]]:
        h, d = map(_rows, factors)
        left, right = jax.lax.optimization_barrier(
            ([_pairs(h, h), _pairs(h, _next(h))], [_pairs(d, d), _pairs(d, _next(d))])
        )
        traces = _trace(
            *(_norms(_norm(a), b, self.columns, len(h)) for a, b in zip(left, right, strict=True))
        )
        return (_flat(h).T @ _flat(d), left[0].T @ right[0] - left[1].T @ right[1]), traces

    def result(self, total: tuple, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        return total[0] / n, total[1] / n, jnp.zeros(self.columns.shape[-1])


class _Fixed:
    """The sums of a product whose left factor is the same in all draws: of the right one alone,
    about a point near its mean.
    """

    def __init__(self, columns: np.ndarray, left: tuple, some: tuple):
        self.columns, self.h = columns, _rows(left)
        self.norm = _norm(_pairs(self.h, self.h))
        self.centre = jnp.mean(_rows(some), axis=0, keepdims=True)

    def of(self, right: tuple) -> tuple[tuple, Float[Array, "draws groups"]]:
        d = _rows(right) - self.centre
        pairs = _pairs(d, d)
        total = _added(pairs.reshape(len(d), -1, d.shape[-1]))
        return (_added(d)[None], total), _norms(
            jnp.tile(self.norm, (len(d), 1)), pairs, self.columns, len(d)
        )

    def result(self, total: tuple, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean = total[0] / n
        of_mean = _pairs(mean, mean)
        variance = _pairs(self.h, self.h).T @ (total[1] - n * of_mean) / (n - 1)
        return (
            _flat(self.h).T @ _flat(self.centre + mean),
            variance,
            _norms(self.norm, of_mean, self.columns, 1)[0],
        )


def _wanted(leaf: Any) -> Any:
    """The variables of the program that the sums of a leaf are made of."""
    if not isinstance(leaf, Product):
        return leaf
    return (leaf.left, leaf.right) if leaf.moves else leaf.right


def _sums_of(leaf: Any, columns: np.ndarray, some: Any, at_one: Callable) -> Any:
    """The sums of a leaf, about the mean of `some` draws where it has to be about a point; `at_one`
    gives variables at one draw.
    """
    if not isinstance(leaf, Product):
        return _Kept(columns, some)
    return _Moving(columns) if leaf.moves else _Fixed(columns, at_one(leaf.left), some)


def _added(draws: jax.Array) -> jax.Array:
    """The sum over the leading axis, written out: as a reduction of so few it cost a CPU an eighth
    of all.
    """
    return reduce(jnp.add, draws)


def _next(draws: jax.Array) -> jax.Array:
    """The draw after each; after the last comes the first."""
    return jnp.roll(draws, -1, axis=0)


def _trace(
    squares: Float[Array, "draws groups"], crossed: Float[Array, "draws groups"]
) -> Float[Array, "draws groups"]:
    """sum_b |g_s - g_(s+1)|^2 / 2 of each draw s."""
    return (squares + _next(squares)) / 2 - crossed


def _rows(factors: Sequence) -> Rows:
    """The factors of several products, as rows of one."""
    return jnp.concatenate(factors, axis=2)


def _flat(rows: jax.Array) -> Float[Array, "rows n"]:
    return rows.reshape(-1, rows.shape[-1])


def _pairs(a: Rows, b: Rows) -> Float[Array, "draws*b*r*r n"]:
    """a_i b_j for all rows i and j of each example: (sum_i h_i d_i) (sum_j h'_j d'_j) is sum_ij
    (h_i h'_j) (d_i d'_j).
    """
    return _flat(a[:, :, :, None] * b[:, :, None])


def _norm(pairs: Float[Array, "rows n"]) -> Float[Array, "rows 1"]:
    return pairs @ jnp.ones(
        (pairs.shape[-1], 1), pairs.dtype
    )  # a sum, but over the last axis a product is faster


def _norms(
    left: Float[Array, "rows 1"], right: Float[Array, "rows n"], columns: np.ndarray, num_draws: int
) -> jax.Array:
    """Of each draw, the sum over examples and the columns of each group of (sum of the left pairs)
    (the right ones).
    """
    return jnp.sum((left * (right @ columns)).reshape(num_draws, -1, columns.shape[-1]), axis=1)


DRAWS_AT_ONCE, NUMBERS_AT_ONCE = 8, 2**22
