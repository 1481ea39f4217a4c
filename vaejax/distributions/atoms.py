"""NumPyro's distributions that have no density: a point has a mass, a part that is left out has
none, and what is not normalised is none at all.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpyro.distributions as npd
from jax.core import Tracer

from vaejax.distributions.one_to_one import require_one_to_one

_POINT = (
    "use a narrow Normal for a point, or a parameter that is learned, and a wide Normal for"
    " ignorance"
)
_OWN = (
    "take the distribution that is inside, or write a vaejax.Distribution of your own if this is"
    " the likelihood of data that are known in part"
)
_CENSORED = "where a value is cut off its log_prob is that of an interval", _OWN
NO_DENSITY: dict[type[npd.Distribution], tuple[str, str]] = {  # the reason, the remedy
    npd.Delta: ("all its mass is in a point", _POINT),
    npd.ImproperUniform: ("its mass is infinite", _POINT),
    npd.Unit: ("it has no values", _POINT),
    npd.MaskedDistribution: ("of what is masked its log_prob is 0", _OWN),
    npd.LeftCensoredDistribution: _CENSORED,
    npd.RightCensoredDistribution: _CENSORED,
    npd.IntervalCensoredDistribution: _CENSORED,
}


def require_density(p: npd.Distribution) -> None:
    """Raises TypeError for what has no density, also as a part of another distribution."""
    for part in _parts(p):
        for family, (reason, remedy) in NO_DENSITY.items():
            if isinstance(part, family) and not _masks_nothing(part):
                raise TypeError(
                    f"{family.__name__} has no density, since {reason}: log q and log p would be"
                    f" no numbers of nats, and a KL infinite; {remedy}"
                )
        if isinstance(part, npd.TransformedDistribution):
            require_one_to_one(part)


def _masks_nothing(p: Any) -> bool:
    """Whether it is masked by what is True everywhere, as `handlers.mask` does by default."""
    if not isinstance(p, npd.MaskedDistribution) or isinstance(p._mask, Tracer):
        return False
    return bool(np.all(p._mask))


def _parts(p: npd.Distribution) -> Iterator[npd.Distribution]:
    """p, and the distributions that it is made of."""
    yield p
    for held in vars(p).values():
        parts = held if isinstance(held, list | tuple) else [held]
        for part in parts:
            if isinstance(part, npd.Distribution):
                yield from _parts(part)
