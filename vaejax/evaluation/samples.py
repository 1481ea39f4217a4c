"""How close two samples are, such as draws of a model and held-out data: functions of two arrays of
features, one row an example.

The features are yours: pixels, a network's, the codes of another model; what is said is about them.
Rows of one array must be independent.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from vaejax.base.checks import SEEDS, require_count, require_in
from vaejax.evaluation.features import (
    finite_rows,
    of_common_scale,
    of_unit_columns,
    squared_distances,
)


class PrecisionRecall(NamedTuple):
    """The share of the model's samples that lie among the data, and the share of the data that lie
    among the samples, in [0, 1].
    """

    precision: float
    recall: float


def precision_recall(
    real: ArrayLike, generated: ArrayLike, num_neighbours: int = 3
) -> PrecisionRecall:
    """Nearest-neighbour precision and recall of features [n, d] of data and [m, d] of samples.

    A point lies among a set if it is as near to some member as that one's own `num_neighbours`-th
    nearest in the set. Precision falls with samples unlike the data, recall with data that the
    samples miss. Both depend on n, m and the number of neighbours: compare like with like.
    Reference: Kynkäänniemi et al. 2019.
    """
    real, generated = of_common_scale(*_features(real, generated))
    require_count(num_neighbours, "num_neighbours")
    for name, features in (("real", real), ("generated", generated)):
        if num_neighbours >= len(features):
            raise ValueError(
                f"num_neighbours = {num_neighbours}; it must be below the"
                f" {len(features)} {name} examples"
            )
    return PrecisionRecall(
        precision=_share_among(real, generated, num_neighbours),
        recall=_share_among(generated, real, num_neighbours),
    )


def _share_among(members: np.ndarray, points: np.ndarray, num_neighbours: int) -> float:
    """Of the points, within the radius of some member."""
    # The radius of a member: the distance to its k-th nearest; itself is the 0th.
    radii = np.concatenate(
        [
            np.partition(block, num_neighbours, axis=1)[:, num_neighbours]
            for block in squared_distances(members, members)
        ]
    )
    within = [np.any(block <= radii[None], axis=1) for block in squared_distances(points, members)]
    return float(np.mean(np.concatenate(within)))


class TwoSample(NamedTuple):
    """Held-out accuracy of a classifier that tells two samples apart, 1/2 if none can, and the
    p-value of one so high by chance.
    """

    accuracy: float
    p_value: float
    num_tested: int


def classifier_two_sample_test(
    real: ArrayLike, generated: ArrayLike, num_neighbours: int | None = None, seed: int = 0
) -> TwoSample:
    """Whether a classifier tells features [n, d] from [m, d]: by neighbours, `num_neighbours` of
    them, or None for a logistic regression.

    Equally many of each are kept; half of them train it, the others test it. Under equal
    distributions the number that is right is binomial with 1/2, and the p-value is its normal
    approximation. A high p-value says that this classifier finds nothing. Reference: Lopez-Paz &
    Oquab 2017.
    """
    real, generated = of_unit_columns(*_features(real, generated))
    size = min(len(real), len(generated)) // 2
    if size < 10:
        raise ValueError(
            f"{len(real)} real and {len(generated)} generated examples; give at least 20 of each"
        )
    require_in(seed, "seed", SEEDS)
    if num_neighbours is not None:
        require_count(num_neighbours, "num_neighbours")
        if num_neighbours > 2 * size:
            raise ValueError(
                f"num_neighbours = {num_neighbours}; it must be at most the {2 * size} examples"
                " that train the classifier"
            )
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ImportError(
            "classifier_two_sample_test needs scikit-learn: pip install 'vaejax[experiments]'"
        ) from None
    generator = np.random.default_rng(seed)
    halves = [
        features[generator.permutation(len(features))[: 2 * size]].reshape(2, size, -1)
        for features in (real, generated)
    ]
    train, test = (np.concatenate(pair) for pair in zip(*halves, strict=True))
    labels = np.repeat([0, 1], size)
    classifier = LogisticRegression(max_iter=2_000)
    if num_neighbours is not None:
        classifier = KNeighborsClassifier(num_neighbours)
    right = make_pipeline(StandardScaler(), classifier).fit(train, labels).predict(test) == labels
    accuracy = float(np.mean(right))
    # (accuracy - 1/2) over the standard deviation of a mean of 2 size fair coins
    p_value = float(ndtr((0.5 - accuracy) * 2 * np.sqrt(2 * size)))
    return TwoSample(accuracy, p_value, 2 * size)


def _features(real: ArrayLike, generated: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """As float64 arrays [n, d] and [m, d], images flat, or a ValueError."""
    real, generated = finite_rows(real, "real"), finite_rows(generated, "generated")
    if (
        min(real.ndim, generated.ndim) < 2
        or real.shape[1:] != generated.shape[1:]
        or 0 in (*real.shape, *generated.shape)
    ):
        raise ValueError(
            f"features have shapes {real.shape} and {generated.shape}; give rows of one shape, one"
            " or more of each"
        )
    return real.reshape(len(real), -1), generated.reshape(len(generated), -1)
