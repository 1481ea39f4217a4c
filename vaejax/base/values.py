"""Two kinds of object: a `value` is static and hashable, a `pytree` holds arrays.

A component (a prior, an estimator, a model) is a value: it carries choices, never numbers that are
learned. Two values with equal fields are equal and hash equal, so `jax.jit` traces once for both. A
distribution is a pytree: it carries the numbers, so `jax.vmap`, `jax.grad` and
`jax.lax.stop_gradient` act on it directly.
"""

import dataclasses
from functools import partial
from typing import Any, dataclass_transform

import jax

from vaejax.base.checks import plain_number


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def component(cls):
    """A frozen dataclass whose fields must be hashable; an unhashable one is refused when the value
    is made.

    A `functools.partial` among the fields becomes a `Partial`, so that it too is compared by its
    parts, and NumPy's numbers and arrays of no axes become Python's numbers.
    """
    own = [vars(kind)["__post_init__"] for kind in cls.__mro__ if "__post_init__" in vars(kind)]
    validate = own[0] if own else None  # its own, or the one that it inherits

    def __post_init__(self):  # noqa: N807
        for field in dataclasses.fields(self):
            by_parts = by_value(getattr(self, field.name))
            require_hashable(by_parts, f"{type(self).__name__}.{field.name}")
            object.__setattr__(self, field.name, by_parts)
        if validate:
            validate(self)

    cls.__post_init__ = __post_init__
    return dataclasses.dataclass(frozen=True)(cls)


def with_plain_numbers(owner: Any) -> None:
    """NumPy's numbers and arrays of no axes among the fields of a frozen dataclass become Python's
    numbers.
    """
    for field in dataclasses.fields(owner):
        object.__setattr__(owner, field.name, plain_number(getattr(owner, field.name)))


def static(default: Any = dataclasses.MISSING) -> Any:
    """A field of a pytree that is part of its structure, not a child: hashable, and known when a
    program is compiled.
    """
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree(cls):
    """A frozen dataclass that JAX sees through: every field is a child, except those marked
    `static()`.
    """
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))


def require_hashable(obj: Any, path: str) -> None:
    """Raises a TypeError that names the innermost field at fault and what to write instead."""
    try:
        hash(obj)
    except TypeError:
        path, obj = _innermost(obj, path)
        remedy = f"write a tuple, {tuple(obj)}" if isinstance(obj, list) else "use a hashable value"
        raise TypeError(
            f"{path} = {obj!r} is a {type(obj).__name__}, which cannot be hashed; {remedy}"
        ) from None


def _innermost(obj: Any, path: str) -> tuple[str, Any]:
    if dataclasses.is_dataclass(obj):
        for field in dataclasses.fields(obj):
            inner = getattr(obj, field.name, None)
            try:
                hash(inner)
            except TypeError:
                return _innermost(inner, f"{path}.{field.name}")
    return path, obj


@component
class Partial:
    """`functools.partial` by value: two with equal parts are equal, where functools compares by
    identity.
    """

    func: Any
    args: tuple
    keywords: tuple[tuple[str, Any], ...]

    def __call__(self, *args, **keywords):
        return self.func(*self.args, *args, **dict(self.keywords), **keywords)


def by_value(obj: Any) -> Any:
    """`obj` itself, or the equal-by-value form of a `functools.partial`, a number or a tuple."""
    if type(obj) is tuple:
        return tuple(map(by_value, obj))
    if not isinstance(obj, partial):
        return plain_number(obj)
    return Partial(by_value(obj.func), obj.args, tuple(sorted(obj.keywords.items())))
