"""bayesian_decoder.py: more images settle the weights."""

import pytest

from tests.lib.scripts import files, run


@pytest.mark.slow
def test_bayesian_decoder(tmp_path):
    """The weights of 30 images are less settled than those of 1,000: the deviation was 1.5 to 2
    times as large in four seeds.
    """
    flags = (
        "--latent-dim 2 --hidden 16 --train-counts 30 1000 --num-steps 800 --learning-rate 0.003"
    )
    flags += " --theta-draws 4 --eval-samples 10 --eval-size 50"
    result, printed = run("bayesian_decoder", *flags.split(), folder=tmp_path)
    few, many = result["rows"]
    assert few["deviation"] > 1.2 * many["deviation"] > 0
    assert few["gain"]["mean"] < many["gain"]["mean"]
    assert "| 1000 |" in printed
    assert files(tmp_path) == {"bayesian_decoder.png", "uncertainty.png", "result.json"}
