"""The machine that is shown unlabelled examples, where these tell what the labelled ones do not."""

import numpy as np
from scipy.stats import norm

from experiments.lib.transductive import transductive_svm


def clusters(size, generator):
    """Points [2n, 10] of N(-1.5 e, I) and N(1.5 e, I), and their classes."""
    labels = np.repeat([0, 1], size)
    points = generator.normal(size=(2 * size, 10))
    points[:, 0] += 3.0 * labels - 1.5
    return points, labels


def test_unlabelled_examples_show_where_the_clusters_are():
    """Two labels of each class, five times: a third of the error goes; the least one is
    Phi(-1.5), 6.7 %.
    """
    from sklearn.svm import SVC

    generator, alone, together = np.random.default_rng(0), [], []
    for _ in range(5):
        (x, labels), (unlabelled, _) = clusters(2, generator), clusters(300, generator)
        new, truth = clusters(1_000, generator)
        alone.append(np.mean(SVC(C=10.0, gamma=0.05).fit(x, labels).predict(new) != truth))
        machine = transductive_svm(x, labels, unlabelled, 10.0)
        together.append(np.mean(machine.predict(new) != truth))
    assert norm.cdf(-1.5) < np.mean(together) < 0.7 * np.mean(alone)


def test_unlabelled_copies_of_the_labelled_examples_change_nothing():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(40, 3))
    labels = (x[:, 0] > 0).astype(int)
    x[:, 0] += np.where(labels, 1.0, -1.0)
    machine = transductive_svm(x, labels, x, 10.0)
    np.testing.assert_array_equal(machine.predict(x), labels)
