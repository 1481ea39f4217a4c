"""Priors p_theta(z). Each is a functional of q, the function x -> q_phi(z|x): most ignore it, a
VampPrior is made of it.

`prior.init(key, x)` gives theta_prior, `prior(theta_prior, q)` a Distribution over one z; `support`
says where z lives, None that it is wherever q puts it.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
from jax.typing import ArrayLike

from vaejax.base.checks import (
    require_count,
    require_counts,
    require_numbers,
    require_positive,
    shortened,
)
from vaejax.base.supports import (
    BINARY,
    ONE_HOT,
    REAL,
    RELAXED_BINARY,
    RELAXED_ONE_HOT,
    SPHERE,
    Support,
)
from vaejax.base.types import Key, PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.coupling import Autoregressive, Coupling
from vaejax.distributions.discrete import OneHotCategoricalDensity
from vaejax.distributions.flows import Flow, init_layers
from vaejax.distributions.mixture import Mixture
from vaejax.distributions.normal import DiagNormalDensity, standard_normal
from vaejax.distributions.numpyro import as_distribution, support_of_numpyro
from vaejax.distributions.numpyro_model import SitesDensity, draws_sites
from vaejax.distributions.relaxed import relaxed_bernoulli, relaxed_categorical
from vaejax.distributions.sphere import UniformOnSphereDensity
from vaejax.models.base import Prior, Supports
from vaejax.models.learned import require_as_made

Encoder = Callable[[ArrayLike], Distribution]


@component
class StandardNormal(Prior):
    """p(z) = N(0, I) in `dim` dimensions. Nothing to learn."""

    dim: int
    support = REAL

    def __post_init__(self):
        require_count(self.dim, "StandardNormal.dim")

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return ()

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return standard_normal(jnp.zeros(self.dim))


@component
class LearnedNormal(Prior):
    """p(z) = N(z; loc, diag exp(2 log_scale)), both learned. They start at the standard normal."""

    dim: int
    support = REAL

    def __post_init__(self):
        require_count(self.dim, "LearnedNormal.dim")

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return {"loc": jnp.zeros(self.dim), "log_scale": jnp.zeros(self.dim)}

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return DiagNormalDensity(params["loc"], params["log_scale"])


@component
class MixtureOfGaussians(Prior):
    """p(z) = sum_c softmax(logits)_c N(z; loc_c, diag exp(2 log_scale_c)), learned jointly with the
    rest.

    The locations start at draws of N(0, I), so that the components can part.
    """

    dim: int
    num_components: int
    support = REAL

    def __post_init__(self):
        require_count(self.dim, "MixtureOfGaussians.dim")
        require_count(self.num_components, "MixtureOfGaussians.num_components")

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        shape = (self.num_components, self.dim)
        return {
            "logits": jnp.zeros(self.num_components),
            "loc": jax.random.normal(key, shape),
            "log_scale": jnp.zeros(shape),
        }

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return Mixture(params["logits"], DiagNormalDensity(params["loc"], params["log_scale"]))


@component
class VampPrior(Prior):
    """p(z) = (1/C) sum_c q_phi(z | u_c), with C pseudo-inputs u_c in the space of the data.

    theta_prior is the array u of shape [C, *x.shape], learned like any other parameter. `init`
    scatters it around the one example that it is given. C training examples are the better start,
    `params._replace(theta={**params.theta, "prior": xs[:C]})`, and they stay as they are under
    `optax.multi_transform` with `optax.set_to_zero` for theta["prior"]. Under `vmap` over a batch
    the pseudo-inputs are encoded once, since they do not depend on the example. Reference: Tomczak
    & Welling 2018, eq. 9.
    """

    num_components: int
    init_scale: float = 0.5
    support = None

    def __post_init__(self):
        require_count(self.num_components, "VampPrior.num_components")
        require_numbers(self, init_scale=self.init_scale)

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        noise = jax.random.normal(key, (self.num_components, *jnp.shape(x)))
        return jnp.asarray(x, noise.dtype)[None] + self.init_scale * noise

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        self.check_params(params, q)
        return Mixture(jnp.zeros(len(params)), jax.vmap(q)(params))

    def check_params(self, params: PyTree, given: Any) -> None:
        """How many pseudo-inputs there are; of what shape, q says."""
        shape = params.shape[1:] if isinstance(params, jax.Array | np.ndarray) else ()
        wanted = jax.ShapeDtypeStruct((self.num_components, *shape), jnp.float32)
        require_as_made(self, params, wanted)


@component
class FlowPrior(Prior):
    """p(z) = N(0, I) pushed through invertible layers, learned: `kind` is "coupling" (RealNVP) or
    "autoregressive" (MAF).

    Both have a log-density anywhere at one pass of each layer; a sample costs the second one pass
    per dimension. References: Dinh et al. 2017; Papamakarios et al. 2017; as a VAE's prior, Chen et
    al. 2017.
    """

    dim: int
    num_layers: int = 4
    hidden: tuple[int, ...] = (64,)
    kind: Literal["coupling", "autoregressive"] = "coupling"
    support = REAL

    def __post_init__(self):
        if self.kind not in ("coupling", "autoregressive"):
            raise ValueError(
                f'FlowPrior.kind = {self.kind!r}; choose "coupling" or "autoregressive"'
            )
        require_count(self.dim, "FlowPrior.dim")
        require_count(self.num_layers, "FlowPrior.num_layers", least=0)
        require_counts(self.hidden, "FlowPrior.hidden")

    @property
    def layers(self) -> tuple[Any, ...]:
        layer = (
            Coupling(self.hidden)
            if self.kind == "coupling"
            else Autoregressive("inverse", self.hidden)
        )
        return (layer,) * self.num_layers

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return init_layers(self.layers, key, jnp.zeros(self.dim), None)

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return Flow(standard_normal(jnp.zeros(self.dim)), params, None, self.layers)


@component
class UniformOnSphere(Prior):
    """p(z) = 1 / area of the unit sphere in R^dim: what a `VonMisesFisher` encoder is for.
    Reference: Davidson et al. 2018.
    """

    dim: int
    support = SPHERE

    def __post_init__(self):
        require_count(self.dim, "UniformOnSphere.dim", least=2)

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return ()

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return UniformOnSphereDensity(jnp.zeros(self.dim))


@component
class FactorialBernoulli(Prior):
    """p(z) = prod_j Bernoulli(z_j; logits_j), learned, from a fair start. With a `temperature`, its
    relaxation.

    The relaxed one is the prior for a `RelaxedBernoulli` encoder: a density and a mass have no KL.
    """

    dim: int
    temperature: float | None = None

    def __post_init__(self):
        require_count(self.dim, "FactorialBernoulli.dim")
        if self.temperature is not None:
            require_positive(self.temperature, "FactorialBernoulli.temperature")

    @property
    def support(self) -> Support:
        return BINARY if self.temperature is None else RELAXED_BINARY

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return jnp.zeros(self.dim)

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return (
            BernoulliDensity(params)
            if self.temperature is None
            else relaxed_bernoulli(self.temperature, params)
        )


@component
class FactorialCategorical(Prior):
    """p(z) = prod_j Categorical(z_j; logits_j), z [dim, categories] one-hot, learned, from a fair
    start.

    With a `temperature`, its relaxation: the prior for a `RelaxedCategorical` encoder.
    """

    dim: int
    num_categories: int
    temperature: float | None = None

    def __post_init__(self):
        require_count(self.dim, "FactorialCategorical.dim")
        require_count(self.num_categories, "FactorialCategorical.num_categories", least=2)
        if self.temperature is not None:
            require_positive(self.temperature, "FactorialCategorical.temperature")

    @property
    def support(self) -> Support:
        return ONE_HOT if self.temperature is None else RELAXED_ONE_HOT

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return jnp.zeros((self.dim, self.num_categories))

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        if self.temperature is None:
            return OneHotCategoricalDensity(params)
        return relaxed_categorical(self.temperature, params)


@component
class NumPyroPrior(Prior):
    """p(z) = factory(), any NumPyro distribution with an empty batch shape: `lambda:
    dist.Laplace(0., 1.).expand([20]).to_event(1)`; or the joint density of the sites that a NumPyro
    model draws, and z is {site: value}: then an encoder is a `DirectedGraph` of such nodes.

    A lambda equals only itself, so define it once: each new one is a new program to compile.
    """

    factory: Callable[[], Any]

    def __post_init__(self):
        remedy = "; write NumPyroPrior(lambda: dist.Normal(0.0, 1.0).expand([2]).to_event(1))"
        if isinstance(self.factory, npd.Distribution) or not callable(self.factory):
            raise TypeError(
                f"NumPyroPrior.factory is {shortened(self.factory)}, no function{remedy}"
            )
        p = self._density()
        if not isinstance(p, Distribution | npd.Distribution):
            raise TypeError(f"NumPyroPrior.factory gave {shortened(p)}, no distribution{remedy}")
        as_distribution(p, "NumPyroPrior.factory").event  # noqa: B018  its draws are possible

    @property
    def support(self) -> Supports:
        """What NumPyro says of it, of a model by its sites."""
        if draws_sites(self.factory):
            return SitesDensity(self.factory).support
        return support_of_numpyro(self.factory())

    def init(self, key: Key, x: ArrayLike) -> PyTree:
        return ()

    def __call__(self, params: PyTree, q: Encoder) -> Distribution:
        return as_distribution(self._density(), "NumPyroPrior.factory")

    def _density(self) -> Any:
        """What the factory gives, or the joint density of the sites that it draws."""
        return SitesDensity(self.factory) if draws_sites(self.factory) else self.factory()
