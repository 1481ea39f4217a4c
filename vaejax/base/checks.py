"""Checks of arguments: each raises an error of one line that names the value and the remedy."""

import difflib
import math
from typing import Any


def require_count(number: int, name: str) -> None:
    """Raises ValueError unless number >= 1."""
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{name} = {number!r}; it must be a whole number, at least 1")


def require_numbers(owner: Any, **numbers: float) -> None:
    """Raises ValueError unless each is a finite number, at least 0."""
    for name, number in numbers.items():
        if not (isinstance(number, int | float) and math.isfinite(number) and number >= 0):
            owner_name = type(owner).__name__
            raise ValueError(f"{owner_name}.{name} = {number!r}; it must be a number, at least 0")


def unknown_name(kind: str, name: str, known: list[str]) -> str:
    """The message for a name that is not in the table: the nearest known ones first."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}"


def require_said(cls: type, base: type, name: str, question: str) -> None:
    """Raises TypeError unless a subclass of `base`, or a class between the two, defines `name`.

    There is no default where one would be right for some and silently wrong for others.
    """
    for ancestor in cls.__mro__:
        if ancestor is base:
            break
        if name in vars(ancestor) or name in vars(ancestor).get("__annotations__", {}):
            return
    raise TypeError(f"{cls.__name__} does not say `{name}`: {question}")


def require_kind(found: Any, kind: type, role: str, home: str = "vaejax") -> None:
    """Raises TypeError for a part that does not derive from the base class of its kind, which users
    find in `home`.
    """
    if not isinstance(found, kind):
        raise TypeError(
            f"{role} is {shortened(found)}, which does not derive from {home}.{kind.__name__}; its"
            " docstring is the recipe for one of your own"
        )


def shortened(found: Any) -> str:
    """How an error calls something of unknown length: its repr in one line, cut."""
    line = " ".join(repr(found).split())
    return line if len(line) <= 80 else line[:77] + "..."
