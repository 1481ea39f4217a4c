"""How good codes are as features, and how well each keeps to one factor: functions of arrays,
whatever gave the codes.

codes [n, d] are, say, posterior means (`vaejax.posterior_means`), factors [n, k] what the images
were made from, where that is known. A factor is a column of numbers, continuous or in grades. The
scores of disentanglement are 1 for codes that are the factors, in any order and at any scale, and
about 0 for codes that know nothing of them; a code that says the same as another makes MIG and SAP
0, and one that mixes factors lowers all. A code that hardly varies counts as much as any other: set
collapsed ones to a constant first (`vaejax.active_units`), for a constant code has no information.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vaejax.base.checks import SEEDS, require_count, require_in, require_positive
from vaejax.evaluation.features import (
    finite_rows,
    of_common_scale,
    of_unit_columns,
    squared_distances,
)


def linear_probe(
    codes: ArrayLike,
    labels: ArrayLike,
    test_codes: ArrayLike,
    test_labels: ArrayLike,
    penalty: float = 1.0,
) -> float:
    """Test accuracy of a multinomial logistic regression on standardised codes, by scikit-learn.

    It minimises the sum of -log p(label | code) over the examples, plus penalty |weights|^2 / 2.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ImportError(
            "linear_probe needs scikit-learn: pip install 'vaejax[experiments]'"
        ) from None
    codes, test_codes, labels, test_labels = _features(codes, test_codes, labels, test_labels)
    codes, test_codes = of_unit_columns(codes, test_codes)
    require_positive(penalty, "penalty")
    if len(np.unique(labels)) < 2:
        return float(np.mean(test_labels == labels[0]))  # scikit-learn refuses a single class
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1 / penalty, max_iter=2_000))
    return float(np.mean(probe.fit(codes, labels).predict(test_codes) == test_labels))


def knn_accuracy(
    codes: ArrayLike,
    labels: ArrayLike,
    test_codes: ArrayLike,
    test_labels: ArrayLike,
    num_neighbours: int = 5,
) -> float:
    """Test accuracy of the most frequent label among the nearest codes, by Euclidean distance; of a
    tie the smallest label.
    """
    codes, test_codes, labels, test_labels = _features(codes, test_codes, labels, test_labels)
    codes, test_codes = of_common_scale(codes, test_codes)
    require_count(num_neighbours, "num_neighbours")
    if num_neighbours > len(codes):
        raise ValueError(
            f"num_neighbours = {num_neighbours}; it must be at most the {len(codes)} codes"
        )
    classes, index = np.unique(labels, return_inverse=True)
    predicted = []
    for distances in squared_distances(test_codes, codes):
        nearest = index[np.argpartition(distances, num_neighbours - 1, axis=1)[:, :num_neighbours]]
        votes = (nearest[:, :, None] == np.arange(len(classes))).sum(axis=1)
        predicted.append(classes[votes.argmax(axis=1)])
    return float(np.mean(np.concatenate(predicted) == test_labels))


def mutual_information(codes: ArrayLike, factors: ArrayLike, num_bins: int = 20) -> np.ndarray:
    """I(code_i; factor_j) of their histograms [d, k], nats. Of independent ones it is about (bins -
    1)^2 / (2 n), not 0.
    """
    codes, factors = _scored(codes, factors)
    require_count(num_bins, "num_bins")
    if num_bins < 2:
        raise ValueError("num_bins = 1; what lies in one bin says nothing: give at least 2")
    binned = [_binned(code, num_bins) for code in codes.T]
    grades = [_binned(factor, num_bins) for factor in factors.T]
    return np.array(
        [
            [_entropy(code) + _entropy(factor) - _joint_entropy(code, factor) for factor in grades]
            for code in binned
        ]
    )


def mig(codes: ArrayLike, factors: ArrayLike, num_bins: int = 20) -> float:
    """Mutual information gap: mean_j [I(code_i*; factor_j) - max_(i != i*) I(code_i; factor_j)] /
    H(factor_j), i* the most informative.

    Reference: Chen et al. 2018.
    """
    information = mutual_information(codes, factors, num_bins)
    _, factors = _scored(codes, factors)
    entropies = np.array([_entropy(_binned(factor, num_bins)) for factor in factors.T])
    return float(np.mean(_gaps(information) / entropies))


def sap(codes: ArrayLike, factors: ArrayLike) -> float:
    """Separated attribute predictability: mean over factors of the gap between the two codes of the
    highest squared correlation.

    This is the form for numbers, with R^2 of a line for the score of a code. Reference: Kumar,
    Sattigeri & Balakrishnan 2018.
    """
    codes, factors = _scored(codes, factors)
    centred, targets = codes - codes.mean(axis=0), factors - factors.mean(axis=0)
    norms = np.outer(np.linalg.norm(centred, axis=0), np.linalg.norm(targets, axis=0))
    correlations = np.divide(centred.T @ targets, norms, out=np.zeros_like(norms), where=norms > 0)
    return float(np.mean(_gaps(correlations**2)))


