"""The contracts of a model and of its factors.

A model is three pure functions of one example, `init`, `log_joint` and `posterior`, and what they
are made of. The functions ..._of are the doors through which the library reads a model, so that
what a user's own model gives gets the same checks as ours.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpyro.distributions as npd

from vaejax.base.checks import require_key, require_kind, require_said, shortened
from vaejax.base.contracts import Declared, hold
from vaejax.base.supports import Support
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.data.check import check_values
from vaejax.distributions.averages import mean_or_average
from vaejax.distributions.base import Distribution, NotKnownError
from vaejax.distributions.numpyro import as_distribution
from vaejax.models.contracts import CONTRACTS, CONTRACTS_OF_FACTORS, joint_alone
from vaejax.models.learned import require_params, require_params_of_part
from vaejax.networks.base import Net

Supports = Support | Mapping[str, Any] | None  # None: wherever q, or the data, put it


class Factor(Declared):
    """A density whose parameters come from what it is shown. Derive from `Prior` or `Conditional`.

    `support` is the set that the density is for, so that data, or the other density of one latent,
    on another set are refused before anything runs.
    """

    support: Any
    # Whether it is a factor of q that is shown the prior's one too, as a `BesidePrior`.
    is_shown_prior: ClassVar[bool] = False

    def __init_subclass__(cls, abstract: bool = False, **keywords):
        super().__init_subclass__(**keywords)
        if not abstract:
            question = "the values that its density is for, such as vaejax.supports.REAL"
            require_said(cls, Factor, "support", question)
        hold(cls, CONTRACTS_OF_FACTORS)

    def init(self, key: Key, given: Any, /) -> PyTree:
        """Its parameters, for what it is shown at `given`."""
        raise NotImplementedError(f"{type(self).__name__}.init")

    def __call__(self, params: PyTree, given: Any, /) -> Distribution:
        """The density at `given`."""
        raise NotImplementedError(f"{type(self).__name__}.__call__")

    def check_params(self, params: PyTree, given: Any) -> None:
        """Raises ValueError for parameters of other names or shapes than `init` makes at `given`,
        by shapes alone.
        """
        require_params_of_part(self, params, given)


def require_factor(value: Any, kind: type, role: str) -> None:
    """Raises TypeError for what is no factor, such as a distribution or a NumPyro model, with what
    to write instead.
    """
    if isinstance(value, Distribution | npd.Distribution):
        raise TypeError(
            f"{role} is a distribution, {shortened(value)}, and must be what makes one: write"
            " vaejax.NumPyroPrior(lambda: ...), or vaejax.NumPyroConditional(net, family)"
        )
    if inspect.isroutine(value):
        raise TypeError(
            f"{role} is the function {value.__name__}: a prior is vaejax.NumPyroPrior of a NumPyro"
            " model, or of a function that gives a distribution; for a likelihood write a node with"
            " a vaejax.NumPyroConditional for each site, in a vaejax.GraphModel; or derive from"
            f" vaejax.{kind.__name__}"
        )
    if isinstance(value, Net):
        raise TypeError(
            f"{role} is the net {shortened(value)}; write the density that its outputs are of, such"
            " as vaejax.DiagNormal(net) or vaejax.Bernoulli(net)"
        )
    require_kind(value, kind, role)


class Conditional(Factor, abstract=True):
    """p(. | given): the likelihood p(x|z), the encoder q(z|x), a classifier, or a node of a graph.

    Your own is a value that says its support, with its parameters first and what it is shown after:

        @vaejax.component
        class Exponential(vaejax.Conditional):
            net: Any
            support = vaejax.supports.POSITIVE

            def init(self, key, given):
                return self.net.init(key, given)

            def __call__(self, params, given):
                return npd.Exponential(jnp.exp(self.net.apply(params, given))).to_event(1)
    """


class Prior(Factor, abstract=True):
    """p_theta(z) as a functional of q, the function x -> q_phi(z|x): most ignore it.

    `init(key, x)` gives theta_prior for examples like x, and `prior(theta_prior, q)` the density.
    A `support` of None says that z is wherever q puts it. Your own:

        @vaejax.component
        class ScaledNormal(vaejax.Prior):
            dim: int
            support = vaejax.supports.REAL

            def init(self, key, x):
                return jnp.zeros(())

            def __call__(self, params, q):
                log_scale = jnp.full(self.dim, params)
                return vaejax.distributions.DiagNormalDensity(jnp.zeros(self.dim), log_scale)
    """

    def check_params(self, params: PyTree, given: Any) -> None:
        """As of any factor, where `init` reads nothing of its example."""
        require_params_of_part(self, params)


class Model(Declared):
    """log p_theta(x, z) = log p_theta(z) + log p_theta(x | z), and an inference model q_phi(z | x).

    Every method takes one example x. In a conditional model x holds the inputs u too, and all three
    densities may depend on them. Your own gives its two supports, `init` and the three densities:

        @vaejax.component
        class Scaled(vaejax.Model):
            dim: int
            support = vaejax.supports.REAL
            latent_support = vaejax.supports.REAL

            def init(self, key, x):
                return vaejax.Params(theta=jnp.zeros(()), phi=jnp.zeros(2))

            def p_z(self, params, x=None):
                return vaejax.distributions.standard_normal(jnp.zeros(self.dim))

            def p_x_given_z(self, params, z, x=None):
                return vaejax.distributions.DiagNormalDensity(z * jnp.exp(params.theta), 0 * z)

            def posterior(self, params, x):
                scale, log_scale = params.phi
                return vaejax.distributions.DiagNormalDensity(scale * x, 0 * x + log_scale)
    """

    support: Any  # of x: a Support, or {name: Support} where an example is a mapping
    latent_support: Any  # of z, likewise
    inputs: tuple[str, ...] = ()  # the names in x that no density explains

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        question = "the values that x is for, such as vaejax.supports.BINARY"
        require_said(cls, Model, "support", question)
        question = "the values that z is for, such as vaejax.supports.REAL"
        require_said(cls, Model, "latent_support", question)
        if "log_joint" in vars(cls) and "log_densities" not in vars(cls):
            cls.log_densities = joint_alone
        hold(cls, CONTRACTS)

    def init(self, key: Key, x: PyTree) -> Params:
        """Parameters for examples like x."""
        raise NotImplementedError(f"{type(self).__name__}.init")

    def p_z(self, params: Params, x: PyTree = None) -> Distribution:
        """The prior p_theta(z), or p_theta(z | u) at the inputs of x."""
        raise NotKnownError(f"{type(self).__name__} has no prior to show: give it p_z")

    def p_x_given_z(self, params: Params, z: PyTree, x: PyTree = None) -> Distribution:
        """The likelihood p_theta(x | z), or p_theta(x | z, u) at the inputs of x."""
        raise NotKnownError(f"{type(self).__name__} has no likelihood to show: give it p_x_given_z")

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        """The approximate posterior q_phi(z | x)."""
        raise NotImplementedError(f"{type(self).__name__}.posterior")

    # What follows from those.

    def own_params(self, params: Params) -> Params:
        """The part of theta and phi that `init` makes: all, unless the model shares them with one
        that has more.
        """
        return params

    def observation(self, x: PyTree) -> PyTree:
        """What `p_x_given_z` is a density of, in an example: all of it, where there are no inputs;
        else the value of the one name in `support`, or {name: value} of several.
        """
        if not self.inputs:
            return x
        names = _names_of(self)
        return {name: x[name] for name in names} if len(names) > 1 else x[names[0]]

    def example(self, observation: PyTree, x: PyTree = None) -> PyTree:
        """The example of this observation that has the inputs of x."""
        if not self.inputs:
            return observation
        names = _names_of(self)
        observed = observation if len(names) > 1 else {names[0]: observation}
        return {**{name: x[name] for name in self.inputs}, **observed}

    def log_likelihood(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        """log p_theta(x | z), nats."""
        check_example(self, x)
        return likelihood_of(self, params, z, x).log_prob(self.observation(x))

    def log_joint(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        """log p_theta(x, z), nats."""
        return self.log_densities(params, x, z)[0]

    def log_densities(self, params: Params, x: PyTree, z: PyTree) -> tuple[Scalar, Scalar | None]:
        """(log p_theta(x, z), log p_theta(x | z)), nats, from one evaluation of the decoder. The
        second is None of a model that defines `log_joint` alone.
        """
        log_p_z = prior_of(self, params, x).log_prob(z)
        log_p_x = self.log_likelihood(params, x, z)
        return log_p_z + log_p_x, log_p_x

    def simulate(
        self, params: Params, z_key: Key, x_key: Key, x: PyTree = None
    ) -> tuple[PyTree, PyTree]:
        """(x, z) ~ p_theta(x, z), ancestrally: z from the prior, then x from the likelihood.

        A conditional model takes its inputs from x, and the new example has them.
        """
        if self.inputs and x is None:
            raise ValueError(
                f"{type(self).__name__} has the inputs {', '.join(self.inputs)}, which no density"
                " draws: give an example that holds them"
            )
        if x is not None:
            check_example(self, x)
        z = prior_of(self, params, x).sample(z_key)
        return self.example(likelihood_of(self, params, z, x).sample(x_key), x), z

    def sample(self, params: Params, key: Key, x: PyTree = None) -> tuple[PyTree, PyTree]:
        """(x, z) ~ p_theta(x, z), as `simulate`, from one key."""
        require_key(key)
        z_key, x_key = jax.random.split(key)
        return self.simulate(params, z_key, x_key, x)

    def reconstruct(self, params: Params, x: PyTree, key: Key) -> PyTree:
        """E[x' | z], z ~ q_phi(z | x): the mean of the likelihood at one posterior sample, or of
        100 draws of it where that is not known.
        """
        z = posterior_of(self, params, x).sample(key)
        return mean_or_average(likelihood_of(self, params, z, x), jax.random.fold_in(key, 1))


hold(Model, CONTRACTS)


def _names_of(model: Model) -> list[str]:
    """The names that a conditional model explains, in its examples {name: value}."""
    if not isinstance(model.support, Mapping):
        raise TypeError(
            f"{type(model).__name__} has inputs, so an example is a mapping: say which names it"
            " explains by a `support` such as {'x': vaejax.supports.REAL}"
        )
    return list(model.support)


def check_example(model: Model, x: PyTree) -> None:
    """Raises ValueError for an example outside `model.support`, wherever its values are known.

    They are where x is an array of numbers, also inside a `jax.jit` or `jax.grad` of something
    else; they are not where x is what a `jax.jit`, `jax.vmap` or `jax.lax.map` is called with. What
    the library maps over data (`vaejax.fit`, `vaejax.evaluate`, `vaejax.map_dataset` and the like)
    it looks at before; `jax.vmap(partial(vaejax.elbo, model), ...)` of one's own sees nothing, so
    call `vaejax.data.check.check_data(xs, model.support)` there.
    """
    if not model.inputs or isinstance(x, Mapping):
        check_values(x, model.support)


def posterior_of(model: Model, params: Params, x: PyTree) -> Distribution:
    """q(z | x), of an x that passes `check_example`."""
    require_kind(model, Model, "the model")
    require_params(model, params)
    check_example(model, x)
    return as_distribution(model.posterior(params, x), f"{type(model).__name__}.posterior")


def prior_of(model: Model, params: Params, x: PyTree = None) -> Distribution:
    """p(z), or p(z | u) of a model whose examples have inputs u."""
    require_kind(model, Model, "the model")
    require_params(model, params)
    return as_distribution(model.p_z(params, x), f"{type(model).__name__}.p_z")


def likelihood_of(model: Model, params: Params, z: PyTree, x: PyTree = None) -> Distribution:
    """p(x | z), or p(x | z, u)."""
    require_params(model, params)
    likelihood = model.p_x_given_z(params, z, x)
    return as_distribution(likelihood, f"{type(model).__name__}.p_x_given_z")


def density_of(factor: Factor, params: PyTree, given: Any) -> Distribution:
    """The density of a factor at what it is shown."""
    return as_distribution(factor(params, given), type(factor).__name__)
