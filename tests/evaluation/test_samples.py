"""Samples of the same distribution pass, missing and added modes are seen, and the p-value is
one.
"""

import numpy as np
import pytest
from scipy import stats

from vaejax.evaluation.samples import classifier_two_sample_test, precision_recall

GENERATOR = np.random.default_rng(0)


def modes(centres, size=400):
    return np.concatenate(
        [centre + 0.1 * GENERATOR.normal(size=(size, 2)) for centre in np.asarray(centres, float)]
    )


def test_one_mode_of_two_has_full_precision_and_half_the_recall():
    both, single, added = (
        modes([(0, 0), (5, 0)]),
        modes([(0, 0)], 800),
        modes([(0, 0), (5, 0), (0, 5), (5, 5)], 200),
    )
    precision, recall = precision_recall(both, single)
    assert precision > 0.95 and recall == pytest.approx(0.5, abs=0.03)
    precision, recall = precision_recall(both, added)
    assert precision == pytest.approx(0.5, abs=0.03) and recall > 0.9


def test_precision_and_recall_by_hand():
    """On a line, by one neighbour: the radii of 0, 1 and 3 are 1, 1 and 2, those of 1.9 and 6 are
    4.1.
    """
    real, generated = np.array([[0.0], [1.0], [3.0]]), np.array([[1.9], [6.0]])
    assert precision_recall(real, generated, 1) == (
        0.5,
        1.0,
    )  # 1.9 is within 2 of 3, 6 within none; 0, 1 and 3 are within 4.1 of 1.9
    assert precision_recall(real, real, 2) == (1.0, 1.0)


def test_a_p_value_is_the_tail_of_a_mean_of_coins():
    """P(the mean of n fair coins > accuracy), by the normal approximation."""
    real, generated = GENERATOR.normal(size=(2, 400, 2))
    for shift in (0.0, 0.3):
        accuracy, p_value, n = classifier_two_sample_test(real, generated + shift)
        expected = stats.norm.sf(accuracy, 0.5, 0.5 / np.sqrt(n))
        assert n == 400 and p_value == pytest.approx(expected)


def test_blocks_change_nothing(monkeypatch):
    real, generated = GENERATOR.normal(size=(230, 4)), 1.5 * GENERATOR.normal(size=(170, 4))
    whole = precision_recall(real, generated)
    monkeypatch.setattr("vaejax.evaluation.features.ROWS_AT_ONCE", 7)
    assert precision_recall(real, generated) == whole


@pytest.mark.parametrize("num_neighbours", [None, 5])
def test_p_values_of_equal_samples_are_uniform(num_neighbours):
    """400 tests of samples of one distribution: Kolmogorov-Smirnov at 1e-6, the p-values spread
    over the steps of a binomial.
    """
    p_values = []
    for seed in range(400):
        real, generated = np.random.default_rng(seed).normal(size=(2, 200, 3))
        p_values.append(classifier_two_sample_test(real, generated, num_neighbours, seed).p_value)
    jitter = np.random.default_rng(1).uniform(-0.02, 0.02, size=400)
    assert stats.kstest(np.clip(np.array(p_values) + jitter, 0, 1), "uniform").pvalue > 1e-6
    assert min(p_values) > 1e-6


def test_a_shift_is_found_and_what_a_line_cannot_see_is_left_to_the_neighbours():
    """A mean off by half a standard deviation; then a disc against a ring, of one mean and one
    variance.
    """
    real = GENERATOR.normal(size=(2_000, 2))
    assert (
        classifier_two_sample_test(real, GENERATOR.normal((0.5, 0), 1, size=(2_000, 2))).p_value
        < 1e-6
    )
    angle = GENERATOR.uniform(0, 2 * np.pi, size=2_000)
    ring = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert classifier_two_sample_test(real, ring).p_value > 1e-6
    assert classifier_two_sample_test(real, ring, num_neighbours=5).p_value < 1e-6


def test_images_are_features_too():
    real = GENERATOR.random((60, 8, 8))
    assert precision_recall(real, real).recall == 1
    assert (
        classifier_two_sample_test(real, 1 + real).accuracy == 1
        and classifier_two_sample_test(real, real).num_tested == 60
    )


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"features have shapes \(5, 2\) and \(5, 3\)"):
        precision_recall(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="num_neighbours = 5; .* below the 5 real examples"):
        precision_recall(np.zeros((5, 2)), np.zeros((9, 2)), 5)
    with pytest.raises(
        ValueError, match="19 real and 50 generated examples; give at least 20 of each"
    ):
        classifier_two_sample_test(np.zeros((19, 2)), np.zeros((50, 2)))
