"""How the draws of a gradient are laid out: under one vmap, written out one after another, or
shared by devices.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from vaejax.base.checks import require_count, unknown_name
from vaejax.base.types import Key, Params

Way = Literal["scan", "vmap", "devices"]
Strategy = Literal["scan", "vmap", "devices", "fastest"]

UNROLLED, ENOUGH_DRAWS = 4, 500  # the chunk of a scan of so many: they pay for a longer program
MOST_UNROLLED = 32


class Chunk:
    """Deviations g_i - c of a chunk of draws, and the value of each. Draws that do not count have
    deviation 0.
    """

    values: Float[Array, " chunk"]

    def sum_of_powers(self, power: int) -> Params:
        """sum_i (g_i - c)^power."""
        raise NotImplementedError

    def map(self, function: Callable[[Params], Any]) -> Any:
        """[function(g_i - c)], stacked."""
        raise NotImplementedError


class VmappedChunk(Chunk):
    """All draws at once."""

    def __init__(self, draw: Callable, keys: Key, counts: Bool[Array, " chunk"]):
        self.deviations, self.values = jax.vmap(draw)(keys, counts)

    def sum_of_powers(self, power: int) -> Params:
        return jax.tree.map(lambda leaf: jnp.sum(leaf**power, axis=0), self.deviations)

    def map(self, function: Callable[[Params], Any]) -> Any:
        return jax.vmap(function)(self.deviations)


class WrittenOutChunk(Chunk):
    """One draw after another, written out in the program: so the running sums are read and written
    once a chunk, which is half of what a draw costs on top of its gradient.
    """

    def __init__(self, draw: Callable, keys: Key, counts: Bool[Array, " chunk"]):
        draws = [draw(keys[i], counts[i]) for i in range(len(counts))]
        self.deviations, values = zip(*draws, strict=True)
        self.values = jnp.stack(values)

    def sum_of_powers(self, power: int) -> Params:
        return jax.tree.map(lambda *leaves: sum(leaf**power for leaf in leaves), *self.deviations)

    def map(self, function: Callable[[Params], Any]) -> Any:
        return jnp.stack([function(deviation) for deviation in self.deviations])


class Layout(NamedTuple):
    """How draws are computed: `chunk` of them under one vmap, or written out one after another; and
    the devices that share the draws, if they do.
    """

    vmapped: bool
    chunk: int
    mesh: Mesh | None = None

    @property
    def everywhere(self) -> NamedSharding | None:
        """Where what all draws share lies."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    def draws_per_device(self, count: int) -> int:
        """A device's share of so many draws, in whole chunks."""
        share = -(-count // (1 if self.mesh is None else self.mesh.size))
        return -(-share // self.chunk) * self.chunk

    def drawn(self, draw: Callable, keys: Key, counts: Bool[Array, " chunk"]) -> Chunk:
        """A chunk of `draw(key, counts) -> (g - c, value)`."""
        return (VmappedChunk if self.vmapped else WrittenOutChunk)(draw, keys, counts)


def strategy_for(strategy: Strategy | None, chunk: int | None) -> Strategy:
    """The strategy that is asked for, or the one of this backend; ValueError for what is none."""
    if strategy is not None and strategy not in get_args(Strategy):
        raise ValueError(unknown_name("strategy", strategy, list(get_args(Strategy))))
    if chunk is not None:
        require_count(chunk, "chunk")
    if strategy == "scan" and chunk is not None and chunk > MOST_UNROLLED:
        raise ValueError(
            f"chunk = {chunk}, and a scan writes its chunk out in the program; give at most"
            f' {MOST_UNROLLED}, or use "vmap"'
        )
    if strategy is not None:
        return strategy
    if chunk not in (None, 1):
        return "vmap"
    return "scan" if jax.default_backend() == "cpu" else "fastest"


def layout_for(way: Way, chunk: int | None, num_draws: int) -> Layout:
    """The layout of a way: the chunk is one that suits this backend, where none is asked for."""
    if way == "scan":
        return Layout(False, chunk or (UNROLLED if num_draws >= ENOUGH_DRAWS else 1))
    if way == "vmap":
        return Layout(True, chunk or 100)
    mesh = Mesh(np.array(jax.local_devices()), "draw")
    return Layout(True, chunk or (1 if jax.default_backend() == "cpu" else 100), mesh)


def ways_for(chunk: int | None) -> list[Way]:
    """Those that there are here: a scan writes its chunk out, and devices share where they are
    several.
    """
    ways: list[Way] = ["vmap"]
    if (chunk or 1) <= MOST_UNROLLED:
        ways.append("scan")
    if jax.local_device_count() > 1:
        ways.append("devices")
    return ways
