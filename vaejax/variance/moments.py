"""The variance of a gradient: its moments by parameter, by groups of parameters, against another
estimator, and by its sources.

What is differentiated is what an objective maximises: of one example,
`vaejax.per_example(vaejax.DReG(64), model)`, or of a batch, `vaejax.minibatch(...)`. Draw i has the
key fold_in(key, i), so two objectives with one key see common random numbers, and neither chunks
nor devices change more than the rounding of the moments. Units are nats per unit of the parameter;
a variance has their square.
"""

from typing import Literal, NamedTuple, get_args

import jax
import numpy as np

from vaejax.base.checks import is_whole, require_count, require_key, unknown_name
from vaejax.base.devices import of_this_process, placed, under_mesh
from vaejax.base.mapping import Estimate, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.objectives.base import Objective
from vaejax.variance.by_draws import Draws, LaidOut, laid_out
from vaejax.variance.by_examples import independent_example, moments_by_examples
from vaejax.variance.differentiated import differentiated
from vaejax.variance.groups import Groups, parts
from vaejax.variance.layouts import Strategy, strategy_for
from vaejax.variance.program import NotByExamplesError

By = Literal["draws", "examples"]


class Moments(NamedTuple):
    """Of `num_draws` draws of a gradient: the mean, the unbiased variance, and the central moments
    of order 3 and 4 (None at order 2).

    Each is a tree like params. `value` is the mean of what is differentiated. `squares` has numbers
    of each draw, by group, on the host, whose mean is the trace of the covariance, and intervals
    are made of them: where the moments were measured by "draws" of the whole minibatch, k/(k-1)
    |g_i - m_k|^2 about the mean of the k draws so far; where by "examples", sums over them of |g_b
    - c_b|^2 less |mean_b - c_b|^2, or of |g_b|^2 - g_b g'_b, g' of the next draw.
    """

    num_draws: int
    value: Estimate
    mean: Params
    variance: Params
    third: Params | None
    fourth: Params | None
    squares: dict[str, np.ndarray]
    by: By = "draws"


def tree_sum(tree: PyTree) -> float:
    """The sum of all numbers of a tree: of a tree of variances, the trace of the covariance."""
    return float(sum(np.asarray(leaf, np.float64).sum() for leaf in jax.tree.leaves(tree)))


def gradient_moments(
    objective: Objective,
    params: Params,
    x: PyTree,
    key: Key,
    num_draws: int,
    *,
    step: int | None = None,
    order: int = 4,
    groups: Groups | None = None,
    by: By | None = None,
    strategy: Strategy | None = None,
    chunk: int | None = None,
) -> Moments:
    """Moments of the gradient of what an objective maximises over `num_draws` keys, in memory that
    does not grow with their number.

    By draws: sums of powers of g_i - c, c a pilot mean, so that nothing cancels; `order` + 1 trees
    like params, and the gradients of one chunk. By examples, for a `minibatch`: sums of the
    examples' variances, as `by_examples` says, for which far fewer draws are as precise (a
    fifteenth, in scripts/bench_variance.py); rounding is there 1e-6 of a gradient's square.

    Args:
      x: what the objective takes: one example, or a batch.
      step: the step of training, for an objective with a weight that moves.
      order: the highest moment: 2 or 4.
      groups: {name: function of params that selects a tree}; None takes `parts(params)`.
      by: None takes "examples" where it is possible and pays: at `order` 2, for a minibatch whose
        gradients are mostly products of few rows, as in dense layers; else "draws". The result says
        which.
      strategy: of "draws". "scan": one after another, the moments of `chunk` of them added
        together. "vmap": `chunk` at once; what does not depend on the key, such as q(z|x), is then
        computed once for all of them. "devices": each local device takes its share, `chunk` at
        once. "fastest": each of these is compiled and timed for some draws, which are not kept, and
        the fastest takes the draws, to the same moments but for rounding. None: "scan" on a CPU,
        where it is faster for any but the smallest gradients, else "fastest", which depends on the
        net; "vmap" for a chunk above 1.
      chunk: how many gradients are held at a time. None: 4 of a scan of 500 draws or more (of fewer
        1), 1 for devices on a CPU, else 100.
    """
    require_key(key)
    function = differentiated(objective, step, x)
    only_draws = order == 4 or strategy is not None or chunk is not None
    _require_options(num_draws, order, by, only_draws)
    strategy = strategy_for(strategy, chunk)
    groups = parts(params) if groups is None else groups
    with under_mesh(None):
        params, x, key = placed(of_this_process((params, x, key)), None)
        keys = jax.random.split(key)  # of the pilot, and of the draws
    draws = Draws(function, tuple(groups.values()), params, x, keys, num_draws, order)
    if by != "draws" and not only_draws:
        try:
            return _by_examples(draws, groups)
        except NotByExamplesError as reason:
            if by == "examples":
                raise ValueError(
                    f'by = "examples" is not possible: {reason}; use by="draws"'
                ) from None
    return _by_draws(laid_out(draws, strategy, chunk), groups, num_draws)


def _by_examples(draws: Draws, groups: Groups) -> Moments:
    example, scale = independent_example(draws.function), draws.function.objective.scale
    with under_mesh(None):
        point = draws.params, draws.x, draws.keys[1]
        values, *trees = moments_by_examples(
            example, scale, draws.selectors, *point, draws.num_draws
        )
    squares, mean, variance = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), trees)
    by_group = dict(zip(groups, squares.T, strict=True))
    value = estimate(np.asarray(values))
    return Moments(draws.num_draws, value, mean, variance, None, None, by_group, "examples")


def _by_draws(draws: LaidOut, groups: Groups, num_draws: int) -> Moments:
    values, squares, moments = draws.moments()
    mean, variance, *higher = moments
    third, fourth = higher or (None, None)
    # Their mean is made the trace: the squares are about the mean of the draws so far.
    by_group = {
        name: column + tree_sum(select(variance)) - column.mean()
        for (name, select), column in zip(groups.items(), squares.T, strict=True)
    }
    return Moments(num_draws, estimate(values), mean, variance, third, fourth, by_group)


def _require_options(num_draws: int, order: int, by: By | None, only_draws: bool) -> None:
    """Raises ValueError for options that are wrong, or do not go together."""
    require_count(num_draws, "num_draws")
    if num_draws < 2:
        raise ValueError("num_draws = 1; a variance needs at least 2")
    if not is_whole(order) or order not in (2, 4):
        raise ValueError(f"order = {order!r}; give 2 or 4")
    if by is not None and by not in get_args(By):
        raise ValueError(unknown_name("by", by, list(get_args(By))))
    if by == "examples" and only_draws:
        raise ValueError(
            'by = "examples" gives two moments; say order=2, and leave out strategy and chunk'
        )
