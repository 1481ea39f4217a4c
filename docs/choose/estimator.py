# %% [markdown]
# # Choose an estimator
#
# After this page you know which gradient estimator suits your latents and your bound, what each one
# costs, and how to measure both on a model of yours.
#
# | if | then |
# |---|---|
# | q moves smoothly, the bound is the ELBO, and the KL has a closed form | `AnalyticKL` |
# | the same, late in training, where q is near the posterior | `StickTheLanding` |
# | q moves smoothly, and neither is so | `Pathwise` |
# | the bound has K samples inside the logarithm | `DReG` |
# | latents have finitely many states, at most 65,536 | `Enumerate`: exact |
# | latents are binary, with more states than that | `DisARM`, or `ScoreFunction(2)` |
# | latents are one-hot, or anything else that jumps | `ScoreFunction(K)`, K of 2 or more |
# | the same, with K samples inside the logarithm | `VIMCO` |
# | the latents of a graph are of several kinds | `ByNode`, each node in its own way |
#
# All of them but those named *biased* below have the same mean, the gradient of the bound. They
# differ in variance and in cost, and both are measured here.

# %%
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, GREY, figure_of, finish, legend

# %% [markdown]
# ## What goes together
#
# The [table of combinations](../compatibility.md) is made by trying each of them. What does not go
# together is refused before anything compiles, in a sentence that says what to use instead. For a
# model whose latents are switches:

# %%
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "threshold")
images, pixels_key = digits.train.images, jax.random.key(1)
batch = jax.vmap(binarise)(images[:20], jax.random.split(pixels_key, 20))
switches = vaejax.VAE(
    vaejax.FactorialBernoulli(6),
    vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(32,))),
    vaejax.Bernoulli(vaejax.MLP(6, hidden=(32,))),
)
init_key, fit_key, draw_key = jax.random.split(jax.random.key(0), 3)
try:
    vaejax.Pathwise()(switches, switches.init(init_key, batch[0]), batch[0], draw_key)
except TypeError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## Smooth latents, the ELBO
#
# One small model of the digits, measured at its start and after 1,500 steps. Each line has the
# variance of the gradient in $\phi$ of a minibatch of 20, as a multiple of that of `Pathwise` with
# one sample. The interval at 95 % is of the ratio itself, since the draws are paired by common
# random numbers. *Decoder* counts evaluations of $p(x \mid z)$ for one example, forward and
# backward. *Price* is the ratio of the trained model times the number of evaluations, again with
# that of `Pathwise` as 1: twice the samples halve the variance for twice the work, and have a price
# of 1.

# %%
vae = vaejax.VAE(
    prior=vaejax.StandardNormal(8),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(8, hidden=(64,), heads=2)),
)


def fitted(objective, start, num_steps):
    run = vaejax.fit(
        objective,
        start,
        optax.adam(2e-3),
        images,
        fit_key,
        num_steps=num_steps,
        batch_size=100,
        transform=binarise,
        progress=False,
    )
    return run.params


def moments(objective, params, x, num_draws):
    return vaejax.gradient_moments(
        objective, params, x, draw_key, num_draws, order=2, strategy="scan", chunk=1
    )


def decoder_evaluations(estimator, model, params):
    return vaejax.decoder_evaluations(estimator, model, params, batch[0], draw_key)


start = vae.init(init_key, batch[0])
trained = fitted(vaejax.minibatch(vaejax.AnalyticKL(), vae), start, 1_500)
estimators = {
    "Pathwise": vaejax.Pathwise(),
    "AnalyticKL": vaejax.AnalyticKL(),
    "StickTheLanding": vaejax.StickTheLanding(),
    "Pathwise, antithetic pair": vaejax.Pathwise(2, noise=vaejax.Antithetic()),
    "ScoreFunction, 2 samples": vaejax.ScoreFunction(2),
}
measured = {
    name: [
        moments(vaejax.minibatch(estimator, vae), params, batch, 300) for params in (start, trained)
    ]
    for name, estimator in estimators.items()
}
ratios = {
    name: [
        vaejax.variance_ratio(these, reference, "phi")
        for these, reference in zip(pair, measured["Pathwise"], strict=True)
    ]
    for name, pair in measured.items()
}

