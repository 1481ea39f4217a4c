"""The variational autoencoder: one latent and one observed variable."""

import jax
from jax.typing import ArrayLike

from vaejax.base.supports import shown
from vaejax.base.types import Key, Params, PyTree
from vaejax.base.values import component
from vaejax.distributions.base import Distribution
from vaejax.models.base import (
    Conditional,
    Factor,
    Model,
    Supports,
    density_of,
    require_factor,
)
from vaejax.models.latents import refuse_shown_prior, require_same_support
from vaejax.models.learned import require_params

PARTS = "prior", "likelihood"  # of theta


@component
class VAE(Model):
    """log p_theta(x, z) = log p_theta(z) + log p_theta(x | z), with the inference model
    q_phi(z | x).

    theta is {"prior": ..., "likelihood": ...}, phi the encoder's parameters. Every method takes one
    example; `jax.vmap(model.posterior, (None, 0))(params, xs)` takes a batch.
    Reference: Kingma & Welling 2014.

    >>> model = vaejax.VAE(
    ...     prior=vaejax.StandardNormal(2),
    ...     likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8))),
    ...     encoder=vaejax.DiagNormal(vaejax.MLP(2, heads=2)),
    ... )
    >>> x = jnp.ones((8, 8))
    >>> params = model.init(jax.random.key(0), x)
    >>> model.posterior(params, x).mean().shape
    (2,)
    """

    prior: Factor
    likelihood: Conditional
    encoder: Conditional

    def __post_init__(self):
        require_factor(self.prior, Factor, "VAE.prior")
        require_factor(self.likelihood, Conditional, "VAE.likelihood")
        require_factor(self.encoder, Conditional, "VAE.encoder")
        require_same_support(self.prior, self.encoder)
        for role in ("prior", "likelihood", "encoder"):
            refuse_shown_prior(vars(self)[role], f"VAE.{role}")

    @property
    def support(self) -> Supports:
        return self.likelihood.support

    @property
    def latent_support(self) -> Supports:
        return self.encoder.support if self.prior.support is None else self.prior.support

    def init(self, key: Key, x: ArrayLike) -> Params:
        """Parameters for examples like x. The latent that the likelihood is shown is a sample of
        q(z | x).
        """
        prior_key, likelihood_key, encoder_key, z_key = jax.random.split(key, 4)
        phi = self.encoder.init(encoder_key, x)
        z = density_of(self.encoder, phi, x).sample(z_key)
        theta = {
            "prior": self.prior.init(prior_key, x),
            "likelihood": self.likelihood.init(likelihood_key, shown(self.latent_support, z)),
        }
        return Params(theta, phi)

    def p_z(self, params: Params, x: PyTree = None) -> Distribution:
        """The prior p_theta(z)."""
        require_params(self, params, PARTS)
        return density_of(self.prior, params.theta["prior"], lambda x: self.posterior(params, x))

    def p_x_given_z(self, params: Params, z: PyTree, x: PyTree = None) -> Distribution:
        """The likelihood p_theta(x | z)."""
        require_params(self, params, PARTS)
        return density_of(
            self.likelihood, params.theta["likelihood"], shown(self.latent_support, z)
        )

    def posterior(self, params: Params, x: ArrayLike) -> Distribution:
        """The approximate posterior q_phi(z | x)."""
        return density_of(self.encoder, params.phi, x)
