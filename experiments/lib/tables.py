"""Tables in Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any


def table(header: str, line: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for each row: `table("prior | ELBO", "{prior} | {elbo:.2f}", rows)`."""
    return markdown(header.split(" | "), (line.format(**row).split(" | ") for row in rows))


def markdown(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """| header |, a rule, and a line for each row of cells."""
    header = list(header)
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def bold_if(best: bool, cell: str) -> str:
    """**cell** where it is the best of its kind."""
    return f"**{cell}**" if best else cell
