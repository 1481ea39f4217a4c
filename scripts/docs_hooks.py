"""What mkdocs.yml cannot say: the navigation is of pages that are there, formulas are MathML, and
wide tables have room.
"""

import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import docs_formulas

# Pages whose tables need the room of the table of contents beside them.
WIDE = ("changelog.md", "flags.md", "notes/index.md", "numerics.md", "reproduced.md")


def on_config(config: Any) -> None:
    sys.path.append(str(Path(__file__).parent))  # what docs_griffe.py imports, which griffe loads
    pages = Path(config["docs_dir"])
    there = sorted(page.relative_to(pages).as_posix() for page in pages.rglob("*.md"))
    config["nav"] = navigation(config["nav"], there)


def named(wanted: Any) -> list[str]:
    """All pages and patterns of a section, however nested."""
    if isinstance(wanted, str):
        return [wanted]
    parts = wanted.values() if isinstance(wanted, dict) else wanted
    return [name for part in parts for name in named(part)]


def navigation(sections: list, pages: list[str]) -> list:
    """The same sections with the pages that are there: a pattern such as notes/* stands for those,
    by name, that the section does not name; what is not there is left out, and so is a section
    without pages.
    """
    chosen = []
    for section in sections:
        ((title, wanted),) = section.items()
        if isinstance(wanted, str):
            chosen += [section] if wanted in pages else []
            continue
        entries = []
        for entry in wanted:
            if isinstance(entry, dict):
                entries += navigation([entry], pages)
            else:
                entries += [page for page in pages if page == entry]
                entries += [
                    page for page in pages if fnmatch(page, entry) and page not in named(wanted)
                ]
        chosen += [{title: entries}] if entries else []
    return chosen


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]


def on_page_content(html: str, page: Any, **_: Any) -> str:
    return docs_formulas.rendered(enlarged(html), page.file.src_uri)


def enlarged(html: str) -> str:
    """The HTML of a page in which each picture leads to itself at full size, if to nothing else."""
    return re.sub(r'(?<!">)(<img\b[^>]* src="([^"]+)"[^>]*>)', r'<a href="\2">\1</a>', html)
