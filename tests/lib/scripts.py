"""An experiment as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.lib.paths import EXPERIMENTS


def script(name: str) -> Path:
    """The experiment of this name, in whichever topic's folder it is."""
    (path,) = EXPERIMENTS.rglob(f"{name}.py")
    return path


def attempt(name: str, *flags: str, folder: Path) -> subprocess.CompletedProcess:
    """What comes of a command line, right or wrong."""
    command = [sys.executable, str(script(name)), *flags, "--out", str(folder / "out")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def run(name: str, *flags: str, folder: Path) -> tuple[dict, str]:
    """The last line of an experiment's output, and all of it, but for spaces that align columns."""
    done = attempt(name, *flags, folder=folder)
    assert done.returncode == 0, done.stderr
    printed = re.sub(r" +\|", " |", done.stdout)
    return json.loads(done.stdout.strip().splitlines()[-1]), printed


def files(folder: Path) -> set[str]:
    """The names of what an experiment left in its folder."""
    return {path.name for path in (folder / "out").iterdir()}
