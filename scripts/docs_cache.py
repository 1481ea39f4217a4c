"""What is computed for the site is kept: each page's files lie in a folder with the digest of all
that they depend on, and are made anew when that is another.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "docs"
REPOSITORY = "https://github.com/vaejax/vaejax/blob/main"
AT_ONCE = 2  # pages
STAMP = ".state"  # the file that holds the state of what lies beside it


class PageError(Exception):
    """What a page does that it must not, in a message that says where."""


@cache
def library() -> bytes:
    """A digest of the library, of the versions of packages, and of this file."""
    sources = sorted((ROOT / "vaejax").rglob("*.py"))
    digest = hashlib.sha256(sys.version.encode())
    for path in [*sources, ROOT / "constraints.txt", Path(__file__)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()


def state_of(*parts: str | Path) -> str:
    """A digest of what a page depends on: the library, and texts or files beside it."""
    digest = hashlib.sha256(library())
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def shared_by_experiments() -> list[Path]:
    return sorted((ROOT / "experiments" / "lib").glob("*.py"))


class Computed(NamedTuple):
    """A page that computes: its name, such as notes/elbo, the digest of what it depends on, and how
    its files are made in an empty folder.
    """

    name: str
    state: str
    make: Callable[[Path], None]

    def folder(self, build: Path) -> Path:
        return build / "executed" / self.name

    def compute(self, build: Path) -> str | None:
        """Makes its files, unless those of this state are there. The message, if it fails."""
        began, folder = time.perf_counter(), self.folder(build)
        stamp = folder / STAMP
        if stamp.exists() and stamp.read_text() == self.state:
            return None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            self.make(folder)
        except PageError as error:
            print(f"FAILED {error}", file=sys.stderr, flush=True)
            return str(error)
        stamp.write_text(self.state)
        print(f"{self.name}: {time.perf_counter() - began:.0f} s", flush=True)
        return None


def compute_all(pages: Iterable[Computed], build: Path) -> list[str]:
    """Computes all pages, some at once; the messages of those that failed."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        messages = pool.map(lambda page: page.compute(build), pages)
        return [message for message in messages if message is not None]


def environment() -> dict[str, str]:
    """Of a process that computes: this tree's modules, and compiled programs that are kept."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(BUILD / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's own messages are not a page's
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "IPYTHONDIR": str(BUILD / "ipython"),
    }
