"""The code of the site's pages runs, its commands have flags that there are, and its addresses in
the repository lead to files. Pages that compute are run by `make docs`.
"""

import importlib
import re
import shlex

import pytest
import tyro
from docs_cache import REPOSITORY
from docs_lab import command_of, drawn

from tests.lib.paths import ROOT
from vaejax.runs.config import TrainConfig

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PYTHON, SHELL = "```python\n", "```sh\n"
# Pages whose code has a test of its own, which names the page.
OWN_TESTS = {"scale": "tests/training/test_together.py"}
WITH_CODE = [page for page in PAGES if PYTHON in page.read_text() and SHELL not in page.read_text()]
TEXTS = [ROOT / "README.md", *PAGES, *sorted(DOCS.rglob("*.py"))]


def name_of(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Its blocks one after the other, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(code, names)


def test_pages_of_code_and_commands_are_run_whole():
    """By tests/test_first_hour.py, since each block needs what those before it have left; or by a
    test of their own.
    """
    names = (ROOT / "tests" / "test_first_hour.py").read_text()
    for page in PAGES:
        if SHELL in page.read_text() and PYTHON in page.read_text():
            name = page.relative_to(DOCS).with_suffix("").as_posix()
            if name in OWN_TESTS:
                assert page.name in (ROOT / OWN_TESTS[name]).read_text()
            else:
                assert f'"{name}"' in names, page


@pytest.mark.parametrize("folder", ["notes", "choose", "howto"])
def test_the_contents_of_a_section_link_to_its_pages(folder):
    """All that the navigation has under it, which are those of its folder and a few more."""
    (section,) = re.findall(rf"\[{folder}/index\.md,[^\]]*\]", (ROOT / "mkdocs.yml").read_text())
    named = {ROOT / "docs" / name for name in re.findall(r"[\w/]+\.md", section)}
    pages = {path.with_suffix(".md") for path in (DOCS / folder).iterdir()} | named
    index = DOCS / folder / "index.md"
    links = re.findall(r"\]\(([\w/.]+\.md)\)", index.read_text())
    linked = {(index.parent / link).resolve() for link in links}
    assert pages - {index} <= linked


def commands() -> list[str]:
    """The commands of README, of the pages and of the lab that run an experiment."""
    lines = [line for text in TEXTS for line in text.read_text().replace("\\\n", " ").splitlines()]
    shown = [line for line in lines if re.match(r"[# ]*(\S*/)?python experiments/", line)]
    return [*(line.partition("  #")[0].strip("# ") for line in shown), *map(command_of, drawn())]


@pytest.mark.parametrize("command", commands())
def test_a_command_has_flags_that_there_are(command):
    _, script, *flags = shlex.split(command)
    assert (ROOT / script).exists()
    if script == "experiments/train.py":
        tyro.cli(TrainConfig, args=flags)
    elif script != "experiments/evaluate.py":
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        tyro.cli(module.Config, args=flags)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_addresses_in_the_repository_lead_to_files(page):
    for path in re.findall(rf"{REPOSITORY}/([^\s)#\"'`]+)", page.read_text()):
        assert (ROOT / path.rstrip(".,")).exists(), path
