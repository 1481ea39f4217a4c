"""An experiment as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.lib.paths import EXPERIMENTS


def run(name: str, *flags: str, folder: Path) -> tuple[dict, str]:
    """The last line of an experiment's output, and all of it."""
    command = [sys.executable, str(EXPERIMENTS / f"{name}.py"), *flags]
    command += ["--out", str(folder / "out")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stdout
