"""Conditionals that are flows on a diagonal normal."""

from typing import Any

import jax

from vaejax.base.checks import require_count, require_counts
from vaejax.base.supports import REAL
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.distributions.coupling import Autoregressive, Coupling
from vaejax.distributions.flows import Flow, init_layers
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.models.base import Conditional
from vaejax.models.conditionals.base import MAX_LOG_SCALE, require_vectors, take_heads
from vaejax.networks.base import Net, apply_net, init_net
from vaejax.networks.layers import soft_bound


class OfFlow(Conditional, abstract=True):
    """A flow on a diagonal normal base. The net gives (loc, raw log_scale) of the base and, with a
    third head, a context for the layers.
    """

    net: Net
    num_layers: int
    hidden: tuple[int, ...]
    support = REAL

    def __post_init__(self):
        require_count(self.num_layers, f"{type(self).__name__}.num_layers", least=0)
        require_counts(self.hidden, f"{type(self).__name__}.hidden")

    @property
    def layers(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def init(self, key: Key, given) -> PyTree:
        net_key, flow_key = jax.random.split(key)
        params = init_net(self.net, net_key, given)
        loc, _, *context = self._heads(params, given)
        return {
            "net": params,
            "flow": init_layers(self.layers, flow_key, loc, context[0] if context else None),
        }

    def __call__(self, params: PyTree, given) -> Flow:
        loc, log_scale, *context = self._heads(params["net"], given)
        base = DiagNormalDensity(loc, soft_bound(log_scale, MAX_LOG_SCALE))
        return Flow(base, params["flow"], context[0] if context else None, self.layers)

    def _heads(self, params: PyTree, given) -> tuple[jax.Array, ...]:
        return require_vectors(
            self,
            take_heads(
                self,
                apply_net(self.net, params, given),
                "loc, log_scale, context",
                at_least=2,
                at_most=3,
            ),
        )


@component
class RealNVP(OfFlow):
    """Affine couplings on a diagonal normal: samples and log-densities anywhere, at one pass of
    each layer. See `flows.Coupling`.

    The net gives two heads, or three: `vaejax.MLP(dim, heads=3)` adds a context for the layers.
    """

    net: Net
    num_layers: int = 4
    hidden: tuple[int, ...] = (64,)

    @property
    def layers(self) -> tuple[Any, ...]:
        return (Coupling(self.hidden),) * self.num_layers


@component
class InverseAutoregressive(OfFlow):
    """An inverse autoregressive flow on a diagonal normal: the density of its own samples is cheap,
    elsewhere it is refused.

    The net gives two heads, or three: `vaejax.MLP(dim, heads=3)` adds a context for the layers.
    Reference: Kingma et al. 2016.
    """

    net: Net
    num_layers: int = 2
    hidden: tuple[int, ...] = (64,)

    @property
    def layers(self) -> tuple[Any, ...]:
        return (Autoregressive("forward", self.hidden),) * self.num_layers
