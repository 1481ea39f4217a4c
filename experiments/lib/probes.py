"""What features are worth: the test accuracy of simple probes that are shown a few labelled
examples.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from experiments.lib import tables
from experiments.lib.figures import error_curve
from vaejax.base.mapping import estimate
from vaejax.evaluation.representation import knn_accuracy, linear_probe
from vaejax.plots.look import BLUE, GREY, ORANGE, TITLE, figure_of, finish, legend, ticks_at

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
    """A row for each probe, kind of feature and number of labels, with the accuracy of each
    draw.
    """
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


def by_probe_and_kind(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """{(probe, kind of feature): its rows, one for each number of labels}."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["probe"], row["features"]), []).append(row)
    return groups


def table(rows: list[dict]) -> str:
    lines = [
        [*names, *(f"{estimate(row['accuracy']):.3f}" for row in group)]
        for names, group in by_probe_and_kind(rows).items()
    ]
    counts = dict.fromkeys(row["labels"] for row in rows)
    header = ["probe", "features", *(f"{count} labels" for count in counts)]
    return tables.markdown(header, lines)


def figure(rows: list[dict], title: str) -> Figure:
    """Accuracy against the number of labels, a panel for each probe."""
    groups = by_probe_and_kind(rows)
    names, kinds = (list(dict.fromkeys(part)) for part in zip(*groups, strict=True))
    colours = dict(zip(kinds, (BLUE, ORANGE, GREY), strict=True))
    drawing, [panels] = figure_of(columns=len(names), size=(4.6 * len(names), 3.9), sharey=True)
    axes_of_probe = dict(zip(names, panels, strict=True))
    for (name, kind), group in groups.items():
        counts = [row["labels"] for row in group]
        accuracy = (estimate(row["accuracy"]) for row in group)
        error_curve(axes_of_probe[name], counts, accuracy, color=colours[kind], label=kind)
    for name, axes in axes_of_probe.items():
        finish(axes, grid=True, xscale="log", xlabel="labelled images", title=name)
        ticks_at(axes, sorted({row["labels"] for row in rows}), "{:,}")
    panels[0].set_ylabel("test accuracy")
    legend(panels[-1], "lower right")
    drawing.suptitle(title, fontsize=TITLE)
    return drawing
