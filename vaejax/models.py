"""Models: three pure functions of one example, `init`, `log_joint` and `posterior`."""

import jax
from jax.typing import ArrayLike

from vaejax._values import value
from vaejax.supports import BINARY, ONE_HOT, REAL, SIMPLEX, SPHERE, UNIT_INTERVAL
from vaejax.types import Conditional, Distribution, Key, Params, Prior, Scalar

ENCODERS = {
    REAL: "DiagNormal, FullNormal, LowRankNormal, Laplace, RealNVP or InverseAutoregressive",
    BINARY: "Bernoulli",
    ONE_HOT: "OneHotCategorical",
    UNIT_INTERVAL: "RelaxedBernoulli or ContinuousBernoulli",
    SIMPLEX: "RelaxedCategorical",
    SPHERE: "VonMisesFisher",
}


def require_same_support(prior: Prior, encoder: Conditional) -> None:
    """Raises ValueError for a prior and an encoder whose latents live on different sets: KL(q || p) is then infinite or undefined."""
    of_prior, of_encoder = getattr(prior, "support", None), getattr(encoder, "support", None)
    if of_prior is None or of_encoder is None or of_prior == of_encoder:
        return
    remedy = f"; for this prior use an encoder such as {ENCODERS[of_prior]}" if of_prior in ENCODERS else ""
    raise ValueError(
        f"{type(prior).__name__} is a prior on {of_prior.name} latents ({of_prior.description}) and {type(encoder).__name__} an encoder of "
        f"{of_encoder.name} ones ({of_encoder.description}), so KL(q || p) is infinite or not defined{remedy}"
    )


@value
class VAE:
    """log p_theta(x, z) = log p_theta(z) + log p_theta(x | z), with the inference model q_phi(z | x).

    theta is {"prior": ..., "likelihood": ...}, phi the encoder's parameters. Every method takes one example;
    `jax.vmap(model.posterior, (None, 0))(params, xs)` takes a batch.
    Reference: Kingma & Welling 2014.
    """

    prior: Prior
    likelihood: Conditional
    encoder: Conditional

    def __post_init__(self):
        require_same_support(self.prior, self.encoder)

    def init(self, key: Key, x: ArrayLike) -> Params:
        """Parameters for examples like x. The latent that the likelihood is shown is a sample of q(z | x)."""
        prior_key, likelihood_key, encoder_key, z_key = jax.random.split(key, 4)
        phi = self.encoder.init(encoder_key, x)
        z = self.encoder(phi, x).sample(z_key)
        theta = {"prior": self.prior.init(prior_key, x), "likelihood": self.likelihood.init(likelihood_key, z)}
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
        z_key, x_key = jax.random.split(key)
        z = self.p_z(params).sample(z_key)
        return self.p_x_given_z(params, z).sample(x_key), z

    def reconstruct(self, params: Params, x: ArrayLike, key: Key) -> jax.Array:
        """E[x' | z], z ~ q_phi(z | x): the mean of the likelihood at one posterior sample."""
        z = self.posterior(params, x).sample(key)
        return self.p_x_given_z(params, z).mean
