"""Drawings of directed graphs."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from vaejax.models.graph import DirectedGraph
from vaejax.plots.images import INK


def graph(graph: DirectedGraph, observed: tuple[str, ...] = ()) -> Figure:
    """The nodes in rows, parents above children: observed ones filled, inputs without a circle.
    `graph.dot()` is the same as text.
    """
    places = _places(graph)
    widest = max(x for x, _ in places.values()) - min(x for x, _ in places.values())
    deepest = -min(y for _, y in places.values())
    figure = Figure(figsize=(1.3 * widest + 1.6, 1.3 * deepest + 1.6), layout="constrained")
    axes = figure.subplots()
    circles = {}
    for name, place in places.items():
        fill = "lightgrey" if name in observed else "white"
        circles[name] = axes.add_patch(
            Circle(
                place, 0.3, facecolor=fill, edgecolor=INK, lw=1 if name not in graph.inputs else 0
            )
        )
        axes.text(*place, name, ha="center", va="center", fontsize=12)
    for name in graph.order:
        for parent in graph[name].parents:
            others = [place for other, place in places.items() if other not in (name, parent)]
            bend = (
                0.35
                if any(_distance(place, places[parent], places[name]) < 0.35 for place in others)
                else 0.0
            )
            style = {
                "arrowstyle": "-|>",
                "color": INK,
                "shrinkA": 1,
                "shrinkB": 1,
                "connectionstyle": f"arc3,rad={bend}",
            }
            style |= {"patchA": circles[parent], "patchB": circles[name], "mutation_scale": 14}
            axes.annotate("", xy=places[name], xytext=places[parent], arrowprops=style)
    axes.set(
        xlim=_with_margin([x for x, _ in places.values()]),
        ylim=_with_margin([y for _, y in places.values()]),
    )
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def _distance(point, start, end) -> float:
    """Of a point from the line between two others."""
    point, start, end = map(np.asarray, (point, start, end))
    along = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    return float(np.linalg.norm(point - start - along * (end - start)))


def _with_margin(values: list[float]) -> tuple[float, float]:
    return min(values) - 0.6, max(values) + 0.6


def _places(graph: DirectedGraph) -> dict[str, tuple[float, float]]:
    """(x, y) of each node and input: the row is the length of the longest way to it, and in a row
    each stands near its parents.
    """
    rows: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    for name in graph.order:
        rows[name] = 1 + max((rows[parent] for parent in graph[name].parents), default=-1)
    xs: dict[str, float] = {}
    for row in range(1 + max(rows.values())):
        names = [name for name in rows if rows[name] == row]
        wanted = {
            name: float(np.mean([xs[parent] for parent in graph[name].parents])) if row else 0.0
            for name in names
        }
        names.sort(key=lambda name: wanted[name])
        centre = sum(wanted.values()) / len(names)
        xs |= {name: float(centre + i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    return {name: (xs[name], -float(row)) for name, row in rows.items()}
