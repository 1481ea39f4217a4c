"""Conditionals p(. | given), whose parameters a net gives: likelihoods, encoders, classifiers, nodes of a graph.

`conditional.init(key, given)` gives its parameters, `conditional(params, given)` a Distribution. `support` says which values
the density is for, so that data outside it are refused before anything runs: "binary" or "real".
"""

from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError

from vaejax import distributions
from vaejax._values import value
from vaejax.types import Distribution, Key, Net, PyTree


def apply(net: Net, params: PyTree, given):
    """`net.apply(params, given)`, or a ValueError that says what to type where `given` is not one example."""
    try:
        return net.apply(params, given)
    except ScopeParamShapeError:
        shapes = ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(given))
        raise ValueError(
            f"{type(net).__name__} got an input of shape {shapes}, which its parameters do not fit; "
            "these functions take one example: use jax.vmap or vaejax.minibatch"
        ) from None


@value
class Bernoulli:
    """p(x | z) = prod_i Bernoulli(x_i; logits = net(z)_i). The net gives logits of x's shape."""

    net: Net
    support: ClassVar[str] = "binary"

    def init(self, key: Key, given) -> PyTree:
        return self.net.init(key, given)

    def __call__(self, params: PyTree, given) -> Distribution:
        return distributions.Bernoulli(apply(self.net, params, given))


@value
class Gaussian:
    """p(x | z) = N(x; net(z), scale^2 I). The net gives a mean of x's shape; `scale` is a number, or "learned" and shared.

    The scale decides the balance between reconstruction and KL, so it is never silently 1: state it, or learn it.
    """

    net: Net
    scale: float | Literal["learned"]
    support: ClassVar[str] = "real"

    def __post_init__(self):
        if self.scale != "learned" and not (isinstance(self.scale, int | float) and self.scale > 0):
            raise ValueError(f'Gaussian.scale = {self.scale!r}; give a positive number, or "learned"')

    def init(self, key: Key, given) -> PyTree:
        params = {"net": self.net.init(key, given)}
        return params | {"log_scale": jnp.zeros(())} if self.scale == "learned" else params

    def __call__(self, params: PyTree, given) -> Distribution:
        loc = apply(self.net, params["net"], given)
        log_scale = params["log_scale"] if self.scale == "learned" else jnp.log(jnp.asarray(self.scale, loc.dtype))
        return distributions.DiagNormal(loc, jnp.broadcast_to(log_scale, loc.shape))


@value
class DiagNormal:
    """q(z | x) = N(z; loc, diag exp(2 log_scale)). The net gives two heads, (loc, raw log_scale), of z's shape.

    log_scale = b tanh(raw / b) with b = `max_log_scale`: the identity near 0, smooth, and never so large that exp overflows
    (in float32 exp(2 s) does at s = 44). `None` leaves the raw head as it is.
    """

    net: Net
    max_log_scale: float | None = 7.0
    support: ClassVar[str] = "real"

    def init(self, key: Key, given) -> PyTree:
        return self.net.init(key, given)

    def __call__(self, params: PyTree, given) -> Distribution:
        heads = apply(self.net, params, given)
        if not isinstance(heads, tuple) or len(heads) != 2:
            raise TypeError("DiagNormal wants a net that returns (loc, log_scale), such as vaejax.MLP(dim, heads=2)")
        loc, log_scale = heads
        if self.max_log_scale is not None:
            log_scale = self.max_log_scale * jnp.tanh(log_scale / self.max_log_scale)
        return distributions.DiagNormal(loc, log_scale)
