"""rate_distortion.py, in short: the curve that is known."""

import pytest

from experiments.representation import rate_distortion
from tests.lib.scripts import files, run
from vaejax.plots import figure_of


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


def test_points_that_lie_on_one_another_have_one_label():
    """Of 3, 2 and 1.8 the first; the others are apart in the rate, or in the distortion."""
    numbers = ((3, 0.0, 30.0), (2, 0.0, 29.8), (1.8, 0.2, 29.9), (1, 1.0, 29.9), (0.5, 9.0, 20.0))
    rows = [{"beta": b, "active": 1, "rate": r, "distortion": d} for b, r, d in numbers]
    _, [[axes]] = figure_of()
    rate_distortion.label_points(axes, rows, "distortion")
    assert [text.get_text() for text in axes.texts] == ["3 (1)", "1 (1)", "0.5 (1)"]
