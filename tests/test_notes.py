"""The notes: the index has every page, names what is in the library, and no link is dead."""

import re

import pytest

import vaejax
from tests.lib.paths import ROOT

NOTES = ROOT / "docs" / "notes"
INDEX = (NOTES / "index.md").read_text()
PAGES = sorted(NOTES.glob("*.py"))


def test_the_index_has_every_page_and_no_other():
    linked = set(re.findall(r"\]\((\w+)\.md\)", INDEX))
    assert linked == {page.stem for page in PAGES}


def test_the_lines_of_code_in_the_index_call_what_there_is():
    """Each function is the library's, or one of those that the index says it stands for."""
    lines = re.findall(r"`([^`]+)`", INDEX)
    names = {name for line in lines for name in re.findall(r"(?<![.\w])(\w+)\(", line)}
    names -= {"graph", "conditional", "family", "partial"}
    assert len(names) > 12
    for name in names:
        assert hasattr(vaejax, name), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_all_that_the_index_promises(page):
    text = page.read_text()
    parts = {
        "an equation": r"\$\$",
        "a line of vaejax": r"`vaejax\.|vaejax\.\w+\(",
        "a picture": r"^(figure|plots\.\w+\(.*\))$",
        "a check": r"^\s*assert ",
        "exercises": r"^# ## Exercises$",
        "an experiment": r"\]\(https://github\.com/vaejax/vaejax/blob/main/experiments/\w+/\w+\.py\)",
        "the reference": r"\]\(\.\./api/\w+\.md\)",
    }
    missing = [
        part for part, pattern in parts.items() if not re.search(pattern, text, re.MULTILINE)
    ]
    assert not missing
    for target in re.findall(r"\]\((\w+)\.md\)", text):
        assert (NOTES / f"{target}.py").exists() or (NOTES / f"{target}.md").exists(), target
    for target in re.findall(r"github\.com/vaejax/vaejax/blob/main/([\w/.]+)\)", text):
        assert (ROOT / target).exists(), target
