"""The notes: the index has every page, names what is in the library, and no link is dead."""

import os
import re
import subprocess
import sys

import pytest

import vaejax
from tests.lib.paths import ROOT

NOTES = ROOT / "docs" / "notes"
INDEX = (NOTES / "index.md").read_text()
PAGES = sorted(NOTES.glob("*.py"))
SOLUTION = re.compile(r"^# {4,}```python\n(.*?)^# {4,}```", re.MULTILINE | re.DOTALL)


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


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_solutions_of_a_page_run_after_it(page, tmp_path):
    """What `make docs` shows folded away, and does not execute; in a process without the strict
    settings of the tests.
    """
    text = page.read_text()
    solutions = [re.sub(r"^# {5}", "", code, flags=re.MULTILINE) for code in SOLUTION.findall(text)]
    if not solutions:
        pytest.skip("no solution has code")
    script = tmp_path / page.name
    script.write_text("\n".join([text, *solutions]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::UserWarning", str(script)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2_000:]
