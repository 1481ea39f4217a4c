"""Moments from draws of a whole gradient: running sums of powers of its deviations from a point c
near the mean,

    S_p = sum_i (g_i - c)^p,    p = 1, ..., order,

so that nothing cancels, and memory does not grow with the number of draws. Draws are taken in
chunks, and the sums of a chunk are added to the running ones together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from vaejax.base.asserts import assert_shape
from vaejax.base.devices import placed, under_mesh
from vaejax.base.loops import block_length, repeat
from vaejax.base.trials import fastest, forms
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.objectives.base import Maximised
from vaejax.variance.layouts import Chunk, Layout, Strategy, Way, layout_for, ways_for

Selectors = tuple[Callable[[Params], PyTree], ...]
Sums = tuple[Params, ...]  # of powers 1, 2, ... of the deviations
Kept = tuple[Float[Array, " n"], Float[Array, "n groups"]]  # of each draw: value and squares

PILOT_DRAWS = 8  # for c, which is near the mean and independent of the draws
DRAWS_PER_CALL = 10_000
MOST_TRIED, DRAWS_OF_A_STEP = 10, 100  # where layouts are tried


@dataclass(frozen=True, eq=False)
class Draws:
    """The gradient of a function at (params, x), which of its draws are taken, and what is kept of
    them: squares by the groups that `selectors` select, moments up to `order`.
    """

    function: Maximised
    selectors: Selectors
    params: Params
    x: PyTree
    keys: Key  # [2], of the pilot and of the draws
    num_draws: int
    order: int


class Point(NamedTuple):
    """Where the gradient is taken: draw i has the key fold_in(key, i), and `centre` is c."""

    params: Params
    x: PyTree
    key: Key
    centre: Params


class Plan(NamedTuple):
    """What is known when the program is compiled; `size` draws for each device in a call, and
    `block` chunks in one of the loop, `base.loops`.
    """

    function: Maximised
    selectors: Selectors
    layout: Layout
    size: int
    block: int


class LaidOut:
    """Draws in a layout, on its devices."""

    def __init__(self, draws: Draws, layout: Layout):
        size = layout.draws_per_device(min(draws.num_draws, DRAWS_PER_CALL))
        self._plan = Plan(draws.function, draws.selectors, layout, size, block_length())
        self._num_draws, self._order = draws.num_draws, draws.order
        with under_mesh(layout.mesh):
            arrays = placed((draws.params, draws.x, draws.keys), layout.everywhere)
            self._params, self._x, (self._pilot_key, self._draw_key) = arrays

    def moments(self) -> tuple[np.ndarray, np.ndarray, list[Params]]:
        """The values [n] and the squares [n, groups] of the draws; and the mean and the central
        moments of order 2, ..., `order`.
        """
        # By the program of the draws, so that there is one to compile.
        total, *_ = self._pilot(PILOT_DRAWS)
        with under_mesh(self._plan.layout.mesh):
            centre = jax.tree.map(lambda leaf: leaf / PILOT_DRAWS, total)
            point = Point(self._params, self._x, self._draw_key, centre)
            sums, (values, squares) = _all_draws(self._plan, point, self._num_draws, self._order)
            return values, squares, central_moments(self._num_draws, centre, sums)

    def take(self, count: int) -> None:
        """So many times some draws that are not kept."""
        self._pilot(count * min(self._num_draws, DRAWS_OF_A_STEP))

    def _pilot(self, count: int) -> Sums:
        """The sums over so many draws about zeros, of a stated dtype: that of a parameter made of a
        Python number gives way.
        """
        with under_mesh(self._plan.layout.mesh):
            zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, leaf.dtype), self._params)
            point = Point(self._params, self._x, self._pilot_key, zeros)
            return _all_draws(self._plan, point, count, self._order)[0]


def laid_out(draws: Draws, strategy: Strategy, chunk: int | None) -> LaidOut:
    """By that strategy; for "fastest" the way that takes the least time here, by some draws."""

    def by(way: Way) -> LaidOut:
        return LaidOut(draws, layout_for(way, chunk, draws.num_draws))

    if strategy != "fastest":
        return by(strategy)
    computed = draws.function, draws.selectors, draws.num_draws, draws.order, chunk
    question = *computed, forms((draws.params, draws.x))
    return by(fastest(ways_for(chunk), lambda way: by(way).take, MOST_TRIED, question))


def _all_draws(
    plan: Plan, point: Point, num_draws: int, order: int
) -> tuple[Sums, tuple[np.ndarray, np.ndarray]]:
    """The sums over draws 0, ..., num_draws - 1; and the values [n] and the squares [n, groups] of
    each, in float64. As many calls as that takes.
    """
    layout = plan.layout
    most = plan.size * (1 if layout.mesh is None else layout.mesh.size)
    sums = tuple(jax.tree.map(jnp.zeros_like, point.centre) for _ in range(order))
    values, squares = [], []
    for start in range(0, num_draws, most):
        count = min(most, num_draws - start)
        sums, kept = add_draws(plan, point, sums, start, count)
        values.append(np.asarray(kept[0], np.float64)[:count])
        squares.append(np.asarray(kept[1], np.float64)[:count])
    return sums, (np.concatenate(values), np.concatenate(squares))


# The running sums.


@partial(jax.jit, static_argnames="plan", donate_argnames="sums")
def add_draws(
    plan: Plan, point: Point, sums: Sums, start: jax.Array | int, count: jax.Array | int
) -> tuple[Sums, Kept]:
    """The sums with the draws start, ..., start + count - 1 in them, and the value and the squares
    of each.
    """
    mesh = plan.layout.mesh
    if mesh is None:
        return _add_share(plan, 0, point, sums, start, count)

    def on_device(firsts, point, sums, start, count):
        sums = jax.tree.map(lambda leaf: jnp.where(firsts[0] == 0, leaf, 0), sums)
        sums, kept = _add_share(plan, firsts[0], point, sums, start, count)
        return jax.lax.psum(sums, "draw"), kept

    everywhere, split = PartitionSpec(), PartitionSpec("draw")
    on_devices = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(split,) + (everywhere,) * 4,
        out_specs=(everywhere, split),
        check_vma=False,
    )
    return on_devices(plan.size * jnp.arange(mesh.size), point, sums, start, count)


def _add_share(
    plan: Plan,
    first: jax.Array | int,
    point: Point,
    sums: Sums,
    start: jax.Array | int,
    count: jax.Array | int,
) -> tuple[Sums, Kept]:
    """The draws of one device, start + first, ..., start + first + size - 1, as far as they count.

    Where first = 0, the sums are those of `start` draws before.
    """
    chunk_size, size = plan.layout.chunk, plan.size

    def add_chunk(i, carry):
        sums, kept = carry
        offset = i * chunk_size
        index = first + offset + jnp.arange(chunk_size)
        counts = index < count
        chunk = _drawn(plan, point, start + index, counts)

        # S_p' = S_p + sum_i (g_i - c)^p
        powers = tuple(chunk.sum_of_powers(p) for p in range(1, len(sums) + 1))
        sums = jax.tree.map(jnp.add, sums, powers)
        # k: the draws of the pilot, those in the sums before, and those of this chunk
        before = jnp.where(first == 0, start, 0) + offset
        seen = PILOT_DRAWS + before + jnp.sum(counts)
        squares = _squares(chunk, sums[0], seen, plan.selectors)
        assert_shape(chunk.values, (chunk_size,))
        assert_shape(squares, (chunk_size, len(plan.selectors)))

        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=offset, axis=0)
        return sums, jax.tree.map(put, kept, (chunk.values, squares))

    value = jax.eval_shape(plan.function, point.params, point.x, point.key)
    kept = jnp.zeros(size, value.dtype), jnp.zeros((size, len(plan.selectors)), value.dtype)
    num_chunks = -(-jnp.clip(count - first, 0, size) // chunk_size)
    return repeat(num_chunks, add_chunk, (sums, kept), plan.block)


def _drawn(
    plan: Plan, point: Point, numbers: Int[Array, " chunk"], counts: Bool[Array, " chunk"]
) -> Chunk:
    """The draws of these numbers, of which some count."""
    keys = jax.vmap(lambda i: jax.random.fold_in(point.key, i))(numbers)
    return plan.layout.drawn(partial(_deviation, plan.function, point), keys, counts)


def _deviation(
    function: Maximised, point: Point, key: Key, counts: Bool[Array, ""]
) -> tuple[Params, Scalar]:
    """g - c, or 0 where the draw does not count, and the value."""
    value, gradient = jax.value_and_grad(function)(point.params, point.x, key)
    deviation = jax.tree.map(lambda g, c: jnp.where(counts, g - c, 0), gradient, point.centre)
    return deviation, value


def _squares(
    chunk: Chunk, total: Params, seen: ArrayLike, selectors: Selectors
) -> Float[Array, "chunk groups"]:
    """k / (k - 1) |g_i - m_k|^2 by group, about the mean m_k of the k draws `seen` so far: about
    the pilot's mean a kurtosis would be off by the pilot's error for good.
    """
    # m_k - c = S_1 / k, where the pilot's draws count as draws at c
    mean = jax.tree.map(lambda leaf: leaf / seen, total)

    def squared(deviation):
        away = jax.tree.map(jnp.subtract, deviation, mean)
        return jnp.stack([_squared_norm(select(away)) for select in selectors])

    return seen / (seen - 1) * chunk.map(squared)


def _squared_norm(tree: PyTree) -> Any:
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def central_moments(num_draws: int, centre: Params, sums: Sums) -> list[Params]:
    """The mean, the unbiased variance and, of four sums, the central moments 3 and 4, in
    float64.
    """
    n = num_draws
    # m_p = (1/n) sum_i (g_i - c)^p
    m1, m2, *higher = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) / n, sums)
    # E g = c + m_1
    mean = jax.tree.map(lambda c, m1: np.asarray(c, np.float64) + m1, centre, m1)
    # Var g = (m_2 - m_1^2) n / (n - 1)
    variance = jax.tree.map(lambda m1, m2: np.maximum(m2 - m1**2, 0) * n / (n - 1), m1, m2)
    if not higher:
        return [mean, variance]
    m3, m4 = higher
    # E (g - E g)^3 = m_3 - 3 m_1 m_2 + 2 m_1^3
    third = jax.tree.map(lambda m1, m2, m3: m3 - 3 * m1 * m2 + 2 * m1**3, m1, m2, m3)
    # E (g - E g)^4 = m_4 - 4 m_1 m_3 + 6 m_1^2 m_2 - 3 m_1^4
    fourth = jax.tree.map(
        lambda m1, m2, m3, m4: m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4, m1, m2, m3, m4
    )
    return [mean, variance, third, fourth]
