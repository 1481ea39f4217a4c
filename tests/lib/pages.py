"""What a reader runs of a page: its blocks one after the other, but for the length of the training.

Nothing of the tests is imported here, so that an environment that has the wheel alone can run a
copy of this file:

    python pages.py PAGE.md ...
"""

import glob
import re
import shlex
import sys
from pathlib import Path

from vaejax.__main__ import main

SHORT = {
    "train": "--num-steps 6 --hidden 8 --eval-samples 4 --validate-every 3",
    "evaluate": "--eval-samples 4 --ais-size 0 --simulations 5 --sample-size 0 --eval-size 20",
}
SHORT["sweep"] = SHORT["train"]
SHORT_STEPS = (("num_steps=5_000", "num_steps=5, progress=False"), ("num_steps=200", "num_steps=4"))
# What a block takes to be there: data of the reader's own.
OWN_DATA = """
import numpy as np
np.savez("my.npz", images=np.arange(200 * 64).astype(np.uint8).reshape(200, 8, 8))
rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(200)]
open("table.csv", "w").write("\\n".join(["width,height,kind", *rows]))
"""
# Of an installation, and of a checkout.
NOT_RUN = ("pip", "make")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each block that is run; one without a language is not."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run_line(line: str) -> None:
    """A line of a shell, of which each is a command `vaejax`."""
    program, command, *flags = shlex.split(line, comments=True)
    if program in NOT_RUN:
        return
    assert program == "vaejax", line
    expanded = [name for flag in flags for name in (sorted(glob.glob(flag)) or [flag])]
    try:
        status = main([command, *expanded, *shlex.split(SHORT.get(command, ""))])
    except SystemExit as stop:  # of --help
        status = stop.code
    assert status == 0, line


def run_page(text: str) -> dict:
    """Runs every block in the working directory; the names that its Python has defined."""
    exec(OWN_DATA, {})
    names = {}
    for language, code in blocks(text):
        if language == "python":
            for steps, fewer in SHORT_STEPS:
                code = code.replace(steps, fewer)
            exec(code, names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            run_line(line)
    return names


if __name__ == "__main__":
    for page in sys.argv[1:]:
        run_page(Path(page).read_text())
