"""The site's machinery: pages are executed once for each state, failures say where, links, formulas
and the navigation come out right.
"""

import re

import pytest

pytest.importorskip("jupytext", reason="`make docs` installs what builds the site")

import docs_formulas
from docs_hooks import enlarged, navigation

import docs
from tests.lib.paths import ROOT

GOOD = """# %% [markdown]
# # A page
# ## A part
# %%
from pathlib import Path
from matplotlib.figure import Figure
with open(Path({log!r}), "a") as file:
    file.write("x")
figure = Figure()
figure.subplots()
figure
"""
BAD = """# %% [markdown]
# # A page
# %%
x = 1
# %%
y = 2
assert x == y, "they differ"
"""


def computed(pages, build):
    return docs.compute_all(docs.percent_pages(pages), build)


def test_a_page_is_executed_once_for_each_state(tmp_path):
    pages, build, log = tmp_path / "docs", tmp_path / "build", tmp_path / "log"
    (pages / "notes").mkdir(parents=True)
    page = pages / "notes" / "good.py"
    page.write_text(GOOD.format(log=str(log)))
    assert computed(pages, build) == [] == computed(pages, build)
    assert log.read_text() == "x"
    collected = docs.collect(pages, docs.percent_pages(pages), build) / "notes"
    text = (collected / "good.md").read_text()
    (picture,) = re.findall(r"!\[A part\]\((.*)\)", text)
    assert (collected / picture).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in collected.iterdir()) == ["good.md", picture]
    page.write_text(page.read_text().replace("A part", "Another"))
    assert computed(pages, build) == []
    assert log.read_text() == "xx"


def test_a_page_that_fails_says_where_and_the_others_are_executed(tmp_path):
    pages, build, log = tmp_path / "docs", tmp_path / "build", tmp_path / "log"
    pages.mkdir()
    (pages / "bad.py").write_text(BAD)
    (pages / "good.py").write_text(GOOD.format(log=str(log)))
    (pages / "loud.py").write_text("# %%\nimport warnings\nwarnings.warn('beware')\n")
    (pages / "wide.py").write_text("# %%\nprint('short')\nprint('-' * 101)\n")
    failed, loud, wide = computed(pages, build)
    assert failed == f"{pages / 'bad.py'}:6, code cell 2: AssertionError: they differ"
    assert loud.startswith(f"{pages / 'loud.py'}:2, code cell 1: it writes to stderr: ")
    assert "beware" in loud
    assert wide.startswith(f"{pages / 'wide.py'}:2, code cell 1: it puts out a line of 101 ")
    assert log.read_text() == "x"
    assert len(computed(pages, build)) == 3  # what failed is not kept


def test_links_lead_to_pages_or_to_the_repository():
    source = ROOT / "docs" / "howto" / "own_prior.py"
    text = "[a](../numerics.md#float32) [b](../../vaejax/bounds.py) [c](https://a.b/c.md) [d](#d)"
    assert docs.linked(text, source, source.relative_to(docs.DOCS)) == (
        "[a](../numerics.md#float32) [b](https://github.com/vaejax/vaejax/blob/main/vaejax/bounds.py)"
        " [c](https://a.b/c.md) [d](#d)"
    )
    text = f"[a]({docs.REPOSITORY}/experiments/graphs/ladder.py) [b]({docs.REPOSITORY}/LICENSE)"
    assert docs.linked(text, source, source.relative_to(docs.DOCS)) == (
        f"[a](../lab/ladder.md) [b]({docs.REPOSITORY}/LICENSE)"
    )
    text = "[docs/architecture.md](docs/architecture.md), [C](CONTRIBUTING.md), `x[0](docs)`"
    assert docs.linked(text, ROOT / "CHANGELOG.md", docs.Path("changelog.md")).startswith(
        "[docs/architecture.md](architecture.md), [C](contributing.md)"
    )


def test_the_navigation_is_of_pages_that_are_there():
    notes = ["b.md", {"Last": ["n/z.md", "n/y.md"]}, "n/*", {"Empty": ["o.md"]}]
    sections = [{"Home": "index.md"}, {"Notes": notes}, {"None": ["m/*"]}]
    pages = ["index.md", "n/a.md", "n/c.md", "n/z.md"]
    assert navigation(sections, pages) == [
        {"Home": "index.md"},
        {"Notes": [{"Last": ["n/z.md"]}, "n/a.md", "n/c.md"]},
    ]


def test_a_picture_leads_to_itself_at_full_size():
    alone, linked = (
        '<p><img alt="a" src="a.png" /></p>',
        '<a href="b/"><img alt="b" src="b.png" /></a>',
    )
    assert enlarged(alone) == '<p><a href="a.png"><img alt="a" src="a.png" /></a></p>'
    assert enlarged(linked) == linked


@pytest.mark.parametrize(
    "latex, parts",
    [
        (r"\mathbb{E}_q\left[\frac{a}{b}\right]", ("<mi>𝔼</mi>", "<mfrac>", "]")),
        (r"\begin{aligned} a &= b \\ &\le c \end{aligned}", ("<mtable", "text-align: right")),
        (r"\operatorname{KL}(q \| p)", ("<mi>KL</mi>",)),
        (r"a_{KL(q \| p)} = L", ("<mi>KL</mi>", "<mi>L</mi>")),
        (r"\mathrm{KL}(q)", (">K</mi>", ">L</mi>")),
        (r"\operatorname*{arg\,max}_q f", ("<munder><mo", 'movablelimits="true"', "argmax")),
        (r"\boldsymbol{\mu} \mathbb{1}", ("𝝁", "𝟙")),
        (r"x \sim p", ("<mo>∼</mo>",)),
        (r"a < b & c".replace("& ", ""), ("&lt;",)),
    ],
)
def test_formulas_become_mathml(latex, parts):
    page = f'<p><span class="arithmatex">\\({docs_formulas.html.escape(latex)}\\)</span></p>'
    rendered = docs_formulas.rendered(page, "page.md")
    assert rendered.startswith("<p><math ") and "arithmatex" not in rendered
    assert all(part in rendered for part in parts), rendered


@pytest.mark.parametrize("latex", [r"\unheard x", r"\frac{a", r"\begin{nothing} a \end{nothing}"])
def test_a_formula_that_is_not_known_is_a_warning(latex, caplog):
    page = f'<div class="arithmatex">\\[{latex}\\]</div>'
    assert docs_formulas.rendered(page, "page.md") == page
    assert "page.md: the formula" in caplog.text
