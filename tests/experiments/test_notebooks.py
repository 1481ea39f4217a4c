"""The notebooks run from top to bottom, and show what they promise."""

import nbclient
import nbformat
import pytest

from tests.lib.paths import ROOT

NOTEBOOKS = ROOT / "experiments" / "notebooks"


def executed(name: str, **replacements: str) -> list[dict]:
    """What every cell of a notebook puts out, with some of its source replaced. Nothing may go to
    stderr: no warning is for a reader.
    """
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for old, new in replacements.values():
        assert sum(old in cell.source for cell in notebook.cells) == 1, (
            f"{name} has no longer one {old!r}"
        )
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    return [output.get("data", {}) for output in outputs]


def check_swap_priors(outputs: list[dict]) -> None:
    tables = [data["text/markdown"] for data in outputs if "text/markdown" in data]
    # Five priors, the same with eight latents, then three, under two lines of header.
    assert [table.count("\n") for table in tables] == [6, 6, 4]
    assert sum("image/png" in data for data in outputs) == 2


@pytest.mark.slow
def test_swap_priors_in_short():
    check_swap_priors(
        executed(
            "swap_priors.ipynb",
            steps=("num_steps = 3_000", "num_steps = 20"),
            samples=("num_samples = 500", "num_samples = 20"),
        )
    )


@pytest.mark.slow
def test_gradient_variance():
    outputs = executed(
        "gradient_variance.ipynb",
        few=("num_steps, num_draws = 1_500, 200", "num_steps, num_draws = 30, 20"),
    )
    tables = [data["text/markdown"] for data in outputs if "text/markdown" in data]
    assert [table.count("\n") for table in tables] == [6, 7, 7, 5, 4]
    assert sum("image/png" in data for data in outputs) == 2


@pytest.mark.slow
def test_swap_priors():
    check_swap_priors(executed("swap_priors.ipynb"))
