"""Small bugs of the kind that a careful colleague makes, to be planted one at a time: each must be
caught by the tests nearest to it. The list is in tests/mutants/, chosen from the sources.
"""

import contextlib
import importlib.abc
import importlib.util
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lib.paths import ROOT

LIST = ROOT / "tests" / "mutants"


@dataclass(frozen=True)
class Mutant:
    """A text that stands once in a file, and what it becomes. `tests` are files below tests/."""

    name: str
    file: str
    old: str
    new: str
    means: str
    tests: tuple[str, ...]

    @property
    def wing(self) -> str:
        return Path(self.file).with_suffix("").parts[1]

    @property
    def module(self) -> str:
        return self.file.removesuffix(".py").replace("/", ".")

    def source(self, root: Path = ROOT) -> str:
        """The file with the bug in it; ValueError unless the text stands there once."""
        text = (root / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file};"
                " write the mutant anew for the source as it is"
            )
        return text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """The whole list. A file's own test module is where none is named."""
    numbers, listed = Counter(), []
    for path in sorted(LIST.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["mutants"]:
            file = Path(entry["file"])
            place = file.relative_to("vaejax")
            numbers[file] += 1
            own = [str(place.with_name(f"test_{file.name}"))]
            tests = tuple(entry.pop("tests", own))
            name = f"{place.with_suffix('')}-{numbers[file]}"
            listed.append(Mutant(name=name, tests=tests, **entry))
    return listed


# Planted in this process, which spares an import of JAX.


class _Planter(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Gives one module with the bug in its source."""

    def __init__(self, mutant: Mutant):
        self.mutant, self._path = mutant, str(ROOT / mutant.file)

    def find_spec(self, fullname, path, target=None):
        if fullname != self.mutant.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_filename(self, fullname):
        return self._path

    def get_data(self, path):
        if path != self._path:
            raise OSError("no bytecode of a bug is kept")
        return self.mutant.source().encode()


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Within it, `import vaejax` gives the library anew, with the bug; afterwards all is as it
    was.
    """
    ours = ("vaejax", "tests")
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ours}
    planter = _Planter(mutant)
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, planter)
    try:
        yield
    finally:
        sys.meta_path.remove(planter)
        for name in [name for name in sys.modules if name.split(".")[0] in ours]:
            del sys.modules[name]
        sys.modules.update(kept)


def fails_with(mutant: Mutant, test: str) -> bool:
    """Whether a test, `file::name` below tests/, fails while the bug is planted."""
    with planted(mutant):
        code = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"{ROOT / 'tests' / test}"]
        )
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"{test} could not be run with {mutant.name}: {code!r}")
    return code == pytest.ExitCode.TESTS_FAILED
