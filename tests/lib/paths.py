"""Where things lie, and what is in them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
SHARED = ROOT.parent / "shared" / "data"
needs_mnist = pytest.mark.skipif(not (SHARED / "mnist.npz").exists(), reason="mnist.npz is absent")


def contents(folder: Path) -> dict[str, tuple[bytes | None, int]]:
    """{path: (bytes, or None of a folder; when it was changed)} of all that lies in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else None,
            path.stat().st_mtime_ns,
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }
