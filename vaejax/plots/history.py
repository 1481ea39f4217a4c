"""Pictures of a training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax.base.mapping import Estimate
from vaejax.evaluation.features import finite_rows
from vaejax.plots.look import BLUE, ORANGE, figure_of, finish, legend


def curves(history: dict[str, np.ndarray], title: str = "") -> Figure:
    """The minibatch bound, smoothed, and the validation bound against the step, nats per example.

    The axis starts where the first twentieth of the run ends, for the first steps would flatten the
    rest. Steps that were skipped are counted in the legend. Raises ValueError for a run of no step.
    """
    centres, smooth = smoothed(history["bound"])
    validation = finite_rows(history["validation_bound"], "validation_bound")
    window = max(1, len(history["bound"]) // 100)
    skipped = np.count_nonzero(np.isnan(history["bound"]))
    label = f"training, mean of {window} steps" if window > 1 else "training"
    label += f", without {skipped:,} skipped" if skipped else ""
    figure, [[axes]] = figure_of(size=(7, 4))
    axes.plot(centres, smooth, color=BLUE, lw=1.5, label=label)
    if len(history["validation_step"]):
        _show_validation(axes, history["validation_step"], validation)
    shown = np.concatenate([smooth[len(smooth) // 20 :], validation])
    axes.set_ylim(*_limits(shown))
    legend(axes, "lower right")
    finish(axes, xlabel="step", ylabel="bound (nats per example)", title=title)
    return figure


def compare(
    histories: Mapping[str, Mapping[str, np.ndarray]],
    results: Mapping[str, Estimate] | None = None,
    quantity: str = "log p(x) of the test set (nats)",
) -> Figure:
    """Runs side by side: the validation bound of each against the step, nats per example, or the
    smoothed training bound of one that has no validation; and beside it the `results`, {name:
    Estimate}, such as the `log_marginal` of `vaejax.evaluate`, with two standard errors to each
    side; of a run without one, or one that is not finite, it says so.

    The axis of the curves starts where a tenth of the longest run is over.
    """
    if not histories:
        raise ValueError("plots.compare shows named histories; there are none")
    unknown = [name for name in results or {} if name not in histories]
    if unknown:
        raise ValueError(f"results of {', '.join(unknown)}, which have no history; name them alike")
    panels = 1 if results is None else 2
    figure, [axes] = figure_of(columns=panels, size=(4.6 * panels, 3.6))
    colours = {name: f"C{i % 10}" for i, name in enumerate(histories)}
    first = max(len(history["bound"]) for history in histories.values()) / 10
    curves = {
        name: _show_curve(axes[0], name, history, colours[name])
        for name, history in histories.items()
    }
    shown = [bounds[(steps > first) | (steps == steps[-1])] for steps, bounds in curves.values()]
    axes[0].set_ylim(*_limits(np.concatenate(shown)))
    finish(axes[0], grid=True, xlabel="step", ylabel="bound (nats per example)")
    legend(axes[0], "lower right")
    if results is not None:
        named = {name: results.get(name) for name in (*results, *histories)}
        _show_results(axes[1], named, colours, quantity)
    return figure


def _show_curve(
    axes: Axes, name: str, history: Mapping[str, np.ndarray], colour: str
) -> tuple[np.ndarray, np.ndarray]:
    """The validations of a run, or its smoothed training bound where it has none: steps and
    bounds.
    """
    steps = history["validation_step"]
    bounds = finite_rows(history["validation_bound"], f"validation_bound of {name}")
    label, marker = name, {"marker": "o", "ms": 3}
    if not len(steps):
        steps, bounds = smoothed(history["bound"])
        label, marker = f"{name} (training)", {}
    axes.plot(steps, bounds, color=colour, lw=1.5, label=label, **marker)
    return np.asarray(steps), np.asarray(bounds)


def _show_results(
    axes: Axes, results: Mapping[str, Estimate | None], colours: Mapping[str, str], quantity: str
) -> None:
    """A dot with two standard errors to each side for each name, the first at the top."""
    for place, (name, result) in enumerate(results.items()):
        if result is None or not np.isfinite(result[0]):
            text = "no result" if result is None else "not finite"
            axes.text(0.5, place, text, transform=axes.get_yaxis_transform(), ha="center")
            continue
        mean, error = result
        look = {"color": colours[name], "fmt": "o", "ms": 5, "capsize": 3}
        axes.errorbar(mean, place, xerr=2 * error, **look)
        axes.annotate(f"{mean:.2f}", (mean, place), (0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(results)), list(results))
    axes.set_ylim(len(results) - 0.5, -0.6)
    finish(axes, xlabel=f"{quantity}, ± 2 standard errors")


def smoothed(bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centres, means) of some hundred windows of steps; those that were skipped, NaN, count not,
    nor does a window of these alone.
    """
    if not len(bound):
        raise ValueError("the history has no step yet; train first")
    bound = np.asarray(bound, float)
    taken = ~np.isnan(bound)
    finite_rows(bound[taken], "bound")
    if not taken.any():
        raise ValueError("every step of the history was skipped; there is no bound to show")
    window = max(1, len(bound) // 100)
    starts = np.arange(0, len(bound) // window * window, window)
    counts = np.add.reduceat(taken, starts, dtype=float)
    sums = np.add.reduceat(np.where(taken, bound, 0), starts)
    filled = counts > 0
    return (starts + 0.5 * window)[filled], sums[filled] / counts[filled]


def _limits(shown: np.ndarray) -> tuple[float, float]:
    margin = 0.05 * (np.ptp(shown) or 1.0)
    return shown.min() - margin, shown.max() + 2 * margin


def _show_validation(axes: Axes, steps: np.ndarray, bounds: np.ndarray) -> None:
    """The curve, and its best value as a line, with its number in the legend."""
    label = f"validation, {bounds.max():.2f} at best"
    axes.plot(steps, bounds, color=ORANGE, lw=1.5, marker="o", ms=3, label=label)
    axes.axhline(bounds.max(), color=ORANGE, lw=0.6, ls=":")
