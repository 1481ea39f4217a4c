"""Conditionals of discrete latents and of their relaxations; for binary ones `Bernoulli` serves."""

from vaejax.base.checks import require_positive
from vaejax.base.supports import ONE_HOT, RELAXED_BINARY, RELAXED_ONE_HOT
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.relaxed import relaxed_bernoulli, relaxed_categorical
from vaejax.models.conditionals.base import OfNet
from vaejax.networks.base import Net


@component
class OneHotCategorical(OfNet):
    """prod_i prod_c softmax(net(x)_i)_c^z_ic: categorical variables as one-hot vectors. The net
    gives logits [..., c].
    """

    net: Net
    support = ONE_HOT

    def __call__(self, params: PyTree, given) -> Distribution:
        return OneHotCategoricalDensity(self.logits(params, given))


@component
class RelaxedBernoulli(OfNet):
    """prod_i BinConcrete(sigmoid(z_i); net(x)_i, temperature). The net gives logits.

    The latent z is the logit of the point of (0, 1), where it does not saturate; the decoder is
    shown the point. Reference: Maddison et al. 2017.
    """

    net: Net
    temperature: float = 0.5
    support = RELAXED_BINARY

    def __post_init__(self):
        require_positive(self.temperature, "RelaxedBernoulli.temperature")

    def __call__(self, params: PyTree, given) -> Distribution:
        return relaxed_bernoulli(self.temperature, self.logits(params, given))


@component
class RelaxedCategorical(OfNet):
    """prod_i Concrete(exp z_i; net(x)_i, temperature). The net gives logits [..., c].

    The latent z are the logarithms of the point of the simplex, where it does not saturate; the
    decoder is shown the point. Reference: Maddison et al. 2017.
    """

    net: Net
    temperature: float = 0.5
    support = RELAXED_ONE_HOT

    def __post_init__(self):
        require_positive(self.temperature, "RelaxedCategorical.temperature")

    def __call__(self, params: PyTree, given) -> Distribution:
        return relaxed_categorical(self.temperature, self.logits(params, given))
