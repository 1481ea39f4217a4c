"""A model of any expectation, so that every estimator and every measure of its gradient applies."""

from collections.abc import Callable
from typing import Any

import jax

from vaejax.base import supports
from vaejax.base.types import Key, Params, PyTree, Scalar
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.models.base import Conditional, Model, Supports, density_of, require_factor
from vaejax.models.latents import refuse_shown_prior


@component
class Expectation(Model):
    """E_q f(x, z) as an ELBO: the model with log p(x, z) = f(x, z) + log q(z), whose weight is
    log w = log p(x, z) - log q(z) = f(x, z).

    `encoder` is q, with its parameters in phi; f takes an example and a sample, and its value has
    f's unit. q is `held` fixed in the joint, since its score has mean zero and would be noise: what
    an estimator differentiates is then E_q f alone, and the path derivative of log w,
    `StickTheLanding`, is that of f. An estimator that differentiates log w through a relaxed sample
    must see the two log q cancel: for it, `held=False`.

    >>> q = vaejax.DiagNormal(vaejax.Free(3))
    >>> model = vaejax.Expectation(lambda x, z: jnp.sum((z - x) ** 2), q)
    >>> params = model.init(jax.random.key(0), 2.0)
    >>> vaejax.elbo(model, params, 2.0, jax.random.key(1)).shape
    ()
    """

    f: Callable[[Any, Any], Scalar]
    encoder: Conditional
    held: bool = True
    support = supports.REAL

    def __post_init__(self):
        require_factor(self.encoder, Conditional, "Expectation.encoder")
        refuse_shown_prior(self.encoder, "Expectation.encoder")

    @property
    def latent_support(self) -> Supports:
        return self.encoder.support

    def init(self, key: Key, x: PyTree) -> Params:
        return Params((), self.encoder.init(key, x))

    def posterior(self, params: Params, x: PyTree) -> Distribution:
        return density_of(self.encoder, params.phi, x)

    def log_joint(self, params: Params, x: PyTree, z: PyTree) -> Scalar:
        q = self.posterior(params, x)
        return self.f(x, z) + (jax.lax.stop_gradient(q) if self.held else q).log_prob(z)
