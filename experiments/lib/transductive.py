"""A support vector machine that is shown unlabelled examples too."""

from typing import Any

import numpy as np

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)


def transductive_svm(
    x: np.ndarray, labels: np.ndarray, unlabelled: np.ndarray, penalty: float
) -> Any:
    """A machine with a Gaussian kernel whose unlabelled examples have the labels that it gives
    them.

    minimise |w|^2/2 + C sum_(labelled) loss(x, y) + C* sum_(unlabelled) min_y loss(x, y), by turns:
    the labels y of the unlabelled by the last machine, then a machine of all; C* rises to C by
    `SHARES`, so that what is sure is learnt first (Joachims 1999, with no constraint on how many
    there are of a class). The kernel is exp(-|x - x'|^2 / (2 v)), v the sum of the variances.
    """
    from sklearn.svm import SVC

    everything = np.concatenate([x, unlabelled])
    gamma = 1 / (2 * everything.var(axis=0).sum())
    machine = SVC(C=penalty, gamma=gamma).fit(x, labels)
    for share in SHARES:
        guessed = np.concatenate([labels, machine.predict(unlabelled)])
        weights = np.repeat([1.0, share], [len(x), len(unlabelled)])
        machine = SVC(C=penalty, gamma=gamma).fit(everything, guessed, sample_weight=weights)
    return machine
