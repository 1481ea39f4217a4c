"""sticking_the_landing.py: what it measures is the closed form, and which estimator has less."""

from tests.lib.scripts import files, run


def test_sticking_the_landing(tmp_path):
    flags = ["--widths", "0.3", "0.5", "0.8", "--num-draws", "4000"]
    result, printed = run("sticking_the_landing", *flags, folder=tmp_path)
    assert result["worst_relative_error"] < 0.5 and result["intervals_that_cover"] > 0.5
    winners = [line.split("|")[-2].strip() for line in printed.splitlines()[2:8]]
    assert winners == ["pathwise"] * 2 + ["either"] * 2 + ["stick-the-landing"] * 2
    assert files(tmp_path) == {"variance.png", "result.json"}
