"""Every public optimiser of Optax, found by looking, and each of them with another number."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import optax

# What has no default, or counts for nothing by default.
VALUES: dict[str, Any] = {"learning_rate": 0.01, "momentum": 0.9}


def _made(factory: Callable, **changed: Any) -> Any:
    needed = {
        name: VALUES[name] for name in inspect.signature(factory).parameters if name in VALUES
    }
    return factory(**{**needed, **changed})


def _optimizers() -> dict[str, Callable]:
    factories = {}
    for name, factory in sorted(vars(optax).items()):
        if name.startswith("_") or not inspect.isfunction(factory):
            continue
        try:
            optimizer = _made(factory)
        except Exception:  # it needs more than a learning rate, so it is no optimiser
            continue
        if isinstance(optimizer, optax.GradientTransformation):
            factories[name] = factory
    return factories


_FACTORIES = _optimizers()
OPTIMIZERS = {name: (lambda f=factory: _made(f)) for name, factory in _FACTORIES.items()}


def others_of(name: str) -> Iterator[tuple[str, Any]]:
    """(what was changed, the optimiser) for each of its numbers."""
    factory = _FACTORIES[name]
    for parameter in inspect.signature(factory).parameters.values():
        default = VALUES.get(parameter.name, parameter.default)
        if isinstance(default, bool):
            other: Any = not default
        elif isinstance(default, int | float):
            other = default * 0.9 + 0.001 if isinstance(default, float) else default + 1
        else:
            continue
        try:
            yield f"{parameter.name} = {other}", _made(factory, **{parameter.name: other})
        except Exception:  # this number is not for it
            continue


def spelt(name: str, kind: Callable[[float], Any]) -> Iterator[tuple[float, Any]]:
    """(the number, the optimiser that has it as `kind(number)`) for each of its fractions."""
    factory = _FACTORIES[name]
    for parameter in inspect.signature(factory).parameters.values():
        number = VALUES.get(parameter.name, parameter.default)
        if isinstance(number, float):
            yield number, _made(factory, **{parameter.name: kind(number)})
