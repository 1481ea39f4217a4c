"""Networks of what is observed, p(y | x), and classifiers that learn from a few labelled images
{"x": image, "y": one-hot}.
"""

from collections.abc import Callable

import numpy as np
import optax

import vaejax
from vaejax.base.supports import REAL, Support


@vaejax.component
class Network:
    """log p(target | given) of one example {name: value}, nats, by a conditional whose parameters
    are phi: what maximum likelihood maximises. Nothing is drawn.
    """

    conditional: vaejax.Conditional
    target: str = "y"
    given: str = "x"

    def __call__(self, params: vaejax.Params, example, key):
        return self.conditional(params.phi, example[self.given]).log_prob(example[self.target])

    def init(self, key, example) -> vaejax.Params:
        return vaejax.Params((), self.conditional.init(key, example[self.given]))

    @property
    def support(self) -> dict[str, Support]:
        return {self.given: REAL, self.target: self.conditional.support}

    @property
    def objective(self) -> vaejax.Objective:
        return vaejax.minibatch(self, support=self.support)


def check_labels(dataset: vaejax.Dataset, labels: np.ndarray, flag: str, *numbers: int) -> None:
    """Raises ValueError for numbers of labelled images that there are not; `flag` gave them."""
    counts = np.bincount(labels)
    for number in numbers:
        if number < 0 or number % len(counts) or number // len(counts) > counts.min():
            raise ValueError(
                f"{flag} = {number}; give multiples of {len(counts)} up to"
                f" {len(counts) * counts.min()}, or 0 for all of {dataset.name}"
            )


def labelled_rows(labels: np.ndarray, number: int, seed: int) -> np.ndarray:
    """`number` rows, equally many of each class; all of them for 0."""
    if not number:
        return np.arange(len(labels))
    num_classes = int(labels.max()) + 1
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.concatenate(
        [order[labels[order] == c][: number // num_classes] for c in range(num_classes)]
    )


def log_class(net: vaejax.OneHotCategorical, params: vaejax.Params, example, key):
    """log p(y | x), nats."""
    return Network(net)(params, example, key)


def with_weight_prior(
    bound_of: Callable, decay: float, size: int, params: vaejax.Params, example, key
) -> vaejax.Terms:
    """The bound of one of `size` examples, and what is maximised: its sum with (1/size) log N(w; 0,
    I / decay) of all weights w, but for a constant. That finds the mode of the posterior.
    """
    bound = bound_of(params, example, key)
    log_prior = -decay / (2 * size) * optax.tree.norm(params, squared=True)
    return vaejax.Terms(bound, bound + log_prior)
