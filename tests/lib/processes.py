"""Several processes on this host, as Slurm would start them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LONGEST = 300  # seconds


class Ended(NamedTuple):
    """A process that has ended."""

    status: int
    out: str
    err: str


def started(
    arguments: Sequence[str], count: int, devices: int, folder: Path | None = None
) -> list[subprocess.Popen[str]]:
    """So many processes of Python with these arguments, each with so many devices."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job = free.getsockname()[1] % 4096  # the port is made of it: another for each test
    flags = [os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={devices}"]
    shared = {
        "SLURM_JOB_ID": str(job),
        "SLURM_NTASKS": str(count),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "XLA_FLAGS": " ".join(flags),
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | shared | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[Ended]:
    """What each has printed, when all have ended; none outlives the test."""
    try:
        printed = [process.communicate(timeout=LONGEST) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        Ended(process.returncode, *texts) for process, texts in zip(processes, printed, strict=True)
    ]


def ran(
    arguments: Sequence[str], count: int, devices: int = 1, folder: Path | None = None
) -> list[Ended]:
    """They run to a good end."""
    processes = ended(started(arguments, count, devices, folder))
    for number, process in enumerate(processes):
        assert process.status == 0, f"process {number}: {process.err[-3_000:]}"
    return processes


def killed(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
