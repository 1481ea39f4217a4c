"""Finite mixtures."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.floats import log_sum_exp
from vaejax.base.types import Key, Scalar
from vaejax.base.values import pytree
from vaejax.distributions.base import Distribution


@pytree
class Mixture(Distribution):
    """log sum_c softmax(logits)_c p_c(z), nats. `components` is one distribution whose leaves have
    a leading axis c.

    >>> locs = jnp.array([[-1.0], [3.0]])
    >>> components = vaejax.distributions.DiagNormalDensity(locs, jnp.zeros((2, 1)))
    >>> mixture = vaejax.distributions.Mixture(jnp.zeros(2), components)
    >>> print(mixture.mean())
    [1.]
    """

    logits: Float[Array, " c"]
    components: Distribution
    reparameterised = False

    def require_event(self, value: ArrayLike) -> None:
        """Each component looks itself."""

    def mean(self) -> jax.Array:
        means = jax.vmap(lambda component: component.mean())(self.components)
        return jnp.tensordot(jax.nn.softmax(self.logits), means, 1)

    def sample(self, key: Key) -> jax.Array:
        component_key, value_key = jax.random.split(key)
        c = jax.random.categorical(component_key, self.logits)
        return jax.tree.map(lambda leaf: leaf[c], self.components).sample(value_key)

    def log_prob(self, value: ArrayLike) -> Scalar:
        log_p = jax.vmap(lambda component: component.log_prob(value))(self.components)
        return log_sum_exp(jax.nn.log_softmax(self.logits) + log_p)