print(f"{'of Pathwise':<28}{'start':<20}{'trained':<20}{'decoder':<9}price")
for name, pair in ratios.items():
    used = decoder_evaluations(estimators[name], vae, trained)
    cells = [f"{ratio.ratio:.2f} ({ratio.low:.2f}-{ratio.high:.2f})" for ratio in pair]
    price = pair[1].ratio * sum(used) / 2
    print(
        f"{name:<28}{cells[0]:<20}{cells[1]:<20}{f'{used.forward} + {used.backward}':<9}{price:.2f}"
    )

# %%
figure, [[axes]] = figure_of(size=(6.4, 2.8))
for place, (label, colour) in enumerate((("at the start", GREY), ("trained", BLUE))):
    ratio, low, high = np.array([pair[place] for pair in ratios.values()]).T
    heights = np.arange(len(ratios))[::-1] + 0.12 - 0.24 * place
    axes.errorbar(
        ratio, heights, xerr=[ratio - low, high - ratio], fmt="o", ms=5, color=colour, label=label
    )
axes.axvline(1, color=GREY, lw=0.8, ls=":")
axes.set_yticks(np.arange(len(ratios))[::-1], list(ratios))
finish(axes, xscale="log", xlabel="variance of the gradient in phi / that of Pathwise")
legend(axes)
figure

# %% [markdown]
# The order changes during training. At the start q is wide and most of the noise is that of the KL,
# which `AnalyticKL` takes out. Later q is near the posterior, where the noise of `StickTheLanding`
# vanishes: in one dimension it is below that of `Pathwise` if and only if q has more than half the
# variance of the posterior
# ([sticking_the_landing.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/sticking_the_landing.py)
# holds 48 variances against that closed form). So measure at a checkpoint of your own, and not at
# the initialisation.
#
# All have the same mean. The value of `AnalyticKL` less that of `Pathwise` is zero in the mean, and
# so is the difference of their gradients, parameter by parameter (`gradient_bias`, false-alarm rate
# 1e-6):

# %%
analytic, plain = measured["AnalyticKL"][1], measured["Pathwise"][1]
error = jax.tree.map(lambda v: np.sqrt(np.asarray(v) / plain.num_draws), plain.variance)
bias = vaejax.gradient_bias(analytic, plain.mean, error)
print(f"largest deviation {bias.largest_z:.1f} standard errors, p = {bias.p_value:.2g}")
assert bias.p_value > 1e-6

# %% [markdown]
# ## K samples inside the logarithm
#
# With K samples the bound is tighter, and the gradient of `Pathwise` in $\phi$ loses its signal
# faster than its noise (Rainforth et al. 2018). `DReG` has the same mean, and takes out the part
# that carries no signal (Tucker et al. 2019). One latent, one pixel, a q that is not the posterior;
# the signal is the length of the mean gradient in $\phi$, the noise the root of its variance.

# %%
line = vaejax.VAE(
    vaejax.StandardNormal(1),
    vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=0.8),
    vaejax.DiagNormal(vaejax.Free(1)),
)
x = jnp.array([1.1])
point = line.init(init_key, x)
print(f"{'K':>4}{'noise of Pathwise':>20}{'of DReG':>10}{'signal / noise':>17}{'of DReG':>10}")
for num_samples in (4, 64):
    plain, doubly = (
        moments(vaejax.per_example(estimator, line), point, x, 4_000)
        for estimator in (
            vaejax.Pathwise(num_samples, vaejax.iwae_bound),
            vaejax.DReG(num_samples),
        )
    )
    signal = vaejax.tree_sum(jax.tree.map(np.square, doubly.mean.phi)) ** 0.5
    noises = [vaejax.tree_sum(these.variance.phi) ** 0.5 for these in (plain, doubly)]
    cells = (*noises, *(signal / noise for noise in noises))
    print("{:>4}{:>20.4f}{:>10.4f}{:>17.3f}{:>10.3f}".format(num_samples, *cells))
    error = jax.tree.map(lambda v: np.sqrt(np.asarray(v) / 4_000), doubly.variance)
    bias = vaejax.gradient_bias(plain, doubly.mean, error)
    assert bias.p_value > 1e-6  # one mean

