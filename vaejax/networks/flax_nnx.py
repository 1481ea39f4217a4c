"""Modules of Flax NNX as nets."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vaejax.base.checks import shortened
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.networks.base import require_same_params, require_stateless
from vaejax.networks.stochastic import Stochastic, parted

KIND = nnx.Module


@component
class NNXNet:
    """What `vaejax.from_nnx` returns."""

    build: Callable

    def init(self, key: Key, example: Any) -> PyTree:
        parts = _parts(self.build)
        params = nnx.to_pure_dict(nnx.state(self.build(rngs=nnx.Rngs(key)), nnx.Param))
        return Stochastic(params) if parts.has_noise else params

    def apply(self, params: PyTree, example: Any) -> Any:
        parts = _parts(self.build)
        learned, key = parted(self, params, parts.has_noise)
        require_same_params(self, learned, parts.shapes)
        streams = parts.streams if key is None else _seeded(parts.streams, key)
        module = nnx.merge(parts.graph, nnx.State(learned), streams, parts.constants)
        if key is None:
            module.eval()
        return module(example)


class _Parts(NamedTuple):
    """A module without its parameters, of which the shapes are kept."""

    graph: Any
    shapes: PyTree
    streams: nnx.State  # of random numbers
    constants: nnx.State

    @property
    def has_noise(self) -> bool:
        return bool(jax.tree.leaves(self.streams))


@lru_cache(maxsize=64)
def _parts(build: Callable) -> _Parts:
    with jax.ensure_compile_time_eval():
        module = build(rngs=nnx.Rngs(0))
    if not isinstance(module, nnx.Module):
        raise TypeError(f"from_nnx built {shortened(module)}, which is not an nnx.Module")
    graph, learned, streams, constants = nnx.split(module, nnx.Param, nnx.RngState, ...)
    require_stateless(type(module).__name__, _kinds_of_state(constants))
    shapes = nnx.to_pure_dict(jax.eval_shape(lambda: learned))
    return _Parts(graph, shapes, streams, constants)


def _kinds_of_state(constants: nnx.State) -> list[str]:
    leaves = jax.tree.leaves(constants, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return sorted({type(leaf).__name__ for leaf in leaves if isinstance(leaf, nnx.Variable)})


def _seeded(streams: nnx.State, key: Key) -> nnx.State:
    """The streams of random numbers, each with a key of its own."""
    leaves, structure = jax.tree.flatten(streams)
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # the others count what was drawn
            leaves[i] = jax.random.split(jax.random.fold_in(key, i), leaf.shape)
    return structure.unflatten(leaves)
