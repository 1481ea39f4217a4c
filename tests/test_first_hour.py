"""The pages for the shell: every block of the first hour, and of the how-to pages that have
commands, runs as it stands, but for the length of the training.
"""

import dataclasses
import re
import tomllib

import pytest

from tests.lib.cases import cases
from tests.lib.pages import blocks, run_page
from tests.lib.paths import ROOT
from vaejax.__main__ import COMMANDS

PAGES = ("start", "howto/own_data", "howto/sweeps", "howto/export")


def text_of(page):
    return (ROOT / "docs" / f"{page}.md").read_text()


@pytest.mark.parametrize("page", cases(PAGES, {"start", "howto/sweeps"}))
def test_every_block_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    text = text_of(page)
    if "serialize" in text:
        pytest.importorskip("flatbuffers", reason="jax.export needs it to write a file")
    run_page(text)
    assert "error:" not in capsys.readouterr().err


def test_the_page_says_what_is_there():
    """Each flag and each file that the pages name exists."""
    known = {
        f"--{field.name.replace('_', '-')}"
        for kind in COMMANDS.values()
        for field in dataclasses.fields(kind)
    }
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text_of(page)))
        assert named <= known | {"--help", "--version"}, page


# What a newcomer wants: the page, the call that does it, and how many lines of the page's code lead
# to it, which is what one has to read or to copy.
TASKS = {
    "a prior of one's own": ("howto/own_prior.py", "vaejax.evaluate(", 35),
    "a net of NNX": ("howto/own_net.py", "vaejax.from_nnx(", 35),
    "images of one's own": ("start.md", "vaejax train --data bars.npz", 12),
    "a conditional model": ("howto/conditional_model.py", "vaejax.evaluate(", 37),
    "three estimators": ("howto/compare_estimators.py", "vaejax.variance_ratio(", 37),
    "a run, loaded": ("start.md", "vaejax.open_run(", 15),
    "a traversal": ("howto/pictures.py", "plots.traverse(", 38),
    "a log": ("howto/log_a_run.py", "vaejax.CSVLog(", 32),
    "a sweep": ("start.md", "vaejax sweep", 22),
    "a program, exported": ("howto/export.md", "program.serialize(", 27),
    "a run, resumed": ("howto/resume.py", "resumed = train(", 41),
    "an evaluation": ("howto/evaluate.py", "vaejax.evaluate(", 27),
    "a report": ("start.md", "vaejax evaluate --run", 20),
    "a proof": ("notes/1_6_maximum_likelihood.py", "itertools.combinations(", 38),
}


def code_of(page):
    """The lines of code of a page, without the empty ones."""
    text = (ROOT / "docs" / page).read_text()
    if page.endswith(".md"):
        cells = [code for _, code in blocks(text)]
    else:
        cells = re.split("^# %%", text, flags=re.MULTILINE)[1:]
        cells = [cell for cell in cells if not cell.startswith(" [markdown]")]
    return [line for cell in cells for line in cell.splitlines() if line.strip()]


@pytest.mark.parametrize("page, call, lines", TASKS.values(), ids=list(TASKS))
def test_a_task_is_one_click_and_few_lines_away(page, call, lines):
    before = next(i for i, line in enumerate(code_of(page), 1) if call in line)
    assert before <= lines
    home = (ROOT / "docs" / "index.md").read_text()
    assert re.search(rf"\]\({page.partition('.')[0]}\.md[#)]", home)


def test_the_page_names_every_extra_for_users():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = (ROOT / "docs" / "start.md").read_text().partition("| extra |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}
    assert named == set(project["optional-dependencies"]) - {"dev", "docs"}
