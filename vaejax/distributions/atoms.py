"""NumPyro's distributions that have no density: a point has a mass, and what is not normalised is
none at all.
"""

from collections.abc import Iterator

import numpyro.distributions as npd

NO_DENSITY = {
    npd.Delta: "all its mass is in a point",
    npd.ImproperUniform: "its mass is infinite",
    npd.Unit: "it has no values",
}


def require_density(p: npd.Distribution) -> None:
    """Raises TypeError for what has no density, also as a part of another distribution."""
    for part in _parts(p):
        for family, reason in NO_DENSITY.items():
            if isinstance(part, family):
                raise TypeError(
                    f"{family.__name__} has no density, since {reason}: log q and log p would be"
                    " no numbers of nats, and a KL infinite; use a narrow Normal for a point, or a"
                    " parameter that is learned, and a wide Normal for ignorance"
                )


def _parts(p: npd.Distribution) -> Iterator[npd.Distribution]:
    """p, and the distributions that it is made of."""
    yield p
    for held in vars(p).values():
        parts = held if isinstance(held, list | tuple) else [held]
        for part in parts:
            if isinstance(part, npd.Distribution):
                yield from _parts(part)
