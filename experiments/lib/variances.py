"""What was measured of estimators along a training, from rows of one seed, step, estimator and
group of parameters: the means over the seeds, the best of each bound, a table and the pictures.
"""

import math
import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.lib import figures, tables
from vaejax import plots
from vaejax.runs.named_estimators import named_estimator

LABELS = {"seed", "step", "estimator", "bound", "group"}

Rows = list[dict[str, Any]]
Means = dict[str, dict[str, Any]]  # {estimator: its bound, and the means of its numbers}


def means(rows: Rows, step: int, group: str) -> Means:
    """For each estimator the means over the seeds of what was measured of a group at a step."""
    chosen, result = tables.where(rows, step=step, group=group), {}
    for name in dict.fromkeys(row["estimator"] for row in chosen):
        seeds = tables.where(chosen, estimator=name)
        numbers = {
            column: statistics.mean(row[column] for row in seeds)
            for column in seeds[0]
            if column not in LABELS
        }
        work = numbers["trace"] * numbers["seconds"]
        result[name] = {"bound": seeds[0]["bound"], **numbers, "work": work}
    return result


def winners(estimators: Means, column: str) -> dict[str, str]:
    """The best estimator of each bound: the one with the least of a column."""
    names_of_bound: dict[str, list[str]] = {}
    for name, row in estimators.items():
        names_of_bound.setdefault(row["bound"], []).append(name)
    return {
        bound: min(names, key=lambda name: estimators[name][column])
        for bound, names in names_of_bound.items()
    }


HEADER = (
    "bound | estimator | trace in theta | trace in phi | ratio | MSE in phi | SNR^2 in phi"
    " | largest z | decoder evaluations | ms | phi x ms"
)
LINE = (
    "{bound} | {estimator} | {theta:.3g} | {trace:.3g} | {ratio:.3g} ({ratio_low:.3g} to"
    " {ratio_high:.3g}) | {marked_mse} | {snr_squared:.3g} | {largest_z:.1f}"
    " | {forward:.0f} + {backward:.0f} | {milliseconds:.2f} | {marked_work}"
)


def table(rows: Rows, step: int) -> str:
    """phi at a step; ** the least mean squared error, and variance times time, of a bound."""
    phi, theta = means(rows, step, "phi"), means(rows, step, "theta")
    least_mse, least_work = winners(phi, "mse").values(), winners(phi, "work").values()
    shown = [
        row
        | {"estimator": name, "theta": theta[name]["trace"], "milliseconds": 1e3 * row["seconds"]}
        | {"marked_mse": tables.bold_if(name in least_mse, f"{row['mse']:.3g}")}
        | {"marked_work": tables.bold_if(name in least_work, f"{1e3 * row['work']:.3g}")}
        for bound in winners(phi, "mse")
        for name, row in phi.items()
        if row["bound"] == bound
    ]
    return tables.table(HEADER, LINE, shown)


# Pictures.


def look(i: int) -> dict[str, Any]:
    return {"color": f"C{i % 10}", "marker": "osD^vP*X"[i % 8]}


def along_training(rows: Rows) -> Figure:
    """The traces against the step; estimators that share a line share their gradient."""
    drawing, [panels] = plots.figure_of(columns=2, size=(10, 4))
    steps = sorted({row["step"] for row in rows})
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    for axes, group in zip(panels, ("phi", "theta"), strict=True):
        by_step = [means(rows, step, group) for step in steps]
        for i, name in enumerate(names):
            share = (len(names) - i) / len(names)  # later lines are thinner, so that all are seen
            sizes = {"ms": 4 + 2 * share, "lw": 1 + 2 * share}
            traces = [estimators[name]["trace"] for estimators in by_step]
            axes.plot(np.maximum(steps, 1), traces, label=name, **look(i), **sizes)
        plots.finish(axes, xscale="log", yscale="log", title=f"gradient in {group}")
        axes.set_xlabel("step (the start is drawn at 1)")
    panels[0].set_ylabel("trace of the covariance")
    plots.shared_legend(drawing, panels[:1], "outside right center")
    return drawing


def against_work(rows: Rows, step: int) -> Figure:
    """The trace over phi against the time of a draw. Along a dotted line the two trade one for one,
    as when a draw is repeated.
    """
    drawing, [[axes]] = plots.figure_of(size=(7.6, 4.2))
    estimators = means(rows, step, "phi")
    times = 1e3 * np.array([row["seconds"] for row in estimators.values()])
    traces = np.array([row["trace"] for row in estimators.values()])
    for i, (name, time, trace) in enumerate(zip(estimators, times, traces, strict=True)):
        axes.scatter(time, trace, s=40, zorder=3, label=name, **look(i))
    plots.finish(axes, yscale="log", xlabel="milliseconds a draw", title=f"after {step} steps")
    axes.set_ylabel("trace of the covariance in phi")
    axes.set(xlim=(0, 1.35 * times.max()), ylim=(traces.min() / 2, traces.max() * 2))
    grid, products = np.linspace(0.02, 1.35, 200) * times.max(), times * traces
    for product in np.geomspace(products.min() / 4, products.max() * 4, 9):
        axes.plot(grid, product / grid, color=plots.GREY, lw=0.6, ls=":", zorder=1)
    plots.shared_legend(drawing, [axes], "outside right center")
    return drawing


def families(names: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    """{family: [(K, its name at that K)]}, of those that were measured at two or more K."""
    members: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        estimator: Any = named_estimator(name)
        members.setdefault(name.partition(":")[0], []).append((estimator.num_samples, name))
    return {family: sorted(pairs) for family, pairs in members.items() if len(pairs) > 1}


def against_samples(rows: Rows, step: int) -> Figure:
    """The signal to noise of phi and of theta against K, for what was measured at two or more K."""
    members = families(means(rows, step, "phi"))
    ks = sorted({k for pairs in members.values() for k, _ in pairs})
    drawing, [panels] = plots.figure_of(columns=2, size=(9, 3.8), sharey=True)
    for axes, group in zip(panels, ("phi", "theta"), strict=True):
        estimators = means(rows, step, group)
        for i, (family, pairs) in enumerate(members.items()):
            ratios = [signal_to_noise(estimators[name]) for _, name in pairs]
            axes.plot([k for k, _ in pairs], ratios, label=family, **look(i))
        floor = math.sqrt(next(iter(estimators.values()))["floor"])
        axes.axhline(floor, color=plots.GREY, lw=0.8, ls=":")
        label, style = "floor of the uncorrected ratio", {"fontsize": 8, "color": "#7f8c8d"}
        figures.note(axes, label, (1, floor), (2, 3), **style)
        title = f"gradient in {group}, after {step} steps"
        plots.finish(axes, xscale="log", yscale="log", xlabel="K", title=title)
        plots.ticks_at(axes, ks, str)
    panels[0].set_ylabel("signal to noise ratio")
    plots.shared_legend(drawing, panels[:1], "outside right center")
    return drawing


def signal_to_noise(row: dict[str, Any]) -> float:
    """nan where the square is not above 0."""
    return math.sqrt(max(row["snr_squared"], 0)) or math.nan
