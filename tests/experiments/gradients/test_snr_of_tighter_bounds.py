"""The signal to noise ratio of IWAE and DReG over K, as a user measures it: the slopes and the
constants of the theory.
"""

import json

import pytest

from tests.lib.scripts import attempt, files, run

SMALL = (
    "--latent-dim 2 --num-examples 16 --sample-counts 16 64 --fit-from 16 --num-draws 320"
    " --perturbation 0.1 --estimators iwae dreg"
)


@pytest.mark.slow
def test_snr_of_tighter_bounds(tmp_path):
    result, printed = run("snr_of_tighter_bounds", *SMALL.split(), folder=tmp_path)
    assert files(tmp_path) == {"snr.png", "result.json"}
    slopes = {"iwae": (-0.5, -0.5), "dreg": (-1.5, 0.5)}
    for name, expected in slopes.items():
        measured = result["comparison"][name]
        assert [
            measured[f"slope of {what}"]["measured"] for what in ("std", "snr")
        ] == pytest.approx(expected, abs=0.1)
        assert [measured[f"{what} over theory"] for what in ("std", "snr")] == pytest.approx(
            [1, 1], abs=0.1
        )
    assert "| iwae and dreg in mu |" in printed and "stopped-iwae" not in printed
    rows = json.loads((tmp_path / "out" / "result.json").read_text())["rows"]
    std = {(row["estimator"], row["num_samples"]): row["std"] for row in rows}
    assert std["dreg", 16] < std["iwae", 16] / 10 and std["dreg", 64] < std["iwae", 64] / 40


def test_a_slope_needs_two_points(tmp_path):
    done = attempt("snr_of_tighter_bounds", "--sample-counts", "4", "64", folder=tmp_path)
    assert done.returncode == 2 and "--sample-counts" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
