"""`vaejax train --distributed`: processes of their own on this host, as Slurm would start them."""

import json
import signal
import time

import numpy as np
import pytest

from tests.lib.processes import ended, ran, started
from tests.lib.runs import SMALL, files_in, made_run, train, vaejax_here
from vaejax.runs.config import TrainConfig, check_config
from vaejax.runs.lock import claimed
from vaejax.runs.sweep import SweepConfig

pytestmark = pytest.mark.usefixtures("elsewhere")

COMMAND = ["-m", "vaejax", "train", *SMALL, "--distributed"]
LONG = [*COMMAND, "--num-steps", "1000000", "--checkpoint-every", "20", "--out", "run"]
PATIENCE = 60  # seconds until a process has left that waits for one that is gone


def files_of(folder):
    return {path.name for path in folder.iterdir()}


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one(tmp_path):
    flags = ["--sharding", "fully-sharded", "--out", "two"]
    first, second = ran([*COMMAND, *flags], 2, folder=tmp_path)
    vaejax_here("train", *SMALL, "--out", "one", folder=tmp_path)
    alone, shared = tmp_path / "one", tmp_path / "two"
    assert files_of(alone) == files_of(shared)
    for left, right in zip(rows_of(alone), rows_of(shared), strict=True):
        assert left.keys() == right.keys()
        np.testing.assert_allclose([*left.values()], [*right.values()], rtol=1e-5)
    results = [json.loads((folder / "result.json").read_text()) for folder in (alone, shared)]
    np.testing.assert_allclose(*(result["test_elbo"] for result in results), rtol=1e-5)
    assert results[1]["config"]["distributed"] and results[1]["device"].startswith("2 x ")
    assert json.loads(first.out.splitlines()[-1])["test_elbo"] == results[1]["test_elbo"]
    assert "step/s" in first.err
    assert own(second.out) == [] and "step/s" not in second.err


def own(text):
    """What is not Gloo's."""
    return [line for line in text.splitlines() if not line.startswith("[Gloo]")]


@pytest.mark.slow
def test_what_cannot_be_is_refused_by_all(tmp_path):
    """And neither waits for the other, nor is anything changed."""
    made_run(tmp_path / "run")
    before = files_in(tmp_path)
    with claimed(tmp_path / "run"):
        for flags, message in (
            ([], "run already holds a run: --resume it"),
            (["--overwrite", "--devices", "1"], "takes all 2 devices of all processes; leave out"),
            (["--overwrite"], "run is in use by process"),
        ):
            finished = ended(started([*COMMAND, "--out", "run", *flags], 2, 1, tmp_path))
            assert [process.status for process in finished] == [2, 2]
            assert all(message in process.err for process in finished), finished
    assert files_in(tmp_path) == before


def training(folder, steps_before):
    """Two processes that have saved a step beyond those before."""
    flags = ["--resume"] if steps_before else []
    processes = started([*LONG, *flags], 2, 1, folder)
    end = time.monotonic() + 240
    while time.monotonic() < end and not saved_steps(folder) - steps_before:
        time.sleep(0.2)
    return processes


def saved_steps(folder):
    steps = (folder / "run" / "checkpoints").glob("[0-9]*")
    return {int(path.name) for path in steps if path.name.isdigit()}


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_what_ends_one_process_ends_all_and_the_checkpoint_serves(victim, tmp_path):
    processes = training(tmp_path, set())
    processes[victim].kill()
    killed = time.monotonic()
    finished = ended(processes)
    assert time.monotonic() - killed < PATIENCE
    other = finished[1 - victim]
    if victim == 1:  # of process 0, which all ask for the others, JAX itself may speak first
        assert other.status == 3, other.err[-3_000:]
    if other.status == 3:
        assert "is gone or does not answer; start all of them with resume=True" in other.err
    else:
        assert "another task died" in other.err

    before = saved_steps(tmp_path)
    processes = training(tmp_path, before)
    processes[victim].send_signal(signal.SIGTERM)
    finished = ended(processes)
    assert [process.status for process in finished] == [143, 143], finished[0].err[-3_000:]
    last = max(saved_steps(tmp_path))
    assert last > max(before)
    flags = ["--resume", "--num-steps", str(last + 20), "--out", "run"]
    text = vaejax_here("train", *flags, folder=tmp_path)
    assert json.loads(text.splitlines()[-1])["step"] == last + 20
    assert len(rows_of(tmp_path / "run")) >= (last + 20) // 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals",
    [((0, signal.SIGINT), (1, signal.SIGTERM)), ((1, signal.SIGINT), (0, signal.SIGINT)) * 2],
    ids=["two at once", "Ctrl-C twice"],
)
def test_whatever_signals_come_all_end_and_a_checkpoint_serves(signals, tmp_path):
    processes = training(tmp_path, set())
    sent = time.monotonic()
    for number, kind in signals:
        processes[number].send_signal(kind)
    finished = ended(processes)
    assert time.monotonic() - sent < PATIENCE
    assert all(process.status != 0 for process in finished)
    last = max(saved_steps(tmp_path))
    flags = ["--resume", "--num-steps", str(last + 20), "--out", "run"]
    text = vaejax_here("train", *flags, folder=tmp_path)
    assert json.loads(text.splitlines()[-1])["step"] == last + 20


@pytest.mark.slow
def test_one_clock_ends_all(tmp_path):
    flags = ["--max-minutes", "0.01"]
    first, second = ran([*LONG, *flags], 2, folder=tmp_path)
    result = json.loads(first.out.splitlines()[-1])
    assert "0.01 minutes are over at step" in result["stopped"]
    assert "go on with vaejax train --resume --out run" in first.err
    assert own(second.out) == [] and "minutes are over" not in second.err


def test_a_job_that_is_none_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("jax.distributed.initialize", not_found)
    assert train("--distributed") == 2
    error = capsys.readouterr().err
    assert "error: the other processes of this job are not found (ValueError: coordinator" in error
    assert list(tmp_path.iterdir()) == []


def not_found():
    raise ValueError("coordinator_address should be defined.")


def test_a_sweep_is_of_one_process():
    check_config(TrainConfig(distributed=True))
    with pytest.raises(ValueError, match="a sweep runs in one process; leave out --distributed"):
        check_config(SweepConfig(distributed=True))
