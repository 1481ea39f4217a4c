"""Every configuration of a command, found by looking, and the edges of each of its fields."""

import dataclasses
import importlib
import math
import pkgutil
import typing
from typing import Annotated, Any, get_args, get_origin

from flag_table import without_help

import experiments
import vaejax.runs
from tests.lib.paths import EXPERIMENTS
from vaejax.base.checks import LARGEST_COUNT, Integers, Reals
from vaejax.base.fields import AtMost, Listed
from vaejax.runs.config import Configuration, Name

NEEDED = {"run": "runs/none", "runs": ("runs/none",)}  # a value for each field that has no default


def modules() -> list[str]:
    """The scripts, what they share, and the library's runs."""
    of_runs = [module.name for module in pkgutil.iter_modules(vaejax.runs.__path__, "vaejax.runs.")]
    paths = sorted(path.relative_to(EXPERIMENTS) for path in EXPERIMENTS.glob("*/*.py"))
    of_experiments = [path.with_suffix("").as_posix().replace("/", ".") for path in paths]
    names = [f"{experiments.__name__}.{name}" for name in of_experiments]
    return [*of_runs, *(name for name in names if not name.endswith("__init__"))]


def configurations() -> dict[str, Configuration]:
    """{"mixtures.Config": its defaults}, of every dataclass of flags."""
    defaults = {}
    for name in modules():
        for kind in vars(importlib.import_module(name)).values():
            of_flags = isinstance(kind, type) and issubclass(kind, Configuration)
            if of_flags and dataclasses.is_dataclass(kind) and kind.__module__ == name:
                needed = {
                    field.name: NEEDED[field.name]
                    for field in dataclasses.fields(kind)
                    if field.default is dataclasses.MISSING
                }
                defaults[f"{name.rpartition('.')[2]}.{kind.__name__}"] = kind(**needed)
    return defaults


def hints(config: Configuration) -> dict[str, Any]:
    """{field: its annotation, without "or None"}."""
    every = typing.get_type_hints(type(config), include_extras=True)
    return {field.name: some(every[field.name]) for field in dataclasses.fields(config)}


def some(hint: Any) -> Any:
    """The annotation without the help of a shared flag, and without "or None"."""
    hint = without_help(hint)
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return some(kinds[0]) if type(None) in get_args(hint) else hint


def taken_apart(hint: Any) -> tuple[Any, tuple]:
    """(kind, what is said of it): (int, (Integers(1),)) of a Count."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


def said(hint: Any, kind: Any) -> list:
    """What an annotation says of this kind: its ranges, its rules."""
    return [note for note in taken_apart(hint)[1] if isinstance(note, kind)]


def good(hint: Any) -> list:
    """Values at the edges that are right."""
    kind, _ = taken_apart(hint)
    if get_origin(kind) is tuple:
        return [(value,) for value in good(get_args(kind)[0])]
    if kind is int:
        ranges = said(hint, Integers)
        least = max(known.least for known in ranges)
        return [least, *(known.most for known in ranges if known.most != LARGEST_COUNT)]
    if kind is float:
        (known,) = said(hint, Reals)
        inside = [known.low, 0.5, known.high]
        return [value for value in inside if value in known]
    names = {"prior": "normal", "encoder": "iaf:2", "likelihood": "laplace", "estimator": "iwae:2"}
    return [names[rule.kind] for rule in said(hint, Name)] or list(get_args(kind))  # of a Literal


def bad(hint: Any) -> list:
    """Values at and beyond the edges that are wrong, and those that are of another kind."""
    kind, _ = taken_apart(hint)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        first = next(iter(good(inner)), "score-function")
        lists = [(value,) for value in bad(inner)] + [(first, value) for value in bad(inner)]
        lists += [first, [first], None]
        for rule in said(hint, Listed):
            lists += [(), *([(first, first)] if rule.each_once else [])]
        return lists
    if kind in (int, float):
        wrong = [-1, 0, 2.5, 2**32, -(2**31), -0.5, 1.5, 1 + 1e-9, 1 - 1e-9, 1e-45, 1e39]
        no_numbers = [math.nan, math.inf, -math.inf, True, "3", (3,), 1j]
        ranges = said(hint, Integers | Reals)
        wrong = [value for value in wrong if not all(value in known for known in ranges)]
        wrong += [known.least - 1 for known in ranges if kind is int]
        wrong += [known.most + 1 for known in ranges if kind is int] + [10**30] * (kind is int)
        wrong += [known.least + 1 for known in ranges if kind is int and known.factor > 1]
        return wrong + no_numbers
    if said(hint, Name):
        return ["", "nothing", "normal:", "vamp:1.5", "flow:-2", "NORMAL", " normal", 3, None]
    return {bool: [1, "yes", None], str: [3, ("a",)]}.get(kind, ["nothing", 3])


def splits(hint: Any) -> list[str]:
    """The splits of the data that a number of examples is held against."""
    kind, _ = taken_apart(hint)
    inner = splits(get_args(kind)[0]) if get_origin(kind) is tuple else []
    return [rule.split for rule in said(hint, AtMost)] + inner
