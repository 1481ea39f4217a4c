"""representation.py, in short: what it leaves."""

import pytest

from tests.lib.scripts import files, run


@pytest.mark.slow
def test_representation(tmp_path):
    """Both parts, each with a row for every setting."""
    flags = ["--num-steps", "20", "--hidden", "8", "--latent-dim", "3"]
    flags += ["--label-counts", "20", "40", "--num-choices", "2"]
    flags += ["--betas", "1", "4", "--shape-latent-dim", "3", "--shape-steps", "20"]
    flags += ["--shape-examples", "200"]
    result, printed = run("representation", *flags, folder=tmp_path)
    assert len(result["digits"]) == 2 * 3 * 2  # probes, features, numbers of labels
    assert [(row["beta"], row["seed"]) for row in result["shapes"]] == [
        (1.0, 0),
        (1.0, 1),
        (4.0, 0),
        (4.0, 1),
    ]
    assert "| linear probe | posterior means, 3 |" in printed and "| beta | MIG |" in printed
    assert files(tmp_path) == {"probes.png", "disentanglement.png", "traversals.png", "result.json"}
