"""An experiment as a user runs it."""

import json
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from tests.lib.paths import EXPERIMENTS
from tests.lib.runs import printed_by


def script(name: str) -> Path:
    """The experiment of this name, in whichever topic's folder it is; a table of
    experiments/reproduce may have its name.
    """
    paths = EXPERIMENTS.rglob(f"{name}.py")
    (path,) = (path for path in paths if path.parent.name != "reproduce")
    return path


def attempt(name: str, *flags: str, folder: Path) -> subprocess.CompletedProcess:
    """What comes of a command line, right or wrong."""
    command = [sys.executable, str(script(name)), *flags, "--out", str(folder / "out")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def run(name: str, *flags: str, folder: Path) -> tuple[dict, str]:
    """What `read` takes from the output of an experiment, in a process of its own."""
    done = attempt(name, *flags, folder=folder)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def run_here(name: str, *flags: str, folder: Path) -> tuple[dict, str]:
    """As `run`, in this process, without the seconds that another takes to start."""
    arguments = [*flags, "--out", str(folder / "out")]
    return read(printed_by(partial(run_script, script(name), *arguments), folder))


def run_script(path: Path, *arguments: str) -> int:
    """The exit status of a script, in this process."""
    with mock.patch.object(sys, "argv", [str(path), *arguments]), pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    return stop.value.code


def read(printed: str) -> tuple[dict, str]:
    """The last line of an experiment's output, and all of it, but for spaces that align columns."""
    return json.loads(printed.strip().splitlines()[-1]), re.sub(r" +\|", " |", printed)


def files(folder: Path) -> set[str]:
    """The names of what an experiment left in its folder."""
    return {path.name for path in (folder / "out").iterdir()}
