"""The law of total variance for minibatch gradients: what comes from the choice of examples, and
what from the noise at each.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import by_value
from vaejax.objectives.base import Objective


class Sources(NamedTuple):
    """The two sources of a minibatch gradient's variance, as trees like params.

    data       S^2, the variance of the examples' mean gradients: E over noise first
    sampling   the mean over the examples of one draw's variance
    """

    num_examples: int
    data: Params
    sampling: Params


def variance_sources(
    objective: Objective, params: Params, xs: ArrayLike, key: Key, num_draws: int
) -> Sources:
    """Law of total variance, for an objective of one example over the data set xs: `num_draws` of
    each example.

    S^2 is unbiased: of the spread of the measured means, the part that is their own noise is taken
    off, so that it may be below 0.
    """
    if num_draws < 2:
        raise ValueError(f"num_draws = {num_draws}; a variance needs at least 2")
    size = len(jax.tree.leaves(xs)[0])
    if size < 2:
        raise ValueError("variance_sources needs at least 2 examples")
    return Sources(size, *_sources(by_value(objective), params, xs, key, num_draws))


@partial(jax.jit, static_argnames=("objective", "num_draws"))
def _sources(
    objective: Objective, params: Params, xs: PyTree, key: Key, num_draws: int
) -> tuple[Params, Params]:
    size = len(jax.tree.leaves(xs)[0])
    zeros = jax.tree.map(jnp.zeros_like, params)

    def moments(x, key):
        """Mean and unbiased variance of one example's gradient, by Welford's recurrence."""

        def add(i, carry):
            mean, squares = carry
            gradient = jax.grad(objective)(params, x, jax.random.fold_in(key, i))
            step = jax.tree.map(jnp.subtract, gradient, mean)
            mean = jax.tree.map(lambda m, d: m + d / (i + 1), mean, step)
            return mean, jax.tree.map(
                lambda s, d, g, m: s + d * (g - m), squares, step, gradient, mean
            )

        mean, squares = jax.lax.fori_loop(0, num_draws, add, (zeros, zeros))
        return mean, jax.tree.map(lambda s: s / (num_draws - 1), squares)

    def add(n, carry):
        mean, squares, sampling = carry
        of_one, variance = moments(
            jax.tree.map(lambda leaf: leaf[n], xs), jax.random.fold_in(key, n)
        )
        step = jax.tree.map(jnp.subtract, of_one, mean)
        mean = jax.tree.map(lambda m, d: m + d / (n + 1), mean, step)
        squares = jax.tree.map(lambda s, d, g, m: s + d * (g - m), squares, step, of_one, mean)
        return mean, squares, jax.tree.map(lambda s, v: s + v / size, sampling, variance)

    _, squares, sampling = jax.lax.fori_loop(0, size, add, (zeros, zeros, zeros))
    return jax.tree.map(lambda s, v: s / (size - 1) - v / num_draws, squares, sampling), sampling


def minibatch_variance(
    sources: Sources, batch_size: int, num_repeats: int = 1, dataset_size: int | None = None
) -> Params:
    """(1 - B/N) S^2 / B + sampling / (B M): the variance of the mean gradient of B examples drawn
    without replacement, M draws of each.

    With `dataset_size` N, that of `minibatch(..., dataset_size=N)`, N times as large a gradient.
    """
    b, n = batch_size, sources.num_examples
    if not 1 <= b <= n:
        raise ValueError(f"batch_size = {b}, but the sources are of {n} examples")
    scale = (dataset_size or 1) ** 2
    return jax.tree.map(
        lambda s, v: scale * ((1 - b / n) * s / b + v / (b * num_repeats)),
        sources.data,
        sources.sampling,
    )
