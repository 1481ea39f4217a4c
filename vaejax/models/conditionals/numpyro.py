"""Conditionals of any NumPyro family."""

from collections.abc import Callable

import numpyro.distributions as npd

from vaejax.base.supports import REAL, Support
from vaejax.base.types import Distribution, Net, PyTree
from vaejax.base.values import component
from vaejax.distributions.numpyro import from_numpyro
from vaejax.models.conditionals.base import OfNet, apply_net


@component
class NumPyroConditional(OfNet):
    """family(net(given)), any NumPyro distribution of the net's output: `NumPyroConditional(net,
    lambda loc: npd.StudentT(3, loc, 1))`.

    All its batch axes are made one event. `support`, such as `vaejax.supports.REAL`, lets data and
    priors be checked.
    """

    net: Net
    family: Callable[..., npd.Distribution]
    support: Support = REAL

    def __call__(self, params: PyTree, given) -> Distribution:
        output = apply_net(self.net, params, given)
        return from_numpyro(
            self.family(*output) if isinstance(output, tuple) else self.family(output)
        )
