"""A table in a file that grows row by row, so that a measurement that is cut off keeps what it
has. The rows that are added together share a digest, their last column: what was changed, cut or
is of another measurement is measured again.
"""

import csv
import itertools
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaejax.base.describe import digest_of
from vaejax.base.files import whole

DIGEST = "digest"


class CsvLog:
    """The rows of a file of these columns, of a measurement that is described by `of`; with
    `resume` those that it has already, and are intact, stay.
    """

    def __init__(self, path: Path, columns: Iterable[str], resume: bool, of: Any):
        self.path, self.columns = path, (*columns, DIGEST)
        self._of = digest_of(of)
        kept = self._intact() if resume and path.exists() else []
        self.rows = [numbers_of(cells) for cells in kept]
        with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Rows that are whole together alone."""
        cells = [{name: _cell(row.get(name)) for name in self.columns[:-1]} for row in rows]
        digest = self._digest(cells)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writerows([{**row, DIGEST: digest} for row in cells])
        self.rows += rows

    def _intact(self) -> list[dict[str, str]]:
        """The rows of the file that are as they were added; the others are said."""
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            # a quote that a changed byte makes would swallow the rows after it
            found = list(csv.DictReader(file, quoting=csv.QUOTE_NONE))
        kept: dict[str, list[dict[str, str]]] = {}
        for digest, group in itertools.groupby(found, lambda row: row.get(DIGEST) or ""):
            rows = list(group)
            cells = [{name: row.get(name) for name in self.columns[:-1]} for row in rows]
            if digest == self._digest(cells) and all(len(row) == len(self.columns) for row in rows):
                kept[digest] = rows
        intact = [row for rows in kept.values() for row in rows]
        if len(intact) < len(found):
            warnings.warn(
                f"{self.path}: {len(found) - len(intact)} of {len(found)} rows are damaged, stand"
                " twice, or are of another measurement; measured again",
                stacklevel=3,
            )
        return intact

    def _digest(self, cells: list[dict[str, Any]]) -> str:
        return digest_of([self._of, cells])[:16]


def numbers_of(cells: dict[str, str]) -> dict[str, Any]:
    """A row of the file, with what is a number as one."""
    return {name: number(cell) for name, cell in cells.items() if name != DIGEST}


def number(cell: str) -> int | float | str:
    """The cell as a whole number, else as any number, else as it is."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
