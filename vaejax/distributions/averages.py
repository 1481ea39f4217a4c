"""What is averaged over samples where a density knows no closed form."""

import jax
import jax.numpy as jnp

from vaejax.base.types import Key, PyTree
from vaejax.distributions.base import Distribution, NotKnownError

MEAN_SAMPLES = 100


def mean_or_average(p: Distribution, key: Key) -> PyTree:
    """E z, by the mean of 100 samples where it is not known in closed form."""
    try:
        return p.mean()
    except NotKnownError:
        samples = jax.vmap(p.sample)(jax.random.split(key, MEAN_SAMPLES))
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), samples)
