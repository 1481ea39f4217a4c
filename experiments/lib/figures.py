"""Pictures of experiments, on `vaejax.plots.look`."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax.base.mapping import estimate
from vaejax.plots.images import tile
from vaejax.plots.look import INK, ORANGE, TITLE, bare, figure_of, finish


def note(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """Text beside a point, at an offset in points."""
    settings: dict[str, Any] = {"textcoords": "offset points", "color": INK, **style}
    axes.annotate(text, point, offset, **settings)


def interval_bars(rows: Iterable[dict], name: str = "measured") -> np.ndarray:
    """[2, n] distances from what was measured to the ends of its intervals, for
    `axes.errorbar`.
    """
    return np.array([(row[name] - row["low"], row["high"] - row[name]) for row in rows]).T


def means_and_errors(estimates: Iterable) -> tuple[np.ndarray, np.ndarray]:
    """Of `Estimate`s: [n] means and [n] standard errors."""
    means, errors = np.array(list(estimates)).T
    return means, errors


def error_curve(axes: Axes, places: Any, estimates: Iterable, **style: Any) -> None:
    """The means of `Estimate`s at some places, joined, with their standard errors."""
    settings: dict[str, Any] = {"marker": "o", "ms": 4.5, "lw": 1.6, "capsize": 3, **style}
    axes.errorbar(places, *means_and_errors(estimates), **settings)


def seeds_figure(
    values: Mapping[str, Iterable[float]], colours: Iterable[str], form: str
) -> Figure:
    """The mean over the seeds of each name with its standard error, written by `form`, and beside
    it the seeds.
    """
    figure, [[axes]] = figure_of(size=(6.4, 3.8))
    for place, (seeds, colour) in enumerate(zip(values.values(), colours, strict=True)):
        seeds = np.asarray(seeds)
        mean, error = estimate(seeds)
        axes.errorbar(place, mean, error, fmt="o", ms=7, capsize=5, color=colour)
        axes.scatter(np.full(len(seeds), place + 0.15), seeds, s=14, color=INK, linewidths=0)
        note(axes, form.format(mean), (place, mean), (-8, -4), color=colour, ha="right")
    axes.set_xticks(range(len(values)), list(values))
    finish(axes, grid=True, xlim=(-0.6, len(values) - 0.5))
    return figure


def image_rows(rows: Mapping[str, Any], title: str, line_after: int | None = None) -> Figure:
    """Rows of images [n, h, w] in [0, 1], each with its name on the left, and a vertical line after
    so many columns.
    """
    images = np.concatenate([np.asarray(row) for row in rows.values()])
    columns = len(images) // len(rows)
    height, width = images.shape[1:]
    gap = max(1, height // 8)
    margin = 0.5 + 0.1 * max(map(len, rows))
    figure, [[axes]] = figure_of(size=(0.62 * columns + margin, 0.62 * len(rows) + 0.4))
    axes.imshow(
        tile(images, columns, gap=gap), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest"
    )
    bare(axes)
    axes.set_yticks([i * (height + gap) + (height - 1) / 2 for i in range(len(rows))], list(rows))
    axes.tick_params(length=0)
    if line_after is not None:
        axes.axvline(line_after * (width + gap) - (gap + 1) / 2, color=ORANGE, lw=1.5)
    axes.set_title(title, fontsize=TITLE)
    return figure
