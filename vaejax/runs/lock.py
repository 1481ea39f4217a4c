"""One process at a time writes into a folder."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX here
    fcntl = None

LOCKS = {"run": ".run.lock", "evaluation": ".evaluation.lock"}  # who writes which files


class InUseError(ValueError):
    """Another process writes into the folder."""


@contextmanager
def claimed(folder: Path, files: str = "run") -> Iterator[None]:
    """The folder, made where there is none, in which no other process writes these files meanwhile.

    `files` are those of a "run" or of its "evaluation", which is allowed while the run goes on.
    The system itself releases the lock of a process that has died, on network drives too; where a
    drive has no locks, that is said, and nothing is refused. Raises InUseError where another
    process holds it. A folder that was made here and is left empty is removed again.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCKS[files]
    try:
        lock = _locked(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)
    finally:
        with suppress(OSError):  # it holds something
            for path in made:
                path.rmdir()


def _locked(path: Path) -> int:
    """The open file of a lock that this process holds."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _is_free(file, path):
                owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
                raise InUseError(
                    f"{path.parent} is in use by {owner}; wait for it, or name another folder"
                )
            if _is_at(file, path):
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the one who held it has removed it since: make it anew


def _is_free(file: int, path: Path) -> bool:
    """Takes the lock, unless another process holds it."""
    try:
        if fcntl is None:
            raise OSError("this system has no locks")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # such as a network drive without locks
        print(
            f"{path.parent} cannot be locked ({error}): see that no other process writes into it",
            file=sys.stderr,
        )
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is still the one at the path."""
    return path.exists() and os.path.samestat(os.fstat(file), path.stat())
