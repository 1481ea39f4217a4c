"""Checks of arguments: each raises an error of one line that names the value and the remedy."""

import difflib
import math
from typing import Any


def require_count(number: int, name: str) -> None:
    """Raises ValueError unless number >= 1."""
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} = {number!r}; it must be a whole number, at least 1")


def require_numbers(owner: Any, **numbers: float) -> None:
    for name, number in numbers.items():
        if not (isinstance(number, int | float) and math.isfinite(number) and number >= 0):
            raise ValueError(
                f"{type(owner).__name__}.{name} = {number!r}; it must be a number, at least 0"
            )


def unknown_name(kind: str, name: str, known: list[str]) -> str:
    """The message for a name that is not in the table: the nearest known ones first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}"
