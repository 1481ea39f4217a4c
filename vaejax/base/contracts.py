"""What a base class holds each call of a method to, whoever defines it and whoever calls it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

_held: set[Callable] = set()  # the methods that go through a contract already


def hold(cls: type, contracts: Mapping[str, Callable]) -> None:
    """Each method of `cls` that is named here is called as contract(self, method, *arguments),
    which looks at what goes in and at what comes out; a base class says so in `__init_subclass__`.

    It does not matter whether the class defines the method or inherits it. What a method asks of
    its parent, by `super()`, is between the two.
    """
    for name, contract in contracts.items():
        method = inspect.getattr_static(cls, name, None)
        # A field of this name is no method; one of the class cannot be called itself.
        is_method = callable(method) or isinstance(method, classmethod | functools.partialmethod)
        if is_method and method not in _held:
            setattr(cls, name, _through(contract, name, method))


def _through(contract: Callable, name: str, method: Any) -> Callable:
    @functools.wraps(method)
    def held(self, *arguments, **keywords):
        bound = method.__get__(self)
        if isinstance(bound, functools.partial):  # it has no name of its own
            vars(bound)["__name__"] = name
        if inspect.getattr_static(type(self), name) is not held:  # asked by super()
            return bound(*arguments, **keywords)
        return contract(self, bound, *arguments, **keywords)

    _held.add(held)
    return held


class Declared:
    """A base class whose subclasses are made values by a decorator: their annotations are fields.

    A class without it has no constructor, and says so when it is called with its fields.
    """

    decorator: ClassVar[str] = "@vaejax.component"

    def __init__(self, *arguments: Any, **keywords: Any):
        if arguments or keywords:
            raise TypeError(
                f"{type(self).__name__} has no fields: write {self.decorator} above the class,"
                " which makes fields of its annotations"
            )
