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
variances added. `leaf_sums` has a class for each of the three.

Which gradients are such products is read off the program that computes them, so that any objective
of one example qualifies.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vaejax.base.asserts import assert_equal_shape, assert_rank
from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Maximised
from vaejax.variance.leaf_sums import LeafSums, leaf_sums
from vaejax.variance.program import GradientProgram, NotByExamplesError, program_by_examples

MOST_DRAWS, MOST_NUMBERS_AT_ONCE = 8, 2**22  # of a chunk

Draws = Int[Array, " draws"]  # their numbers


class Chunks(NamedTuple):
    """`number` chunks of `size` draws each, and a last one of `rest` draws."""

    size: int
    number: int
    rest: int


def chunks_for(program: GradientProgram, num_examples: int, num_draws: int) -> Chunks:
    """Chunks that fit in memory, of at least two draws each: one alone has no next one."""
    affordable = MOST_NUMBERS_AT_ONCE // (num_examples * max(program.numbers, program.width))
    size = max(2, min(MOST_DRAWS, affordable, num_draws))
    if num_draws == size + 1:
        size = num_draws
    number = num_draws // size - (num_draws % size == 1)
    return Chunks(size, number, num_draws - number * size)


def independent_example(function: Maximised) -> Maximised:
    """The function of one example that this is the mean of; NotByExamplesError if it is none."""
    example = function.objective.independent_example
    if example is None:
        raise NotByExamplesError(
            "the objective is not a vaejax.minibatch and does not say its independent_example,"
            " so its noise may be shared between examples"
        )
    return Maximised(example, function.step)


@partial(jax.jit, static_argnames=("example", "scale", "selectors", "num_draws"))
def moments_by_examples(
    example: Maximised,
    scale: float,
    selectors: tuple[Callable[[Params], PyTree], ...],
    params: Params,
    xs: PyTree,
    key: Key,
    num_draws: int,
) -> tuple[Float[Array, " n"], Float[Array, "n groups"], Params, Params]:
    """Of each draw the value and an estimate of each group's trace; the mean gradient, and its
    variance: of `scale` times the mean over the examples xs.

    Draw s has the key fold_in(key, s), as everywhere. Draws are taken in chunks, and in each of
    them the first draw comes after the last.
    """
    program = program_by_examples(example, params, xs, key)
    num_examples = len(jax.tree.leaves(xs)[0])
    sums = leaf_sums(program, selectors, params)
    evaluate = partial(_evaluate, program, params, xs, key)
    chunks = chunks_for(program, num_examples, num_draws)
    values, traces, by_leaf = _moments_of_the_sum(program, sums, evaluate, chunks)
    means, variances, offsets = zip(*by_leaf, strict=True)

    # g = factor sum_b g_b
    factor = scale / num_examples
    tree = jax.tree.structure(params)
    mean = jax.tree.map(lambda leaf: factor * leaf, tree.unflatten(means))
    variance = jax.tree.map(
        lambda leaf: factor**2 * jnp.maximum(leaf, 0), tree.unflatten(variances)
    )
    traces = factor**2 * (traces - jnp.stack(offsets).sum(axis=0, keepdims=True))
    return values * factor * num_examples, traces, mean, variance


def _moments_of_the_sum(
    program: GradientProgram, sums: list[LeafSums], evaluate: Callable, chunks: Chunks
) -> tuple[Float[Array, " n"], Float[Array, "n groups"], list]:
    """Of sum_b g_b: the mean value and the traces of each draw; of each leaf the mean, the
    variance, and what the traces are too large by.
    """
    wanted = program.value, [leaf.variables for leaf in sums]

    def parts_of(draws: Draws) -> tuple[Float[Array, "draws b"], list]:
        """The values, and what is wanted of each leaf."""
        return jax.lax.optimization_barrier(evaluate(draws, wanted))

    first_values, first_parts = parts_of(jnp.arange(chunks.size))
    first_draw = partial(evaluate, jnp.arange(1))
    references = [
        leaf.reference(parts, first_draw) for leaf, parts in zip(sums, first_parts, strict=True)
    ]
    add = partial(_add, sums, references)
    first = add(first_values, first_parts)
    totals, (values, traces) = _over_chunks(lambda draws: add(*parts_of(draws)), first, chunks)
    num_draws = chunks.number * chunks.size + chunks.rest
    leaves = zip(sums, references, totals, strict=True)
    results = [leaf.result(reference, total, num_draws) for leaf, reference, total in leaves]
    return values, traces, results


def _add(
    sums: list[LeafSums], references: list, values: Float[Array, "draws b"], by_leaf: list
) -> tuple[list, tuple[Float[Array, " draws"], Float[Array, "draws groups"]]]:
    """The sums over draws for each leaf; of each draw the mean value, and the traces."""
    assert_rank(values, 2)
    leaves = zip(sums, references, by_leaf, strict=True)
    added = [leaf.add(reference, parts) for leaf, reference, parts in leaves]
    totals, traces = zip(*added, strict=True)
    assert_equal_shape([*traces])
    return list(totals), (jnp.mean(values, axis=1), reduce(jnp.add, traces))


def _evaluate(
    program: GradientProgram, params: Params, xs: PyTree, key: Key, draws: Draws, variables: PyTree
) -> PyTree:
    """[draws, examples, ...] of each of the program's variables."""
    num_examples = len(jax.tree.leaves(xs)[0])

    def evaluate_draw(s):
        keys = jax.random.split(jax.random.fold_in(key, s), num_examples)
        return jax.vmap(lambda x, key: program(variables, params, x, key))(xs, keys)

    return jax.vmap(evaluate_draw)(draws)


def _over_chunks(measure: Callable[[Draws], Any], first: Any, chunks: Chunks) -> Any:
    """(totals, kept) of all draws, where `measure` gives those of a chunk, and `first` are those of
    the first one: the totals are added, and what is kept of each draw is put in a row.
    """
    size, number, rest = chunks
    totals, kept = first
    kept = jax.tree.map(
        lambda leaf: jnp.zeros((number * size, *leaf.shape[1:]), leaf.dtype).at[:size].set(leaf),
        kept,
    )

    def add_chunk(i, carry):
        totals, kept = carry
        chunk_totals, chunk_kept = measure(i * size + jnp.arange(size))
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * size, axis=0)
        return jax.tree.map(jnp.add, totals, chunk_totals), jax.tree.map(put, kept, chunk_kept)

    totals, kept = jax.lax.fori_loop(1, number, add_chunk, (totals, kept))
    if rest:
        rest_totals, rest_kept = measure(number * size + jnp.arange(rest))
        totals = jax.tree.map(jnp.add, totals, rest_totals)
        kept = jax.tree.map(lambda *parts: jnp.concatenate(parts), kept, rest_kept)
    return totals, kept
