"""What a thing is, in JSON's types: the same in every process, and another where a part of it is
another.

A checkpoint, a run and a store of results keep the description of what they are of, and are held
against it before they are used.
"""

import copyreg
import dataclasses
import functools
import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from types import FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from vaejax.base.checks import is_key, plain_number
from vaejax.base.functions import (
    by_name,
    closed_over,
    code_of,
    is_found_by_name,
    is_named_by_user,
    is_own,
    public_name,
    values_read,
)
from vaejax.base.values import Partial

OF_FLAX = (
    "parent",
    "name",
    "scope",
)  # parts of a Flax module that say where it stands, not what it is
DEEPEST = 60  # of nested parts
# Of the names that Python gives a meaning, those that say what a thing does.
_WRITTEN = ("__call__", "__init__", "__post_init__", "__name__")

Inside = Callable[[Any], Any]


def description(thing: Any) -> Any:
    """A nested dict, list, string or number that says what a thing is: of a component or a net its
    class and fields, of an array its shape, dtype and digest. A function or a class of an installed
    package is its name; one of a user's, or a lambda, is also its code, what it closes over, and
    what it reads of its module, other functions with all that those read.

    Equal things have equal descriptions in all processes; `compare.differences` compares two. A
    number is its value, whatever its type: 2, 2.0 and np.int64(2) are one, and np.float32(0.1) is
    0.10000000149011612: Optax takes 1 - b2 on the host, so that b2 = 0.999 and its rounding in
    float32 train to other bits.
    """
    return _Walk().described(thing, ())


def digest_of(tree: Any) -> str:
    """SHA-256 of what JSON knows."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def array_digest(array: Any) -> str:
    """SHA-256 of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


class _Walk:
    """One description: an object that is neither a value nor a function is described once; so is
    what a name leads to, and where it comes again, its name says it.
    """

    def __init__(self):
        self._seen: dict[int, int] = {}
        self._named: set[int] = set()

    def described(self, thing: Any, above: tuple[int, ...]) -> Any:
        thing = plain_number(thing)
        if isinstance(thing, FunctionType | type) and is_named_by_user(thing):
            if id(thing) in self._named:
                return by_name(thing)
            self._named.add(id(thing))
        if id(thing) in above:
            return {"cycle": len(above) - above.index(id(thing))}
        if len(above) > DEEPEST:
            return _class_name(type(thing))
        inside = functools.partial(self.described, above=(*above, id(thing)))
        for describe in (_plain, _array, _container, _callable, _fields):
            described = describe(thing, inside)
            if described is not NotImplemented:
                return described
        # Of objects that know each other there are far more paths than objects.
        if id(thing) in self._seen:
            return {"class": _class_name(type(thing)), "again": self._seen[id(thing)]}
        self._seen[id(thing)] = len(self._seen)
        return _object(thing, inside)


def _plain(thing: Any, inside: Inside) -> Any:
    """Numbers, words and names."""
    if isinstance(thing, Enum):
        return {"enum": f"{_class_name(type(thing))}.{thing.name}"}
    if isinstance(thing, float) and not math.isfinite(thing):
        return {"float": str(thing)}  # JSON has none
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, bytes | complex):
        return {type(thing).__name__: repr(thing)}
    if isinstance(thing, np.dtype):
        return {"dtype": str(thing)}
    if isinstance(thing, ModuleType):
        return {"module": thing.__name__}
    return {"path": str(thing)} if isinstance(thing, PurePath) else NotImplemented


def _array(thing: Any, inside: Inside) -> Any:
    if not isinstance(thing, np.ndarray | np.generic | jax.Array):
        return NotImplemented
    if isinstance(thing, jax.Array) and is_key(thing):
        words = jax.random.key_data(thing)
        return {"key": str(jax.random.key_impl(thing)), "words": np.asarray(words).tolist()}
    array = np.asarray(thing)
    if array.dtype.hasobject:
        return {"array": str(array.dtype), "parts": [inside(part) for part in array.ravel()]}
    return {"array": f"{array.dtype}{list(array.shape)}", "digest": array_digest(array)}


def _container(thing: Any, inside: Inside) -> Any:
    if isinstance(thing, tuple) and type(thing) is not tuple:
        return {"class": _class_of(thing, inside)} | _members(thing, inside)
    if isinstance(thing, list | tuple):
        return [inside(part) for part in thing]
    if isinstance(thing, set | frozenset):
        return {"set": sorted(map(inside, thing), key=digest_of)}
    if not isinstance(thing, Mapping):
        return NotImplemented
    if all(isinstance(name, str) for name in thing):
        return {name: inside(part) for name, part in thing.items()}
    pairs = [[inside(name), inside(part)] for name, part in thing.items()]
    return {"map": sorted(pairs, key=digest_of)}


def _members(thing: tuple, inside: Inside) -> dict[str, Any]:
    """Of a named tuple by their names, of another by their places."""
    try:
        named = thing._asdict().items()  # pyright: ignore[reportAttributeAccessIssue]
    except AttributeError:
        named = enumerate(thing)
    return {str(name): inside(part) for name, part in named}


