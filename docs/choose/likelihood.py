# %% [markdown]
# # Choose a likelihood
#
# After this page you know which likelihood your data allow, which numbers may be compared, and why
# a fixed scale is a choice that you did not want to make.
#
# | if x is | then |
# |---|---|
# | 0 or 1 | `Bernoulli` |
# | pixels of n levels | `DiscretizedLogistic`, or `Categorical` for few levels |
# | grey values on [0, 1] as they are | `ContinuousBernoulli` |
# | real | `Gaussian(net, "learned")`; a fixed scale only where the noise is known |
# | real, and its noise depends on z | `DiagNormal`; `FullNormal` where it is correlated |
# | real, with outliers | `NumPyroConditional` of a Student-t, or `Laplace` |
# | counts | `Poisson`; `NegativeBinomial` where they vary more |
# | a category | `OneHotCategorical` |
# | a direction | `VonMisesFisher` |
# | several of these | a [graph](../howto/conditional_model.md), a node for each |

# %%
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax import plots
from vaejax.distributions import DiagNormalDensity

# %% [markdown]
# ## What goes together
#
# Every likelihood goes with every prior and encoder; it is the data that it must fit. Its `support`
# says which, and data outside of it are refused before anything compiles, with the remedy. Grey
# pixels in a `Bernoulli`, the commonest mistake:

# %%
digits = vaejax.load_dataset("digits")
levels = digits.train.images.astype(np.float32) / 16  # k / 16, k = 0, ..., 16
test = digits.test.images[:200].astype(np.float32) / 16
decoder, encoder = vaejax.MLP((8, 8), hidden=(64,)), vaejax.MLP(8, hidden=(64,), heads=2)
prior, q = vaejax.StandardNormal(8), vaejax.DiagNormal(encoder)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)

binary = vaejax.VAE(prior, vaejax.Bernoulli(decoder), q)
try:
    vaejax.elbo(binary, binary.init(init_key, levels[0]), levels[0], test_key)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## Masses and densities do not compare
#
# A density has the unit 1/x. In other units the log p(x) of the same data moves by $-d \log c$; the
# bits per dimension move by $\log_2 c$, and nothing was learned. Exactly:

# %%
x = jnp.asarray(levels[0])
p = DiagNormalDensity(0.3 * jnp.ones((8, 8)), jnp.full((8, 8), -1.0))
scaled = DiagNormalDensity(16 * p.loc, p.log_scale + jnp.log(16.0))
moved = float(scaled.log_prob(16 * x) - p.log_prob(x))
print(f"pixels from 0 to 16 in place of 0 to 1: log p(x) moves by {moved:.2f} nats")
assert abs(moved + 64 * np.log(16)) < 1e-2

# %% [markdown]
# A mass has no unit: `DiscretizedLogistic` and `Categorical` give the probability of the 17 levels
# themselves, so their bits per dimension are a code length, and compare with each other and with
# any compressor. `evaluate` gives bits per dimension only for those.
#
# ## The same data, four likelihoods
#
# One decoder and one encoder, 1,500 steps each. `Categorical` has 17 free numbers for each pixel,
# `DiscretizedLogistic` a location and a scale.


# %%
def evaluated(likelihood, num_steps=1_500):
    model = vaejax.VAE(prior, likelihood, q)
    run = vaejax.fit(
        vaejax.minibatch(vaejax.AnalyticKL(), model),
        model.init(init_key, levels[0]),
        optax.adam(2e-3),
        levels,
        fit_key,
        num_steps=num_steps,
        batch_size=100,
        progress=False,
    )
    return model, run.params, vaejax.evaluate(model, run.params, test, test_key, num_samples=100)


likelihoods = {
    "Categorical": vaejax.Categorical(vaejax.MLP((8, 8, 17), hidden=(64,)), 17),
    "DiscretizedLogistic": vaejax.DiscretizedLogistic(
        vaejax.MLP((8, 8), hidden=(64,), heads=2), 17
    ),
    "Gaussian, scale learned": vaejax.Gaussian(decoder, "learned"),
    "Gaussian, scale 1": vaejax.Gaussian(decoder, 1.0),
}
results = {name: evaluated(likelihood) for name, likelihood in likelihoods.items()}
print(f"{'likelihood':<25}{'log p(x), nats':>18}{'bits per dim':>18}{'active units':>14}")
for name, (_, _, evaluation) in results.items():
    bits = evaluation.bits_per_dim
    length = "a density: none" if bits is None else f"{bits.mean:.3f} ± {bits.standard_error:.3f}"
    print(f"{name:<25}{evaluation.log_marginal!s:>18}{length:>18}{evaluation.active_units:>14}")
    assert (bits is None) == ("Gaussian" in name)

# %% [markdown]
# The first two lines compare, and so do the last two, but not one of the first with one of the
# last: the finer the grid of the data, the larger a density can become.
#
# ## A fixed scale is a weight on the KL
#
# $\log N(x; m, s^2)$ is $-|x - m|^2 / 2 s^2$ and a constant, so $s$ weighs the reconstruction
# against the KL: a fixed $s$ is a $\beta$ in disguise. For a linear decoder the price is known: a
# direction of the data is worth a latent only if its variance, an eigenvalue of their covariance,
# is above $s^2$
# ([rate_distortion.py](https://github.com/vaejax/vaejax/blob/main/experiments/representation/rate_distortion.py)
# holds this against training, within 0.2 %). So with $s = 1$ no latent pays here, and all images
# come out as one blur:

# %%
largest = np.linalg.eigvalsh(np.cov(levels.reshape(-1, 64).T))[-1]
print(f"the largest eigenvalue of the data's covariance is {largest:.2f}, below 1")
assert largest < 1 and results["Gaussian, scale 1"][2].active_units == 0

model, params, _ = results["Gaussian, scale learned"]
scale = float(jnp.exp(model.p_x_given_z(params, jnp.zeros(8)).log_scale.ravel()[0]))
print(f"the learned scale is {scale:.3f}")
rows = [test[:10]]
for model, params, _ in results.values():
    reconstruct = jax.jit(jax.vmap(lambda x, key, m=model, p=params: m.reconstruct(p, x, key)))
    rows.append(np.asarray(reconstruct(test[:10], jax.random.split(test_key, 10))))
plots.image_grid(
    np.clip(np.concatenate(rows), 0, 1),
    columns=10,
    title="data; Categorical; DiscretizedLogistic; Gaussian learned; Gaussian 1",
)

# %% [markdown]
# `"learned"` is one scale for all pixels, `"per-dimension"` one for each; `vaejax.optimal_scale`
# gives the best scale in closed form at any time.
#
# ## What each choice loses
#
# - `Categorical`: the order of the levels, and n outputs for each pixel.
# - `ContinuousBernoulli` and `Gaussian`: numbers that compare with a code.
# - `DiagNormal`: where a pixel is constant, its scale runs to the bound of the library, and log
#   p(x) with it. The pixels that are constant then decide the comparison.
# - binarising the data (`prepare_pixels`): grey. With `"dynamic"` most of the nats are those of the
#   coin that is tossed for each grey pixel, and a static, a dynamic and a thresholded set are three
#   data sets whose numbers do not compare.
#
# Figures of published work are of one binarisation each; the
# [training script](https://github.com/vaejax/vaejax/blob/main/experiments/train.py) writes which
# into the result. A family of your own: [your own distribution](../howto/own_distribution.md).
