"""Variances along a training as a user measures them, in short: what is left, and that it goes
on.
"""

import itertools
import json
import subprocess
import sys

import pytest

import vaejax
from experiments.gradients.gradient_variance import unbiased
from tests.lib.paths import EXPERIMENTS
from tests.lib.scripts import files, run, run_here
from vaejax.runs.named_estimators import named_estimator

NAME = "gradient_variance"
TINY = ["--num-draws", "10", "--reference-draws", "10", "--measured-examples", "4"]
GROUPS = ["theta", "phi", "theta likelihood", "phi body", "phi location", "phi scale"]


def rows_of(folder):
    return json.loads((folder / "out" / "result.json").read_text())["rows"]


def test_gradient_variance_and_its_resumption(tmp_path):
    """Cut off after one estimator, it goes on with the other and keeps what it has, to the time
    that a gradient took, but for the step of which a character was changed: it is measured again.
    """
    flags = [
        *TINY,
        *["--num-steps", "4", "--measured-at", "0", "1", "--hidden", "8", "--latent-dim", "2"],
    ]
    run_here(NAME, *flags, "--estimators", "pathwise", folder=tmp_path)
    before = rows_of(tmp_path)
    path = tmp_path / "out" / "measured" / "0-pathwise.jsonl"
    header, start, end = path.read_text().splitlines(keepends=True)
    path.write_text(header + start + end.replace("trace", "trade"))
    both = ["--resume", "--estimators", "pathwise", "dreg:2"]
    with pytest.warns(UserWarning, match="1 of 2 pieces are damaged"):
        result, printed = run_here(NAME, *flags, *both, folder=tmp_path)
    assert result["least_mse_in_phi"] == {"ELBO": "pathwise", "IWAE-2": "dreg:2"}
    assert printed.count("**") == 8
    rows = rows_of(tmp_path)
    assert rows[: len(GROUPS)] == before[: len(GROUPS)]
    again = [row for row in rows if (row["estimator"], row["step"]) == ("pathwise", 4)]
    timed = ("seconds", "bytes")
    for row, old in zip(again, before[len(GROUPS) :], strict=True):
        assert {**row, **{name: old[name] for name in timed}} == old
    measured = sorted((row["estimator"], row["step"], row["group"]) for row in rows)
    assert measured == sorted(itertools.product(("pathwise", "dreg:2"), (0, 4), GROUPS))
    assert files(tmp_path) == {
        "measured",
        "config.json",
        "result.json",
        "along_training.png",
        "against_work.png",
        "checkpoints-0",
    }


def test_each_bound_has_an_unbiased_reference():
    """dreg of K samples is of the IWAE bound alone: miwae is held against its own mean."""
    assert unbiased("score-function:2") == vaejax.Pathwise()
    assert unbiased("vimco:8") == vaejax.DReG(8)
    for name in ("miwae:16", "ciwae:4"):
        assert unbiased(name) == named_estimator(name)


@pytest.mark.slow
def test_gradient_variance_of_a_run(tmp_path):
    """At both checkpoints of a run of train.py, with two K, so that there is a figure over K."""
    flags = ["--num-steps", "4", "--checkpoint-every", "2", "--hidden", "8"]
    flags += ["--latent-dim", "2", "--prior", "vamp:3"]
    command = [sys.executable, str(EXPERIMENTS / "train.py"), *flags]
    command += ["--eval-samples", "2", "--out", "trained"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    flags = [*TINY, *["--run", "trained", "--estimators", "dreg:2", "dreg:4"]]
    result, _ = run(NAME, *flags, folder=tmp_path)
    assert result["at_step"] == 4 and set(result["least_mse_in_phi"]) == {"IWAE-2", "IWAE-4"}
    rows = rows_of(tmp_path)
    assert {row["step"] for row in rows} == {2, 4}
    assert {row["forward"] for row in rows} == {4, 8}
    assert (tmp_path / "out" / "against_samples.png").exists()
