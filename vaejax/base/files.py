"""A file that is written whole or not at all."""

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
    finally:
        partial.unlink(missing_ok=True)
