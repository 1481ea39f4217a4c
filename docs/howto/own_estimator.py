# %% [markdown]
# # Your own gradient estimator
#
# After this page you can write an estimator in six lines, train with it, and hold its mean and its
# variance against an exact gradient.
#
# An estimator is a function of one example whose *value* is a bound and whose *gradient* is the
# estimator. So it is a placement of `jax.lax.stop_gradient`, and nothing else.

# %%
import textwrap

import jax
import jax.numpy as jnp
import optax

import vaejax


@vaejax.component
class FixedPosterior(vaejax.Estimator):
    """Value: log w. Gradient: in theta alone."""

    def __call__(self, model, params, x, key):
        q = jax.lax.stop_gradient(model.posterior(params, x))
        z, log_q = q.sample_and_log_prob(key)
        return model.log_joint(params, x, z) - log_q


data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
init_key, first_key, second_key, test_key = jax.random.split(jax.random.key(0), 4)
settings = {"batch_size": 100, "transform": pixels, "progress": False}
optimizer, images = optax.adam(2e-3), data.train.images
params = model.init(init_key, pixels(images[0], init_key))

both = vaejax.minibatch(vaejax.AnalyticKL(), model)
params = vaejax.fit(both, params, optimizer, images, first_key, num_steps=800, **settings).params

decoder_alone = vaejax.minibatch(FixedPosterior(), model)
run = vaejax.fit(decoder_alone, params, optimizer, images, second_key, num_steps=200, **settings)

assert all(
    jnp.array_equal(before, after)
    for before, after in zip(
        jax.tree.leaves(params.phi), jax.tree.leaves(run.params.phi), strict=True
    )
)
for name, these in (("before", params), ("after 200 steps of the decoder alone", run.params)):
    evaluation = vaejax.evaluate(
        model, these, data.test.images, test_key, num_samples=50, transform=pixels
    )
    print(f"test ELBO {evaluation.elbo} nats, {name}")

# %% [markdown]
# ## What each line is for
#
# - `q` is stopped, so no gradient reaches $\phi$: the encoder stays to the bit, which the `assert`
#   above says. It is what you want to train a decoder on a frozen encoder, or one half of
#   wake-sleep.
# - `sample_and_log_prob` is one call, because some densities know their log-density only at their
#   own samples.
# - The value stays $\log w = \log p_\theta(x, z) - \log q_\phi(z \mid x)$, an unbiased estimate of
#   the ELBO. So the history and the validation report the bound, and never a surrogate.
#
# `vaejax.minibatch(estimator, model)` makes the objective; `fit`, `gradient_moments`,
# `gradient_bias` and the rest take it as they take the library's own.
#
# ## Check its mean against an exact gradient
#
# With a linear decoder, $p(x \mid z) = N(a z + c, s^2)$, and $q = N(m, v)$ the ELBO is known in
# closed form,
#
# $$\log N(x; a m + c, s^2) - \frac{a^2 v}{2 s^2} - \mathrm{KL}(q \,\|\, p),$$
#
# and `jax.grad` of that is exact. `gradient_bias` compares all parameters at once, and gives the
# probability of so large a deviation by chance.


# %%
line = vaejax.VAE(
    vaejax.StandardNormal(1),
    vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=0.8),
    vaejax.DiagNormal(vaejax.Free(1)),
)
x = jnp.array([1.1])
point = line.init(init_key, x)


def exact_elbo(params):
    q, a = (
        line.posterior(params, x),
        params.theta["likelihood"]["net"]["params"]["Dense_0"]["kernel"],
    )
    at_mean = line.p_x_given_z(params, q.loc).log_prob(x)
    spread = jnp.sum((a * jnp.exp(q.log_scale) / 0.8) ** 2) / 2
    return at_mean - spread - vaejax.kl_divergence(q, line.p_z(params))


objective = vaejax.per_example(FixedPosterior(), line)
moments = vaejax.gradient_moments(objective, point, x, test_key, 20_000, chunk=500, order=2)
exact = jax.grad(exact_elbo)(point)
bias = {
    name: vaejax.gradient_bias(
        moments, exact, select=lambda params, name=name: getattr(params, name)
    )
    for name in ("theta", "phi")
}
for name, found in bias.items():
    print(
        f"{name}: largest deviation {found.largest_z:.1f} standard errors, p = {found.p_value:.2g}"
    )
assert bias["theta"].p_value > 1e-6
assert bias["phi"].p_value < 1e-6

# %% [markdown]
# In $\theta$ the mean is the exact gradient. In $\phi$ the estimator is 0 and the gradient of the
# ELBO is not, and the test finds it: a bias in $\phi$ is what this estimator is for.
#
# ## What goes wrong, and what you are told
#
# An estimator that differentiates through samples of q should refuse a q whose samples do not move
# smoothly. One line does it, `q = vaejax.reparameterised_posterior(self, model, params, x)` in place
# of `model.posterior(params, x)`. `FixedPosterior` does not differentiate through z, so it takes any
# q, discrete ones too. An estimator that returns no single number is refused:


# %%
@vaejax.component
class NoBound(vaejax.Estimator):
    def __call__(self, model, params, x, key):
        return model.posterior(params, x).sample(key)


try:
    NoBound()(model, params, pixels(images[0], init_key), test_key)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# Which estimator for which model: [choose an estimator](../choose/estimator.md). Three of them side
# by side: [compare estimators](compare_estimators.md).
