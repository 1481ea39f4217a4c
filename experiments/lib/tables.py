"""Rows {column: value}: some of them, and tables of them in Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from vaejax.runs.table import markdown as markdown


def where(rows: Iterable[Mapping[str, Any]], **columns: Any) -> list[Any]:
    """The rows that have these values in these columns."""
    return [row for row in rows if columns.items() <= row.items()]


def columns(rows: Iterable[Mapping[str, Any]], *names: str) -> list[list[Any]]:
    """The values of these columns, a list for each."""
    rows = list(rows)
    return [[row[name] for row in rows] for name in names]


def table(header: str, line: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for each row: `table("prior | ELBO", "{prior} | {elbo:.2f}", rows)`."""
    return markdown(header.split(" | "), (line.format(**row).split(" | ") for row in rows))


def wide(header: str, line: str, across: str, cell: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for all rows that `line` writes alike, and in it a `cell` for each value of the column
    `across`: `wide("step | in", "{step} | {group}", "estimator", "{trace:.3g}", rows)`.
    """
    rows, lines = list(rows), {}
    for row in rows:
        lines.setdefault(line.format(**row), []).append(cell.format(**row))
    columns = dict.fromkeys(str(row[across]) for row in rows)
    written = ([*place.split(" | "), *cells] for place, cells in lines.items())
    return markdown([*header.split(" | "), *columns], written)


def seeds(number: int) -> str:
    """How many: "1 seed", "3 seeds"."""
    return f"{number} seed" if number == 1 else f"{number} seeds"


def bold_if(best: bool, cell: str) -> str:
    """**cell** where it is the best of its kind."""
    return f"**{cell}**" if best else cell
