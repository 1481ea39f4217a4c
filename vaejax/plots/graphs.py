"""Drawings of directed graphs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, RegularPolygon

from vaejax.base.checks import require_kind, unknown_name
from vaejax.models.graph import DirectedGraph
from vaejax.plots.look import INK, figure_of

Place = tuple[float, float]
RADIUS = 0.3  # of a node


def graph(graph: DirectedGraph, observed: str | tuple[str, ...] = ()) -> Figure:
    """The nodes in rows, parents above children: observed ones filled, deterministic ones as
    diamonds, inputs without a border. A dashed arrow is one of the prior's factor that a node of an
    encoder is shown. `graph.dot()` is the same as text. Raises ValueError for observed names that
    the graph has not.
    """
    require_kind(graph, DirectedGraph, "graph")
    observed = (observed,) if isinstance(observed, str) else observed
    known = [*graph.inputs, *graph.order_of_all]
    for name in observed:
        if name not in known:
            raise ValueError(unknown_name("node", name, known))
    places = _places(graph)
    xs, ys = zip(*places.values(), strict=True)
    size = (1.3 * (max(xs) - min(xs)) + 1.6, 1.3 * (max(ys) - min(ys)) + 1.6)
    figure, [[axes]] = figure_of(size=size)
    shapes = {
        name: _show_node(axes, graph, name, place, name in observed)
        for name, place in places.items()
    }
    for name in graph.order_of_all:
        for parent in graph.above(name):
            dashed = parent not in graph.parents(name)
            _show_arrow(axes, places, shapes, parent, name, dashed)
    axes.set(xlim=_with_margin(xs), ylim=_with_margin(ys))
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def _show_node(
    axes: Axes, graph: DirectedGraph, name: str, place: Place, is_observed: bool
) -> Patch:
    """Its shape, which is filled where it is observed, and its name within."""
    if name in graph.functions:
        shape: Patch = RegularPolygon(place, 4, radius=1.3 * RADIUS)
    else:
        shape = Circle(place, RADIUS)
    shape.set(
        facecolor="lightgrey" if is_observed else "white",
        edgecolor=INK,
        lw=int(name not in graph.inputs),
    )
    points = min(12, 100 / len(name))  # a long name fits into its circle
    axes.text(*place, name, ha="center", va="center", fontsize=points)
    return axes.add_patch(shape)


def _show_arrow(
    axes: Axes,
    places: dict[str, Place],
    shapes: dict[str, Patch],
    parent: str,
    child: str,
    dashed: bool,
) -> None:
    """From parent to child, bent where another node is in the way."""
    others = [place for name, place in places.items() if name not in (parent, child)]
    ends = places[parent], places[child]
    blocked = any(_distance(place, *ends) < 0.35 for place in others)
    style = {
        "arrowstyle": "-|>",
        "color": INK,
        "shrinkA": 1,
        "shrinkB": 1,
        "connectionstyle": f"arc3,rad={0.35 if blocked else 0.0}",
        "patchA": shapes[parent],
        "patchB": shapes[child],
        "mutation_scale": 14,
        "linestyle": "--" if dashed else "-",
    }
    axes.annotate("", xy=places[child], xytext=places[parent], arrowprops=style)


def _distance(point, start, end) -> float:
    """Of a point from the line between two others."""
    point, start, end = map(np.asarray, (point, start, end))
    along = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    return float(np.linalg.norm(point - start - along * (end - start)))


def _with_margin(values: tuple[float, ...]) -> tuple[float, float]:
    return min(values) - 0.6, max(values) + 0.6


def _places(graph: DirectedGraph) -> dict[str, Place]:
    """(x, y) of each node and input: the row is the length of the longest way to it, and in a row
    each stands near its parents.
    """
    rows: dict[str, int] = dict.fromkeys(graph.inputs, 0)
    for name in graph.order_of_all:
        rows[name] = 1 + max((rows[parent] for parent in graph.above(name)), default=-1)
    xs: dict[str, float] = {}
    for row in range(1 + max(rows.values())):
        names = [name for name in rows if rows[name] == row]
        above = {name: [xs[parent] for parent in graph.above(name)] for name in names if row}
        wanted = {name: float(np.mean(above[name])) if row else 0.0 for name in names}
        names.sort(key=lambda name: wanted[name])
        centre = sum(wanted.values()) / len(names)
        xs |= {name: float(centre + i - (len(names) - 1) / 2) for i, name in enumerate(names)}
    return {name: (xs[name], -float(row)) for name, row in rows.items()}
