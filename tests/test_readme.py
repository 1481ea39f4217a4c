"""The README's notebook examples run as they stand, one after the other, but for the length of the
training.
"""

import re

from tests.lib.paths import ROOT

README = (ROOT / "README.md").read_text()


def test_the_examples_run(capsys):
    names = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(code.replace("num_steps=5_000", "num_steps=5, progress=False"), names)
    assert names["m2"].latents == ("y", "z")
    assert names["run"].step == 5
    assert names["laplace"].prior != names["vamp"].prior
    assert capsys.readouterr().out.startswith("ELBO         -")


def test_its_files_are_there():
    root = ROOT
    for path in re.findall(r"(?:docs|experiments|scripts|tests)/\w+\.\w+", README):
        assert (root / path).exists(), path
