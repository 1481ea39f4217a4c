"""Pictures of a training."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vaejax.plots.look import BLUE, ORANGE, figure_of, finish, legend


def curves(history: dict[str, np.ndarray], title: str = "") -> Figure:
    """The minibatch bound, smoothed, and the validation bound against the step, nats per example.

    The axis starts where the first twentieth of the run ends, for the first steps would flatten the
    rest. Raises ValueError for a run of no step.
    """
    if not len(history["bound"]):
        raise ValueError("the history has no step yet; train first")
    figure, [[axes]] = figure_of(size=(7, 4))
    bound = history["bound"]
    window = max(1, len(bound) // 100)
    smooth = bound[: len(bound) // window * window].reshape(-1, window).mean(1)
    centres = (np.arange(len(smooth)) + 0.5) * window
    label = f"training, mean of {window} steps" if window > 1 else "training"
    axes.plot(centres, smooth, color=BLUE, lw=1.5, label=label)
    if len(history["validation_step"]):
        _show_validation(axes, history["validation_step"], history["validation_bound"])
    shown = np.concatenate([smooth[len(smooth) // 20 :], history["validation_bound"]])
    margin = 0.05 * (np.ptp(shown) or 1.0)
    axes.set_ylim(shown.min() - margin, shown.max() + 2 * margin)
    legend(axes, "lower right")
    finish(axes, xlabel="step", ylabel="bound (nats per example)", title=title)
    return figure


def _show_validation(axes: Axes, steps: np.ndarray, bounds: np.ndarray) -> None:
    """The curve, and its best value as a line with a number."""
    axes.plot(steps, bounds, color=ORANGE, lw=1.5, marker="o", ms=3, label="validation")
    best = int(bounds.argmax())
    axes.axhline(bounds[best], color=ORANGE, lw=0.6, ls=":")
    axes.annotate(
        f"{bounds[best]:.2f}",
        (steps[best], bounds[best]),
        (0, 5),
        textcoords="offset points",
        ha="right",
        color=ORANGE,
    )
