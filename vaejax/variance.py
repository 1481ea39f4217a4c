"""The variance of a gradient: its moments by parameter, by groups of parameters, against another estimator, and by its sources.

An objective here is (params, x, key) -> scalar: an estimator of one example, `partial(vaejax.DReG(64), model)`, or of a batch,
`vaejax.minibatch(...)`. Draw i has the key fold_in(key, i), so two objectives with one key see common random numbers, and neither chunks
nor devices change more than rounding. Units are nats per unit of the parameter; a variance has their square.
"""

import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax._values import by_value
from vaejax.elbo import Objective, require_count
from vaejax.evaluation import Estimate, estimate
from vaejax.groups import Groups, parts
from vaejax.pareto import pareto_k
from vaejax.types import Key, Params, PyTree

PILOT_DRAWS = 32  # for the point that deviations are taken from: near the mean, and independent of the draws
DRAWS_PER_CALL = 10_000


class Moments(NamedTuple):
    """Of `num_draws` draws of a gradient: the mean, the unbiased variance, and the central moments of order 3 and 4 (None at order 2).

    Each is a tree like params. `value` is the mean of the objective's own value. `squares` has |g_i - c|^2 - |mean - c|^2 of each draw i,
    by group, on the host: their mean is the trace of the covariance, and intervals are made of them.
    """

    num_draws: int
    value: Estimate
    mean: Params
    variance: Params
    third: Params | None
    fourth: Params | None
    squares: dict[str, np.ndarray]


def total(tree: PyTree) -> float:
    """The sum of all numbers of a tree: of a tree of variances, the trace of the covariance."""
    return float(sum(np.asarray(leaf, np.float64).sum() for leaf in jax.tree.leaves(tree)))


def gradient_moments(
    objective: Objective,
    params: Params,
    x: PyTree,
    key: Key,
    num_draws: int,
    *,
    order: int = 4,
    groups: Groups | None = None,
    chunk: int | None = None,
) -> Moments:
    """Moments of the gradient of objective(params, x, key) over `num_draws` keys, in memory that does not grow with their number.

    Sums of powers of g_i - c, c a pilot mean, so that nothing cancels: `order` + 1 trees like params, and the gradients of one chunk.

    Args:
      order: the highest moment: 2 or 4.
      groups: {name: function of params that selects a tree}; None takes `parts(params)`.
      chunk: so many draws under one `vmap`; what does not depend on the key, such as q(z|x), is then computed once for all of them.
        None: 1 on a CPU, where more is slower, else 100.
    """
    require_count(num_draws, "num_draws")
    if num_draws < 2:
        raise ValueError("num_draws = 1; a variance needs at least 2")
    if order not in (2, 4):
        raise ValueError(f"order = {order!r}; give 2 or 4")
    chunk = chunk or (1 if jax.default_backend() == "cpu" else 100)
    require_count(chunk, "chunk")
    objective = by_value(objective)
    names, selectors = zip(*(parts(params) if groups is None else groups).items(), strict=True)
    pilot_key, draw_key = jax.random.split(key)
    centre = _mean_gradient(objective, params, x, pilot_key)
    sums = tuple(jax.tree.map(jnp.zeros_like, centre) for _ in range(order))
    values, squares = [], []
    for start in range(0, num_draws, DRAWS_PER_CALL):
        count = min(DRAWS_PER_CALL, num_draws - start)
        size = -(-count // chunk) * chunk
        sums, some = _add_draws(objective, selectors, chunk, size, params, x, draw_key, centre, sums, start, count)
        values.append(np.asarray(some[0], np.float64)[:count])
        squares.append(np.asarray(some[1], np.float64)[:count])
    moments = _central(num_draws, centre, sums)
    by_group = {}
    for name, select, of_group in zip(names, selectors, np.concatenate(squares).T, strict=True):
        off = jax.tree.map(lambda mean, c: np.square(mean - np.asarray(c, np.float64)), select(moments[0]), select(centre))
        by_group[name] = of_group - total(off)
    return Moments(num_draws, estimate(np.concatenate(values)), *moments, by_group)


@partial(jax.jit, static_argnames="objective")
def _mean_gradient(objective: Objective, params: Params, x: PyTree, key: Key) -> Params:
    gradients = jax.lax.map(lambda key: jax.grad(objective)(params, x, key), jax.random.split(key, PILOT_DRAWS))
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)


