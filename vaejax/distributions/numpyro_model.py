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
from vaejax.distributions.base import Distribution
from vaejax.distributions.numpyro import from_numpyro, support_of_numpyro

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
        return {name: support_of_numpyro(site["fn"].support) for name, site in sites.items()}

    def sample(self, key: Key) -> dict[str, PyTree]:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[dict[str, PyTree], Scalar]:
        values, log_probs = {}, []

        def drawn(site: Site) -> PyTree:
            site_key = jax.random.fold_in(key, len(values))
            value, log_prob = from_numpyro(site["fn"]).sample_and_log_prob(site_key)
            values[site["name"]] = value
            log_probs.append(log_prob)
            return value

        self._visit(drawn)
        return values, sum(log_probs, start=jnp.zeros(()))

    def log_prob(self, value: dict[str, PyTree]) -> Scalar:
        log_probs = []

        def given(site: Site) -> PyTree:
            log_probs.append(from_numpyro(site["fn"]).log_prob(value[site["name"]]))
            return value[site["name"]]

        self._visit(given)
        return sum(log_probs, start=jnp.zeros(()))

    def _sites(self) -> dict[str, Site]:
        """{name: site} of a draw whose values nobody looks at."""
        sites = {}

        def noted(site: Site) -> PyTree:
            sites[site["name"]] = dict(site)
            return from_numpyro(site["fn"]).sample(jax.random.key(0))

        self._visit(noted)
        return sites

    def _visit(self, value_of: Callable[[Site], PyTree]) -> None:
        """Runs the model with the value of each site as given."""

        def checked(site: Site) -> PyTree | None:
            if site["type"] not in ("sample", "param"):
                return None
            _require_draw(site)
            return value_of(site)

        with numpyro.handlers.block():
            numpyro.handlers.substitute(self.model, substitute_fn=checked)()


def _require_draw(site: Site) -> None:
    """Raises TypeError for a site that is no draw from a normalised density."""
    reasons = {
        "is a parameter": site["type"] == "param",
        "is observed": site.get("is_observed", False),
        "is scaled": site.get("scale") is not None,
    }
    for reason, holds in reasons.items():
        if holds:
            raise TypeError(
                f"the site {site['name']!r} of a NumPyro model {reason}, and a prior is a"
                " normalised density of what it draws: leave out obs=, numpyro.factor,"
                " numpyro.param and handlers.scale; data and parameters come from the library"
            )


@lru_cache(maxsize=64)
def draws_sites(function: Callable[[], Any]) -> bool:
    """Whether a function is a NumPyro model, that draws, and not one that gives a distribution.

    TypeError for a model that does more than draw.
    """
    with numpyro.handlers.block(), numpyro.handlers.trace() as trace:
        numpyro.handlers.seed(function, rng_seed=0)()
    sites = [site for site in trace.values() if site["type"] in ("sample", "param")]
    for site in sites:
        _require_draw(site)
    return bool(sites)
