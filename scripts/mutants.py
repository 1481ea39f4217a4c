"""Plants each bug of tests/mutants/ in a scratch copy of the tree, and runs the tests that cover
it: every one must be caught.

    python scripts/mutants.py                        # all; `make mutants`
    python scripts/mutants.py estimators/pathwise    # those whose name starts so

Prints a row for each, and exits with 1 unless each was caught. Each has a process of its own,
forked from one that has JAX imported already; compiled programs are kept: a bug changes few.
"""

import argparse
import importlib
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CAUGHT, BROKEN = "caught", "broken"
# By pytest's exit code. 2: the library cannot be imported; None: no end in time, such as of a loop.
OUTCOMES = {0: "missed", 1: CAUGHT, 2: CAUGHT, None: "timeout"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="the beginnings of names; all, if none is given")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one")
    parser.add_argument("--logs", type=Path, help="a folder for the output of the tests")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        set_environment(Path(scratch))
        whole = run_all(arguments, Path(scratch))
    sys.exit(0 if whole else 1)


def set_environment(scratch: Path) -> None:
    """For the tests: programs are compiled in haste, once for all copies."""
    os.environ["VAEJAX_HASTE"] = "1"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(scratch / "programs"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def run_all(arguments: argparse.Namespace, scratch: Path) -> bool:
    """Whether each was caught."""
    from tests.lib.mutants import mutants

    chosen = [mutant for mutant in mutants()
              if not arguments.names or mutant.name.startswith(tuple(arguments.names))]  # fmt: skip
    import_what_tests_import()
    waiting, free = (
        iter(chosen),
        [copied_tree(scratch / f"copy-{i}") for i in range(arguments.jobs)],
    )
    running: dict[int, tuple] = {}
    counts = dict.fromkeys([*OUTCOMES.values(), BROKEN], 0)
    for mutant in waiting_for(running, free, waiting, arguments):
        counts[mutant[1]] += 1
        print("{0.name:<45} {1:<8} {2:6.1f} s  {0.means}".format(*mutant), flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    return counts[CAUGHT] == len(chosen)


def waiting_for(running: dict, free: list[Path], waiting: Iterator, arguments) -> Iterator[tuple]:
    """(mutant, outcome, seconds) of each, as they end."""
    while True:
        while free and (mutant := next(waiting, None)) is not None:
            copy = free.pop()
            (copy / mutant.file).write_text(mutant.source(copy))
            running[start_tests(mutant, copy, arguments.logs)] = mutant, copy, time.monotonic()
        if not running:
            return
        time.sleep(0.1)
        for process, (mutant, copy, began) in list(running.items()):
            seconds = time.monotonic() - began
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended and seconds < arguments.timeout:
                continue
            if not ended:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            code = os.waitstatus_to_exitcode(status) if ended else None
            del running[process]
            shutil.copy2(ROOT / mutant.file, copy / mutant.file)
            free.append(copy)
            yield mutant, OUTCOMES.get(code, BROKEN), seconds


def start_tests(mutant, copy: Path, logs: Path | None) -> int:
    """The process that runs the tests of a mutant in a copy of the tree."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.chdir(copy)
        output = os.devnull
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            output = str(logs / f"{mutant.name.replace('/', '.')}.log")
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path[:] = [str(copy), *(path for path in sys.path if path not in ("", str(ROOT)))]
        import pytest

        paths = [str(copy / "tests" / test) for test in mutant.tests]
        code = int(
            pytest.main(
                ["-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", *paths]
            )
        )
    finally:
        sys.stdout.flush()
        os._exit(code)


def import_what_tests_import() -> None:
    """All but the library itself, which each process takes from its own copy."""
    for name in ("flax.linen", "numpyro.distributions", "optax", "orbax.checkpoint", "scipy.stats"):
        importlib.import_module(name)
    assert not [name for name in sys.modules if name.split(".")[0] == "vaejax"]


def copied_tree(target: Path) -> Path:
    """The tracked files as they are here, with bytecode that is held against the source by its
    contents: two bugs of one length may be planted within one second.
    """
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in files.stdout.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target / name)
    for path in (target / "vaejax").rglob("*.py"):
        py_compile.compile(str(path), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return target


if __name__ == "__main__":
    main()
