"""The law of total variance for minibatch gradients: what comes from the choice of examples, and
what from the noise at each.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vaejax.base.checks import require_count, require_key
from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Maximised, Objective
from vaejax.variance.differentiated import differentiated


class Sources(NamedTuple):
    """The two sources of a minibatch gradient's variance, as trees like params.

    data       S^2, the variance of the examples' mean gradients: E over noise first
    sampling   the mean over the examples of one draw's variance
    """

    num_examples: int
    data: Params
    sampling: Params


class Running(NamedTuple):
    """The mean of trees, and the sum of their squared deviations from it, by Welford's
    recurrence.
    """

    mean: Params
    squares: Params

    def add(self, tree: Params, count: ArrayLike) -> "Running":
        """With one more tree, number `count` of all."""
        step = jax.tree.map(jnp.subtract, tree, self.mean)
        # m' = m + (g - m) / n
        mean = jax.tree.map(lambda m, d: m + d / count, self.mean, step)
        # s' = s + (g - m) (g - m')
        squares = jax.tree.map(lambda s, d, g, m: s + d * (g - m), self.squares, step, tree, mean)
        return Running(mean, squares)


def variance_sources(
    objective: Objective,
    params: Params,
    xs: PyTree,
    key: Key,
    num_draws: int,
    *,
    step: int | None = None,
) -> Sources:
    """Law of total variance over the data set xs, `num_draws` of each example, for an objective of
    one example, `vaejax.per_example(...)`, or a `vaejax.minibatch(...)`, of which that one is
    taken.

    S^2 is unbiased: of the spread of the measured means, the part that is their own noise is taken
    off, so that it may be below 0. `step` is that of training, where a weight moves with it.
    """
    require_key(key)
    function = differentiated(objective, step, xs)
    require_count(num_draws, "num_draws")
    if num_draws < 2:
        raise ValueError(f"num_draws = {num_draws}; a variance needs at least 2")
    size = len(jax.tree.leaves(xs)[0])
    if size < 2:
        raise ValueError("variance_sources needs at least 2 examples")
    example = objective if objective.of_one_example else objective.independent_example
    if example is None:
        raise ValueError(
            "variance_sources takes the examples one by one, and those of a batch of"
            f" {type(objective).__name__} share something; use vaejax.per_example(estimator, model)"
        )
    function = Maximised(example, function.step)
    return Sources(size, *_sources(function, params, xs, key, num_draws))


@partial(jax.jit, static_argnames=("function", "num_draws"))
def _sources(
    function: Maximised, params: Params, xs: PyTree, key: Key, num_draws: int
) -> tuple[Params, Params]:
    """(S^2, sampling) of trees like params, an example at a time."""
    size = len(jax.tree.leaves(xs)[0])
    zeros = jax.tree.map(jnp.zeros_like, params)

    def add_example(n, carry):
        means, sampling = carry
        x = jax.tree.map(lambda leaf: leaf[n], xs)
        example_key = jax.random.fold_in(key, n)
        mean, variance = _example_moments(function, params, x, example_key, num_draws)
        sampling = jax.tree.map(lambda s, v: s + v / size, sampling, variance)
        return means.add(mean, n + 1), sampling

    start = Running(zeros, zeros), zeros
    means, sampling = jax.lax.fori_loop(0, size, add_example, start)
    # S^2 = sum_n (m_n - m)^2 / (N - 1) - sampling / draws
    data = jax.tree.map(lambda s, v: s / (size - 1) - v / num_draws, means.squares, sampling)
    return data, sampling


def _example_moments(
    function: Maximised, params: Params, x: PyTree, key: Key, num_draws: int
) -> tuple[Params, Params]:
    """The mean and the unbiased variance of one example's gradient."""

    def add_draw(i, gradients):
        gradient = jax.grad(function)(params, x, jax.random.fold_in(key, i))
        return gradients.add(gradient, i + 1)

    zeros = jax.tree.map(jnp.zeros_like, params)
    gradients = jax.lax.fori_loop(0, num_draws, add_draw, Running(zeros, zeros))
    return gradients.mean, jax.tree.map(lambda s: s / (num_draws - 1), gradients.squares)


def minibatch_variance(
    sources: Sources, batch_size: int, num_repeats: int = 1, dataset_size: int | None = None
) -> Params:
    """(1 - B/N) S^2 / B + sampling / (B M): the variance of the mean gradient of B examples drawn
    without replacement, M draws of each.

    With `dataset_size` N, that of `minibatch(..., dataset_size=N)`, N times as large a gradient.
    """
    b, n = batch_size, sources.num_examples
    counts = {"batch_size": b, "num_repeats": num_repeats, "dataset_size": dataset_size}
    for name, count in counts.items():
        if count is not None:
            require_count(count, name)
    if b > n:
        raise ValueError(f"batch_size = {b}, but the sources are of {n} examples")
    scale = 1 if dataset_size is None else dataset_size**2
    return jax.tree.map(
        lambda s, v: scale * ((1 - b / n) * s / b + v / (b * num_repeats)),
        sources.data,
        sources.sampling,
    )
