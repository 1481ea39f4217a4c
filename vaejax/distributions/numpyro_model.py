"""NumPyro models as densities of {site: value}."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpyro

from vaejax.base.supports import Support
from vaejax.base.types import Key, PyTree, Scalar
from vaejax.base.values import pytree, static
from vaejax.distributions.atoms import require_density
from vaejax.distributions.base import Distribution
from vaejax.distributions.numpyro import NumPyroDensity, from_numpyro, support_of_numpyro

Site = dict[str, Any]  # what NumPyro's handlers pass on


@pytree
class SitesDensity(Distribution):
    """log p(v) = sum_j log p(v_j | v_1, ..., v_(j-1)), nats, of the sites v_j that a NumPyro model
    draws, in its order: a density of {site: value}.

    The model takes nothing. All batch axes of a site, as of a plate, are one event. A site that is
    observed, scaled or a parameter is a TypeError: then it is no normalised density of its draws.
    """

    model: Callable[[], Any] = static()

    @property
    def name(self) -> str:
        is_function = inspect.isroutine(self.model)
        return f"the NumPyro model {self.model.__name__ if is_function else self.model}"

    @property
    def reparameterised(self) -> bool:
        return all(site["fn"].has_rsample for site in self._sites().values())

    @property
    def support(self) -> dict[str, Support]:
        """{site: the values that it is for}."""
        sites = self._sites()
        return {name: support_of_numpyro(site["fn"]) for name, site in sites.items()}

    def sample(self, key: Key) -> dict[str, PyTree]:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[dict[str, PyTree], Scalar]:
        values, log_probs = {}, []

        def drawn(site: Site) -> PyTree:
            site_key = jax.random.fold_in(key, len(values))
            value, log_prob = _density_of(site).sample_and_log_prob(site_key)
            values[site["name"]] = value
            log_probs.append(log_prob)
            return value

        self._visit(drawn)
        return values, sum(log_probs, start=jnp.zeros(()))

    def log_prob(self, value: dict[str, PyTree]) -> Scalar:
        log_probs = []

        def given(site: Site) -> PyTree:
            log_probs.append(_density_of(site).log_prob(value[site["name"]]))
            return value[site["name"]]

        self._visit(given)
        return sum(log_probs, start=jnp.zeros(()))

    def _sites(self) -> dict[str, Site]:
        """{name: site} of a draw whose values nobody looks at."""
        sites = {}

        def noted(site: Site) -> PyTree:
            sites[site["name"]] = dict(site)
            return _density_of(site).sample(jax.random.key(0))

        self._visit(noted)
        return sites

    def _visit(self, value_of: Callable[[Site], PyTree]) -> None:
        """Runs the model with the value of each site as given."""

        def checked(site: Site) -> PyTree | None:
            if site["type"] not in ("sample", "param"):
                return None
            _require_draw(site)
            return value_of(site)

        try:
            with numpyro.handlers.block():
                numpyro.handlers.substitute(self.model, substitute_fn=checked)()
        except AssertionError as error:
            if str(error):
                raise
            raise TypeError(  # NumPyro has no words for a site without a key
                f"{self.name} draws a site that no handler sees, as inside of handlers.block; a"
                " prior is the density of all that is drawn"
            ) from error


def _density_of(site: Site) -> NumPyroDensity:
    """All that is drawn at a site, as one event."""
    return from_numpyro(site["fn"].expand_by(site["kwargs"].get("sample_shape", ())))


def _require_draw(site: Site) -> None:
    """Raises TypeError for a site that is no draw from a normalised density."""
    reasons = {
        "is a parameter": site["type"] == "param",
        "is observed": site.get("is_observed", False),
        "is given its value": site["value"] is not None,
        "is scaled": site.get("scale") is not None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise TypeError(
                f"the site {site['name']!r} of a NumPyro model {reason}, and a prior is a"
                " normalised density of what it draws: leave out obs=, numpyro.factor,"
                " numpyro.param and handlers that scale, condition or substitute; data and"
                " parameters come from the library"
            )
    require_density(site["fn"])


@lru_cache(maxsize=64)
def draws_sites(function: Callable[[], Any]) -> bool:
    """Whether a function is a NumPyro model, that draws, and not one that gives a distribution.

    TypeError for a model that does more than draw.
    """
    names = set()

    def looked_at(site: Site) -> None:
        if site["type"] not in ("sample", "param"):
            return
        _require_draw(site)
        if site["name"] in names:
            raise TypeError(
                f"a NumPyro model draws two sites of the name {site['name']!r}; give each its own"
            )
        names.add(site["name"])

    with numpyro.handlers.block():
        observed = numpyro.handlers.substitute(function, substitute_fn=looked_at)
        numpyro.handlers.seed(observed, rng_seed=0)()
    return bool(names)
