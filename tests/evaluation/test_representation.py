"""Codes that are the factors score 1, noise 0, a rotation between; probes on data whose accuracy is
known; the experiment in short.
"""

import numpy as np
import pytest

from tests.lib.scripts import run
from vaejax import representation as r

GENERATOR = np.random.default_rng(0)
FACTORS = GENERATOR.integers(5, size=(4_000, 4)).astype(float)  # four factors of five grades
PERMUTED = FACTORS[:, [2, 0, 3, 1]] * np.array([1.0, -2.0, 0.5, 3.0]) + 1.0
ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
NOISE = GENERATOR.normal(size=(4_000, 4))


def scores(codes, factors=FACTORS):
    return {
        "mig": r.mig(codes, factors),
        "sap": r.sap(codes, factors),
        **r.dci(codes, factors, num_trees=20)._asdict(),
    }


def test_the_factors_themselves_score_one():
    """To within what chance correlates: of 4,000 examples a squared correlation is 1/4,000, and
    1/900 (4.9 errors of it, 1e-6) at most.
    """
    assert r.sap(PERMUTED, FACTORS) > 1 - 25 / 4_000
    # By chance I(i; j) is chi^2_16 / (2 n) nats: 1e-6 of them are above 60, and H is log 5 = 1.6
    # nats.
    assert r.mig(PERMUTED, FACTORS) > 1 - 60 / 8_000 / 1.6
    assert min(r.dci(PERMUTED, FACTORS, num_trees=20)) > 0.99


def test_noise_scores_nothing():
    """Correlations and informations as above, with 19 x 4 degrees of freedom: 1e-6 of chi^2_76 are
    above 147, 0.011 of H.
    """
    assert 0 <= r.sap(NOISE, FACTORS) < 25 / 4_000
    assert 0 <= r.mig(NOISE, FACTORS) < 147 / 8_000 / 1.6
    of_dci = r.dci(NOISE, FACTORS, num_trees=20)
    assert (
        abs(of_dci.informativeness) < 0.25
    )  # forests fit noise, so that R^2 of held-out examples is below 0
    assert max(of_dci.disentanglement, of_dci.completeness) < 0.05


def test_a_rotation_is_as_informative_and_less_disentangled():
    rotated, own = scores((FACTORS - 2) @ ROTATION), scores(PERMUTED)
    assert rotated["informativeness"] > 0.9
    for name in ("mig", "sap", "disentanglement", "completeness"):
        assert rotated[name] < own[name] - 0.3


def test_two_codes_for_one_factor_have_no_gap():
    """A copy of every code: MIG and SAP are 0, and C is 1 - log 2/log 8 at the most, as each factor
    needs two codes.
    """
    twice = np.concatenate([FACTORS, FACTORS], axis=1)
    assert r.mig(twice, FACTORS) == pytest.approx(0, abs=1e-12)
    assert r.sap(twice, FACTORS) == pytest.approx(0, abs=1e-12)
    shared = np.concatenate([np.eye(4), np.eye(4)])
    np.testing.assert_allclose(
        r.disentanglement_and_completeness(shared), (1, 1 - np.log(2) / np.log(8))
    )


def test_importances_by_hand():
    """p_1 = (3/4, 1/4), p_2 = (0, 1), weighted by the codes' shares 4/6 and 2/6; the factors' are
    (1, 0) and (1/3, 2/3).
    """
    entropy = lambda *p: -sum(q * np.log(q) for q in p if q > 0)  # noqa: E731
    d, c = r.disentanglement_and_completeness([[3.0, 1.0], [0.0, 2.0]])
    assert d == pytest.approx(4 / 6 * (1 - entropy(0.75, 0.25) / np.log(2)) + 2 / 6)
    assert c == pytest.approx(0.5 * (1 + 1 - entropy(1 / 3, 2 / 3) / np.log(2)))
    assert r.disentanglement_and_completeness(np.ones((3, 2))) == pytest.approx((0, 0))
    assert r.disentanglement_and_completeness(np.zeros((3, 2))) == (0, 0)


