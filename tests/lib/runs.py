"""Small runs on disk, by the command `vaejax`."""

import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from vaejax.__main__ import main
from vaejax.runs.config import TrainConfig

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


# Commands that run in the process of the tests leave JAX's settings as they are.
OWN_SETTINGS = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def printed_by(command: Callable[[], Any], folder: Path) -> str:
    """What a command prints that runs in this process, in a folder, and succeeds."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, OWN_SETTINGS),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = command()
    assert status == 0, err.getvalue()
    return out.getvalue()


def vaejax_here(*arguments: str, folder: Path) -> str:
    """What `vaejax` prints in this process, without the seconds that another takes to start."""
    return printed_by(lambda: main([*arguments]), folder)


def made_run(folder: Path, step: int = 20) -> Path:
    """The files of a run, without a training."""
    step_folder = folder / "checkpoints" / str(step) / "record"
    step_folder.mkdir(parents=True)
    (step_folder / "metadata").write_text(str(step))
    config = dataclasses.asdict(TrainConfig(out=str(folder)))
    record = {"config": config, "data": "digits", "versions": {}}
    (folder / "config.json").write_text(json.dumps(record))
    for name in ("metrics.jsonl", "result.json", "evaluation-60-60-40-0.jsonl", "latent.png"):
        (folder / name).write_text(f"{name} of step {step}")
    return folder


def files_in(folder: Path) -> dict[str, tuple]:
    """{name: (kind, when it was changed, bytes)} of all below; of links where they lead."""
    facts_of = {}
    for path in sorted(folder.rglob("*")):
        name, facts = str(path.relative_to(folder)), path.lstat()
        if path.is_symlink():
            facts_of[name] = ("link", facts.st_mtime_ns, os.readlink(path))
        elif path.is_dir():
            facts_of[name] = ("folder",)
        else:
            facts_of[name] = ("file", facts.st_mtime_ns, path.read_bytes())
    return facts_of
