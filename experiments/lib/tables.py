"""Tables in Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from vaejax.runs.table import markdown as markdown


def table(header: str, line: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for each row: `table("prior | ELBO", "{prior} | {elbo:.2f}", rows)`."""
    return markdown(header.split(" | "), (line.format(**row).split(" | ") for row in rows))


def seeds(number: int) -> str:
    """How many: "1 seed", "3 seeds"."""
    return f"{number} seed" if number == 1 else f"{number} seeds"


def bold_if(best: bool, cell: str) -> str:
    """**cell** where it is the best of its kind."""
    return f"**{cell}**" if best else cell