def test_mutual_information_of_a_table():
    """A code of two values that agrees with a fair coin in 3 of 4 examples: I = log 2 - H(1/4)."""
    coin, code = np.array([0, 0, 0, 0, 1, 1, 1, 1.0]), np.array([0, 0, 0, 1, 1, 1, 1, 0.0])
    expected = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    np.testing.assert_allclose(
        r.mutual_information(np.stack([code, 0 * code], axis=1), coin[:, None]),
        [[expected], [0]],
        atol=1e-12,
    )
    assert r.mig(np.stack([code, coin], axis=1), coin[:, None]) == pytest.approx(
        1 - expected / np.log(2)
    )


def test_gaps_are_means_over_factors_of_what_each_has():
    """Two factors of other entropies, log 2 and log 4, each known to one code: MIG is the mean of
    its two ratios, 1 and 3/4 at a code that tells three of the four grades, or two bits.
    """
    bit, grade = np.repeat([0.0, 1.0], 40), np.tile([0.0, 1.0, 2.0, 3.0], 20)
    merged = np.minimum(grade, 2.0)  # I = H(1/4, 1/4, 1/2) = 1.5 log 2 of 2 log 2
    factors = np.stack([bit, grade], axis=1)
    assert r.mig(np.stack([bit, merged], axis=1), factors) == pytest.approx((1 + 0.75) / 2)
    # squared correlations: 1 of the bit, and of the merged grade with its own as NumPy has it
    squared = np.corrcoef(merged, grade)[0, 1] ** 2
    assert r.sap(np.stack([bit, merged], axis=1), factors) == pytest.approx((1 + squared) / 2)
    third = np.stack([bit, merged, bit + 0.01 * grade], axis=1)
    gap = 1 - np.corrcoef(bit + 0.01 * grade, bit)[0, 1] ** 2
    of_grade = squared - np.corrcoef(bit + 0.01 * grade, grade)[0, 1] ** 2
    assert r.sap(third, factors) == pytest.approx((gap + of_grade) / 2)


def test_a_penalty_is_the_weight_of_the_squares():
    """So large a one that the code counts for nothing leaves the larger class; a small one lets a
    far code of the other class be right.
    """
    codes, labels = np.array([[0.0]] * 6 + [[1.0]] * 4), np.array([0] * 6 + [1] * 4)
    assert r.linear_probe(codes, labels, codes, labels, penalty=1e6) == 0.6
    assert r.linear_probe(codes, labels, codes, labels, penalty=1e-3) == 1.0


def test_continuous_codes_are_binned_by_equal_widths():
    """u uniform on [0, 1] in 20 bins: I(u; u) = H = log 20 nats, to within the 19/(2 n) of its bias
    and its error.
    """
    u = np.random.default_rng(2).random((20_000, 1))
    np.testing.assert_allclose(
        r.mutual_information(np.concatenate([u, -u], axis=1), u), np.log(20), atol=2e-3
    )


def test_a_collapsed_code_counts_for_nothing():
    collapsed = np.concatenate([PERMUTED, np.zeros((4_000, 2))], axis=1)
    assert r.mig(collapsed, FACTORS) == pytest.approx(r.mig(PERMUTED, FACTORS))
    assert r.sap(collapsed, FACTORS) == pytest.approx(r.sap(PERMUTED, FACTORS))
    assert min(r.dci(collapsed, FACTORS, num_trees=20)) > 0.99


def test_neighbours_by_hand():
    """On a line: of the three nearest to 0.4 two are of class 7, of those to 9 all are of class 3;
    of a tie the smallest wins.
    """
    codes, labels = np.array([[0.0], [0.5], [1.0], [8.0], [10.0]]), np.array([7, 7, 3, 3, 3])
    assert r.knn_accuracy(codes, labels, [[0.4], [9.0]], [7, 3], num_neighbours=3) == 1.0
    assert r.knn_accuracy(codes, labels, [[0.4], [9.0]], [3, 3], num_neighbours=3) == 0.5
    assert r.knn_accuracy([[0.0], [1.0]], [5, 2], [[0.1]], [2], num_neighbours=2) == 1.0