# %% [markdown]
# In the limit the first ratio falls like $K^{-1/2}$ and the second grows like $K^{1/2}$. At full
# scale, in 20 dimensions, the experiment
# [snr_of_tighter_bounds.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/snr_of_tighter_bounds.py)
# measured slopes of -0.498 and +0.486, and at K = 1024 a signal to noise of 0.017 for `Pathwise`
# and 20.6 for `DReG`.
#
# ## Latents that jump
#
# Six switches have 64 states, so `Enumerate` gives the exact gradient, at 64 evaluations. The
# others are held against it.

# %%
exact = vaejax.per_example(vaejax.Enumerate(), switches)
params = fitted(
    vaejax.minibatch(vaejax.Enumerate(), switches), switches.init(init_key, batch[0]), 500
)
truth = jax.jit(jax.grad(lambda params: exact(params, batch[0], draw_key, 0).bound))(params)
discrete = {
    "ScoreFunction, no baseline": vaejax.ScoreFunction(2, vaejax.NoBaseline()),
    "ScoreFunction, leave-one-out": vaejax.ScoreFunction(2),
    "DisARM": vaejax.DisARM(2),
    "StraightThrough (biased)": vaejax.StraightThrough(num_samples=2),
}
print(f"{'2 samples':<30}{'variance in phi':>16}{'decoder':>9}{'largest z':>11}{'p':>10}")
for name, estimator in discrete.items():
    these = moments(vaejax.per_example(estimator, switches), params, batch[0], 10_000)
    used = decoder_evaluations(estimator, switches, params)
    bias = vaejax.gradient_bias(these, truth)
    decoder = f"{used.forward} + {used.backward}"
    trace = vaejax.tree_sum(these.variance.phi)
    print(f"{name:<30}{trace:>16.3g}{decoder:>9}{bias.largest_z:>11.1f}{bias.p_value:>10.2g}")
    assert (bias.p_value < 1e-6) == ("biased" in name)

# %% [markdown]
# Most of the gain comes from a baseline. `StraightThrough` is biased, and no number of samples
# takes that away. On one Bernoulli variable, on 200, and in a VAE, with the ELBO that each reaches:
# [discrete_gradients.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/discrete_gradients.py),
# where leave-one-out, DisARM and the double control variate end at a test ELBO of -24.86, -24.94
# and -24.87, the score function without a baseline at -26.44, and the straight-through estimator at
# -25.37.
#
# ## Does it matter?
#
# The gradient of a minibatch has two sources of variance: which examples, and which noise at each.
# Only the second is the estimator's. `variance_sources` measures both, by the law of total
# variance.

# %%
many = jax.vmap(binarise)(images[:100], jax.random.split(pixels_key, 100))
for name in ("Pathwise", "StickTheLanding"):
    objective = vaejax.per_example(estimators[name], vae)
    sources = vaejax.variance_sources(objective, trained, many, draw_key, 10)
    data, noise = (vaejax.tree_sum(part.phi) for part in (sources.data, sources.sampling))
    print(
        f"{name:<16} {noise / (data + noise):.0%} of the variance in phi is the estimator's noise"
    )

# %% [markdown]
# Where the share is small, a better estimator will not train faster, and a larger batch will.
#
# ## What each choice loses
#
# - `AnalyticKL` needs a pair of q and prior with a closed form: not a mixture, a VampPrior or a
#   flow.
# - `StickTheLanding` is the worse one while q is narrow, and biased with `iwae_bound`.
# - `DReG` needs $\log q$ at a point that q did not draw itself, which an inverse autoregressive
#   flow does not have cheaply.
# - `ScoreFunction` takes any model, without a derivative of it in z, and pays in variance.
# - `Enumerate` costs as many evaluations as there are states.
# - `StraightThrough` and `Relaxed` are biased.
#
# For any model, list of estimators and data set, along a whole training run:
# [gradient_variance.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/gradient_variance.py).
# Where a pathwise gradient loses to a score function, exactly:
# [mc_gradient_review.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/mc_gradient_review.py).
# How to write one: [your own estimator](../howto/own_estimator.md). Time and memory of a compiled
# gradient: `vaejax.gradient_cost`.
