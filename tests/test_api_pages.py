"""The reference: every public name is on one page, also those that other pages and README use, and
docstrings become Markdown.
"""

import importlib
import inspect
import re

import docs_api
import pytest
from docs_markdown import in_markdown

import vaejax
from tests.lib.paths import ROOT
from vaejax import plots

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS += sorted((ROOT / "docs").rglob("*.py"))
IMPORT = re.compile(r"^[# ]*from (vaejax[\w.]*) import (\w+(?: as \w+)?(?:, \w+)*)", re.MULTILINE)
USE = re.compile(r"(?<![\w./-])(vaejax(?:\.[a-zA-Z_]\w*)+)")
USE_OF_PLOTS = re.compile(r"(?<![\w./])plots\.([a-z]\w*)")


def directives() -> list[str]:
    return [name for page in docs_api.pages().values() for name in re.findall("::: (.*)", page)]


def test_every_public_name_is_on_one_page():
    names = directives()
    assert len(set(names)) == len(names)
    for module in (vaejax, vaejax.distributions, plots):
        for name, value in vars(module).items():
            if callable(value) and not name.startswith("_"):
                assert f"{module.__name__}.{name}" in names


def names_in(text: str) -> set[str]:
    """What of the library a page imports or names, in code and in prose."""
    imported = {
        f"{module}.{name.split()[0]}"
        for module, names in IMPORT.findall(text)
        for name in names.split(", ")
    }
    return {
        *imported,
        *USE.findall(text),
        *(f"vaejax.plots.{name}" for name in USE_OF_PLOTS.findall(text)),
    }


def test_names_are_found_in_a_page():
    page = "from vaejax import Free, plots\n`vaejax.ais.AIS`, https://vaejax.github.io plots.tile"
    assert names_in(page) == {"vaejax.Free", "vaejax.plots", "vaejax.ais.AIS", "vaejax.plots.tile"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_names_is_in_the_reference(path):
    names = directives()
    for name in names_in(path.read_text()):
        here = [listed for listed in names if f"{name}.".startswith(f"{listed}.")]
        inside = [listed for listed in names if listed.startswith(f"{name}.")]  # a module
        assert here or inside, f"{name} is on no page of the reference"


@pytest.mark.parametrize("entry", docs_api.public(), ids=lambda entry: entry.name)
def test_a_public_name_says_what_it_is(entry):
    """Its own docstring, not that of its base; and so each of its methods, or the base's. What nets
    and optimisers of other libraries have too needs none.
    """
    value = getattr(importlib.import_module(entry.module), entry.name.rpartition(".")[2])
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return
    assert vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    if inspect.isclass(value):
        for name, method in inspect.getmembers(value, inspect.isfunction):
            if not name.startswith("_") and name not in ("init", "apply", "update"):
                assert inspect.getdoc(method), name


def test_a_definition_has_one_name():
    owners = [(entry.module, entry.name.rpartition(".")[2]) for entry in docs_api.public()]
    assert len(set(owners)) == len(owners)
    assert "vaejax.AIS" in directives() and "vaejax.ais.AIS" not in directives()


def test_the_contents_link_to_each():
    links = re.findall(r"\]\[(vaejax\..*?)\]", docs_api.pages()["index.md"])
    assert sorted(links) == sorted(directives())


@pytest.mark.parametrize(
    "docstring, markdown",
    [
        ("The sum.\n\n    a = b + c\n", "The sum.\n\n    a = b + c"),
        (">>> 1 + 1\n2", "```pycon\n>>> 1 + 1\n2\n```"),
        (
            "Own:\n\n    class A:\n\n        x = 1\n",
            "Own:\n\n```python\nclass A:\n\n    x = 1\n```",
        ),
        ("a   one\n    more\nbc  two", "`a`\n:   one more\n\n`bc`\n:   two"),
        ("x[i][j], `x[i][j]`", r"x[i]\[j], `x[i][j]`"),
        ("a sentence  of two\nlines", "a sentence  of two\nlines"),
    ],
)
def test_docstrings_become_markdown(docstring, markdown):
    assert in_markdown(docstring) == markdown


def test_definitions_stand_beside_each_other():
    markdown = pytest.importorskip("markdown", reason="`make docs` installs what builds the site")
    html = markdown.markdown(in_markdown("a  one\nbc  two\nd  three"), extensions=["def_list"])
    assert html.count("<dl>") == 1
    assert re.findall("<dd>(.*)</dd>", html) == ["one", "two", "three"]