def test_neighbours_are_those_of_a_table_of_all_distances():
    """And in blocks, beyond ROWS_AT_ONCE."""
    generator = np.random.default_rng(3)
    codes, test = generator.normal(size=(300, 3)), generator.normal(size=(1_500, 3))
    labels, truth = generator.integers(3, size=300), generator.integers(3, size=1_500)
    nearest = np.argsort(((test[:, None] - codes[None]) ** 2).sum(axis=2), axis=1)[:, :5]
    predicted = [np.bincount(row, minlength=3).argmax() for row in labels[nearest]]
    assert r.knn_accuracy(codes, labels, test, truth) == np.mean(predicted == truth)


def test_a_line_is_found_and_a_ring_is_not():
    """Three classes apart along a line in a plane: all right. A disc within a ring: a linear probe
    knows only the larger class.
    """
    generator = np.random.default_rng(4)
    labels = generator.integers(3, size=600)
    codes = np.stack([4.0 * labels, np.zeros(600)], axis=1) + 0.5 * generator.uniform(
        -1, 1, size=(600, 2)
    )
    assert r.linear_probe(codes[:300], labels[:300], codes[300:], labels[300:]) == 1.0
    angle, inside = generator.uniform(0, 2 * np.pi, 3_000), generator.random(3_000) < 0.3
    ring = np.where(inside, 1.0, 3.0)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rest, test = slice(0, 1_500), slice(1_500, None)
    assert r.linear_probe(ring[rest], inside[rest], ring[test], inside[test]) == np.mean(
        ~inside[test]
    )
    assert r.knn_accuracy(ring[rest], inside[rest], ring[test], inside[test]) == 1.0


def test_a_single_class_is_what_the_probe_says():
    assert r.linear_probe([[0.0], [1.0]], [4, 4], [[0.5], [2.0]], [4, 5]) == 0.5


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"codes have shapes \(3,\) and"):
        r.linear_probe(np.zeros(3), np.zeros(3), np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="one for each of 3 and 2"):
        r.knn_accuracy(np.zeros((3, 1)), np.zeros(2), np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="num_neighbours = 5; .* the 3 codes"):
        r.knn_accuracy(np.zeros((3, 1)), np.zeros(3), np.zeros((2, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="factor 1 does not vary"):
        r.mig(PERMUTED, np.stack([FACTORS[:, 0], np.ones(4_000)], axis=1))
    with pytest.raises(ValueError, match="the scores compare at least 2"):
        r.sap(PERMUTED[:, :1], FACTORS)
    with pytest.raises(ValueError, match="a row for each example"):
        r.mutual_information(PERMUTED[:10], FACTORS)
    with pytest.raises(ValueError, match="give a table"):
        r.disentanglement_and_completeness([[1.0, -1.0], [0.0, 1.0]])


@pytest.mark.slow
def test_the_experiment_in_short(tmp_path):
    """Posterior means tell digits apart; a beta of 20 leaves fewer units active, and less of the
    factors in them, than one of 1.
    """
    flags = [
        "--num-steps",
        "300",
        "--hidden",
        "30",
        "--latent-dim",
        "4",
        "--label-counts",
        "100",
        "--num-choices",
        "4",
        "--num-seeds",
        "1",
    ]
    flags += [
        "--betas",
        "1",
        "20",
        "--shape-steps",
        "600",
        "--shape-examples",
        "1000",
        "--shape-latent-dim",
        "4",
    ]
    result, printed = run("representation", *flags, folder=tmp_path)
    probed = {
        (row["probe"], row["features"].split(",")[0]): np.mean(row["accuracy"])
        for row in result["digits"]
    }
    assert probed["linear probe", "posterior means"] > 0.3  # chance is 0.1
    beta_1, beta_20 = result["shapes"]
    assert (
        beta_1["active"] > beta_20["active"]
        and beta_1["informativeness"] > beta_20["informativeness"] + 0.1
    )
    assert "| linear probe | posterior means, 4 |" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "probes.png",
        "disentanglement.png",
        "traversals.png",
        "result.json",
    }
