"""Pages that compute: percent files become Markdown with what their cells put out, and each state
of a page is executed once.

A page fails where a cell raises, and where one writes to stderr: a reader wants no warnings.
"""

import hashlib
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbclient
import nbconvert
import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "docs"
AT_ONCE = 2  # pages

# A figure is shown where it is the last expression of a cell, and nowhere else.
FIGURES = """
import matplotlib
from IPython.core.pylabtools import select_figure_formats
matplotlib.use("agg")
matplotlib.rcParams["figure.dpi"] = 150
select_figure_formats(get_ipython(), {"png"})
"""


class PageError(Exception):
    """What a page does that it must not, in a message that says where."""


def environment() -> dict[str, str]:
    """Of a process that computes: this tree's modules, and compiled programs that are kept."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(BUILD / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's own messages are not a page's
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "IPYTHONDIR": str(BUILD / "ipython"),
    }


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook of a percent file with its outputs, run in `folder`."""
    notebook = jupytext.read(path)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[f"--IPKernelApp.exec_lines={FIGURES}", "--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute(env=environment())
    except CellExecutionError as error:
        message = f"{error.ename}: {error.evalue}"
        raise PageError(where(path, notebook) + message) from None
    except CellTimeoutError:
        raise PageError(f"{path}: a cell takes more than 600 s") from None
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                text = output["text"].strip()
                raise PageError(where(path, notebook, cell) + f"it writes to stderr: {text}")
    return notebook


def where(path: Path, notebook: nbformat.NotebookNode, cell: nbformat.NotebookNode | None = None):
    """The place of a cell, or of the one that raised: 'docs/a.py:12, code cell 3: '."""
    cells = [each for each in notebook.cells if each.cell_type == "code"]
    for number, candidate in enumerate(cells, 1):
        raised = any(output.output_type == "error" for output in candidate.outputs)
        if candidate is cell or (cell is None and raised):
            before = path.read_text().partition(candidate.source)[0]
            return f"{path}:{before.count(chr(10)) + 1}, code cell {number}: "
    return f"{path}: "


def write_page(path: Path, folder: Path) -> None:
    """Executes a percent file, and writes NAME.md and its pictures NAME_*.png into `folder`."""
    (BUILD / "ipython").mkdir(parents=True, exist_ok=True)
    scratch = folder / "scratch"
    scratch.mkdir()
    notebook = executed(path, scratch)
    shutil.rmtree(scratch)
    exporter = nbconvert.MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook, {"unique_key": path.stem})
    (folder / f"{path.stem}.md").write_text(described(text))
    for name, content in resources["outputs"].items():
        (folder / name).write_bytes(content)


def described(text: str) -> str:
    """The same Markdown, where a picture is described by the heading that it is under."""
    lines, heading, is_code = [], "", False
    for line in text.splitlines():
        is_code ^= line.startswith("```")
        if not is_code and line.startswith("#"):
            heading = line.lstrip("# ").strip()
        picture = re.match(r"!\[(png|svg|jpeg)\]", line)
        lines.append(f"![{heading}]{line[picture.end() :]}" if picture else line)
    return "\n".join(lines) + "\n"


def state_of(*parts: str | Path) -> str:
    """A digest of what a page depends on: the parts, the library, the versions of packages."""
    digest = hashlib.sha256(sys.version.encode())
    library = sorted((ROOT / "vaejax").rglob("*.py"))
    for part in [*parts, *library, ROOT / "constraints.txt", Path(__file__)]:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def state_of_page(path: Path) -> str:
    text = path.read_text()
    shared = sorted((ROOT / "experiments" / "lib").glob("*.py")) if "experiments" in text else []
    return state_of(text, *shared)


def once(folder: Path, state: str, make: Callable[[Path], None]) -> bool:
    """Whether `make(folder)` had to fill the folder, since it was not of this state."""
    stamp = folder / ".state"
    if stamp.exists() and stamp.read_text() == state:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    stamp.write_text(state)
    return True


def failures_of(jobs: Iterable[Callable[[], None]]) -> list[str]:
    """Runs all jobs, some at once; the messages of those that failed, in their order."""
    lock = threading.Lock()

    def message(job: Callable[[], None]) -> str | None:
        try:
            job()
        except PageError as error:
            with lock:
                print(f"FAILED {error}", file=sys.stderr)
            return str(error)
        return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [text for text in pool.map(message, jobs) if text is not None]
