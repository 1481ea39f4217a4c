"""Pages that compute: percent files become Markdown with what their cells put out.

A page fails where a cell raises, where one writes to stderr, since a reader wants no warnings, and
where a line that it puts out is wider than a screen.
"""

import re
import shutil
from functools import partial
from pathlib import Path

import jupytext
import nbclient
import nbconvert
import nbformat
from docs_cache import BUILD, Computed, PageError, environment, shared_by_experiments, state_of
from nbclient.exceptions import CellExecutionError, CellTimeoutError

WIDTH = 100  # characters of a line that are seen at 1280 pixels
# A figure is shown where it is the last expression of a cell, and nowhere else.
FIGURES = """
import matplotlib
from IPython.core.pylabtools import select_figure_formats
matplotlib.use("agg")
matplotlib.rcParams["figure.dpi"] = 150
select_figure_formats(get_ipython(), {"png"})
"""


def percent_page(path: Path, docs: Path) -> Computed:
    """Of a percent file in the folder `docs`."""
    text = path.read_text()
    shared = shared_by_experiments() if "experiments" in text else []
    name = path.relative_to(docs).with_suffix("").as_posix()
    return Computed(name, state_of(text, *shared, Path(__file__)), partial(write_page, path))


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook of a percent file with its outputs, run in `folder`."""
    notebook = jupytext.read(path)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        coalesce_streams=True,  # what a cell prints is one block
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
            if complaint := what_is_wrong(output):
                raise PageError(where(path, notebook, cell) + complaint)
    return notebook


def what_is_wrong(output: nbformat.NotebookNode) -> str | None:
    """What a reader would not want of this output of a cell."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    if output.get("name") == "stderr":
        return f"it writes to stderr: {text.strip()}"
    longest = max(text.splitlines(), key=len, default="")
    if len(longest) > WIDTH:
        return (
            f"it puts out a line of {len(longest)} characters, more than the {WIDTH} that a reader "
            f"sees; use textwrap.fill: {longest}"
        )
    return None


def where(path: Path, notebook: nbformat.NotebookNode, cell: nbformat.NotebookNode | None = None):
    """The place of a cell, or of the one that raised: 'docs/a.py:12, code cell 3: '."""
    cells = [candidate for candidate in notebook.cells if candidate.cell_type == "code"]
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
