"""Where a command may leave its files, and what of an earlier run it may replace."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from vaejax.base.checks import shortened
from vaejax.base.files import nameable
from vaejax.runs.config import TrainConfig
from vaejax.runs.continuation import RUN_RECORD
from vaejax.runs.files import read_json
from vaejax.runs.lock import LOCKS, claimed

PICTURES = ("samples", "reconstructions", "latent", "curves")  # what training draws

# All that a run, its evaluation and its draws write, and so all that may be replaced. The last
# says that a folder is a run, so it is moved last too: half a run is never taken for a whole one.
RUN_FILES = (
    "checkpoints",
    "metrics.jsonl",
    "log.csv",
    "tensorboard",
    "wandb",
    "result.json",
    *(f"{name}.png" for name in PICTURES),
    "evaluation.json",
    "evaluation-*-*-*-*.jsonl*",
    "report.html",
    "draws.npz",
    "draws.png",
    "config.json",
)
LONGEST_NAME = 255  # bytes, of a file


def place_of(out: str | Path, flag: str = "out") -> Path:
    """The folder that a flag names, "~" being the home folder. Raises ValueError where it cannot
    be made or written into, before any work is done for it.
    """
    place = expanded(out, flag)
    nearest = next(path for path in (place, *place.absolute().parents) if os.path.lexists(path))
    if not nearest.exists():
        raise ValueError(f"{flag} = {out}: {nearest} is a link to nothing; name a folder")
    if not nearest.is_dir():
        raise ValueError(f"{flag} = {out}: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{flag} = {out}: {nearest} cannot be written to; name another folder")
    return place


def expanded(name: str | Path, flag: str) -> Path:
    """The path of this name, "~" being the home folder; ValueError for what can be no path."""
    text = str(name)
    path = os.path.expanduser(text)
    if not text.strip():
        raise ValueError(f"{flag} = {text!r} is empty; name a folder")
    if "\0" in text or any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(path).parts):
        raise ValueError(f"{flag} = {shortened(text)}: nothing can have this name; name a folder")
    if text.startswith("~") and path == text:
        raise ValueError(f"{flag} = {text}: this home folder is not known; name a folder in full")
    nameable(path, flag)
    return Path(path)


def is_run(folder: Path) -> bool:
    """Whether its config.json is a run's: other tools write files of this name too."""
    path = folder / "config.json"
    try:
        return path.is_file() and bool(read_json(path, *RUN_RECORD))
    except ValueError:
        return False


def require_free(config: TrainConfig) -> None:
    """Raises ValueError rather than write over another run, or over what is none."""
    out = place_of(config.out)
    names = holds_files(out)
    if config.resume or not names:
        return
    if not is_run(out):
        raise ValueError(
            f"{out} is not a run, and is not overwritten: it holds {listed(names)}; name another"
            " --out"
        )
    if not config.overwrite:
        raise ValueError(
            f"{out} already holds a run: --resume it, --overwrite it, or name another --out"
        )
    strangers = [path.name for path in _inside(out / "checkpoints") if not _is_checkpoint(path)]
    if strangers:
        raise ValueError(
            f"{out / 'checkpoints'} holds {listed(strangers)}, which no run has written; move it"
            " elsewhere, or name another --out"
        )


def holds_files(folder: Path) -> list[str]:
    """The names in a folder, but for the locks of processes that were killed; none where there is
    no folder.
    """
    return [path.name for path in _inside(folder) if path.name not in LOCKS.values()]


def listed(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_checkpoint(path: Path) -> bool:
    """Whether it is a step that was saved, one that was cut off, or one that was moved aside."""
    parts = {part.name for part in _inside(path)}
    saved = path.name.isdigit() and (not parts or bool(parts & {"record", "state"}))
    return saved or path.name in ("damaged", "trash") or "orbax-checkpoint-tmp" in path.name


class Kind(NamedTuple):
    """What a folder may hold that a later one of its kind replaces: its name, the patterns of its
    files, the last of which says that it is one, and how a folder that holds one, or holds what
    must not be lost, is known.
    """

    name: str
    files: tuple[str, ...]
    is_one: Callable[[Path], bool]
    has_results: Callable[[Path], bool]


@contextmanager
def replacing(out: Path, kind: Kind, *, resume: bool) -> Iterator[None]:
    """The work that fills a folder, in which an older one of its kind may lie.

    The older one lies in `replaced-N/` meanwhile, and is removed where the work ends well. An error
    before the new one has results puts it back; a later one leaves both. What lies beside the files
    of this kind stays where it is.
    """
    older = None
    if not resume and kind.is_one(out):
        with claimed(out, "evaluation"):  # else that of the older one would come to the new one
            older = _moved_aside(out, kind.files)
    try:
        yield
    except BaseException:
        if not resume and not kind.has_results(out):
            _remove(out, kind.files)
            _put_back(older, out, kind.files)
        elif older is not None:
            print(
                f"the {kind.name} that this one replaces is in {older} until it ends",
                file=sys.stderr,
            )
        raise
    for folder in out.glob("replaced-*"):
        if kind.is_one(folder) and not folder.is_symlink():
            shutil.rmtree(folder)


def training_in(out: Path, *, resume: bool) -> AbstractContextManager[None]:
    """The training of a run, in a folder in which an older one may lie that `require_free` has said
    may be replaced.
    """
    return replacing(out, Kind("run", RUN_FILES, is_run, _has_results), resume=resume)


def _has_results(out: Path) -> bool:
    """Whether a training has saved a checkpoint or a mean of its bound."""
    metrics = out / "metrics.jsonl"
    saved = any(path.name.isdigit() for path in _inside(out / "checkpoints"))
    return saved or (metrics.exists() and metrics.stat().st_size > 0)


def _moved_aside(out: Path, patterns: tuple[str, ...]) -> Path:
    """The folder in `out` that these files of it are moved to."""
    taken = {path.name for path in out.iterdir()}
    names = (f"replaced-{number}" for number in range(1, len(taken) + 2))
    older = out / next(name for name in names if name not in taken)
    older.mkdir()
    try:
        for path in files_of(out, patterns):
            path.rename(older / path.name)
    except BaseException:
        _put_back(older, out, patterns)
        raise
    return older


def _put_back(older: Path | None, out: Path, patterns: tuple[str, ...]) -> None:
    if older is not None:
        for path in files_of(older, patterns):
            path.rename(out / path.name)
        older.rmdir()


def _remove(out: Path, patterns: tuple[str, ...]) -> None:
    for path in files_of(out, patterns):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def files_of(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Those that are there, in the order of the patterns."""
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]
