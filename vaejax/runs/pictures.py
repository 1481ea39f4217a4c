"""The pictures of a result, each one attempt: what cannot be drawn costs nothing else."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from vaejax.base.files import whole
from vaejax.plots.look import save

Drawn = TypeVar("Drawn")


def drawn(figures: Mapping[str, Callable[[], Figure]], out: Path) -> dict[str, str]:
    """Draws each as NAME.png in a folder, and says of each where it is or why it is not drawn."""
    said = {}
    for name, figure in figures.items():
        path, notes = out / f"{name}.png", []
        if attempted(f"{name}.png", lambda f=figure, path=path: _save(f(), path), notes) is None:
            path.unlink(missing_ok=True)  # that of an earlier state would pass for this one's
        said[name] = notes[0] if notes else path.name
    return said


def attempted(name: str, draw: Callable[[], Drawn], notes: list[str]) -> Drawn | None:
    """What `draw()` gives, or None and a note of why not, which is printed too."""
    try:
        return draw()
    except Exception as error:  # whatever it is, it is about a picture alone
        reason = " ".join(str(error).split()) or type(error).__name__
        notes.append(f"{name} is not drawn: {reason}")
        print(notes[-1], file=sys.stderr)
        return None


def _save(figure: Figure, path: Path) -> Path:
    with whole(path) as partial:
        save(figure, partial)
    return path
