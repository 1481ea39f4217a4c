"""What a function or a class is beyond its fields: its public name, its code, what it reads."""

import dis
import hashlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import CellType, CodeType, FunctionType, ModuleType
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
    """Whether its name leads to it from outside: not so of a lambda or a local function."""
    member: Any = sys.modules.get(module)
    for part in qualname.split("."):
        try:
            member = inspect.getattr_static(member, part)
        except AttributeError:
            return False
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    return member is thing or (callable(member) and inspect.unwrap(member) is thing)


def is_named_by_user(thing: FunctionType | type) -> bool:
    """Whether it is a user's function or class that its name leads to."""
    module = thing.__module__ or ""
    return is_own(module) and is_found_by_name(thing, module, thing.__qualname__)


def by_name(thing: FunctionType | type) -> dict[str, str]:
    """{"function" or "type": its public name}"""
    kind = "type" if isinstance(thing, type) else "function"
    return {kind: public_name(thing.__module__ or "", thing.__qualname__)}


def code_of(function: FunctionType) -> str:
    """ "Python 3.11, optax 0.2.8: digest": the code of a function, and what compiled it, since only
    two of the same Python and the same package can be compared.
    """
    compiler = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    package = "" if is_own(function.__module__) else package_version(function.__module__)
    digest = hashlib.sha256(repr(_parts(function.__code__, function.__doc__)).encode())
    return f"{compiler}{', ' * bool(package)}{package}: {digest.hexdigest()[:16]}"


@cache
def is_own(module: str) -> bool:
    """Whether a module is a user's, whose code may change under its name: no part of Python, of
    vaejax, nor of what is installed among the packages, as is a project installed to be edited.
    """
    package = module.partition(".")[0]
    if module == "__main__":  # another in every script
        return True
    if not package or package in {*sys.stdlib_module_names, __name__.partition(".")[0]}:
        return False
    try:
        file = Path(sys.modules[module].__file__ or "")
    except (KeyError, AttributeError, TypeError):  # built in, or made by a program
        return not package_version(module)
    if {"site-packages", "dist-packages"} & set(file.parts):
        return False
    depth = module.count(".") + (file.stem == "__init__")
    return not _is_installed(package, file.parents[depth] if file.is_absolute() else file.parent)


@cache
def _is_installed(package: str, folder: Path) -> bool:
    """Whether a package is installed in a folder of any name, as by `pip install --target`: a
    record of its files lies beside it. That of a project installed to be edited does not.
    """
    records = [f"\n{path.read_text()}" for path in folder.glob("*.dist-info/RECORD")]
    own = f"\n{package}/", f"\n{package}.py,"
    return any(name in record for record in records for name in own)


@cache
def package_version(module: str | None) -> str:
    """ "optax 0.2.8" of a package that has a version; "" of others."""
    package = (module or "").partition(".")[0]
    try:
        return f"{package} {version(package)}" if package else ""
    except PackageNotFoundError:
        return ""


EMPTY = {"cell": "empty"}  # a variable that has no value yet


def closed_over(function: FunctionType) -> dict[str, Any]:
    """{name: value} of the variables that a function closes over; EMPTY where there is no value, as
    in `optax.exponential_decay` without an end.
    """
    return {
        name: _content(cell)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        )
    }


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


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
