# %% [markdown]
# # Your own objective, your own bound
#
# After this page you can train on something else than the mean bound of a batch, and write a bound
# of your own, while what is reported stays the bound.
#
# An objective gives `Terms(bound, objective)`: what is reported, and what is maximised. Here the
# ELBO with a normal prior on the decoder's weights, so that training finds their most probable
# values. `Around` takes all but the call from the objective inside.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax


def log_prior(params):
    """log N(w; 0, 1) of all weights of the decoder, up to a constant."""
    return -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params.theta["likelihood"])) / 2


@vaejax.component
class MostProbableWeights(vaejax.Around):
    inner: vaejax.Objective
    dataset_size: int

    def __call__(self, params, xs, key, step):
        terms = self.inner(params, xs, key, step)
        penalty = log_prior(params) / self.dataset_size
        return terms._replace(objective=terms.objective + penalty)


data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "threshold")
images = data.train.images[:200]  # few, so that a prior on the weights matters
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
start = model.init(init_key, pixels(images[0], init_key))
plain = vaejax.minibatch(vaejax.AnalyticKL(), model)
penalised = MostProbableWeights(plain, len(images))

for name, objective in (("the ELBO alone", plain), ("with a prior on the weights", penalised)):
    run = vaejax.fit(
        objective,
        start,
        optax.adam(2e-3),
        images,
        fit_key,
        num_steps=1_500,
        batch_size=100,
        transform=pixels,
        progress=False,
        validation=vaejax.Validation(data.valid.images, every=500),
    )
    reported = run.history["bound"][-50:].mean()
    held_out = run.history["validation_bound"][-1]
    print(f"{name:<28}training ELBO {reported:.2f}, held out {held_out:.2f} nats")

# %% [markdown]
# ## What each line is for
#
# - `self.inner(params, xs, key, step)` gives the `Terms` of the objective inside; `_replace`
#   changes one of them. Any objective stands there: `vaejax.minibatch(vaejax.Beta(2.0), model)`,
#   another one of your own.
# - The bound is passed on as it was. So the history, the validation and early stopping see the
#   ELBO, whatever is maximised, and runs with different penalties compare.
# - `Around` has the model, the support of the data and the schedules of the inner objective, so
#   `fit` makes the same checks. An objective around nothing derives from `vaejax.Objective` and
#   says them itself.
#
# What concerns one example is an [estimator](own_estimator.md), not an objective.
#
# ## The exact check
#
# The bound is that of the inner objective, and the gradients differ by that of the prior, $-w / N$:

# %%
xs = jax.vmap(pixels)(images[:20], jax.random.split(test_key, 20))
assert penalised(start, xs, test_key, 0).bound == plain(start, xs, test_key, 0).bound
gradients = [
    jax.grad(lambda params, o=objective: o(params, xs, test_key, 0).objective)(start)
    for objective in (penalised, plain)
]
difference = jax.tree.map(jnp.subtract, *gradients).theta["likelihood"]
expected = jax.tree.map(lambda w: -w / len(images), start.theta["likelihood"])
worst = max(
    float(jnp.max(jnp.abs(a - b)))
    for a, b in zip(jax.tree.leaves(difference), jax.tree.leaves(expected), strict=True)
)
print(f"the gradients differ from -w / N by at most {worst:.1e}")
assert worst < 1e-5

# %% [markdown]
# ## Your own bound
#
# A bound is a function of the K log-weights of one example, and goes where `iwae_bound` goes. The
# mean of four groups (Rainforth et al. 2018, MIWAE) is one line:


# %%
def miwae_bound(log_w):
    return jnp.mean(jax.vmap(vaejax.iwae_bound)(log_w.reshape(4, -1)))


estimator = vaejax.Pathwise(16, miwae_bound)
print(f"{float(estimator(model, start, xs[0], test_key)):.2f} nats")

# %% [markdown]
# By Jensen's inequality it lies between the ELBO and IWAE of the same weights, always:

# %%
for log_w in np.random.default_rng(0).normal(scale=3, size=(100, 16)).astype(np.float32):
    assert vaejax.elbo_bound(log_w) <= miwae_bound(log_w) + 1e-5
    assert miwae_bound(log_w) <= vaejax.iwae_bound(log_w) + 1e-5
print("elbo_bound <= miwae_bound <= iwae_bound for 100 sets of weights")

# %% [markdown]
# Which bound for which purpose: [choose a bound](../choose/bound.md).
