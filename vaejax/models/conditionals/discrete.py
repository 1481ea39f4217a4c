"""Conditionals of discrete latents and of their relaxations; for binary ones `Bernoulli` serves."""

from vaejax.base.supports import ONE_HOT, SIMPLEX, UNIT_INTERVAL
from vaejax.base.types import PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.discrete import OneHotCategoricalDensity, relaxed_categorical
from vaejax.distributions.numpyro import relaxed_bernoulli
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
    """prod_i BinConcrete(z_i; net(x)_i, temperature) on (0, 1). The net gives logits. Reference:
    Maddison et al. 2017.
    """

    net: Net
    temperature: float = 0.5
    support = UNIT_INTERVAL

    def __call__(self, params: PyTree, given) -> Distribution:
        return relaxed_bernoulli(self.temperature, self.logits(params, given))


@component
class RelaxedCategorical(OfNet):
    """prod_i Concrete(z_i; net(x)_i, temperature) on the simplex. The net gives logits [..., c].
    Reference: Maddison et al. 2017.
    """

    net: Net
    temperature: float = 0.5
    support = SIMPLEX

    def __call__(self, params: PyTree, given) -> Distribution:
        return relaxed_categorical(self.temperature, self.logits(params, given))
