"""The look of every picture: its colours, its axes, its legend, its file.

>>> figure, [[left, right]] = figure_of(columns=2, size=(10, 4))
>>> lines = left.plot([0, 100], [-45.0, -25.0], color=BLUE, label="bound")
>>> finish(left, xlabel="step", ylabel="bound (nats)")
>>> legend(left, "lower right")

`save(figure, folder / "bounds.png")` writes it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#22313f"
"""Text and lines."""

GREY = "#95a5a6"
"""What stands beside: a reference, the exact answer."""

PALE = "#e3e7ea"
"""Grids and bands."""

BLUE = "#2c6fbb"
"""The first colour of curves."""

ORANGE = "#d9730d"
"""The second colour of curves."""

TITLE = 11
"""The size of a panel's title, in points."""

DOTS_PER_INCH = 150
"""Of a file."""


def figure_of(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.2), **sharing: Any
) -> tuple[Figure, np.ndarray]:
    """(figure, panels [rows, columns]), `size` = (width, height) in inches; `sharing` is
    matplotlib's, such as sharey=True.

    A single panel is `figure, [[axes]] = figure_of()`.
    """
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def finish(axes: Axes, grid: bool = False, **labels: Any) -> None:
    """Sets labels, scales and limits (as `axes.set` takes them), and leaves only the two axes'
    lines; `grid` adds pale horizontal ones.
    """
    axes.set(**labels)
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis="y", color=PALE, lw=0.8)


def bare(axes: Axes) -> None:
    """No ticks and no lines around: for images."""
    without_ticks(axes)
    axes.spines[:].set_visible(False)


def without_ticks(axes: Axes) -> None:
    """No ticks, with the lines around."""
    axes.set_xticks([])
    axes.set_yticks([])


def ticks_at(axes: Axes, values: Any, text: str | Callable[[Any], str] = "{:g}") -> None:
    """Ticks of x at these values alone, and none between, as a logarithmic axis would have them."""
    written = text.format if isinstance(text, str) else text
    axes.set_xticks(values, [written(value) for value in values])
    axes.minorticks_off()


def legend(axes: Axes, loc: Any = "best", **settings: Any) -> None:
    """Within the panel, without a frame."""
    axes.legend(frameon=False, loc=loc, **settings)


def shared_legend(
    figure: Figure,
    panels: Iterable[Axes],
    loc: Any = "outside lower center",
    ncols: int = 1,
    **settings: Any,
) -> None:
    """One legend beside the panels, without a frame, with each label of theirs once."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles[label] = handle
    figure.legend(handles.values(), handles.keys(), loc=loc, ncols=ncols, frameon=False, **settings)


def save(figure: Figure, path: Path) -> None:
    """The picture as a file, of the kind that its name says."""
    figure.savefig(path, dpi=DOTS_PER_INCH)
