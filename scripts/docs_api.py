"""The reference: a page for each wing of the library, made from its docstrings.

A page has what is public in its wing, in reading order. mkdocstrings reads the docstrings and
signatures from the sources, and imports nothing.
"""

import ast
from functools import cache
from typing import NamedTuple

from architecture import ROOT, wings
from docs_markdown import in_markdown

# What these import under its own name is public.
TABLES_OF_CONTENTS = ("vaejax", "vaejax.distributions", "vaejax.plots")
CONTENTS = """Every public name, wing by wing: each wing imports those above it alone. A part of
your own derives from a contract, whose docstring is a recipe that runs: `Distribution`, `Prior`,
`Conditional`, `Model`, `Estimator`, `Objective` and `Source`."""


class Public(NamedTuple):
    """A name that users type, such as vaejax.elbo, and the module that defines it."""

    name: str
    module: str


@cache
def source_of(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text())


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def passed_on(owner: str) -> list[Public]:
    """What a module imports under its own name, `from a import b as b`, for its users."""
    return [
        Public(alias.name, str(node.module))
        for node in source_of(owner).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname and not alias.name.startswith("_")
    ]


def public_in(owner: str) -> list[Public]:
    """What a table of contents has, and what its public modules have, under the name that users
    type.
    """
    entries = []
    for name, module in passed_on(owner):
        inner = f"{module}.{name}"
        if inner in TABLES_OF_CONTENTS:
            continue
        if is_module(inner):
            parts = [*(Public(part, inner) for part in definitions(inner)), *passed_on(inner)]
            entries += [Public(f"{owner}.{name}.{part.name}", part.module) for part in parts]
        else:
            entries.append(Public(f"{owner}.{name}", module))
    return entries


@cache
def public() -> list[Public]:
    """Each definition once, under the shortest of its names: vaejax.AIS, not vaejax.ais.AIS."""
    entries = [entry for owner in TABLES_OF_CONTENTS for entry in public_in(owner)]
    shortest: dict[tuple[str, str], Public] = {}
    for entry in sorted(entries, key=lambda entry: len(entry.name)):
        shortest.setdefault((entry.module, entry.name.rpartition(".")[2]), entry)
    return [entry for entry in entries if entry in shortest.values()]


@cache
def definitions(module: str, values: bool = False) -> list[str]:
    """The classes, functions and values of its own classes that a module has for users, in its
    order; with `values`, every value.
    """
    names = []
    for node in source_of(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign) and (
            values or ast.unparse(node.value).partition("(")[0] in names
        ):
            names.append(ast.unparse(node.targets[0]))
    return [name for name in names if not name.startswith("_")]


def modules_of(wing: str) -> list[str]:
    """The modules of a wing in reading order, base first."""
    folder = ROOT / "vaejax" / wing
    paths = sorted(folder.rglob("*.py"), key=lambda path: (path.name != "base.py", path))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name for name in names if not name.endswith("__init__")] or [f"vaejax.{wing}"]


@cache
def contents(wing: str) -> dict[str, list[str]]:
    """{module: the names that it makes public} of a wing, in reading order."""
    entries = public()
    names_of = {}
    for module in modules_of(wing):
        order = definitions(module, values=True)
        names = [entry.name for entry in entries if entry.module == module]
        if names:
            names_of[module] = sorted(names, key=lambda name: order.index(name.rpartition(".")[2]))
    return names_of


def page(wing: str) -> str:
    """The Markdown of a wing: its docstring, then of each module what is public."""
    lines = [f"# {wing}", "", docstring_of(f"vaejax.{wing}"), ""]
    for module, names in contents(wing).items():
        if module != f"vaejax.{wing}":
            title = module.removeprefix(f"vaejax.{wing}.")
            lines += [f"## {title}", "", docstring_of(module), ""]
        lines += [line for name in names for line in (f"::: {name}", "")]
    return "\n".join(lines)


def docstring_of(module: str) -> str:
    return in_markdown(ast.get_docstring(source_of(module)) or "")


def pages() -> dict[str, str]:
    """{file: its Markdown}: a page for each wing that has something public, and their contents."""
    made = {}
    lines = ["# API", "", CONTENTS, ""]
    for wing in wings():
        names = [name for module in contents(wing).values() for name in module]
        if names:
            made[f"{wing}.md"] = page(wing)
            links = ", ".join(f"[`{name.removeprefix('vaejax.')}`][{name}]" for name in names)
            lines += [f"## [{wing}]({wing}.md)", "", docstring_of(f"vaejax.{wing}"), "", links, ""]
    return {"index.md": "\n".join(lines), **made}
