"""A table in a file that grows row by row, so that a measurement that is cut off keeps what it
has.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class CsvLog:
    """The rows of a file of these columns; with `resume` those that it has already stay."""

    def __init__(self, path: Path, columns: Iterable[str], resume: bool):
        self.path, self.columns = path, tuple(columns)
        self.rows = read_csv(path) if resume and path.exists() else []
        with path.open("w", newline="") as file:
            csv.DictWriter(file, self.columns).writeheader()
            csv.DictWriter(file, self.columns).writerows(self.rows)

    def add(self, rows: list[dict[str, Any]]) -> None:
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(rows)
        self.rows += rows


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows, with what is a number as one."""
    with path.open() as file:
        return [{name: number(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def number(cell: str) -> int | float | str:
    """The cell as a whole number, else as any number, else as it is."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            pass
    return cell
