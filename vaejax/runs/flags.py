"""The flags of a command line, one for each field of a configuration, by tyro."""

import dataclasses
import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from vaejax.base.fields import brief_range
from vaejax.runs.config import Configuration

AnyConfig = TypeVar("AnyConfig", bound=Configuration)


def parsed_flags(
    config_type: type[AnyConfig],
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
    description: str | None = None,
    default: AnyConfig | None = None,
) -> AnyConfig:
    """The configuration of a command line; what is not given is as in `default`.

    `--help` prints the description, and says of each number what it may be. Where none is given, it
    is the docstring of the script that declares the configuration, else that of the configuration.
    """
    kind = with_ranges(config_type)
    start = None if default is None else kind(**_values(default))
    values = tyro.cli(
        kind,
        args=arguments,
        prog=prog,
        description=description or description_of(config_type),
        default=start,
    )
    return config_type(**_values(values))


def description_of(config_type: type) -> str | None:
    """Of a script its docstring, of a command of vaejax that of its configuration."""
    home = sys.modules[config_type.__module__]
    is_script = config_type.__module__.rpartition(".")[0] != "vaejax.runs"
    return home.__doc__ if is_script else config_type.__doc__


@lru_cache
def with_ranges(config_type: type) -> type:
    """The same dataclass, whose annotations tell tyro what its help says of each field."""
    hints = get_type_hints(config_type, include_extras=True)
    annotations = {
        field.name: Annotated[hints[field.name], _told(hints[field.name])]
        for field in dataclasses.fields(config_type)
    }
    body = {"__annotations__": annotations, "__doc__": config_type.__doc__}
    kind = type(config_type.__name__, (config_type,), body)
    return dataclasses.dataclass(frozen=True)(kind)


def _told(hint: Any) -> Any:
    """What the help says after the field's own words: its default, and its range."""
    return tyro.conf.arg(help_behavior_hint=partial(_hint, brief_range(hint)))


def _hint(brief: str, default: str) -> str:
    return f"({brief}; default: {default})" if brief else f"(default: {default})"


def _values(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
