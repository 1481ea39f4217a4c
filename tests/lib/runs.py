"""Small runs on disk, by the command `vaejax`."""

import subprocess
import sys
from pathlib import Path

from vaejax.__main__ import main

SMALL = [
    "--hidden",
    "16",
    "--num-steps",
    "60",
    "--batch-size",
    "50",
    "--validate-every",
    "20",
    "--checkpoint-every",
    "20",
    "--eval-samples",
    "20",
]


def train(*flags: str) -> int:
    """The exit status of `vaejax train`, in this process."""
    return main(["train", *flags])


def vaejax_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`vaejax` in a process of its own, in a folder."""
    command = [sys.executable, "-m", "vaejax", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
