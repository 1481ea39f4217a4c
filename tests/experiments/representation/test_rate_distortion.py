"""rate_distortion.py, in short: the curve that is known."""

import pytest

from tests.lib.scripts import files, run


@pytest.mark.slow
def test_rate_distortion(tmp_path):
    """The linear curve to 1 % of reverse water-filling, and the collapse where it says; on images
    the rate falls with beta.
    """
    flags = ["--linear-betas", "1", "4", "--linear-steps", "5000", "--linear-examples", "200"]
    flags += ["--betas", "0.3", "2"]
    flags += ["--num-steps", "400", "--hidden", "20", "--latent-dim", "3"]
    flags += ["--learning-rate", "0.003"]
    result, printed = run("rate_distortion", *flags, folder=tmp_path)
    for row, active in zip(result["linear"], (4, 3), strict=True):
        assert row["rate"] == pytest.approx(row["exact_rate"], rel=0.01) and row["active"] == active
        assert row["squared_error"] == pytest.approx(row["exact_squared_error"], rel=0.01)
    low, high = result["images"]
    assert low["rate"] > high["rate"] + 1 and low["distortion"] < high["distortion"] - 1
    assert "| beta | rate | exact |" in printed
    assert files(tmp_path) == {"rate_distortion.png", "result.json"}
