# %% [markdown]
# # How good is my model?
#
# After this page you can say how likely held-out data are under a model, from both sides, how far
# to trust the number, and what the latent space holds.

# %%
import itertools

import jax
import numpy as np
import optax

import vaejax

data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "threshold")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(4),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(4, hidden=(64,), heads=2)),
)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
run = vaejax.fit(
    vaejax.minibatch(vaejax.AnalyticKL(), model),
    model.init(init_key, pixels(data.train.images[0], init_key)),
    optax.adam(2e-3),
    data.train.images,
    fit_key,
    num_steps=2_000,
    batch_size=100,
    transform=pixels,
    progress=False,
)
params, test = run.params, jax.vmap(pixels)(data.test.images[:200], jax.random.split(test_key, 200))

evaluation = vaejax.evaluate(model, params, test, test_key, num_samples=1_000)
print(evaluation)

# %% [markdown]
# ## How to read it
#
# - Each number is a mean over the test examples, with its standard error over them.
# - The ELBO and IWAE-K are lower bounds on log p(x), the higher the tighter. Where IWAE-100 and
#   IWAE-1000 are still apart, IWAE-1000 is not there yet.
# - *Effective* is $(\sum w)^2 / \sum w^2$. *k-hat* is the shape of the weights' tail: above 0.7 the
#   bound of that example may be far off, and its error does not show it.
# - Bits per dimension are given only for data of finitely or countably many values.
# - A latent is active if its posterior mean varies over the examples.
#
# `evaluation.by_example` has the arrays behind all of it. The whole page with pictures, for a run
# of the command line: `vaejax evaluate --run runs/mine`, which writes `report.html`.
#
# ## From both sides
#
# Annealed importance sampling goes from the prior to the posterior in small steps, so it does not
# depend on q. Its moves are BlackJAX's: `pip install 'vaejax[experiments]'`. On test data it is a
# lower bound:

# %%
annealed = vaejax.AIS(model, vaejax.ais.Sigmoid(100), num_chains=8)
few = test[:20]
lower = vaejax.map_dataset(annealed, params, few, test_key)
beside = evaluation.by_example["iwae_1000"][:20]
print(f"20 test examples: AIS {vaejax.estimate(lower)}, IWAE-1000 {vaejax.estimate(beside)} nats")
print(f"AIS less IWAE-1000 of the same: {vaejax.estimate(np.asarray(lower, np.float64) - beside)}")

# %% [markdown]
# On data drawn from the model an exact posterior sample is known, the z they were drawn from, and
# the chain backwards gives an upper bound. How far apart the two are says how well chains of this
# length do, and how much the line above may still miss.

# %%
sandwich = jax.jit(jax.vmap(annealed.bdmc, (None, 0)))(params, jax.random.split(test_key, 20))
width = vaejax.estimate(np.asarray(sandwich.upper, np.float64) - np.asarray(sandwich.lower))
print(
    f"20 simulated examples: {vaejax.estimate(sandwich.lower)} to {vaejax.estimate(sandwich.upper)} nats"
)
print(f"upper less lower: {width}")
assert width.mean > -6 * width.standard_error

# %% [markdown]
# Here the chains are short, and the encoder is good: AIS is no better than IWAE-1000 on the test
# examples, and may still miss the width of the sandwich. More temperatures close it, at a cost in
# proportion; with many latents, where the weights of IWAE fail, it is the only one that gets there.
#
# ## The exact checks
#
# The ladder is in order for each example, since IWAE-K of groups of the same weights is monotone by
# Jensen's inequality, and the best of K weights bounds it from above:

# %%
ladder = [evaluation.by_example[f"iwae_{k}"] for k in (1, 10, 100, 1_000)]
for below, above in itertools.pairwise(ladder):
    assert np.all(below <= above + 1e-6)
assert np.allclose(ladder[0], evaluation.by_example["elbo"])
print("ELBO = IWAE-1 <= IWAE-10 <= IWAE-100 <= IWAE-1000 for all 200 examples")

# %% [markdown]
# What the latents hold: `vaejax.latent_space` (mutual information, the KL of the aggregated
# posterior, collapse), `vaejax.calibration` and `vaejax.representation`. What the ELBO misses, and
# whose fault it is: [choose a family for q](../choose/posterior.md). At full scale:
# [ais_sandwich.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/ais_sandwich.py).
