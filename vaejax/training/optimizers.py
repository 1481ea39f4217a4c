"""Optax optimisers that are equal where they were made by the same calls."""

from functools import partial
from types import FunctionType
from typing import Any

import jax
import numpy as np


class ByStructure:
    """An Optax optimiser that equals any other made by the same calls, so that both share one
    compiled program.

    Optax builds closures, which compare by identity: `optax.adam(1e-3)` typed twice would compile
    twice. Compared here are the code of Optax's own functions and what they close over; a function
    from elsewhere, such as a user's schedule, is compared by identity, since it may read variables
    that change.
    """

    def __init__(self, optimizer):
        self.init, self.update = optimizer.init, optimizer.update
        self._structure = _structure(optimizer, frozenset())

    def __eq__(self, other):
        return isinstance(other, ByStructure) and self._structure == other._structure

    def __hash__(self):
        return hash(self._structure)


def _structure(obj: Any, parents: frozenset[int]) -> Any:
    if id(obj) in parents:
        return "cycle"
    inside = partial(_structure, parents=parents | {id(obj)})
    if isinstance(obj, FunctionType) and obj.__module__.startswith("optax"):
        cells = tuple(inside(cell.cell_contents) for cell in obj.__closure__ or ())
        return obj.__code__, cells, inside(obj.__defaults__), inside(obj.__kwdefaults__)
    if isinstance(obj, partial):
        return inside(obj.func), inside(obj.args), inside(obj.keywords)
    if isinstance(obj, tuple | list):
        return type(obj), tuple(inside(item) for item in obj)
    if isinstance(obj, dict):
        return type(obj), tuple((key, inside(item)) for key, item in obj.items())
    if isinstance(obj, np.ndarray | jax.Array):
        return obj.shape, str(obj.dtype), np.asarray(obj).tobytes()
    if obj is None or isinstance(
        obj, bool | int | float | str | bytes | np.generic | np.dtype | type
    ):
        return type(obj), obj
    return Identity(obj)


class Identity:
    """`obj`, compared by identity. It holds on to obj, so that the identity is not given to
    another.
    """

    def __init__(self, obj: Any):
        self.obj = obj

    def __eq__(self, other):
        return isinstance(other, Identity) and self.obj is other.obj

    def __hash__(self):
        return id(self.obj)
