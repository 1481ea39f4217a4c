"""Pictures made of signals: vectors, each a line over its index."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from vaejax.base.checks import require_count
from vaejax.evaluation.features import finite_rows
from vaejax.plots.look import BLUE, GREY, ORANGE, TITLE, bare, figure_of

CELL = (0.9, 0.6)  # inches: a signal of a grid
SHARE = 0.85  # of a cell that a signal takes


def signal_grid(kinds: Sequence[np.ndarray], columns: int, title: str = "") -> Figure:
    """Signals [n, d] of some kinds, at most three, row by row: those of place i share a cell, the
    last kind on top, and all have one scale. Raises ValueError for none, and for numbers that are
    not finite.
    """
    require_count(columns, "columns")
    values = np.asarray([finite_rows(kind, "signals") for kind in kinds])
    if values.ndim != 3 or not 1 <= len(kinds) <= 3 or not values.shape[1]:
        raise ValueError(f"signals have the shape {values.shape}; give 1 to 3 kinds of [n, d]")
    low, high = values.min(), values.max()
    heights = SHARE * (values - low) / (high - low if high > low else 1)
    _, count, length = values.shape
    rows, places = -(-count // columns), np.linspace(0, SHARE, length)
    figure, [[axes]] = figure_of(size=(CELL[0] * columns, CELL[1] * rows + (0.4 if title else 0)))
    for kind, colour in zip(heights, (ORANGE, GREY, BLUE)[-len(kinds) :], strict=True):
        lines = [
            np.column_stack([places + i % columns, signal - i // columns])
            for i, signal in enumerate(kind)
        ]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=1))
    axes.set(xlim=(-0.05, columns), ylim=(-rows + 0.95, 0.95))
    axes.set_title(title, fontsize=TITLE)
    bare(axes)
    return figure


def is_signal(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is shown as a line: [d] of several numbers."""
    return len(shape) == 1 and shape[0] > 1
