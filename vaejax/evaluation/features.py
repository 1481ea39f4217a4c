"""Tables of numbers, a row for each example: that they are finite, a common scale, distances."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

ROWS_AT_ONCE = 1_000  # of a table of distances in memory
CANCELLED = 1e-9  # of |p|^2 + |m|^2: a distance below has lost too many digits to their difference


def finite_rows(values: ArrayLike, name: str) -> np.ndarray:
    """As float64, or a ValueError that names the first row with NaN or infinity."""
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: complex numbers; give real ones")
    values = np.asarray(values, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        row = np.argwhere(bad)[0][0] if values.ndim else 0
        raise ValueError(
            f"{name}: NaN or infinity, first in row {row}; repair such rows, or leave them out"
        )
    return values


def of_common_scale(*tables: np.ndarray) -> list[np.ndarray]:
    """Tables [n, d] less one centre, over one scale, within [-1, 1]: what is near stays near, and
    digits are left for it, however far from 0 all lie.
    """
    largest = max(np.abs(table).max(initial=0) for table in tables)
    tables = tuple(_over(table, largest) for table in tables)
    centre = np.median(tables[0], axis=0)
    centred = [table - centre for table in tables]
    return [_over(table, max(np.abs(t).max(initial=0) for t in centred)) for table in centred]


def of_unit_columns(*tables: np.ndarray) -> list[np.ndarray]:
    """As `of_common_scale`, each column for itself."""
    columns = zip(*(table.T for table in tables), strict=True)
    scaled = zip(*(of_common_scale(*column) for column in columns), strict=True)
    return [np.stack(column, axis=1) for column in scaled]


def _over(table: np.ndarray, largest: float) -> np.ndarray:
    """Divided by the next power of two, which rounds nothing."""
    return np.ldexp(table, -np.frexp(largest)[1])


def squared_distances(points: np.ndarray, members: np.ndarray) -> Iterator[np.ndarray]:
    """|p - m|^2 [rows, members] of tables of a common scale, a block of rows at a time."""
    squares_of_members = (members**2).sum(axis=1)
    for start in range(0, len(points), ROWS_AT_ONCE):
        rows = points[start : start + ROWS_AT_ONCE]
        # |p - m|^2 = |p|^2 + |m|^2 - 2 p.m, in one matrix product
        sums = (rows**2).sum(axis=1)[:, None] + squares_of_members[None]
        squares = sums - 2 * rows @ members.T
        # and where these cancel, by the difference itself
        cancelled = squares <= CANCELLED * sums
        for i in np.flatnonzero(cancelled.any(axis=1)):
            near = np.flatnonzero(cancelled[i])
            squares[i, near] = ((rows[i] - members[near]) ** 2).sum(axis=1)
        yield squares
