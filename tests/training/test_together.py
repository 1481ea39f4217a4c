"""Processes that train together, as docs/scale.md says: its own script, under Slurm's variables."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def started(script, process, count, job):
    """One of so many processes on this host, each with its share of four devices."""
    environment = {
        "SLURM_JOB_ID": str(job),  # the port is made of it
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": "0",  # which JAX takes for the number of the device to use
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(4 // count))),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={4 // count}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def bounds(script, count):
    """What the processes print, by process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job = free.getsockname()[1] % 4096  # another port for each test
    processes = [started(script, number, count, job) for number in range(count)]
    try:
        printed = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, printed, strict=True):
        assert process.returncode == 0, errors[-2_000:]
    text = "".join(out for out, _ in printed)
    return [float(x) for _, x in sorted(re.findall(r"process (\d+): (\S+) nats", text))]


@pytest.mark.slow
def test_two_processes_train_as_one():
    """Within rounding, which 200 steps make larger."""
    script = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert script is not None
    (alone,) = bounds(script[1], 1)
    together = bounds(script[1], 2)
    assert len(together) == 2 and together[0] == together[1]
    assert abs(together[0] - alone) < 0.02
