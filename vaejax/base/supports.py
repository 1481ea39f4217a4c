"""Supports: which values a density is for. Data and the two densities of one latent are held
against them before anything runs.
"""

import math
from collections.abc import Mapping

import numpy as np

from vaejax.base.values import component


@component
class Support:
    """The values in [low, high], on the grid of multiples of 1/steps where `steps` is given.

    `moving`: its ends depend on the parameters of the density, so that no other is on the same set.
    """

    name: str
    description: str
    low: float = -math.inf
    high: float = math.inf
    steps: int | None = None
    moving: bool = False

    def contains(self, x: np.ndarray, unit: float = 1) -> bool:
        """Whether every x / unit lies in the support."""
        if x.min() < self.low * unit or x.max() > self.high * unit:
            return False
        if self.steps is None or (x.dtype.kind in "biu" and self.steps % unit == 0):
            return True  # whole numbers lie on the grid, which spares a pass over the data
        scaled = x * (self.steps / unit)
        return bool(np.allclose(scaled, np.round(scaled), rtol=0, atol=1e-3))


REAL = Support("real", "any finite number")
BINARY = Support("binary", "0 and 1", 0, 1, 1)
POSITIVE = Support("positive", "numbers above 0", math.ulp(0.0))
NON_NEGATIVE = Support("non-negative", "numbers from 0 on", 0.0)
UNIT_INTERVAL = Support("unit interval", "numbers from 0 to 1", 0, 1)
COUNTS = Support("counts", "0, 1, 2, ...", 0, steps=1)
ONE_HOT = Support("one-hot", "vectors of one 1 and else 0", 0, 1, 1)
SIMPLEX = Support("simplex", "positive vectors of sum 1", 0, 1)
SPHERE = Support("sphere", "vectors of length 1", -1, 1)


def levels(num_levels: int) -> Support:
    """Pixels of so many levels, scaled to the unit interval: k / (num_levels - 1)."""
    return Support(
        f"{num_levels} levels", f"multiples of 1/{num_levels - 1} from 0 to 1", 0, 1, num_levels - 1
    )


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
