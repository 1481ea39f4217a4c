"""inference_gap.py, in short: the parts of the gap."""

import pytest

from tests.lib.scripts import files, run

SMALL = ["--latent-dim", "2", "--hidden", "16", "--num-steps", "300", "--learning-rate", "0.003"]


@pytest.mark.slow
def test_inference_gap(tmp_path):
    """Refining gains on each encoder, by 4.9 errors of a paired mean (a false alarm of 1e-6), and
    the parts add up to the gap.
    """
    flags = ["--encoder-steps", "100", "--encoders", "diag-normal", "full-normal"]
    flags += ["--refining-steps", "300"]
    flags += ["--refining-rate", "0.05", "--temperatures", "20", "--eval-size", "60"]
    flags += ["--bound-samples", "100"]
    result, printed = run("inference_gap", *SMALL, *flags, folder=tmp_path)
    for row in result["rows"]:
        approximation, amortisation = row["approximation"], row["amortisation"]
        assert amortisation["mean"] > 4.9 * amortisation["standard_error"]
        total = approximation["mean"] + amortisation["mean"]
        assert total == pytest.approx(row["gap"]["mean"], abs=1e-9)
    assert "| full-normal |" in printed
    assert files(tmp_path) == {"inference_gap.png", "result.json"}
