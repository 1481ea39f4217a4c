"""Every flag of the commands and the experiments: its type and its meaning. Prints docs/flags.md.

    python scripts/flag_table.py > docs/flags.md

A flag of one name has one type and one meaning; `REASONS` has those that have several, and why.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import types
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import arg

import experiments
from experiments.lib import tables
from vaejax.__main__ import COMMANDS
from vaejax.base.checks import Integers, Reals
from vaejax.runs.config import Name

TOPICS = ("gradients", "graphs", "inference", "representation")
REASONS = {
    "parts": "each experiment has its own",
    "encoder": "a VAE with Bernoulli latents has no other encoder",
    "estimators": "of Bernoulli latents, of any with its K, or of the importance-weighted bound",
    "eval_size": "the examples that are shown in a picture are measured first",
    "eval_samples": "an evaluation says how far to trust the weights, which takes two",
    "prior": "`train` lists the names",
    "run": "a run that is evaluated, or whose checkpoints are measured",
    "resume": "of a training, or of a table of variances",
    "overwrite": "of a run, or of a result",
    "max_minutes": "of a training, of all runs of a sweep, or of a row of a table",
    "out": "of a run, of a result, or the file of draws",
    "data_folder": "of a run, where its data lie now",
    "batch_size": "of the examples that are evaluated together",
    "num_samples": "of z in a bound, or of the model",
}


HEAD = """# The flags

What each flag of the commands and the experiments may be, and what it means: one name, one type,
one meaning. This page is the output of `python scripts/flag_table.py`.
"""


def configurations() -> dict[str, type]:
    """{command or experiment: its flags}"""
    configs: dict[str, type] = dict(COMMANDS)
    for topic in TOPICS:
        for path in sorted(Path(experiments.__path__[0], topic).glob("*.py")):
            module = importlib.import_module(f"experiments.{topic}.{path.stem}")
            configs[path.stem] = module.Config
    return configs


def is_help(rule: Any) -> bool:
    """Whether it is what `tyro.conf.arg` makes."""
    return type(rule) is type(arg())


def without_help(hint: Any) -> Any:
    """The annotation, but for the help of a shared flag."""
    if get_origin(hint) is not Annotated:
        return hint
    kind, *rules = get_args(hint)
    rules = [rule for rule in rules if not is_help(rule)]
    return Annotated[kind, *rules] if rules else kind


@cache
def hints_of(config: type) -> dict[str, Any]:
    return get_type_hints(config, include_extras=True)


def meaning(config: type, field: str) -> str:
    """What --help says of a field: the help of its annotation, else the docstring under it in the
    nearest class that has one; "" where there is none.
    """
    hint = hints_of(config)[field]
    for rule in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if is_help(rule):
            return rule.help
    return next((said[field] for said in map(docstrings, config.__mro__[:-1]) if field in said), "")


@cache
def docstrings(kind: type) -> dict[str, str]:
    """{field: the docstring under it}, of what a class defines itself."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        ast.unparse(line.target): " ".join(str(after.value.value).split())
        for line, after in itertools.pairwise(definition.body)
        if isinstance(line, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


def in_words(hint: Any) -> str:
    """What a value may be: a whole number, at least 1; a list of names of a prior."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, *rules = inner
        ranges = [rule for rule in rules if isinstance(rule, Integers | Reals)]
        names = [f"one of the {rule.kind}s" for rule in rules if isinstance(rule, Name)]
        said = [str(known).removesuffix(" and below 2**31") for known in ranges] or names
        return said[-1] if said else in_words(kind)
    if origin in (Union, types.UnionType):
        (kind,) = (kind for kind in inner if kind is not type(None))
        return f"{in_words(kind)}, or none"
    if origin is tuple:
        return f"a list: {in_words(inner[0])}"
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    return {str: "a text", bool: "yes or no"}[hint]


def flags(configs: Iterable[type]) -> dict[str, dict[tuple[str, str], list[type]]]:
    """{name: {(type, meaning): the configurations that have it}}"""
    owners: dict[str, dict] = defaultdict(lambda: defaultdict(list))
    for config in configs:
        hints = hints_of(config)
        for field in dataclasses.fields(config):
            hint = without_help(hints[field.name])
            owners[field.name][in_words(hint), meaning(config, field.name)].append(config)
    return owners


def document() -> str:
    configs = configurations()
    names = {config: name for name, config in configs.items()}
    lines = []
    for flag, variants in sorted(flags(configs.values()).items()):
        for (kind, text), owners in variants.items():
            where = "most" if len(owners) > 10 else ", ".join(names[config] for config in owners)
            lines.append([f"`--{flag.replace('_', '-')}`", kind, text, where])
    table = tables.markdown(["flag", "value", "meaning", "of"], lines)
    several = "\n".join(f"- `{name}`: {reason}" for name, reason in REASONS.items())
    return f"{HEAD}\n{table}\n\nThese have more than one line, because:\n\n{several}\n"


if __name__ == "__main__":
    print(document(), end="")
