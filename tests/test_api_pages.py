"""The reference: every public name is on one page, and docstrings become Markdown."""

import re

import docs_api
import pytest
from docs_markdown import in_markdown

import vaejax
from vaejax import plots


def directives() -> list[str]:
    return [name for page in docs_api.pages().values() for name in re.findall("::: (.*)", page)]


def test_every_public_name_is_on_one_page():
    names = directives()
    assert len(set(names)) == len(names)
    for module in (vaejax, vaejax.distributions, plots):
        for name, value in vars(module).items():
            if callable(value) and not name.startswith("_"):
                assert f"{module.__name__}.{name}" in names


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
