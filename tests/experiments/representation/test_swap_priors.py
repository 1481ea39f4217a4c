"""swap_priors.py, in short: what it leaves."""

import pytest

from tests.lib.scripts import files, run


@pytest.mark.slow
def test_swap_priors(tmp_path):
    flags = "--priors normal vamp:5 --num-seeds 2 --num-steps 20 --hidden 8 --eval-samples 5"
    result, printed = run("swap_priors", *flags.split(), folder=tmp_path)
    assert [row["prior"] for row in result["rows"]] == ["normal", "vamp:5"]
    assert "| vamp:5 |" in printed
    assert files(tmp_path) == {"gains.png", "priors.png", "result.json"}
