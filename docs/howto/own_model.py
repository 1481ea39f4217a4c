# %% [markdown]
# # Your own model
#
# After this page you can write a model that is neither a `VAE` nor a graph, and use everything on
# it that the library's models have.
#
# First ask whether it is a [graph](conditional_model.md): conditional, hierarchical, mixture and
# semi-supervised models are. Else a model is `init` and three densities of one example. This one
# shares a parameter between likelihood and prior's scale, and its q is linear in x.

# %%
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax


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


xs = 2.0 * np.random.default_rng(0).normal(size=(5_000, 3)).astype(np.float32)
model = Scaled(3)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
run = vaejax.fit(
    vaejax.minibatch(vaejax.StickTheLanding(), model),
    model.init(init_key, xs[0]),
    optax.adam(optax.cosine_decay_schedule(2e-2, 2_000)),
    xs,
    fit_key,
    num_steps=2_000,
    batch_size=100,
    progress=False,
)
evaluation = vaejax.evaluate(model, run.params, xs[:500], test_key, num_samples=50)
print(evaluation)

# %% [markdown]
# ## What each line is for
#
# - `support` and `latent_support` are the sets that x and z live on; they have no default. With
#   them `fit` checks the data, and AIS its latents.
# - `init(key, x)` gives `Params(theta, phi)`: generative parameters, and those of q. Any pytrees of
#   real floats.
# - `p_z`, `p_x_given_z` and `posterior` give densities. From them follow `log_joint`,
#   `log_likelihood`, `sample`, `simulate` and `reconstruct`, every estimator, `evaluate`, `AIS`,
#   `Refined` and `inference_gap`.
# - A model without a prior to show leaves `p_z` out and writes `log_joint`; what needs the prior,
#   such as `AnalyticKL`, then says so.
#
# ## The exact check
#
# Here $p(x) = N(0, (1 + e^{2 \theta}) I)$, so maximum likelihood is
# $e^{2 \theta} = \overline{x^2} - 1$; and q contains the posterior, so the ELBO reaches log p(x).

# %%
best = 0.5 * np.log(np.mean(xs.astype(np.float64) ** 2) - 1)
variance = 1 + np.exp(2 * float(run.params.theta))
log_p_x = -0.5 * np.sum(
    xs[:500].astype(np.float64) ** 2 / variance + np.log(2 * np.pi * variance), axis=1
)
print(f"theta {float(run.params.theta):.3f}, and by maximum likelihood {best:.3f}")
print(f"the ELBO less log p(x): {np.mean(evaluation.by_example['elbo'] - log_p_x):.5f} nats")
assert abs(float(run.params.theta) - best) < 0.02
assert abs(np.mean(evaluation.by_example["elbo"] - log_p_x)) < 0.01

# %% [markdown]
# ## What goes wrong, and what you are told
#
# A class that does not say its supports is refused when it is defined:

# %%
try:

    class Silent(vaejax.Model):
        support = vaejax.supports.REAL

except TypeError as error:
    print(textwrap.fill(str(error), 80))
