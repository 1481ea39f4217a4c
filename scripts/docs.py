"""The site: executes the pages that compute, collects all pages, and has mkdocs build them.

    make docs                                         # build/site
    python scripts/docs.py --pages notes/elbo choose  # executes these alone, and builds nothing

What a page puts out is kept in build/docs/executed, and made again where the page, the library or a
version in constraints.txt is another. mkdocs reads build/docs/pages, which is made anew each time:

    docs/**/*.md                   as they are
    docs/**/*.py                   executed, by scripts/docs_execute.py
    CHANGELOG.md, CONTRIBUTING.md  as they are
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import docs_api
from docs_execute import BUILD, ROOT, failures_of, once, state_of_page, write_page

DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/vaejax/vaejax/blob/main"
SUMMARY = "executes the pages that compute, and builds the site"
COPIED = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def percent_files(docs: Path, wanted: list[str] | None = None) -> list[Path]:
    """The pages that compute; of those, what a wanted name begins, if names are given."""
    paths = sorted(docs.rglob("*.py"))
    if not wanted:
        return paths
    return [path for path in paths if path.relative_to(docs).as_posix().startswith(tuple(wanted))]


def folder_of(path: Path, docs: Path, build: Path) -> Path:
    """Where the result of an executed page lies."""
    return build / "executed" / path.relative_to(docs).with_suffix("")


def execute(path: Path, docs: Path, build: Path) -> None:
    began = time.perf_counter()
    if once(folder_of(path, docs, build), state_of_page(path), partial(write_page, path)):
        print(f"{path.relative_to(docs)}: {time.perf_counter() - began:.0f} s", flush=True)


def execute_all(docs: Path, build: Path, wanted: list[str] | None = None) -> list[str]:
    """Executes what is not yet; the messages of the pages that failed."""
    return failures_of(partial(execute, path, docs, build) for path in percent_files(docs, wanted))


def linked(text: str, source: Path, page: Path) -> str:
    """The text of a file with its relative links as the page of the site needs them: a page stays
    one, and another file of the repository is looked at where the repository is published.
    """

    def target(match: re.Match) -> str:
        path, anchor = match[1], match[2] or ""
        file = (source.parent / path).resolve()
        if not file.is_file() or not file.is_relative_to(ROOT):
            return match[0]
        if file.is_relative_to(DOCS):
            there = file.relative_to(DOCS).with_suffix(
                ".md" if file.suffix == ".py" else file.suffix
            )
        elif file.relative_to(ROOT).as_posix() in COPIED:
            there = Path(COPIED[file.name])
        else:
            return f"]({REPOSITORY}/{file.relative_to(ROOT)}{anchor})"
        return f"]({os.path.relpath(there, page.parent)}{anchor})"

    return re.sub(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", target, text)


def collect(docs: Path, build: Path) -> Path:
    """The folder that mkdocs reads, made anew."""
    pages = build / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    sources = {path: path.relative_to(docs) for path in docs.rglob("*") if path.is_file()}
    if docs == DOCS:
        sources |= {ROOT / name: Path(page) for name, page in COPIED.items()}
    for source, page in sources.items():
        (pages / page).parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            (pages / page).write_text(linked(source.read_text(), source, page))
        elif source.suffix == ".py":
            folder = folder_of(source, docs, build)
            shutil.copytree(folder, pages / page.parent, dirs_exist_ok=True)
            (pages / page.parent / ".state").unlink()
        else:
            shutil.copyfile(source, pages / page)
    return pages


def write_made(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=SUMMARY)
    parser.add_argument("--pages", nargs="+", help="execute these alone, and build nothing")
    wanted = parser.parse_args().pages
    failures = execute_all(DOCS, BUILD, wanted)
    if failures:
        print(f"\n{len(failures)} pages failed:", *failures, sep="\n", file=sys.stderr)
        return 1
    if wanted:
        return 0
    pages = collect(DOCS, BUILD)
    write_made(pages / "api", docs_api.pages())
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
