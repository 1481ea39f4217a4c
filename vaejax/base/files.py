"""Files that are written whole or not at all, and names that every library can take."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which becomes `path` in one move at the end.

    A kill or an error leaves the old file or the new one, and no third.
    """
    partial = path.with_name(f".{secrets.token_hex(4)}.{path.name}")  # a suffix says its kind
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # as where the disk is full
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def absolute_path(name: str | Path) -> Path:
    """The path from the root on, "~" being the home folder where that is known."""
    return Path(os.path.expanduser(str(name))).absolute()


def nameable(path: str | Path, name: str) -> Path:
    """The absolute path. Raises ValueError where there is none, or where it is no UTF-8, which is
    all that the library beneath the checkpoints takes: it would be found out at the first save.
    """
    try:
        whole_path = Path(path).absolute()
    except FileNotFoundError:
        raise ValueError(
            f"{name} = {path}: the working folder is gone; go to another, or name this one in full"
        ) from None
    try:
        str(whole_path).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"{name} = {str(whole_path)!a}: the locale's encoding is not UTF-8; name"
            " another folder, or set PYTHONUTF8=1"
        ) from None
    return whole_path
