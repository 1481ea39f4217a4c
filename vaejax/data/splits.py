"""A data set in three splits: what a set does not bring is held out of its training examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from vaejax.base.checks import Reals, require_positive
from vaejax.base.fields import Rule
from vaejax.data.base import Dataset, Split

TENTH = 0.1
SPLITS_HELD_OUT = ("valid", "test")


@dataclass(frozen=True)
class FractionOrCount(Rule):
    """A fraction of the examples, between 0 and 1, or how many of them, from 1 on."""

    brief = "a fraction below 1, or a count"

    def check(self, value: float, name: str) -> None:
        require_share(value, name)


Share = Annotated[float, Reals(0, is_open=True), FractionOrCount()]


def require_share(share: Any, name: str) -> None:
    """Raises ValueError for what is neither a fraction of examples nor a count."""
    require_positive(share, name)
    if share >= 1 and share != int(share):
        raise ValueError(f"{name} = {share:g}; give a fraction below 1, or a whole number")


def count_of(share: float, size: int) -> int:
    """How many of `size` examples a share is."""
    return int(share) if share >= 1 else int(share * size)


def in_three_splits(
    name: str,
    arrays: Mapping[str, np.ndarray],
    source: str,
    shares: Mapping[str, float],
    maximum: float | None,
    seed: int = 0,
) -> Dataset:
    """Out of x_train, x_valid, x_test and their labels.

    Of what is not there, its share is drawn from the training examples: `default_rng(seed)` puts
    them into an order, whose first are "valid", whose next are "test", and the rest are "train".
    """
    x, y = arrays["x_train"], arrays.get("y_train")
    brought = {
        part: Split(arrays[f"x_{part}"], arrays.get(f"y_{part}"))
        for part in SPLITS_HELD_OUT
        if f"x_{part}" in arrays
    }
    drawn = {part: count_of(shares[part], len(x)) for part in shares if part not in brought}
    _require_enough(source, len(x), drawn)
    order, splits = np.random.default_rng(seed).permutation(len(x)), dict(brought)
    for part, size in drawn.items():
        rows, order = order[:size], order[size:]
        splits[part] = Split(x[rows], None if y is None else y[rows])
    if drawn:
        splits["train"] = Split(x[order], None if y is None else y[order])
        origin = f"{' and '.join(drawn)} drawn from train with seed {seed}"
    else:
        splits["train"], origin = Split(x, y), "as the set brings them"
    sizes = " / ".join(str(len(splits[part].images)) for part in ("train", *SPLITS_HELD_OUT))
    source = f"{source}; {sizes} train / valid / test, {origin}"
    return Dataset(name, **splits, maximum=maximum, source=source)


def require_not_brought(
    asked: Mapping[str, float | None], arrays: Mapping[str, np.ndarray], source: str
) -> None:
    """Raises ValueError where a share is asked for of a split that the set brings."""
    for part, share in asked.items():
        if share is not None and f"x_{part}" in arrays:
            raise ValueError(
                f"{source} brings {len(arrays[f'x_{part}'])} {part} examples, and {share:g} are to"
                f" be held out for {part}; take one of the two away"
            )


def _require_enough(source: str, size: int, drawn: dict[str, int]) -> None:
    """Raises ValueError for a set that leaves no image to a split."""
    if sum(drawn.values()) >= size or 0 in drawn.values():
        parts = " and ".join(f"{max(count, 1)} for {part}" for part, count in drawn.items())
        raise ValueError(
            f"{source} has {size} training images, of which {parts} would be held out; bring"
            f" {' and '.join(f'x_{part}' for part in drawn)} in the file, or more images"
        )
