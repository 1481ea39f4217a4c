"""What the ELBO misses of log p(x), split into its two causes, on a whole data set.

    log p(x) - ELBO = [log p(x) - max_q ELBO(q)] + [max_q ELBO(q) - ELBO]

The first is the approximation gap, what no q of the family can do; the second the amortisation gap,
what the encoder misses of the best q of its family for each example. Reference: Cremer, Li &
Duvenaud 2018.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from scipy.special import stdtrit

from vaejax.base.checks import require_count, require_key, require_kind
from vaejax.base.mapping import Transformed, estimate
from vaejax.base.types import Key, Params, PyTree
from vaejax.bounds import elbo
from vaejax.data.base import Source
from vaejax.data.shares import map_blocks
from vaejax.inference.refined import Refined
from vaejax.models.given import checked_data


class Gap(NamedTuple):
    """Of each example [n], nats, in float64: three numbers and what lies between them. The parts
    add up exactly.
    """

    log_marginal: np.ndarray
    best: np.ndarray
    elbo: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.log_marginal - self.elbo

    @property
    def approximation(self) -> np.ndarray:
        return self.log_marginal - self.best

    @property
    def amortisation(self) -> np.ndarray:
        return self.best - self.elbo


def inference_gap(
    refined: Refined,
    params: Params,
    xs: PyTree | Source,
    log_marginal: ArrayLike | Callable[[Params, Any, Key], Any],
    key: Key,
    *,
    num_samples: int = 200,
    transform: Callable[[Any, Key], Any] | None = None,
    batch_size: int = 100,
    mesh: Mesh | None = None,
) -> Gap:
    """The gap of `refined.model`'s q on every example, its best q by `refined`;
    `vaejax.base.mapping.estimate(gap.approximation)` and so on.

    Args:
      log_marginal: log p(x) of each example [n], or a function of one, such as a `vaejax.AIS`. A
        lower bound makes the approximation gap too small, by what it is below.
      num_samples: weights that each ELBO is the mean of. The two q have samples of their own: with
        common ones the difference would be quieter where they are alike, and its error would not be
        seen.
      transform: what training applied to one stored example. Example i is the same in all three
        numbers.
      mesh: the batches are shared out over it, as in `vaejax.evaluate`.

    Warns where the mean amortisation gap is below 0, which the gap to the best q cannot be, by a t
    test at a level of 3e-7.
    """
    require_key(key)
    require_kind(refined, Refined, "`refined` of inference_gap")
    require_count(num_samples, "num_samples")
    _, params, source = checked_data(refined, params, xs, transform, mesh)
    given = None if callable(log_marginal) else _of_each(log_marginal, len(source))

    def mapped(function) -> np.ndarray:
        function = Transformed(function, transform)
        return map_blocks(function, params, source, key, batch_size, mesh).astype(np.float64)

    best = mapped(partial(_refined_elbo, refined, num_samples))
    plain = mapped(partial(elbo, refined.model, num_samples=num_samples))
    gap = Gap(mapped(log_marginal) if given is None else given, best, plain)
    _warn_of_worse(gap)
    return gap


def _warn_of_worse(gap: Gap) -> None:
    amortisation = estimate(gap.amortisation)
    least = stdtrit(len(gap.best) - 1, 3e-7)  # -5 standard errors of many examples
    if amortisation.mean < least * amortisation.standard_error:
        warnings.warn(
            f"the refined q is {-amortisation.mean:.3g} nats below the encoder's, so it is not the"
            " best: give more steps, a lower learning_rate, or a family that holds the encoder's",
            stacklevel=3,
        )


def _of_each(log_marginal: ArrayLike, size: int) -> np.ndarray:
    """[n] in float64, or a ValueError."""
    values = np.asarray(log_marginal, np.float64)
    if values.shape != (size,):
        raise ValueError(
            f"log_marginal has shape {values.shape}; give one number for each of {size} examples,"
            " or a function of one"
        )
    return values


def _refined_elbo(refined: Refined, num_samples: int, params: Params, x: PyTree, key: Key):
    """Under a key of its own, so that the two q share no noise."""
    return elbo(refined, params, x, jax.random.fold_in(key, 1), num_samples)
