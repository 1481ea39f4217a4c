"""Conditionals of pixels."""

import jax.numpy as jnp

from vaejax.base.checks import require_count
from vaejax.base.supports import BINARY, UNIT_INTERVAL, Support, levels
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.bernoulli import BernoulliDensity, ContinuousBernoulliDensity
from vaejax.distributions.pixels import DiscretizedLogisticDensity, Levels
from vaejax.models.conditionals.base import OfNet, take_heads
from vaejax.networks.base import Net, apply_net
from vaejax.networks.layers import soft_bound

MAX_LOG_SCALE_OF_LEVELS = 10.0  # 1/255 is exp(-5.5)


@component
class Bernoulli(OfNet):
    """prod_i Bernoulli(x_i; logits = net(z)_i). The net gives logits of x's shape."""

    net: Net
    support = BINARY

    def __call__(self, params: PyTree, given) -> Distribution:
        return BernoulliDensity(self.logits(params, given))


@component
class ContinuousBernoulli(OfNet):
    """prod_i C(l_i) exp(l_i x_i), l = net(z), on [0, 1]: grey pixels as they are. The net gives
    logits of x's shape.
    """

    net: Net
    support = UNIT_INTERVAL

    def __call__(self, params: PyTree, given) -> Distribution:
        return ContinuousBernoulliDensity(self.logits(params, given))


@component
class Categorical(OfNet):
    """prod_i softmax(net(z)_i)_k, k = x_i (n-1): n free probabilities for each pixel x_i = k/(n-1).
    The net's logits have shape [*x, n].
    """

    net: Net
    num_levels: int = 256

    def __post_init__(self):
        require_count(self.num_levels, "Categorical.num_levels", least=2)

    @property
    def support(self) -> Support:
        return levels(self.num_levels)

    def __call__(self, params: PyTree, given) -> Distribution:
        logits = self.logits(params, given)
        if logits.shape[-1] != self.num_levels:
            raise TypeError(
                "Categorical needs a net that returns logits of shape [*x.shape,"
                f" {self.num_levels}], such as vaejax.MLP((*x.shape, {self.num_levels})), not"
                f" {logits.shape}"
            )
        return Levels(logits)


@component
class DiscretizedLogistic(OfNet):
    """Per pixel x_i = k/(n-1) the mass that a mixture of C logistics puts on the level. The net
    gives heads of x's shape.

    2 heads (loc, raw log_scale) for one logistic, 3 C heads for a mixture of C: the logits, then
    the locations, then the log-scales.
    """

    net: Net
    num_levels: int = 256

    def __post_init__(self):
        require_count(self.num_levels, "DiscretizedLogistic.num_levels", least=2)

    @property
    def support(self) -> Support:
        return levels(self.num_levels)

    def __call__(self, params: PyTree, given) -> Distribution:
        outputs = take_heads(
            self, apply_net(self.net, params, given), "loc, log_scale", at_most=3_000
        )
        if len(outputs) == 2:
            loc, log_scale = (head[..., None] for head in outputs)
            logits = jnp.zeros_like(loc)
        elif len(outputs) % 3 == 0:
            logits, loc, log_scale = jnp.split(jnp.stack(outputs, axis=-1), 3, axis=-1)
        else:
            raise TypeError(
                "DiscretizedLogistic needs 2 heads, or 3 for each component of a mixture, not"
                f" {len(outputs)}"
            )
        # Locations start in the middle of the pixels' range, scales at a seventh of it; the least
        # puts all the mass on one level.
        return DiscretizedLogisticDensity(
            logits, loc + 0.5, soft_bound(log_scale - 2.0, MAX_LOG_SCALE_OF_LEVELS), self.num_levels
        )
