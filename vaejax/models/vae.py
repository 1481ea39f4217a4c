"""The variational autoencoder: one latent and one observed variable."""

import jax
from jax.typing import ArrayLike

from vaejax.base.types import Conditional, Distribution, Key, Params, Prior, Scalar
from vaejax.base.values import component
from vaejax.models.base import require_same_support, simulate


@component
class VAE:
    """log p_theta(x, z) = log p_theta(z) + log p_theta(x | z), with the inference model q_phi(z |
    x).

    theta is {"prior": ..., "likelihood": ...}, phi the encoder's parameters. Every method takes one
    example; `jax.vmap(model.posterior, (None, 0))(params, xs)` takes a batch. Reference: Kingma &
    Welling 2014.
    """

    prior: Prior
    likelihood: Conditional
    encoder: Conditional

    def __post_init__(self):
        require_same_support(self.prior, self.encoder)

    def init(self, key: Key, x: ArrayLike) -> Params:
        """Parameters for examples like x. The latent that the likelihood is shown is a sample of
        q(z | x).
        """
        prior_key, likelihood_key, encoder_key, z_key = jax.random.split(key, 4)
        phi = self.encoder.init(encoder_key, x)
        z = self.encoder(phi, x).sample(z_key)
        theta = {
            "prior": self.prior.init(prior_key, x),
            "likelihood": self.likelihood.init(likelihood_key, z),
        }
        return Params(theta, phi)

    def p_z(self, params: Params) -> Distribution:
        """The prior p_theta(z)."""
        return self.prior(params.theta["prior"], lambda x: self.posterior(params, x))

    def p_x_given_z(self, params: Params, z) -> Distribution:
        """The likelihood p_theta(x | z)."""
        return self.likelihood(params.theta["likelihood"], z)

    def log_joint(self, params: Params, x: ArrayLike, z) -> Scalar:
        """log p_theta(x, z), nats."""
        return self.p_z(params).log_prob(z) + self.p_x_given_z(params, z).log_prob(x)

    def posterior(self, params: Params, x: ArrayLike) -> Distribution:
        """The approximate posterior q_phi(z | x)."""
        return self.encoder(params.phi, x)

    def sample(self, params: Params, key: Key):
        """(x, z) ~ p_theta(x, z), ancestrally: z from the prior, then x from the likelihood."""
        return simulate(self, params, *jax.random.split(key))

    def reconstruct(self, params: Params, x: ArrayLike, key: Key) -> jax.Array:
        """E[x' | z], z ~ q_phi(z | x): the mean of the likelihood at one posterior sample."""
        z = self.posterior(params, x).sample(key)
        return self.p_x_given_z(params, z).mean
