"""The variance of a gradient: its moments by parameter, by groups of parameters, against another
estimator, and by its sources.

An objective here is (params, x, key) -> scalar: an estimator of one example,
`partial(vaejax.DReG(64), model)`, or of a batch, `vaejax.minibatch(...)`. Draw i has the key
fold_in(key, i), so two objectives with one key see common random numbers, and neither chunks nor
devices change more than the rounding of the moments. Units are nats per unit of the parameter; a
variance has their square.
"""

from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from vaejax.base.checks import require_count, unknown_name
from vaejax.base.mapping import Estimate, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import by_value
from vaejax.objectives.base import Objective
from vaejax.variance.by_examples import moments_by_examples
from vaejax.variance.groups import Groups, parts
from vaejax.variance.program import NotByExamplesError

By = Literal["draws", "examples"]


Strategy = Literal["scan", "vmap", "devices"]


class Moments(NamedTuple):
    """Of `num_draws` draws of a gradient: the mean, the unbiased variance, and the central moments
    of order 3 and 4 (None at order 2).

    Each is a tree like params. `value` is the mean of the objective's own value. `squares` has
    numbers of each draw, by group, on the host, whose mean is the trace of the covariance, and
    intervals are made of them: where the moments were measured by "draws" of the whole minibatch,
    k/(k-1) |g_i - m_k|^2 about the mean of the k draws so far; where by "examples", sums over them
    of |g_b - c_b|^2 less |mean_b - c_b|^2, or of |g_b|^2 - g_b g'_b, g' of the next draw.
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
    order: int = 4,
    groups: Groups | None = None,
    by: By | None = None,
    strategy: Strategy | None = None,
    chunk: int | None = None,
) -> Moments:
    """Moments of the gradient of objective(params, x, key) over `num_draws` keys, in memory that
    does not grow with their number.

    By draws: sums of powers of g_i - c, c a pilot mean, so that nothing cancels; `order` + 1 trees
    like params, and the gradients of one chunk. By examples, for a `minibatch`: sums of the
    examples' variances, as `independence` says, for which far fewer draws are as precise (a
    fifteenth, in scripts/bench_variance.py); rounding is there 1e-6 of a gradient's square.

    Args:
      order: the highest moment: 2 or 4.
      groups: {name: function of params that selects a tree}; None takes `parts(params)`.
      by: None takes "examples" where it is possible and pays: at `order` 2, for a minibatch whose
        gradients are mostly products of
        few rows, as in dense layers; else "draws". The result says which.
      strategy: of "draws". "scan": one after another, the moments of `chunk` of them added
        together. "vmap": `chunk` at once; what does
        not depend on the key, such as q(z|x), is then computed once for all of them. "devices":
        each local device takes its share, `chunk` at once. None: "scan" on a CPU, where it is
        faster for any but the smallest gradients, else "vmap"; "vmap" for a chunk above 1.
      chunk: how many gradients are held at a time. None: 4 of a scan of 500 draws or more (of fewer
        1), 1 for devices on a CPU, else 100.
    """
    require_count(num_draws, "num_draws")
    if num_draws < 2:
        raise ValueError("num_draws = 1; a variance needs at least 2")
    if order not in (2, 4):
        raise ValueError(f"order = {order!r}; give 2 or 4")
    objective = by_value(objective)
    groups = parts(params) if groups is None else groups
    pilot_key, draw_key = jax.random.split(key)
    if by is not None and by not in get_args(By):
        raise ValueError(unknown_name("by", by, list(get_args(By))))
    only_draws = order == 4 or strategy is not None or chunk is not None
    if by == "examples" and only_draws:
        raise ValueError(
            'by = "examples" gives two moments, in one way; say order=2, and no strategy or chunk'
        )
    if by != "draws" and not only_draws:
        try:
            return _moments_by_examples(objective, groups, params, x, draw_key, num_draws)
        except NotByExamplesError as reason:
            if by == "examples":
                raise ValueError(f'by = "examples" cannot be: {reason}; use by="draws"') from None
    at_once, chunk, mesh = _layout(strategy, chunk, num_draws)
    selectors = tuple(groups.values())
    centre = _mean_gradient(objective, params, x, pilot_key)
    sums = tuple(jax.tree.map(jnp.zeros_like, centre) for _ in range(order))
    values, squares = [], []
    for start in range(0, num_draws, DRAWS_PER_CALL):
        count = min(DRAWS_PER_CALL, num_draws - start)
        share = -(-count // (1 if mesh is None else mesh.size))
        size = -(-share // chunk) * chunk
        sums, some = _add_draws(
            objective,
            selectors,
            at_once,
            chunk,
            size,
            mesh,
            params,
            x,
            draw_key,
            centre,
            sums,
            start,
            count,
        )
        values.append(np.asarray(some[0], np.float64)[:count])
        squares.append(np.asarray(some[1], np.float64)[:count])
    moments = _central(num_draws, centre, sums)
    by_group = {}
    for name, select, of_group in zip(groups, selectors, np.concatenate(squares).T, strict=True):
        by_group[name] = of_group + tree_sum(select(moments[1])) - of_group.mean()
    return Moments(num_draws, estimate(np.concatenate(values)), *moments, by_group)


@partial(jax.jit, static_argnames="objective")
def _mean_gradient(objective: Objective, params: Params, x: PyTree, key: Key) -> Params:
    gradients = jax.lax.map(
        lambda key: jax.grad(objective)(params, x, key), jax.random.split(key, PILOT_DRAWS)
    )
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)


def _moments_by_examples(
    objective, groups: Groups, params: Params, x: PyTree, key: Key, num_draws: int
) -> Moments:
    values, squares, mean, variance = moments_by_examples(
        objective, tuple(groups.values()), params, x, key, num_draws
    )
    mean, variance, squares = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), (mean, variance, squares)
    )
    of_groups = dict(zip(groups, squares.T, strict=True))
    return Moments(
        num_draws, estimate(np.asarray(values)), mean, variance, None, None, of_groups, "examples"
    )


def _layout(
    strategy: Strategy | None, chunk: int | None, num_draws: int
) -> tuple[bool, int, Mesh | None]:
    """Whether the draws of a chunk are at once, under one vmap; their number; and the devices that
    share the draws.
    """
    if strategy is not None and strategy not in get_args(Strategy):
        raise ValueError(unknown_name("strategy", strategy, list(get_args(Strategy))))
    if chunk is not None:
        require_count(chunk, "chunk")
    on_cpu = jax.default_backend() == "cpu"
    if strategy == "scan" or (strategy is None and on_cpu and chunk in (None, 1)):
        if chunk is not None and chunk > MOST_UNROLLED:
            raise ValueError(
                f"chunk = {chunk}, and a scan writes its chunk out in the program; give at most"
                f' {MOST_UNROLLED}, or use "vmap"'
            )
        return False, chunk or (UNROLLED if num_draws >= ENOUGH_DRAWS else 1), None
    mesh = Mesh(np.array(jax.local_devices()), "draw") if strategy == "devices" else None
    return True, chunk or (1 if mesh is not None and on_cpu else 100), mesh


PILOT_DRAWS = (
    8  # for the point that deviations are taken from: near the mean, and independent of the draws
)


DRAWS_PER_CALL = 10_000


UNROLLED, ENOUGH_DRAWS = (
    4,
    500,
)  # draws of a scan whose moments are added together, where so many pay for the longer program


MOST_UNROLLED = 32


@partial(
    jax.jit,
    static_argnames=("objective", "selectors", "at_once", "chunk", "size", "mesh"),
    donate_argnames="sums",
)
def _add_draws(
    objective,
    selectors: tuple,
    at_once,
    chunk: int,
    size: int,
    mesh,
    params,
    x,
    key,
    centre: Params,
    sums,
    start,
    count,
):
    """The sums with the draws start..start + count - 1 in them, and the value and the squares of
    each; `size` draws for each device.
    """

    def one(params, x, centre, key, counts):
        value, gradient = jax.value_and_grad(objective)(params, x, key)
        return jax.tree.map(lambda g, c: jnp.where(counts, g - c, 0), gradient, centre), value

    def chunk_of(sums, seen, keys, counts, arguments):
        """The sums with the powers of the deviations of a chunk added, and the value and squares of
        each draw.

        The squares are about the mean of all draws so far: about the pilot's, a kurtosis would be
        off by the pilot's error for good.
        """
        seen = seen + jnp.sum(counts)

        def squared(step, mean):
            away = jax.tree.map(jnp.subtract, step, mean)
            return jnp.stack(
                [
                    sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(select(away)))
                    for select in selectors
                ]
            )

        if at_once:
            steps, values = jax.vmap(partial(one, *arguments))(keys, counts)
            added = [
                jax.tree.map(lambda leaf, p=p: jnp.sum(leaf**p, axis=0), steps)
                for p in range(1, len(sums) + 1)
            ]
        else:
            # Written out, so that the parameters' sums are read and written once a chunk: without
            # it, half of what a draw costs on top.
            steps, values = zip(
                *(one(*arguments, key=keys[i], counts=counts[i]) for i in range(chunk)), strict=True
            )
            added = [
                jax.tree.map(lambda *leaves, p=p: sum(leaf**p for leaf in leaves), *steps)
                for p in range(1, len(sums) + 1)
            ]
            values = jnp.stack(values)
        sums = jax.tree.map(jnp.add, sums, tuple(added))
        mean = jax.tree.map(lambda leaf: leaf / seen, sums[0])
        squares = (
            jax.vmap(squared, (0, None))(steps, mean)
            if at_once
            else jnp.stack([squared(step, mean) for step in steps])
        )
        return sums, (values, seen / (seen - 1) * squares)

    def share(first, params, x, key, centre, sums, start, count):
        """The draws start + first..start + first + size - 1, as far as they count; the sums are of
        `start` draws before, if first = 0.
        """

        def add(i, carry):
            sums, kept = carry
            index = first + i * chunk + jnp.arange(chunk)
            keys = jax.vmap(lambda i: jax.random.fold_in(key, start + i))(index)
            seen = PILOT_DRAWS + jnp.where(first == 0, start, 0) + i * chunk
            sums, numbers = chunk_of(sums, seen, keys, index < count, (params, x, centre))
            kept = jax.tree.map(
                lambda all_draws, some: jax.lax.dynamic_update_slice_in_dim(
                    all_draws, some, i * chunk, 0
                ),
                kept,
                numbers,
            )
            return sums, kept

        value = jax.eval_shape(objective, params, x, key)
        kept = jnp.zeros(size, value.dtype), jnp.zeros((size, len(selectors)), value.dtype)
        return jax.lax.fori_loop(
            0, -(-jnp.clip(count - first, 0, size) // chunk), add, (sums, kept)
        )

    if mesh is None:
        return share(0, params, x, key, centre, sums, start, count)

    def of_device(firsts, params, x, key, centre, sums, start, count):
        sums = jax.tree.map(lambda leaf: jnp.where(firsts[0] == 0, leaf, 0), sums)
        sums, kept = share(firsts[0], params, x, key, centre, sums, start, count)
        return jax.lax.psum(sums, "draw"), kept

    everywhere, split = PartitionSpec(), PartitionSpec("draw")
    on_devices = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(split,) + (everywhere,) * 7,
        out_specs=(everywhere, split),
        check_vma=False,
    )
    return on_devices(size * jnp.arange(mesh.size), params, x, key, centre, sums, start, count)


def _central(
    n: int, centre: Params, sums: tuple[Params, ...]
) -> tuple[Params, Params, Params | None, Params | None]:
    """Mean, unbiased variance and central moments 3 and 4, from sums of powers of the deviations
    from `centre`.
    """

    def of(leaf, *powers):
        m = [np.asarray(power, np.float64) / n for power in powers]
        d = m[0]
        moments = [np.asarray(leaf, np.float64) + d, np.maximum(m[1] - d**2, 0) * n / (n - 1)]
        if len(m) == 4:
            moments += [
                m[2] - 3 * d * m[1] + 2 * d**3,
                m[3] - 4 * d * m[2] + 6 * d**2 * m[1] - 3 * d**4,
            ]
        return moments

    leaves, structure = jax.tree.flatten(centre)
    columns = list(
        zip(
            *(
                of(leaf, *powers)
                for leaf, *powers in zip(leaves, *map(jax.tree.leaves, sums), strict=True)
            ),
            strict=True,
        )
    )
    trees = [jax.tree.unflatten(structure, column) for column in columns]
    return (*trees, None, None) if len(trees) == 2 else tuple(trees)
