"""Supports: which values a density is for. Data and the two densities of one latent are held
against them before anything runs.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.base.checks import require_count
from vaejax.base.values import component

PIECE = 2**18  # numbers that are looked at at once
TOLERANCE = 1e-3  # of a step, of a sum and of a length


@component
class Support:
    """The values in [low, high], on the grid of multiples of 1/steps where `steps` is given.

    `unit`: what of each vector along the last axis is 1, its sum or its length. `moving`: its ends
    depend on the parameters of the density, so that no other is on the same set. `shown`: what
    other factors are shown of a value, where that is not the value itself.
    """

    name: str
    description: str
    low: float = -math.inf
    high: float = math.inf
    steps: int | None = None
    moving: bool = False
    unit: Literal["sum", "length"] | None = None
    shown: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self):
        if not self.low <= self.high:
            raise ValueError(
                f"Support.low = {self.low!r}, Support.high = {self.high!r}; give two numbers, low"
                " at most high"
            )
        if self.steps is not None:
            require_count(self.steps, "Support.steps")

    def contains(self, x: np.ndarray, scale: float = 1) -> bool:
        """Whether every x / scale lies in the support."""
        # In float64: the least positive number of that is 0 in float32.
        if float(x.min()) < self.low * scale or float(x.max()) > self.high * scale:
            return False
        if self.unit is not None and x.ndim < 2:  # one vector, or none
            return x.ndim == 1 and self._on_grid(x, scale) and self._of_unit(x, scale)
        return all(
            self._on_grid(rows, scale) and self._of_unit(rows, scale) for _, rows in in_pieces(x)
        )

    def _on_grid(self, x: np.ndarray, scale: float) -> bool:
        if self.steps is None or (x.dtype.kind in "biu" and self.steps % scale == 0):
            return True  # whole numbers lie on the grid, which spares a pass over the data
        scaled = x * (self.steps / scale)
        return bool((np.abs(scaled - np.rint(scaled)) <= TOLERANCE).all())

    def _of_unit(self, x: np.ndarray, scale: float) -> bool:
        if self.unit is None:
            return True
        power = 1 if self.unit == "sum" else 2
        totals = np.sum((x / scale) ** power, axis=-1, dtype=np.float64)
        return bool((np.abs(totals - 1) <= TOLERANCE).all())


def in_pieces(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, some rows) of an array, so that what is asked of it needs little memory."""
    if x.ndim == 0:
        yield 0, x
        return
    num_rows = max(1, PIECE * len(x) // max(1, x.size))
    for start in range(0, len(x), num_rows):
        yield start, x[start : start + num_rows]


REAL = Support("real", "any finite number")
BINARY = Support("binary", "0 and 1", 0, 1, 1)
POSITIVE = Support("positive", "numbers above 0", math.ulp(0.0))
NON_NEGATIVE = Support("non-negative", "numbers from 0 on", 0.0)
UNIT_INTERVAL = Support("unit interval", "numbers from 0 to 1", 0, 1)
COUNTS = Support("counts", "0, 1, 2, ...", 0, steps=1)
ONE_HOT = Support("one-hot", "vectors of one 1 and else 0", 0, 1, 1, unit="sum")
SIMPLEX = Support("simplex", "positive vectors of sum 1", 0, 1, unit="sum")
SPHERE = Support("sphere", "vectors of length 1", unit="length")

# A point of (0, 1) or of the simplex that is almost 0 or 1 has no float of its own, but its logit
# or its logarithms have: relaxed variables live there, and nets are shown the point.
RELAXED_BINARY = Support("relaxed binary", "logits of points between 0 and 1", shown=jax.nn.sigmoid)
RELAXED_ONE_HOT = Support(
    "relaxed one-hot", "logarithms of positive vectors of sum 1", high=0.0, shown=jnp.exp
)
REAL_VECTORS = (REAL, RELAXED_BINARY)  # all of R^d


def levels(num_levels: int) -> Support:
    """Pixels of so many levels, scaled to the unit interval: k / (num_levels - 1).

    >>> vaejax.supports.levels(5).contains(np.array([0.0, 0.25, 0.9]))
    False
    """
    require_count(num_levels, "num_levels", least=2)
    return Support(
        f"{num_levels} levels", f"multiples of 1/{num_levels - 1} from 0 to 1", 0, 1, num_levels - 1
    )


def shown(support: Support | Mapping | None, value: Any) -> Any:
    """What a factor is shown of a latent in this support, or of {name: latent}, however nested."""
    if isinstance(support, Mapping):
        return {name: shown(support[name], value[name]) for name in value}
    if support is None:
        return value
    return _quantity(value) if support.shown is None else support.shown(value)


def _quantity(value: Any) -> Any:
    """A single whole number that a density is known for, such as a count, as a real one: nets take
    it for that, and refuse one of which nothing is known, since it may be a label.
    """
    is_number = isinstance(value, jax.Array | np.ndarray | np.generic) and value.ndim == 0
    whole = is_number and jnp.issubdtype(value.dtype, jnp.integer)
    return jnp.asarray(value, jnp.float32) if whole else value


def support_parts(
    support: Support | Mapping | None, name: str = "z"
) -> list[tuple[str, Support | None]]:
    """[(name, Support or None)] of one support, or of every part of a mapping of them, however
    nested: `z["top"]` for example.
    """
    if not isinstance(support, Mapping):
        return [(name, support)]
    return [
        part for key, inner in support.items() for part in support_parts(inner, f"{name}[{key!r}]")
    ]
