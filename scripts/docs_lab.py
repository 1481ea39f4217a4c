"""The lab: a page for each script of experiments/, which is its docstring, and the pictures of a
run in miniature, which the build makes.

What a docstring reports was measured at full size. The pictures show what the script draws, with
the flags that stand over them (scripts/docs_lab.toml).
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from functools import partial
from pathlib import Path

from docs_cache import (
    REPOSITORY,
    ROOT,
    Computed,
    PageError,
    environment,
    shared_by_experiments,
    state_of,
)
from docs_markdown import in_markdown

EXPERIMENTS = ROOT / "experiments"
TOPICS = {
    "gradients": "Gradients: which estimator, at what noise and cost",
    "graphs": "Directed graphs: likelihood, conditions, mixtures, labels",
    "inference": "Inference: how far q is from the posterior, and whose fault it is",
    "representation": "Representation: priors, rates and codes",
}
FIGURES = {
    "reproduced.md": "Published numbers, reproduced",
    "leaderboard.md": "The leaderboard",
    "performance.md": "Training speed",
    "numerics.md": "How exact the densities are",
    "compatibility.md": "Which prior, encoder and estimator go together",
}
CONTENTS = """One script is one result: what it claims, the command, how long it takes, and the
figures that it measured. Each runs on the embedded digits, and downloads nothing."""
# Most of the time of a short run is the compiler's.
IN_HASTE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
IN_MINIATURE = """The build of this page has run the script with few steps, draws and seeds, to show
what it draws. The figures above are of the full size."""


def scripts() -> list[Path]:
    """In reading order."""
    return [
        path
        for topic in TOPICS
        for path in sorted((EXPERIMENTS / topic).glob("*.py"))
        if path.name != "__init__.py"
    ]


def drawn() -> list[Path]:
    """Those that the build runs."""
    return [script for script in scripts() if script.stem in flags()]


def flags() -> dict[str, str]:
    """{name of a script: the flags of its run in miniature}."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def flags_of(script: Path) -> str:
    return flags()[script.stem]


def command_of(script: Path) -> str:
    return f"python {script.relative_to(ROOT)} {flags_of(script)}".strip()


def computed(script: Path) -> Computed:
    """The pictures NAME_*.png of its run in miniature."""
    state = state_of(script, flags_of(script), *shared_by_experiments())
    return Computed(f"lab/{script.stem}", state, partial(run_in_miniature, script))


def run_in_miniature(script: Path, folder: Path) -> None:
    scratch = folder / "scratch"
    done = subprocess.run(
        [sys.executable, str(script), *shlex.split(flags_of(script)), "--out", str(scratch)],
        env={**environment(), "XLA_FLAGS": IN_HASTE},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        told = re.sub(r"\s+", " ", done.stderr.strip()[-600:])
        raise PageError(f"{command_of(script)}: exit status {done.returncode}: {told}")
    for picture in scratch.glob("*.png"):
        picture.rename(folder / f"{script.stem}_{picture.name}")
    shutil.rmtree(scratch)


def pages(build: Path, figures: list[str]) -> dict[str, str]:
    """{file: its Markdown}: a page for each script, and their contents; `figures` are the pages of
    figures that are there.
    """
    made = {f"{script.stem}.md": page(script, build) for script in scripts()}
    lines = ["# The lab", "", CONTENTS, ""]
    for topic, title in TOPICS.items():
        here = [script for script in scripts() if script.parent.name == topic]
        entries = [
            f"- [{title_of(script)}]({script.stem}.md): {claim_of(script)}" for script in here
        ]
        lines += [f"## {title}", "", *entries, ""]
    entries = [f"- [{FIGURES[name]}](../{name})" for name in FIGURES if name in figures]
    return {"index.md": "\n".join([*lines, "## Figures", "", *entries, ""]), **made}


def page(script: Path, build: Path) -> str:
    place = script.relative_to(ROOT)
    lines = [f"# {title_of(script)}", "", in_markdown(docstring_of(script)), ""]
    lines += [f"The script is [{place}]({REPOSITORY}/{place}).", ""]
    pictures = []
    if script in drawn():
        pictures = sorted(computed(script).folder(build).glob("*.png"))
    if pictures:
        command = textwrap.wrap(command_of(script), 90, break_on_hyphens=False)
        lines += ["## In miniature", "", IN_MINIATURE, ""]
        lines += ["    " + " \\\n        ".join(command), ""]
    for picture in pictures:
        lines += [f"![{title_of(script)}]({picture.name})", ""]
    return "\n".join(lines)


def docstring_of(script: Path) -> str:
    return ast.get_docstring(ast.parse(script.read_text())) or ""


def claim_of(script: Path) -> str:
    """The first paragraph of its docstring."""
    return " ".join(docstring_of(script).split("\n\n")[0].split())


def title_of(script: Path) -> str:
    words = script.stem.replace("_", " ").capitalize()
    return re.sub(
        r"\b(mcmc|mc|ais|snr)\b", lambda name: name[0].upper(), words, flags=re.IGNORECASE
    )
