"""What a name stands for in a table; names with a colon take a number: `vamp:500`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vaejax.base.checks import unknown_name


@dataclass(frozen=True)
class Entry:
    """What a name stands for, in a line, and what builds it."""

    description: str
    build: Callable[..., Any]


def named(kind: str, name: str, table: Mapping[str, Entry], *context: Any) -> Any:
    """What `name`, or `name:number`, stands for in a table, built for this context."""
    key, _, argument = name.partition(":")
    if key not in table:
        raise ValueError(unknown_name(kind, name, list(table)))
    build = partial(table[key].build, *context)
    parameters = inspect.signature(build).parameters.values()
    if argument and not parameters:
        raise ValueError(f"{kind} {name!r}: it takes no number")
    if argument:
        return build(_number(kind, name))
    if any(parameter.default is parameter.empty for parameter in parameters):
        raise ValueError(f"{kind} {name!r}: give a number, such as {key}:10")
    return build()


def _number(kind: str, name: str) -> int | float:
    key, _, argument = name.partition(":")
    try:
        return float(argument) if "." in argument or "e" in argument else int(argument)
    except ValueError:
        raise ValueError(
            f"{kind} {name!r}: {argument!r} is no number; give one, such as {key}:10"
        ) from None
