"""Binary latents in layers, q(b | x) = prod_t Bernoulli(b_t; sigmoid(l_t)), where the logits l_t
depend on x and on the layers before t: a Bernoulli q is one layer, a graph of Bernoulli nodes has
one for each node, parents first.

The gradient of E_q f in phi, f held fixed, is the sum over t of E[g_t dl_t/dphi], where g_t
estimates the gradient in l_t of E[f | b_1, ..., b_(t-1)]. An estimator gives g_t, layer by layer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vaejax.base.types import Key, PyTree, Scalar
from vaejax.bounds import stopped
from vaejax.distributions.base import Distribution
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.noise import open_uniform
from vaejax.estimators.base import require_family
from vaejax.models.joint import Joint, keys_of
from vaejax.models.node import Values

Latents = Float[Array, "..."]

REMEDY = "use vaejax.ScoreFunction, which takes any, or vaejax.Pathwise where samples move smoothly"
ONE = "b"  # the name of the layer of a q without names


def logit(u: jax.Array) -> jax.Array:
    """log u / (1 - u)."""
    return jnp.log(u) - jnp.log1p(-u)


def above_zero(z: Latents) -> Latents:
    """b = 1[z > 0]."""
    return (z > 0).astype(z.dtype)


class LayerSample(NamedTuple):
    """b_t = 1[l_t + logit(u_t) > 0] of every layer, with its uniform numbers and its logits."""

    b: Values
    u: Values
    logits: Values


class Layers(NamedTuple):
    """The layers of q, parents first: the logits of each at the values of those before it, and
    {layer: value} as the model takes z.
    """

    names: tuple[str, ...]
    logits: Callable[[str, Values], Latents]
    latents: Callable[[Values], PyTree]

    def draw(self, key: Key) -> LayerSample:
        b, u, logits = {}, {}, {}
        for name, layer_key in keys_of(key, self.names).items():
            logits[name] = self.logits(name, b)
            u[name] = open_uniform(layer_key, logits[name].shape, logits[name].dtype)
            b[name] = above_zero(logits[name] + logit(u[name]))
        return LayerSample(b, u, logits)

    def before(self, name: str, values: Values) -> Values:
        """The values of the layers before this one."""
        return {other: values[other] for other in self.names[: self.names.index(name)]}

    def completed(
        self, values: Values, u: Values, value_of: Callable[[Latents], Latents]
    ) -> PyTree:
        """z of these values and, for the layers after them, of value_of(l_t + logit(u_t))."""
        values = dict(values)
        for name in self.names[len(values) :]:
            values[name] = value_of(self.logits(name, values) + logit(u[name]))
        return self.latents(values)

    def surrogate(self, b: Values, gradients: Values) -> Scalar:
        """A term whose gradient in the logits of each layer, at b, is the given one."""
        terms = [jnp.sum(stopped(gradients[name]) * self.logits(name, b)) for name in self.names]
        return jnp.sum(jnp.stack(terms))


def layers_of(q: Distribution, owner: object) -> Layers:
    """TypeError for a q, or a node of it, that is not Bernoulli."""
    if not isinstance(q, Joint):
        layer: Any = q
        require_family(layer, (BernoulliDensity,), owner, REMEDY)
        return Layers((ONE,), lambda name, values: layer.logits, lambda values: values[ONE])

    def logits(name: str, values: Values) -> Latents:
        factor: Any = q.factor(name, values)
        require_family(factor, (BernoulliDensity,), owner, REMEDY, f"a q whose node {name!r}")
        return factor.logits

    return Layers(q.graph.order, logits, dict)


def by_layer(layers: Layers, psi: PyTree) -> dict[str, PyTree]:
    """{layer: its part of psi}, which of a q without names is all of it."""
    return {ONE: psi} if layers.names == (ONE,) else psi


def as_psi(layers: Layers, parts: dict[str, PyTree]) -> PyTree:
    """The inverse of `by_layer`."""
    return parts[ONE] if layers.names == (ONE,) else parts
