"""Variances along a training as a user measures them, in short: what is left, and that it goes
on.
"""

import csv
import itertools
import subprocess
import sys

import pytest

from tests.lib.paths import EXPERIMENTS
from tests.lib.scripts import files, run, run_here

NAME = "gradient_variance"
TINY = ["--num-draws", "10", "--reference-draws", "10", "--measured-examples", "4"]
GROUPS = ["theta", "phi", "theta likelihood", "phi body", "phi location", "phi scale"]


def csv_rows(folder):
    with (folder / "out" / "variance.csv").open() as file:
        return list(csv.DictReader(file))


def test_gradient_variance_and_its_resumption(tmp_path):
    """Cut off after one estimator, it goes on with the other and keeps the rows that it has, but
    for those with a digit that was changed: these are measured again.
    """
    flags = [
        *TINY,
        *["--num-steps", "4", "--measured-at", "0", "1", "--hidden", "8", "--latent-dim", "2"],
    ]
    run_here(NAME, *flags, "--estimators", "pathwise", folder=tmp_path)
    before = csv_rows(tmp_path)
    path = tmp_path / "out" / "variance.csv"
    digits = before[-1]["trace"]
    path.write_text(path.read_text().replace(digits, f"{digits[:-1]}{9 - int(digits[-1])}"))
    both = ["--resume", "--estimators", "pathwise", "dreg:2"]
    result, printed = run_here(NAME, *flags, *both, folder=tmp_path)
    assert result["least_mse_in_phi"] == {"ELBO": "pathwise", "IWAE-2": "dreg:2"}
    assert printed.count("**") == 8
    rows = csv_rows(tmp_path)
    assert rows[: len(before) // 2] == before[: len(before) // 2]
    place = ("step", "estimator", "group")
    traces = {tuple(row[name] for name in place): row["trace"] for row in rows}
    assert all(traces[tuple(row[name] for name in place)] == row["trace"] for row in before)
    measured = sorted((row["estimator"], row["step"], row["group"]) for row in rows)
    assert measured == sorted(itertools.product(("pathwise", "dreg:2"), ("0", "4"), GROUPS))
    assert files(tmp_path) == {
        "variance.csv",
        "config.json",
        "result.json",
        "along_training.png",
        "against_work.png",
        "checkpoints-0",
    }


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
    rows = csv_rows(tmp_path)
    assert {row["step"] for row in rows} == {"2", "4"}
    assert {row["forward"] for row in rows} == {"4", "8"}
    assert (tmp_path / "out" / "against_samples.png").exists()