def _callable(thing: Any, inside: Inside) -> Any:
    """Functions, by name where that leads to them; classes."""
    if isinstance(thing, type):
        return _type(thing, inside)
    if isinstance(thing, functools.partial):
        keywords = tuple(sorted(thing.keywords.items()))
        parts = {"func": thing.func, "args": thing.args, "keywords": keywords}
        return {"class": _class_name(Partial)} | {k: inside(part) for k, part in parts.items()}
    if isinstance(thing, MethodType):
        return {"method": thing.__name__, "of": inside(thing.__self__)}
    if isinstance(thing, FunctionType):
        return _function(thing, inside)
    try:
        module, qualname = thing.__module__, thing.__qualname__
    except AttributeError:
        return NotImplemented
    is_found = isinstance(module, str) and is_found_by_name(thing, module, qualname)
    if not is_found or is_own(module):
        try:  # such as what `jax.jit` returns
            return {"class": _class_name(type(thing)), "wrapped": inside(thing.__wrapped__)}
        except AttributeError:
            pass
    return {"function": public_name(module, qualname)} if is_found else NotImplemented


def _function(function: FunctionType, inside: Inside) -> dict[str, Any]:
    module, name = function.__module__ or "", by_name(function)
    if not is_own(module) and is_found_by_name(function, module, function.__qualname__):
        return name
    parts = {
        "closure": {name: inside(part) for name, part in closed_over(function).items()},
        "defaults": [inside(default) for default in function.__defaults__ or ()],
        "keyword defaults": inside(function.__kwdefaults__ or {}),
        # What a library's function reads is the library's, whose version says it.
        "reads": _read(function, inside) if is_own(module) else {},
    }
    return name | {"code": code_of(function)} | {k: part for k, part in parts.items() if part}


def _read(function: FunctionType, inside: Inside) -> dict[str, Any]:
    """Of what has a value of its own; a module or an object with a state is told by its name."""
    values = {name: part for name, part in values_read(function).items() if _is_value(part)}
    return {name: inside(part) for name, part in values.items()}


def _is_value(thing: Any) -> bool:
    if isinstance(thing, type | ModuleType):
        return True
    simple = bool | int | float | complex | str | bytes | Enum | np.dtype | re.Pattern
    containers = tuple | list | dict | set | frozenset | range | slice
    arrays = np.ndarray | np.generic | jax.Array
    # What can be called is read to be called: a function, one that `jax.jit` made, a net.
    is_function = callable(thing) or dataclasses.is_dataclass(thing)
    return is_function or isinstance(thing, simple | containers | arrays)


def _type(cls: type, inside: Inside) -> dict[str, Any]:
    """A class by its name, and by its code too where the name does not lead to it."""
    name = by_name(cls)
    if not is_own(cls.__module__):
        return name
    bases = [inside(base) for base in cls.__bases__ if base is not object]
    return name | {"bases": bases, "body": dict(_body(cls, inside))}


def _body(cls: type, inside: Inside) -> Iterator[tuple[str, Any]]:
    for name, member in sorted(vars(cls).items()):
        if name.startswith("__") and name not in _WRITTEN:
            continue
        member = member.fget if isinstance(member, property) else member
        member = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if _is_value(member):
            yield name, inside(member)


def _fields(thing: Any, inside: Inside) -> Any:
    """A dataclass, such as a component or a net, by its fields, and by what else it was given that
    is no part of its workings.
    """
    if not dataclasses.is_dataclass(thing):
        return NotImplemented
    place = OF_FLAX if isinstance(thing, _flax_module()) else ()
    names = [field.name for field in dataclasses.fields(thing)]
    others = [name for name, _ in _own(thing) if name[:1] != "_" and name not in names]
    parts = {name: inside(getattr(thing, name)) for name in names + others if name not in place}
    return {"class": _class_of(thing, inside)} | parts


def _object(thing: Any, inside: Inside) -> dict[str, Any]:
    """Anything else, by its attributes, or by what a copy would be made of if it has none, as a
    `range`.
    """
    parts = dict(_attributes(thing)) or dict(_reduced(thing))
    return {"class": _class_of(thing, inside)} | {k: inside(part) for k, part in parts.items()}


def _reduced(thing: Any) -> Iterator[tuple[str, Any]]:
    """The arguments, the state, the items and the pairs that `copy` takes, without its class."""
    reducer = copyreg.dispatch_table.get(type(thing))
    try:
        reduced = thing.__reduce_ex__(2) if reducer is None else reducer(thing)
    except Exception:  # whatever cannot be copied, such as a lock
        return
    if isinstance(reduced, tuple):
        _, arguments, *rest = reduced
        arguments = tuple(part for part in arguments if part is not type(thing))
        rest = [list(part) if isinstance(part, Iterator) else part for part in rest[:3]]
        parts = zip(("arguments", "state", "items", "pairs"), (arguments, *rest), strict=False)
        # A state of names are the attributes, which were asked.
        yield from ((name, part) for name, part in parts if part and not isinstance(part, dict))


def _attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    slots = {name for kind in type(thing).__mro__ for name in vars(kind).get("__slots__", ())}
    for name in sorted(slots - {"__dict__", "__weakref__"}):
        try:
            yield name, getattr(thing, name)
        except AttributeError:
            continue
    if isinstance(thing, np.ufunc):
        yield "name", thing.__name__
    own = _own(thing)
    yield from ((name, value) for name, value in own if name in _WRITTEN or name[:2] != "__")


def _own(thing: Any) -> Iterator[tuple[str, Any]]:
    """The attributes of its own, without those that are computed once and kept."""
    try:
        own = sorted(vars(thing).items())
    except TypeError:  # it has none
        return
    for name, value in own:
        kept = inspect.getattr_static(type(thing), name, None)
        if not isinstance(kept, functools.cached_property):
            yield name, value


def _class_of(thing: Any, inside: Inside) -> Any:
    described = _type(type(thing), inside)
    return described if len(described) > 1 else described["type"]


def _class_name(cls: type) -> str:
    return public_name(cls.__module__, cls.__qualname__)


@functools.cache
def _flax_module() -> type:
    import flax.linen

    return flax.linen.Module
