"""What a function or a class is beyond its fields: its public name, its code, what it reads."""

import dis
import hashlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import CodeType, FunctionType, ModuleType
from typing import Any


def public_name(module: str, qualname: str) -> str:
    """`module.qualname`, by the shortest public module that has it: `jax.nn.relu`, wherever JAX
    keeps it, since private modules move between versions.
    """
    thing = _member(module, qualname.partition(".")[0])
    package, parents = module.partition(".")[0], _parents(module)
    # Those above it are loaded with it; the others are looked through only where it is private.
    homes = [name for name in parents if _is_public(name)]
    places = [name for name in homes if thing is not None and _member(name, qualname) is thing]
    if not places and thing is not None and not _is_public(module):
        names = [name for name in list(sys.modules) if name.startswith(f"{package}.")]
        root = qualname.partition(".")[0]
        places = [name for name in names if _is_public(name) and _member(name, root) is thing]
    home = min(places, key=lambda name: (name.count("."), name), default=module)
    return f"{home}.{qualname}"


def is_found_by_name(thing: Any, module: str, qualname: str) -> bool:
    """Whether its name leads to it from outside: not so of a lambda or a local function, nor of
    anything in `__main__`, which is another in every script.
    """
    if module == "__main__":
        return False
    member: Any = sys.modules.get(module)
    for part in qualname.split("."):
        try:
            member = inspect.getattr_static(member, part)
        except AttributeError:
            return False
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    return member is thing or (callable(member) and inspect.unwrap(member) is thing)


def code_of(function: FunctionType) -> str:
    """ "Python 3.11, optax 0.2.8: digest": the code of a function, and what compiled it, since only
    two of the same Python and the same package can be compared.
    """
    compiler = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    package = package_version(function.__module__)
    digest = hashlib.sha256(repr(_parts(function.__code__, function.__doc__)).encode())
    return f"{compiler}{', ' * bool(package)}{package}: {digest.hexdigest()[:16]}"


@cache
def package_version(module: str | None) -> str:
    """ "optax 0.2.8" of what is installed; "" of a user's own."""
    package = (module or "").partition(".")[0]
    try:
        return f"{package} {version(package)}" if package else ""
    except PackageNotFoundError:
        return ""


def values_read(function: FunctionType) -> dict[str, Any]:
    """{"scale" or "config.scale": value} of the variables of its module that a function reads, and
    of the attributes that they hold.
    """
    values = {}
    for code in _codes(function.__code__):
        for name, *attributes in _chains(code):
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            for attribute in attributes:
                if attribute not in _held(value):
                    break  # it is its class's: then the whole is read
                value, name = _held(value)[attribute], f"{name}.{attribute}"
            values[name] = value
    return dict(sorted(values.items()))


def _chains(code: CodeType) -> Iterator[list[str]]:
    """a, b, c of every a.b.c that begins at a variable of the module."""
    chain: list[str] = []
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain:
            chain.append(instruction.argval)
            continue
        if chain:
            yield chain
        is_global = instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        chain = [instruction.argval] if is_global else []


def _held(thing: Any) -> dict[str, Any]:
    """The attributes of its own."""
    try:
        return vars(thing)
    except TypeError:
        return {}


def _member(module: str, qualname: str) -> Any:
    home = sys.modules.get(module)
    return vars(home).get(qualname.partition(".")[0]) if isinstance(home, ModuleType) else None


def _parents(module: str) -> list[str]:
    """a.b.c -> a, a.b, a.b.c"""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _is_public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split("."))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _parts(code: CodeType, doc: str | None = None) -> tuple:
    """What of a code object decides what it computes: no lines, no files, no names of its own
    variables, no docstring; sets in one order.
    """
    constants = [
        _parts(constant) if isinstance(constant, CodeType) else _ordered(constant)
        for constant in code.co_consts
        if doc is None or constant != doc
    ]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return code.co_code, constants, code.co_names, code.co_freevars, counts


def _ordered(constant: Any) -> Any:
    if isinstance(constant, frozenset):
        return "set", sorted(map(repr, constant))
    if isinstance(constant, tuple):
        return tuple(map(_ordered, constant))
    return type(constant).__name__, repr(constant)
