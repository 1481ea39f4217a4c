"""Modules of Equinox as nets."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import equinox as eqx
import jax

from vaejax.base.checks import shortened
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.networks.base import require_same_params, require_stateless
from vaejax.networks.stochastic import Stochastic, parted

KIND = eqx.Module


@component
class EquinoxNet:
    """What `vaejax.from_equinox` returns. The parameters are the module with None in place of all
    else.
    """

    build: Callable

    def init(self, key: Key, example: Any) -> PyTree:
        parts = _parts(self.build)
        params = eqx.filter(self.build(key=key), eqx.is_inexact_array)
        return Stochastic(params) if parts.has_noise else params

    def apply(self, params: PyTree, example: Any) -> Any:
        parts = _parts(self.build)
        learned, key = parted(self, params, parts.has_noise)
        require_same_params(self, learned, parts.shapes)
        module = eqx.combine(learned, parts.others)
        return eqx.nn.inference_mode(module)(example) if key is None else module(example, key=key)


class _Parts(NamedTuple):
    """A module without its parameters, of which the shapes are kept."""

    others: Any
    shapes: PyTree
    has_noise: bool


@lru_cache(maxsize=64)
def _parts(build: Callable) -> _Parts:
    with jax.ensure_compile_time_eval():
        module = build(key=jax.random.key(0))
    name = type(module).__name__
    if isinstance(module, tuple):  # as `eqx.nn.make_with_state` gives
        require_stateless("the module of from_equinox", ["eqx.nn.State"])
    if not isinstance(module, eqx.Module):
        raise TypeError(f"from_equinox built {shortened(module)}, which is not an eqx.Module")
    indices = [leaf for leaf in jax.tree.leaves(module, is_leaf=_is_state) if _is_state(leaf)]
    require_stateless(name, ["eqx.nn.State"] if indices else [])
    learned, others = eqx.partition(module, eqx.is_inexact_array)
    flags = eqx.filter(module, eqx.is_array, inverse=True)
    has_noise = not eqx.tree_equal(flags, eqx.nn.inference_mode(flags))
    return _Parts(others, jax.eval_shape(lambda: learned), has_noise)


def _is_state(leaf: Any) -> bool:
    return isinstance(leaf, eqx.nn.StateIndex)
