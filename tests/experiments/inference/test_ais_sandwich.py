"""ais_sandwich.py, in short: the sandwich closes."""

import pytest

from tests.lib.scripts import files, run

SMALL = ["--latent-dim", "2", "--hidden", "16", "--num-steps", "300", "--learning-rate", "0.003"]


@pytest.mark.slow
def test_ais_sandwich(tmp_path):
    """More temperatures close the sandwich: 5 leave nats open, 100 at most a tenth of that."""
    flags = ["--temperature-counts", "5", "100", "--num-simulated", "20", "--eval-size", "10"]
    flags += ["--eval-samples", "200"]
    flags += ["--num-leapfrog", "5"]
    result, printed = run("ais_sandwich", *SMALL, *flags, folder=tmp_path)
    few, many = (row["gap"]["mean"] for row in result["rows"])
    assert few > 0.5 and many < 0.1 * few
    # The same pixels, the same model.
    importance = result["iwae"]["200"]["mean"]
    assert result["rows"][-1]["real"]["mean"] == pytest.approx(importance, abs=0.1)
    assert "| 100 |" in printed
    assert files(tmp_path) == {"ais_sandwich.png", "result.json"}
