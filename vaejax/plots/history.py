"""Pictures of a training."""

import numpy as np
from matplotlib.figure import Figure

from vaejax.plots.images import BLUE, ORANGE


def curves(history: dict[str, np.ndarray], title: str = "") -> Figure:
    """The minibatch bound, smoothed, and the validation bound against the step, nats per example.

    The axis starts where the first twentieth of the run ends, for the first steps would flatten the
    rest.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    bound, steps, validation = (
        history["bound"],
        history["validation_step"],
        history["validation_bound"],
    )
    window = max(1, len(bound) // 100)
    smooth = bound[: len(bound) // window * window].reshape(-1, window).mean(1)
    centres = (np.arange(len(smooth)) + 0.5) * window
    axes.plot(
        centres,
        smooth,
        color=BLUE,
        lw=1.5,
        label=f"training, mean of {window} steps" if window > 1 else "training",
    )
    if len(steps):
        axes.plot(steps, validation, color=ORANGE, lw=1.5, marker="o", ms=3, label="validation")
        best = int(validation.argmax())
        axes.axhline(validation[best], color=ORANGE, lw=0.6, ls=":")
        axes.annotate(
            f"{validation[best]:.2f}",
            (steps[best], validation[best]),
            (0, 5),
            textcoords="offset points",
            ha="right",
            color=ORANGE,
        )
    shown = np.concatenate([smooth[len(smooth) // 20 :], validation])
    margin = 0.05 * (np.ptp(shown) or 1.0)
    axes.set_ylim(shown.min() - margin, shown.max() + 2 * margin)
    axes.set(xlabel="step", ylabel="bound (nats per example)", title=title)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