class DCI(NamedTuple):
    """Disentanglement: each code serves one factor. Completeness: each factor needs one code.
    Informativeness: R^2 on held-out examples.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def dci(codes: ArrayLike, factors: ArrayLike, num_trees: int = 50, seed: int = 0) -> DCI:
    """The three scores of random forests that predict each factor from all codes; a quarter of the
    examples is held out.

    The entropies are those of the forests' importances (`disentanglement_and_completeness`).
    Reference: Eastwood & Williams 2018.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        raise ImportError("dci needs scikit-learn: pip install 'vaejax[experiments]'") from None
    codes, factors = _scored(codes, factors)
    require_count(num_trees, "num_trees")
    require_in(seed, "seed", SEEDS)
    if len(codes) < 8:
        raise ValueError(f"dci holds out a quarter of the examples; {len(codes)} are not enough")
    order = np.random.default_rng(seed).permutation(len(codes))
    held_out, rest = np.split(order, [len(codes) // 4])
    importances, scores = [], []
    for factor in factors.T:
        forest = RandomForestRegressor(num_trees, min_samples_leaf=4, random_state=seed).fit(
            codes[rest], factor[rest]
        )
        importances.append(forest.feature_importances_)
        scores.append(forest.score(codes[held_out], factor[held_out]))
    return DCI(*disentanglement_and_completeness(np.array(importances).T), float(np.mean(scores)))


def disentanglement_and_completeness(importance: ArrayLike) -> tuple[float, float]:
    """(D, C) of importance [d, k] >= 0 of code i for factor j.

    D = sum_i rho_i (1 - H(p_i)/log k), p_i the shares of the factors in code i and rho_i the code's
    share of all importance; C = mean_j (1 - H(p~_j)/log d), p~_j the shares of the codes in factor
    j. A factor that no code is important for counts as 0.
    """
    importance = finite_rows(importance, "importance")
    if importance.ndim != 2 or min(importance.shape) < 2 or importance.min() < 0:
        raise ValueError(
            f"importance has shape {importance.shape}; give a table [d, k] of at least 2 x 2, none"
            " negative"
        )
    total = importance.sum()
    if total == 0:
        return 0.0, 0.0
    weights = importance.sum(axis=1) / total
    return float(weights @ _concentration(importance)), float(np.mean(_concentration(importance.T)))


def _concentration(rows: np.ndarray) -> np.ndarray:
    """1 - H(row / sum) / log(length): 1 where all is in one place, 0 where it is spread evenly, or
    where there is nothing.
    """
    totals = rows.sum(axis=1, keepdims=True)
    shares = np.divide(rows, totals, out=np.full_like(rows, 1 / rows.shape[1]), where=totals > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return 1 + (shares * logs).sum(axis=1) / np.log(rows.shape[1])


def _gaps(scores: np.ndarray) -> np.ndarray:
    """The highest minus the second highest score of each column."""
    ordered = np.sort(scores, axis=0)
    return ordered[-1] - ordered[-2]


def _binned(values: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each value: its grade, where there are no more than `num_bins` of them, else one
    of so many of equal width.
    """
    grades, index = np.unique(values, return_inverse=True)
    if len(grades) <= num_bins:
        return index
    edges = np.linspace(values.min(), values.max(), num_bins + 1)
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, num_bins - 1)


def _entropy(index: np.ndarray) -> float:
    """Of the relative frequencies, nats."""
    frequencies = np.unique(index, return_counts=True)[1] / len(index)
    return float(-np.sum(frequencies * np.log(frequencies)))


def _joint_entropy(first: np.ndarray, second: np.ndarray) -> float:
    return _entropy(first * (second.max() + 1) + second)


def _features(codes, test_codes, labels, test_labels) -> tuple[np.ndarray, ...]:
    """As arrays [n, d], [m, d], [n], [m], or a ValueError."""
    codes, test_codes = finite_rows(codes, "codes"), finite_rows(test_codes, "test_codes")
    labels, test_labels = _known(labels, "labels"), _known(test_labels, "test_labels")
    if codes.ndim != 2 or test_codes.ndim != 2 or codes.shape[1] != test_codes.shape[1]:
        raise ValueError(
            f"codes have shapes {codes.shape} and {test_codes.shape}; give [n, d] and [m, d]"
        )
    if labels.shape != codes.shape[:1] or test_labels.shape != test_codes.shape[:1]:
        raise ValueError(
            f"labels have shapes {labels.shape} and {test_labels.shape}; give one for each of"
            f" {len(codes)} and {len(test_codes)}"
        )
    if len(codes) == 0 or len(test_codes) == 0:
        raise ValueError(
            "there are no codes; give at least one example to learn from and one to test"
        )
    return codes, test_codes, labels, test_labels


def _known(labels: ArrayLike, name: str) -> np.ndarray:
    """Labels of any kind; where they are floating point, no NaN."""
    labels = np.asarray(labels)
    return finite_rows(labels, name) if np.issubdtype(labels.dtype, np.inexact) else labels


def _scored(codes, factors) -> tuple[np.ndarray, np.ndarray]:
    """As arrays [n, d] and [n, k], each column less its centre and over its scale, or a
    ValueError.
    """
    codes, factors = finite_rows(codes, "codes"), finite_rows(factors, "factors")
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise ValueError(
            f"codes have shape {codes.shape} and factors {factors.shape}; give [n, d] and [n, k], a"
            " row for each example"
        )
    if codes.shape[1] < 2:
        raise ValueError(f"codes have {codes.shape[1]} column; the scores compare at least 2")
    if len(codes) < 2 or factors.shape[1] < 1:
        raise ValueError(
            f"codes have shape {codes.shape} and factors {factors.shape}; give at least 2 examples"
            " and a factor"
        )
    (codes,), (factors,) = of_unit_columns(codes), of_unit_columns(factors)
    constant = np.flatnonzero(np.ptp(factors, axis=0) == 0)
    if len(constant):
        raise ValueError(f"factor {constant[0]} does not vary, so it has no score; leave it out")
    return codes, factors
