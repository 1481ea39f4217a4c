"""What a name stands for in a table; names with a colon take a number: `vamp:500`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from vaejax.base.checks import Integers, Range, require_in, unknown_name
from vaejax.networks.precision import Precision


class ModelSizes(Protocol):
    """What the entries of a model read of a `Setting`."""

    @property
    def net(self) -> str: ...
    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def latent_dim(self) -> int: ...
    @property
    def precision(self) -> Precision: ...


@dataclass(frozen=True)
class Entry:
    """What a name stands for, in a line, and what builds it.

    number       the range of the number that it takes; None where it takes none
    is_of_examples    whether that is a number of training examples, of which there must be so many
    """

    description: str
    build: Callable[..., Any]
    number: Range | None = None
    is_of_examples: bool = False


AnyEntry = TypeVar("AnyEntry", bound=Entry)


def named(kind: str, name: str, table: Mapping[str, Entry], *context: Any) -> Any:
    """What `name`, or `name:number`, stands for in a table, built for this context."""
    number = require_named(kind, name, table)
    build = partial(table[name.partition(":")[0]].build, *context)
    return build() if number is None else build(number)


def require_named(kind: str, name: str, table: Mapping[str, Entry]) -> int | float | None:
    """The number of a name, None where it has none.

    Raises ValueError for a name that is not in the table, or a number that is not for it.
    """
    key, colon, argument = name.partition(":")
    entry = require_entry(kind, name, table)
    if entry.number is None:
        if colon:
            raise ValueError(f"{kind} {name!r}: it takes no number; write {key}")
        return None
    *_, parameter = inspect.signature(entry.build).parameters.values()
    if not argument and (colon or parameter.default is parameter.empty):
        raise ValueError(f"{kind} {name!r}: give a number, such as {key}:10")
    if not argument:
        return None
    number = _number(kind, name, entry.number)
    require_in(number, f"{kind} {name!r}: the number", entry.number)
    return number


def require_entry(kind: str, name: str, table: Mapping[str, AnyEntry]) -> AnyEntry:
    """The entry of `name` or `name:number`; ValueError, with the nearest names, for one that has
    none.
    """
    key = name.partition(":")[0]
    if key not in table:
        raise ValueError(unknown_name(kind, name, list(table)))
    return table[key]


def _number(kind: str, name: str, known: Range) -> int | float:
    """As it is written: 2 and no 02, since runs are the same where their names are."""
    key, _, argument = name.partition(":")
    is_whole = isinstance(known, Integers)
    try:
        number = int(argument) if is_whole else float(argument)
    except ValueError:
        number = None
    plainly = argument.isascii() and not set(argument) & set(" _\t\n")
    if number is None or not plainly or (is_whole and str(number) != argument):
        kind_of_number = "whole number" if is_whole else "number"
        raise ValueError(
            f"{kind} {name!r}: {argument!r} is not a {kind_of_number}; give one, such as {key}:10"
        )
    return number
