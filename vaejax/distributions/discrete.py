"""Categorical variables as one-hot vectors, and how many values discrete ones may have."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.floats import times_log
from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution, as_event, event_of, one_event

MAX_STATES = 2**16  # of one event that is to be enumerated


@pytree
class OneHotCategoricalDensity(Distribution):
    """sum_i sum_c x_ic log softmax(logits_i)_c, nats: independent categorical variables as one-hot
    vectors [..., c].
    """

    logits: Float[Array, "... c"]
    reparameterised = False

    @property
    def event(self) -> jax.ShapeDtypeStruct:
        return event_of(self, self.logits)

    def mean(self) -> jax.Array:
        return jax.nn.softmax(self.logits)

    def states(self) -> Float[Array, "n ..."]:
        """Every value."""
        *shape, num_categories = self.logits.shape
        states = combinations(num_categories, math.prod(shape))
        return jax.nn.one_hot(states, num_categories, dtype=self.logits.dtype).reshape(
            -1, *self.logits.shape
        )

    def sample(self, key: Key) -> jax.Array:
        return jax.nn.one_hot(
            jax.random.categorical(key, self.logits), self.logits.shape[-1], dtype=self.logits.dtype
        )

    def log_prob(self, value: ArrayLike) -> Scalar:
        value, log_p = one_event("OneHotCategorical", value, jax.nn.log_softmax(self.logits))
        return jnp.sum(times_log(value, log_p))

    def coordinate_log_probs(self, value: ArrayLike) -> Float[Array, " d"]:
        """Of each categorical variable."""
        value, logits = as_event("OneHotCategorical", value, self.logits), self.logits
        rows = (array.reshape(-1, logits.shape[-1]) for array in (value, logits))
        return jax.vmap(lambda x, l: OneHotCategoricalDensity(l).log_prob(x))(*rows)


def combinations(num_values: int, num_variables: int) -> np.ndarray:
    """All values of so many variables of so many values each, [n, variables]; ValueError if they
    are too many.
    """
    num_states = num_values**num_variables
    if num_states > MAX_STATES:
        raise ValueError(
            f"{num_variables} latents of {num_values} values have {num_states} states, more than"
            f" {MAX_STATES}; use vaejax.ScoreFunction, or fewer latents"
        )
    return np.array(list(itertools.product(range(num_values), repeat=num_variables)))
