"""Pictures of experiments, on `vaejax.plots`."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vaejax
from experiments.lib.tables import columns
from vaejax import plots


def note(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """Text beside a point, at an offset in points."""
    settings: dict[str, Any] = {"textcoords": "offset points", "color": plots.INK, **style}
    axes.annotate(text, point, offset, **settings)


def curve(axes: Axes, rows: Iterable[Mapping[str, Any]], x: str, y: str, **style: Any) -> None:
    """The column `y` against the column `x`, a point for each row, joined: an `Estimate` with its
    standard error, a number with its interval, where the rows have one from `low` to `high`.
    """
    rows = list(rows)
    places, values = columns(rows, x, y)
    settings: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.6}
    bars: Any = None
    if np.ndim(values) == 2:
        values, bars = np.transpose(values)
        settings |= {"ms": 4.5, "capsize": 3}
    elif rows and "low" in rows[0]:
        low, high = columns(rows, "low", "high")
        bars = np.subtract(values, low), np.subtract(high, values)
    axes.errorbar(places, values, bars, **settings | style)


def seeds_figure(
    values: Mapping[str, Iterable[float]], colours: Iterable[str], form: str
) -> Figure:
    """The mean over seeds of each name, by `form`, its standard error, and the seeds."""
    figure, [[axes]] = plots.figure_of(size=(6.4, 3.8))
    for place, (seeds, colour) in enumerate(zip(values.values(), colours, strict=True)):
        seeds = np.asarray(seeds)
        mean, error = vaejax.estimate(seeds)
        axes.errorbar(place, mean, error, fmt="o", ms=7, capsize=5, color=colour)
        axes.scatter(np.full(len(seeds), place + 0.15), seeds, s=14, color=plots.INK, linewidths=0)
        note(axes, form.format(mean), (place, mean), (-8, -4), color=colour, ha="right")
    axes.set_xticks(range(len(values)), list(values))
    plots.finish(axes, grid=True, xlim=(-0.6, len(values) - 0.5))
    return figure


def image_rows(rows: Mapping[str, Any], title: str, line_after: int | None = None) -> Figure:
    """Rows of images [n, h, w] in [0, 1] with names; a line after so many columns."""
    images = np.concatenate([np.asarray(row) for row in rows.values()])
    across = len(images) // len(rows)
    height, width = images.shape[1:]
    gap = max(1, height // 8)
    margin = 0.5 + 0.1 * max(map(len, rows))
    figure, [[axes]] = plots.figure_of(size=(0.62 * across + margin, 0.62 * len(rows) + 0.4))
    look = {"cmap": "gray_r", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    axes.imshow(plots.tile(images, across, gap=gap), **look)
    plots.bare(axes)
    axes.set_yticks([i * (height + gap) + (height - 1) / 2 for i in range(len(rows))], list(rows))
    axes.tick_params(length=0)
    if line_after is not None:
        axes.axvline(line_after * (width + gap) - (gap + 1) / 2, color=plots.ORANGE, lw=1.5)
    axes.set_title(title, fontsize=plots.TITLE)
    return figure
