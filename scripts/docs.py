"""The site: executes the pages that compute, collects all pages, and has mkdocs build them.

    make docs                                         # build/site
    python scripts/docs.py --pages notes/elbo choose  # executes these alone, and builds nothing

What a page puts out is kept in build/docs/executed, and made again where the page, the library or a
version in constraints.txt is another. mkdocs reads build/docs/pages, which is made anew each time:

    docs/**/*.md                   as they are
    docs/**/*.py                   executed, by scripts/docs_execute.py
    CHANGELOG.md, CONTRIBUTING.md  as they are
    lab/                           the experiments, run in miniature, by scripts/docs_lab.py
    api/                           the docstrings, by scripts/docs_api.py
    gallery.md                     the pictures that were made, by scripts/docs_gallery.py
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import docs_api
import docs_gallery
import docs_lab
from docs_cache import BUILD, REPOSITORY, ROOT, STAMP, Computed, compute_all
from docs_execute import percent_page

DOCS = ROOT / "docs"
LINK = re.compile(
    rf"\]\((?P<published>{re.escape(REPOSITORY)}/)?(?P<path>(?!\w+:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)
COPIED = {ROOT / "CHANGELOG.md": "changelog.md", ROOT / "CONTRIBUTING.md": "contributing.md"}


def percent_pages(docs: Path) -> list[Computed]:
    return [percent_page(path, docs) for path in sorted(docs.rglob("*.py"))]


def place_of(file: Path) -> str | None:
    """Where a file of the repository lies on the site, if it is there."""
    if file.is_relative_to(DOCS):
        page = file.relative_to(DOCS)
        return page.with_suffix(".md" if page.suffix == ".py" else page.suffix).as_posix()
    if file in docs_lab.scripts():
        return f"lab/{file.stem}.md"
    return COPIED.get(file)


def linked(text: str, source: Path, page: Path) -> str:
    """The text of a file with its links to the repository as its page needs them: what has a page
    of the site, such as an experiment, is that page, and another file is looked at where it is
    published.
    """

    def target(match: re.Match) -> str:
        folder = ROOT if match["published"] else source.parent
        file = (folder / match["path"]).resolve()
        if not file.is_file() or not file.is_relative_to(ROOT):
            return match[0]
        place, anchor = place_of(file), match["anchor"] or ""
        if place is None:
            return f"]({REPOSITORY}/{file.relative_to(ROOT)}{anchor})"
        return f"]({os.path.relpath(place, page.parent)}{anchor})"

    return LINK.sub(target, text)


def collect(docs: Path, computed: list[Computed], build: Path) -> Path:
    """The folder that mkdocs reads, made anew of the pages that are written and computed."""
    pages = build / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(docs, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in computed:
        folder = (pages / page.name).parent
        ignored = shutil.ignore_patterns(STAMP)
        shutil.copytree(page.folder(build), folder, ignore=ignored, dirs_exist_ok=True)
    for page in pages.rglob("*.md"):
        name = page.relative_to(pages)
        page.write_text(linked(page.read_text(), docs / name, name))
    return pages


def add_made(pages: Path, computed: list[Computed]) -> None:
    """The pages that are made from the rest of the repository, and from the other pages."""
    for source, name in COPIED.items():
        (pages / name).write_text(linked(source.read_text(), source, Path(name)))
    figures = [page.name for page in pages.glob("*.md")]
    for folder, made in {"api": docs_api.pages(), "lab": docs_lab.pages(BUILD, figures)}.items():
        (pages / folder).mkdir(exist_ok=True)
        for name, text in made.items():
            (pages / folder / name).write_text(text)
    gallery = docs_gallery.page(pages, [page.name for page in computed])
    (pages / "gallery.md").write_text(gallery)


def main() -> int:
    parser = argparse.ArgumentParser(description="executes the pages that compute; builds the site")
    parser.add_argument("--pages", nargs="+", help="execute these alone, and build nothing")
    wanted = tuple(parser.parse_args().pages or [""])
    computed = [*percent_pages(DOCS), *map(docs_lab.computed, docs_lab.drawn())]
    failures = compute_all([page for page in computed if page.name.startswith(wanted)], BUILD)
    if failures:
        print(f"\n{len(failures)} pages failed:", *failures, sep="\n", file=sys.stderr)
        return 1
    if wanted != ("",):
        return 0
    add_made(collect(DOCS, computed, BUILD), computed)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
