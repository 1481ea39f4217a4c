"""Normalising flows: a simple density pushed through invertible layers."""

from dataclasses import replace
from typing import Any

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import pytree, static
from vaejax.distributions.base import Distribution, NotKnownError, as_event
from vaejax.distributions.coupling import FlowLayer, Vector


@pytree
class Flow(Distribution):
    """log p(y) = log N(z; base) - sum_l log |det dy/dz| of layer l, nats, z being y taken back
    through the layers.

    `sample_and_log_prob` goes forward only. `log_prob` goes backward, and is refused where a layer
    has no fast inverse.
    """

    base: Any  # a DiagNormalDensity, or that at its uniform numbers
    params: tuple[PyTree, ...]
    context: Float[Array, " c"] | None
    layers: tuple[FlowLayer, ...] = static()
    reparameterised = True

    @property
    def event(self) -> Any:
        return self.base.event

    def sample(self, key: Key) -> Vector:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[Vector, Scalar]:
        z = self.base.sample(key)
        log_prob = self.base.log_prob(z)
        for layer, params in zip(self.layers, self.params, strict=True):
            z, log_det = layer.forward(params, z, self.context)
            log_prob -= log_det
        return z, log_prob

    def from_uniform(self, u: Vector) -> Vector:
        no_key: Any = None  # which is not used
        return self.at_uniform(u).sample(no_key)

    def at_uniform(self, u: Vector) -> "Flow":
        return replace(self, base=self.base.at_uniform(u))

    def log_prob(self, value: ArrayLike) -> Scalar:
        for layer in self.layers:
            if not layer.fast_inverse:
                raise NotKnownError(
                    f"a flow of {layer} has no cheap log-density at a point that it did not sample"
                    " itself; vaejax.Pathwise needs none, and vaejax.RealNVP has one everywhere"
                )
        z, log_det_sum = as_event("Flow", value, self.event), 0.0
        for layer, params in reversed(list(zip(self.layers, self.params, strict=True))):
            z, log_det = layer.inverse(params, z, self.context)
            log_det_sum += log_det
        return self.base.log_prob(z) - log_det_sum


def init_layers(
    layers: tuple[FlowLayer, ...], key: Key, z: Vector, context: jax.Array | None
) -> tuple[PyTree, ...]:
    """Parameters of each layer. They start close to the identity."""
    return tuple(
        layer.init(layer_key, z, context)
        for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True)
    )
