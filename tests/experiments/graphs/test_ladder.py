"""The hierarchy of five layers as a user trains it, in short."""

import pytest

from tests.lib.scripts import files, run


@pytest.mark.slow
def test_ladder(tmp_path):
    """The top layer dies under the plain ELBO, and lives with a warm-up and free bits: 0.002 to
    0.005 and 0.46 to 0.51 in 4 seeds.
    """
    flags = ["--latent-dims", "6", "4", "2", "--hidden", "30", "--num-steps", "800"]
    flags += ["--warm-up", "320", "--eval-size", "100", "--learning-rate", "0.003"]
    result, printed = run("ladder", *flags, "--inference", "top-down", folder=tmp_path)
    plain, helped = result["rows"]
    assert plain["kl"]["z3"] < 0.1 < helped["kl"]["z3"] and plain["used"] < helped["used"] == 3
    assert "| top-down | plain |" in printed
    assert files(tmp_path) == {"graph.png", "ladder.png", "result.json"}
