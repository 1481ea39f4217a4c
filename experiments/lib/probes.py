"""What features are worth: the test accuracy of simple probes that are shown a few labelled
examples.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

import vaejax
from experiments.lib import figures, tables
from vaejax import plots
from vaejax.evaluation.representation import knn_accuracy, linear_probe

# {kind: (of the training, of the test examples)}
Features = dict[str, tuple[np.ndarray, np.ndarray]]


def random_choices(
    size: int, counts: tuple[int, ...], num_draws: int, seed: int
) -> dict[int, list[np.ndarray]]:
    """{count: so many draws of the rows of as many examples}, the same for each kind of feature."""
    generator = np.random.default_rng(seed)
    return {
        count: [generator.choice(size, count, replace=False) for _ in range(num_draws)]
        for count in counts
    }


def accuracies(
    features: Features,
    labels: np.ndarray,
    test_labels: np.ndarray,
    choices: dict[int, list[np.ndarray]],
) -> list[dict]:
    """A row for each probe, kind and number of labels, with the accuracy of each draw."""
    probes: dict[str, Callable[..., float]] = {
        "linear probe": linear_probe,
        "1 nearest": partial(knn_accuracy, num_neighbours=1),
    }
    return [
        {
            "probe": name,
            "features": kind,
            "labels": count,
            "accuracy": [probe(train[rows], labels[rows], test, test_labels) for rows in draws],
        }
        for name, probe in probes.items()
        for kind, (train, test) in features.items()
        for count, draws in choices.items()
    ]


def table(rows: list[dict]) -> str:
    shown = [
        row | {"title": f"{row['labels']} labels", "mean": vaejax.estimate(row["accuracy"])}
        for row in rows
    ]
    line = "{probe} | {features}"
    return tables.wide("probe | features", line, "title", "{mean:.3f}", shown)


def figure(rows: list[dict], title: str) -> Figure:
    """Accuracy against the number of labels, a panel for each probe."""
    shown = [row | {"mean": vaejax.estimate(row["accuracy"])} for row in rows]
    names, kinds, counts = map(dict.fromkeys, tables.columns(rows, "probe", "features", "labels"))
    size = 4.6 * len(names), 3.9
    drawing, [panels] = plots.figure_of(columns=len(names), size=size, sharey=True)
    for axes, name in zip(panels, names, strict=True):
        for kind, colour in zip(kinds, (plots.BLUE, plots.ORANGE, plots.GREY), strict=True):
            points = tables.where(shown, probe=name, features=kind)
            figures.curve(axes, points, "labels", "mean", color=colour, label=kind)
        plots.finish(axes, grid=True, xscale="log", xlabel="labelled images", title=name)
        plots.ticks_at(axes, sorted(counts), "{:,}")
    panels[0].set_ylabel("test accuracy")
    plots.legend(panels[-1], "lower right")
    drawing.suptitle(title, fontsize=plots.TITLE)
    return drawing
