"""Two kinds of object: a `value` is static and hashable, a `pytree` holds arrays.

A component (a prior, an estimator, a model) is a value: it carries choices, never numbers that are
learned. Two values with equal fields are equal and hash equal, so `jax.jit` traces once for both. A
distribution is a pytree: it carries the numbers, so `jax.vmap`, `jax.grad` and
`jax.lax.stop_gradient` act on it directly.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, dataclass_transform

import jax
import numpy as np

from vaejax.base.checks import plain_number, shortened


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def component(cls):
    """A frozen dataclass whose fields must be hashable; an unhashable one is refused when the value
    is made.

    A `functools.partial` among the fields becomes a `Partial`, so that it too is compared by its
    parts, and NumPy's numbers and arrays of no axes become Python's numbers.

    >>> vaejax.StandardNormal(2) == vaejax.StandardNormal(2)
    True
    >>> vaejax.MLP(2, hidden=(200,)) == vaejax.MLP(2, hidden=(100,))
    False
    """
    validate = _post_init_of(cls)

    def __post_init__(self):  # noqa: N807
        for field in dataclasses.fields(self):
            name = f"{type(self).__name__}.{field.name}"
            by_parts = by_value(getattr(self, field.name))
            for kind, check in _checks_of_fields:
                if field.type is kind:
                    check(by_parts, name)
            require_hashable(by_parts, name)
            object.__setattr__(self, field.name, by_parts)
        validate(self)

    cls.__post_init__ = __post_init__
    return dataclasses.dataclass(frozen=True)(cls)


_checks_of_fields: list[tuple[Any, Callable[[Any, str], None]]] = []


def check_fields_of(kind: Any, check: Callable[[Any, str], None]) -> None:
    """From now on each field of a `component` that is declared as `kind` passes
    check(what it holds, its name).
    """
    _checks_of_fields.append((kind, check))


def _post_init_of(cls: type) -> Callable[[Any], None]:
    """Its own `__post_init__`, or the one that it inherits."""
    own = [vars(kind)["__post_init__"] for kind in cls.__mro__ if "__post_init__" in vars(kind)]
    return own[0] if own else lambda self: None


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

    It keeps the number of axes that its first array had when it was made, so that a batch of such
    values, which `jax.vmap` gives, is told from one: see `batch_shape`.
    """
    prepare = _post_init_of(cls)

    def __post_init__(self):  # noqa: N807
        prepare(self)
        first = _first_array(self)
        axes, num_axes = vars(self)[_AXES], np.ndim(first)
        # One of a batch that was made by hand has fewer than that had.
        if axes is None or (isinstance(first, _ARRAYS) and num_axes < axes):
            object.__setattr__(self, _AXES, num_axes)

    cls.__post_init__ = __post_init__
    cls.__annotations__ = {**vars(cls).get("__annotations__", {}), _AXES: int | None}
    axes = dataclasses.field(default=None, repr=False, kw_only=True, metadata={"static": True})
    setattr(cls, _AXES, axes)
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))


_AXES = "_axes"  # the field that `pytree` adds
# What has axes of its own: JAX also makes pytrees of numbers and of marks, such as `in_axes`.
_ARRAYS = jax.Array | np.ndarray | jax.ShapeDtypeStruct


def _first_array(obj: Any) -> Any:
    """The first leaf of a pytree, 0 of one without any."""
    fields = dataclasses.fields(obj)
    children = [vars(obj)[field.name] for field in fields if not field.metadata.get("static")]
    return next(iter(jax.tree.leaves(children)), 0)


def batch_shape(obj: Any) -> tuple[int, ...]:
    """How many values stand where one was made: the axes that `jax.vmap` has put before those of
    the first array of a `pytree`; () of one value.
    """
    if _AXES not in vars(obj):  # no `pytree`, so that no `jax.vmap` sees into it
        return ()
    shape = np.shape(_first_array(obj))
    return shape[: max(len(shape) - vars(obj)[_AXES], 0)]


def require_hashable(obj: Any, path: str) -> None:
    """Raises a TypeError that names the innermost field at fault and what to write instead."""
    try:
        hash(obj)
    except TypeError:
        path, obj = _innermost(obj, path)
        name, remedy = type(obj).__name__, "use a hashable value"
        if isinstance(obj, list):
            remedy = f"write a tuple, {tuple(obj)}"
        elif dataclasses.is_dataclass(obj):
            remedy = f"make the class a value: @vaejax.component in place of @dataclass on {name}"
        raise TypeError(
            f"{path} = {shortened(obj)} is a {name}, which cannot be hashed; {remedy}"
        ) from None


def _innermost(obj: Any, path: str) -> tuple[str, Any]:
    parts: list[tuple[str, Any]] = []
    if dataclasses.is_dataclass(obj):
        names = [field.name for field in dataclasses.fields(obj)]
        parts = [(f"{path}.{name}", getattr(obj, name, None)) for name in names]
    elif isinstance(obj, tuple):
        parts = [(f"{path}[{i}]", part) for i, part in enumerate(obj)]
    for name, part in parts:
        try:
            hash(part)
        except TypeError:
            return _innermost(part, name)
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
