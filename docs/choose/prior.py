# %% [markdown]
# # Choose a prior
#
# After this page you know which prior suits your latents, what a richer one buys, when it buys
# less, and what it costs.
#
# | if | then |
# |---|---|
# | you start, or the decoder is deep | `StandardNormal` |
# | the data fall into groups that you want to see | `MixtureOfGaussians` |
# | there are many latents, and log p(x) is what counts | `VampPrior` or `FlowPrior` |
# | heavy tails, positive latents, anything of NumPyro's | `NumPyroPrior` |
# | directions | `UniformOnSphere` |
# | switches, or categories | `FactorialBernoulli`, `FactorialCategorical` |
# | latents of several kinds, or one above another | a [graph](../howto/conditional_model.md) |

# %%
import jax
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, GREY, figure_of, finish

# %% [markdown]
# ## What goes together
#
# A prior and an encoder go together if their latents live on the same set; every likelihood goes
# with both. Asked of the library itself:

# %%
priors = {
    "StandardNormal": vaejax.StandardNormal(2),
    "LearnedNormal": vaejax.LearnedNormal(2),
    "MixtureOfGaussians": vaejax.MixtureOfGaussians(2, 8),
    "VampPrior": vaejax.VampPrior(8),
    "FlowPrior": vaejax.FlowPrior(2, 4, (32,)),
    "UniformOnSphere": vaejax.UniformOnSphere(2),
    "FactorialBernoulli": vaejax.FactorialBernoulli(2),
    "FactorialCategorical": vaejax.FactorialCategorical(2, 3),
}
for name, prior in priors.items():
    values = "wherever the encoder puts z" if prior.support is None else prior.support.description
    print(f"{name:<22}{values}")

# %% [markdown]
# The whole [table of combinations](../compatibility.md) has the encoders and the estimators too.
# `AnalyticKL` needs a normal prior (or a von Mises-Fisher encoder on the sphere); for the others
# take `StickTheLanding` or `Pathwise`.
#
# ## What a richer prior buys
#
# A setting in which the answer is known: the data are eight round blobs in the plane, and the
# decoder is linear with a known noise of 0.12, so that $p(x)$ has the shape of the prior. With a
# standard normal $p(x)$ is a normal, and the best of those is known; with the mixture it can be the
# truth itself. So the most that a prior can buy here is exact: the difference of the last two lines
# of the table.

# %%
angles = np.arange(8) * np.pi / 4
centres, width = np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.15
generator = np.random.default_rng(0)
blobs = generator.integers(8, size=5_000)
points = (centres[blobs] + width * generator.normal(size=(5_000, 2))).astype(np.float32)
train, test = points[:4_500], points[4_500:]
init_key, fit_key, test_key, draw_key = jax.random.split(jax.random.key(0), 4)


def log_truth(xs):
    """log of the density that made them, nats [n]."""
    squares = np.sum((xs[:, None] - centres) ** 2, axis=-1) / width**2
    components = np.exp(-squares / 2) / (2 * np.pi * width**2)
    return np.log(components.mean(axis=1))


def evaluated(prior, hidden=(), num_steps=6_000):
    model = vaejax.VAE(
        prior,
        vaejax.Gaussian(vaejax.MLP(2, hidden=hidden), scale=0.12),
        vaejax.DiagNormal(vaejax.MLP(2, hidden=(64, 64), heads=2)),
    )
    run = vaejax.fit(
        vaejax.minibatch(vaejax.StickTheLanding(4), model),
        model.init(init_key, train[0]),
        optax.adam(optax.cosine_decay_schedule(5e-3, num_steps)),
        train,
        fit_key,
        num_steps=num_steps,
        batch_size=100,
        progress=False,
    )
    return model, run.params, vaejax.evaluate(model, run.params, test, test_key, num_samples=200)


names = ("StandardNormal", "MixtureOfGaussians", "VampPrior", "FlowPrior")
results = {name: evaluated(priors[name]) for name in names}
truth = log_truth(test)

print(f"{'prior, linear decoder':<24}{'ELBO':>8}{'log p(x)':>10}{'below the truth':>20}")
for name, (_, _, evaluation) in results.items():
    lack = truth - evaluation.by_example["iwae_200"]
    error = lack.std() / len(lack) ** 0.5
    bounds = f"{evaluation.elbo.mean:>8.3f}{evaluation.log_marginal.mean:>10.3f}"
    print(f"{name:<24}{bounds}{lack.mean():>13.3f} ± {error:.3f}")
    assert lack.mean() > -6 * error  # nothing is above the truth
covariance, apart = np.cov(train.T), test - train.mean(axis=0)
squares = np.sum(apart @ np.linalg.inv(covariance) * apart, axis=1)
normal = np.mean(-squares - np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2
print(f"{'a normal, by maximum likelihood':<32}{normal:>10.3f}")
print(f"{'the truth':<32}{truth.mean():>10.3f}")
assert abs(results["StandardNormal"][2].log_marginal.mean - normal) < 0.05

# %% [markdown]
# Samples of each model (blue) over the data (grey):

# %%
figure, [panels] = figure_of(columns=4, size=(7, 2.2), sharey=True)
sample_keys = jax.random.split(draw_key, 500)
for axes, (name, (model, params, _)) in zip(panels, results.items(), strict=True):
    draws = jax.jit(jax.vmap(lambda key, m=model, p=params: m.sample(p, key)[0]))(sample_keys)
    axes.scatter(*test.T, s=3, color=GREY, linewidths=0)
    axes.scatter(*np.asarray(draws).T, s=3, color=BLUE, linewidths=0)
    finish(axes, title=name, xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xticks=(-1, 0, 1))
    axes.title.set_fontsize(9)
figure

# %% [markdown]
# ## When it buys less
#
# A decoder that bends can make blobs out of a standard normal, so a part of what the prior bought
# comes free. The same with a decoder of one hidden layer of 64:

# %%
_, _, evaluation = evaluated(priors["StandardNormal"], hidden=(64,))
gain = evaluation.log_marginal.mean - results["StandardNormal"][2].log_marginal.mean
most = truth.mean() - normal
print(
    f"log p(x) {evaluation.log_marginal.mean:.3f}: {gain / most:.0%} of what a prior can buy here"
)

# %% [markdown]
# So try the standard normal first; a richer prior pays where the decoder cannot do its work, or
# where there are many latents. At full scale
# ([swap_priors.py](https://github.com/vaejax/vaejax/blob/main/experiments/representation/swap_priors.py),
# the static binarised MNIST, 40 latents, 20,000 steps, two seeds) the experiment measured, in nats:
#
# | prior | log p(x) | training |
# |---|---|---|
# | standard normal | -93.69 ± 0.04 | 121 s |
# | mixture of 50 | -92.41 ± 0.07 | 155 s |
# | flow of 4 layers | -91.19 ± 0.08 | 214 s |
# | VampPrior of 200 | -90.03 ± 0.19 | 360 s |
#
# ## What each choice loses
#
# - `MixtureOfGaussians`, `VampPrior`, `FlowPrior`: the KL in closed form, and so `AnalyticKL`.
# - `VampPrior`: one evaluation of the encoder for each pseudo-input at every step, and
#   pseudo-inputs that need a good start, such as training examples.
# - `FlowPrior(kind="autoregressive")`: a sample costs one pass for each dimension;
#   `kind="coupling"` has both directions in one pass.
# - `NumPyroPrior`: nothing is learned, unless you write
#   [a prior of your own](../howto/own_prior.md).
# - discrete latents: the path from x to z. See [choose an estimator](estimator.md).
