"""One process at a time writes into a folder, held by real processes."""

import os
import signal
import subprocess
import sys

import pytest

from tests.lib.paths import ROOT
from vaejax.runs.lock import InUseError, claimed

# The module alone, which needs nothing else of vaejax, so that a process is there at once.
HOLDER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "vaejax/runs")!r})
import lock
with lock.claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path / "run"` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_of_the_first(holder, tmp_path):
    folder = tmp_path / "run"
    said = f"in use by process {holder.pid} on .*; wait"
    with pytest.raises(InUseError, match=said), claimed(folder):
        pytest.fail("two processes in one folder")
    with claimed(folder, "evaluation"):  # which writes other files
        pass
    holder.communicate()
    with claimed(folder):
        assert str(os.getpid()) in (folder / ".run.lock").read_text()
    assert not folder.exists()  # the other one has made it, and it was left empty


def test_the_lock_of_a_process_that_was_killed_is_free(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.run.lock").exists()
    with claimed(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path):
    with pytest.raises(RuntimeError), claimed(tmp_path / "a/b"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path / "a/b"):
        (tmp_path / "a/b/file").touch()
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["file"]


def test_without_locks_it_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vaejax.runs.lock.fcntl", None)
    with claimed(tmp_path):
        pass
    assert "cannot be locked (this system has no locks)" in capsys.readouterr().err
