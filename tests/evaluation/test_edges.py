"""What is measured of tables at the edges: NaN and infinity are refused by name and row, constants
and one example have what is defined or a reason, and neither an offset nor a scale changes what is
near.
"""

from functools import partial

import numpy as np
import pytest

import vaejax
from tests.lib.cases import cases
from vaejax import representation as r
from vaejax import samples as s
from vaejax.evaluation.features import of_common_scale, squared_distances
from vaejax.evaluation.model_checks import PredictiveCheck

GENERATOR = np.random.default_rng(0)
CODES, OTHERS = GENERATOR.normal(size=(80, 3)), 1.2 * GENERATOR.normal(size=(60, 3))
FACTORS = GENERATOR.integers(3, size=(80, 2)).astype(float)
LABELS, OTHER_LABELS = GENERATOR.integers(3, size=80), GENERATOR.integers(3, size=60)

# name: (function of tables, those tables)
OF_TABLES = {
    "linear_probe": (r.linear_probe, (CODES, LABELS, OTHERS, OTHER_LABELS)),
    "knn_accuracy": (r.knn_accuracy, (CODES, LABELS, OTHERS, OTHER_LABELS)),
    "mutual_information": (r.mutual_information, (CODES, FACTORS)),
    "mig": (r.mig, (CODES, FACTORS)),
    "sap": (r.sap, (CODES, FACTORS)),
    "dci": (partial(r.dci, num_trees=3), (CODES, FACTORS)),
    "precision_recall": (s.precision_recall, (CODES, OTHERS)),
    "two samples": (s.classifier_two_sample_test, (CODES, OTHERS)),
    "two samples, neighbours": (
        partial(s.classifier_two_sample_test, num_neighbours=5),
        (CODES, OTHERS),
    ),
    "active_units": (vaejax.active_units, (CODES,)),
    "importances": (r.disentanglement_and_completeness, (np.abs(CODES),)),
}
FITTED = ("linear_probe", "two samples")  # to the tolerance of an optimiser


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", OF_TABLES)
def test_nan_and_infinity_are_refused(name, number):
    """In each of the tables, with the row."""
    function, tables = OF_TABLES[name]
    for position, table in enumerate(tables):
        wrong = np.array(table, float)
        wrong[3] = number
        with pytest.raises(ValueError, match="NaN or infinity, first in row 3"):
            function(*tables[:position], wrong, *tables[position + 1 :])


SAME = [name for name in OF_TABLES if name not in ("active_units", "importances")]


@pytest.mark.parametrize("name", cases(SAME))
@pytest.mark.parametrize(
    "change",
    [lambda x: x + 1e8, lambda x: x - 1e12, lambda x: 1e200 * x, lambda x: 1e-200 * x],
    ids=["+1e8", "-1e12", "1e200", "1e-200"],
)
def test_neither_offset_nor_scale_change_what_is_near(name, change):
    """Numbers of three digits, so that 1e12 rounds them to four more than neighbours take."""
    function, tables = OF_TABLES[name]
    tables = [np.round(t, 3) if t.dtype.kind == "f" else t for t in tables]
    features = [(t.ndim == 2 and t is not tables[1]) or name in TWO_SAMPLES for t in tables]
    moved = [change(t) if moves else t for t, moves in zip(tables, features, strict=True)]
    expected = function(*tables)
    np.testing.assert_allclose(function(*moved), expected, atol=1e-3)


TWO_SAMPLES = ("precision_recall", "two samples", "two samples, neighbours")


def test_distances_are_those_of_the_differences():
    """Of two clusters 2e8 apart, each of width 1: a product alone has no digit left for the
    distances within.
    """
    points = np.concatenate([CODES + 1e8, CODES - 1e8])
    (scaled,) = of_common_scale(points)
    squares = np.concatenate(list(squared_distances(scaled, scaled)))
    exact = ((scaled[:, None] - scaled[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squares, exact, rtol=1e-6)
    assert (np.diag(squares) == 0).all()


def test_constants_and_few_examples_have_what_is_defined():
    constant = np.full((80, 3), 0.1)
    assert r.mig(constant, FACTORS) == r.sap(constant, FACTORS) == 0
    assert s.precision_recall(constant, constant) == (1, 1)
    assert s.classifier_two_sample_test(constant, constant).accuracy == 0.5
    assert not vaejax.active_units(constant).any()
    assert s.precision_recall(constant[:2], constant[:2], 1) == (1, 1)
    with pytest.raises(ValueError, match="factor 0 does not vary"):
        r.mig(CODES, constant)
    for score in (r.mig, r.sap, r.dci, r.mutual_information):
        with pytest.raises(ValueError, match="give at least 2 examples"):
            score(CODES[:1], FACTORS[:1])
    with pytest.raises(ValueError, match="holds out a quarter of the examples; 7 are not enough"):
        r.dci(CODES[:7], FACTORS[:7])


REFUSED = {
    "no bin": (lambda: r.mig(CODES, FACTORS, 0), "num_bins = 0"),
    "one bin": (lambda: r.mig(CODES, FACTORS, 1), "num_bins = 1; .* give at least 2"),
    "half a bin": (lambda: r.mutual_information(CODES, FACTORS, 1.5), "num_bins = 1.5"),
    "no tree": (lambda: r.dci(CODES, FACTORS, 0), "num_trees = 0"),
    "no penalty": (
        lambda: r.linear_probe(CODES, LABELS, CODES, LABELS, 0),
        "penalty = 0; it must be positive and finite",
    ),
    "half a neighbour": (
        lambda: r.knn_accuracy(CODES, LABELS, CODES, LABELS, 1.5),
        "num_neighbours = 1.5",
    ),
    "no neighbour": (lambda: s.precision_recall(CODES, OTHERS, 0), "num_neighbours = 0"),
    "too many neighbours": (
        lambda: s.classifier_two_sample_test(CODES, OTHERS, 61),
        "num_neighbours = 61; it must be at most the 60 examples that train",
    ),
    "threshold": (lambda: vaejax.active_units(CODES, np.nan), "threshold = nan"),
}


@pytest.mark.parametrize("call, message", REFUSED.values(), ids=REFUSED)
def test_settings_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_z_score_of_a_statistic_that_does_not_vary():
    """A tenth is no binary number: a mean of some of them is off by its rounding."""
    same = PredictiveCheck(np.full(10, 0.1), np.full(7, 0.1))
    above = PredictiveCheck(np.full(10, 0.2), np.full(7, 0.1))
    below = PredictiveCheck(np.full(10, 0.1), np.full(7, 0.2))
    assert (same.z_score, above.z_score, below.z_score) == (0, np.inf, -np.inf)
    one_varies = PredictiveCheck(np.full(4, 3.0), np.array([1.0, 3.0, 1.0, 3.0]))
    assert one_varies.z_score == pytest.approx(3**0.5)  # 1 / (1.1547 / 2)
    for unknown in (np.full(4, np.nan), np.full(4, np.inf), np.ones(1)):
        assert np.isnan(PredictiveCheck(unknown, np.arange(4.0)).z_score)