@partial(jax.jit, static_argnames=("objective", "selectors", "chunk", "size"), donate_argnames="sums")
def _add_draws(objective: Objective, selectors: tuple, chunk: int, size: int, params, x, key: Key, centre: Params, sums, start, count):
    """The sums with the draws start..start + count - 1 in them, and the value and the squares of each."""

    def one(params, key, counts):
        value, gradient = jax.value_and_grad(objective)(params, x, key)
        step = jax.tree.map(lambda leaf, centre: jnp.where(counts, leaf - centre, 0), gradient, centre)
        squared = [sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(select(step))) for select in selectors]
        return step, (value, jnp.stack(squared))

    def add(i, carry):
        sums, kept = carry
        index = i * chunk + jnp.arange(chunk)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, start + i))(index)
        if chunk == 1:
            step, numbers = one(params, keys[0], index[0] < count)
            powers = [jax.tree.map(lambda leaf, p=p: leaf**p, step) for p in range(1, len(sums) + 1)]
            numbers = jax.tree.map(lambda leaf: leaf[None], numbers)
        else:
            step, numbers = jax.vmap(one, (None, 0, 0))(params, keys, index < count)
            powers = [jax.tree.map(lambda leaf, p=p: jnp.sum(leaf**p, axis=0), step) for p in range(1, len(sums) + 1)]
        sums = jax.tree.map(jnp.add, sums, tuple(powers))
        kept = jax.tree.map(lambda all_draws, some: jax.lax.dynamic_update_slice_in_dim(all_draws, some, i * chunk, 0), kept, numbers)
        return sums, kept

    value = jax.eval_shape(objective, params, x, key)
    kept = jnp.zeros(size, value.dtype), jnp.zeros((size, len(selectors)), value.dtype)
    return jax.lax.fori_loop(0, -(-count // chunk), add, (sums, kept))


def _central(n: int, centre: Params, sums: tuple[Params, ...]) -> tuple[Params, Params, Params | None, Params | None]:
    """Mean, unbiased variance and central moments 3 and 4, from sums of powers of the deviations from `centre`."""

    def of(leaf, *powers):
        m = [np.asarray(power, np.float64) / n for power in powers]
        d = m[0]
        moments = [np.asarray(leaf, np.float64) + d, (m[1] - d**2) * n / (n - 1)]
        if len(m) == 4:
            moments += [m[2] - 3 * d * m[1] + 2 * d**3, m[3] - 4 * d * m[2] + 6 * d**2 * m[1] - 3 * d**4]
        return moments

    leaves, structure = jax.tree.flatten(centre)
    columns = list(zip(*(of(leaf, *powers) for leaf, *powers in zip(leaves, *map(jax.tree.leaves, sums), strict=True)), strict=True))
    trees = [jax.tree.unflatten(structure, column) for column in columns]
    return (*trees, None, None) if len(trees) == 2 else tuple(trees)


class Spread(NamedTuple):
    """The variance of a gradient over one group of parameters.

    trace            the sum of their variances
    low, high        its interval, of log(trace) at 95 %; (0, inf) where `kurtosis` is infinite
    kurtosis         E|g - m|^4 / (E|g - m|^2)^2, of one parameter the ordinary one; inf where no fourth moment can be told from the draws
    snr_squared      |E g|^2 / trace, unbiased up to the ratio, so that it may be below 0
    floor            what |mean|^2 / trace would show of a gradient of mean zero
    """

    trace: float
    low: float
    high: float
    kurtosis: float
    snr_squared: float
    floor: float


def spread(moments: Moments, groups: Groups | None = None) -> dict[str, Spread]:
    """A `Spread` for each group of the moments. `groups` are those that they were measured with."""
    groups = parts(moments.mean) if groups is None else groups
    return {name: _spread(moments, name, select) for name, select in groups.items()}


def _spread(moments: Moments, name: str, select: Callable[[Params], PyTree]) -> Spread:
    n, squares = moments.num_draws, moments.squares[name]
    trace = total(select(moments.variance))
    norm = total(jax.tree.map(np.square, select(moments.mean)))
    if trace == 0:
        return Spread(0.0, 0.0, 0.0, math.nan, math.inf if norm > 0 else math.nan, 1 / n)
    relative = squares.std(ddof=1) / trace
    # The variance of a variance is a fourth moment: it exists where the tail of |g|^2 falls faster than its square.
    finite = pareto_k(squares) < 0.5
    half = 1.96 * relative / math.sqrt(n)
    low, high = (trace * math.exp(-half), trace * math.exp(half)) if finite else (0.0, math.inf)
    return Spread(trace, low, high, 1 + relative**2 if finite else math.inf, (norm - trace / n) / trace, 1 / n)


class Ratio(NamedTuple):
    """trace(a) / trace(b), with an interval at 95 % from draws of common random numbers."""

    ratio: float
    low: float
    high: float


def variance_ratio(a: Moments, b: Moments, group: str) -> Ratio:
    """How many times the variance of b is that of a, over a group: from moments that were measured with one key.

    The draws are paired, so that what both estimators have in common cancels from the interval,
    log ratio +- 1.96 sd(A_i / mean A - B_i / mean B) / sqrt n, A_i and B_i the squares of draw i.
    """
    if a.num_draws != b.num_draws:
        raise ValueError(f"{a.num_draws} draws against {b.num_draws}; measure both with one key and as many draws, so that they are pairs")
    of_a, of_b = a.squares[group], b.squares[group]
    log_ratio = math.log(of_a.mean() / of_b.mean())
    half = 1.96 * (of_a / of_a.mean() - of_b / of_b.mean()).std(ddof=1) / math.sqrt(a.num_draws)
    return Ratio(*(math.exp(log_ratio + side * half) for side in (0, -1, 1)))


class Bias(NamedTuple):
    """A mean gradient against a reference. `detectable` is the least bias of one parameter that would be found 99 times in 100."""

    largest_z: float
    p_value: float
    detectable: float


def bias(moments: Moments, reference: Params, standard_error: Params | None = None, false_alarm: float = 1e-6) -> Bias:
    """The mean of the draws against an exact gradient, or one of this `standard_error`, parameter by parameter.

    `p_value` is that of the largest |z|, times the number of parameters (Bonferroni, which for the smallest is Holm). psi has no part in
    it: it is no parameter of the bound.
    """
    trees = [tree[:2] for tree in (moments.mean, moments.variance, reference)]
    mean, variance, expected = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in trees)
    extra = 0.0 if standard_error is None else np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(standard_error[:2])])
    error = np.sqrt(variance / moments.num_draws + np.square(extra))
    difference = np.abs(mean - expected)
    exact = error <= 1e-7 * (1 + np.abs(expected))  # no noise that single precision would show
    z = np.where(exact, np.where(difference > 1e-5 * (1 + np.abs(expected)), np.inf, 0.0), difference / np.where(exact, 1, error))
    largest = float(z.max())
    p_value = min(1.0, z.size * math.erfc(largest / math.sqrt(2)))
    needed = -NormalDist().inv_cdf(false_alarm / z.size / 2) + NormalDist().inv_cdf(0.99)
    return Bias(largest, p_value, float(needed * error.max()))
