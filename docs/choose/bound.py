# %% [markdown]
# # Choose a bound
#
# After this page you know which bound to train on, which to report, how tight each is at K samples,
# and what a tighter one does to the encoder.
#
# | if you | then |
# |---|---|
# | train | the ELBO: one sample, `AnalyticKL` or `StickTheLanding` |
# | train, and q is too simple for the posterior | `DReG(K)` |
# | report how good a model is | `evaluate`: the ELBO, IWAE-K for a ladder of K, and k-hat |
# | report log p(x), and k-hat is above 0.7 | `AIS`, and `AIS.bdmc` for a bound from above |
# | want an estimate without the 1/K term, which is not a bound | `jackknife_bound` |
# | want something between the ELBO and IWAE | `renyi_bound(alpha)`, alpha between 0 and 1 |
# | want many samples and the encoder's signal | `MIWAEBound(groups)`, `CIWAEBound(beta)`; `PIWAE` for theta by IWAE and phi by MIWAE |
#
# All are functions of the K log-weights $\log w_k = \log p(x, z_k) - \log q(z_k \mid x)$ of one
# example, so any of them is one word in `Pathwise(K, bound)`.

# %%
import math

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from vaejax.plots import BLUE, GREY, INK, ORANGE, figure_of, finish, legend, ticks_at

# %% [markdown]
# ## Value against K, where log p(x) is known
#
# One latent, $p(z) = N(0, 1)$, $p(x \mid z) = N(z, s^2)$ with $s^2 = 0.64$, so
# $p(x) = N(0, 1 + s^2)$ and the posterior has the variance $v = s^2 / (1 + s^2)$. q has the right
# mean and 1.5 times the variance. Then the ELBO is off by
# $\mathrm{KL}(q \,\|\, p(z \mid x)) = (0.5 - \log 1.5) / 2$ exactly, and IWAE-K, to first order, by
# $\mathrm{Var}(w) / (2 K p(x)^2)$ with $E[(w / p(x))^2] = 1.5 / \sqrt{2}$.

# %%
variance, ratio = 0.64, 1.5
posterior = variance / (1 + variance)
line = vaejax.VAE(
    vaejax.StandardNormal(1),
    vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=variance**0.5),
    vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None),
)
x = jnp.array([1.1])
weights = {"Dense_0": {"kernel": jnp.array([[1.0]]), "bias": jnp.array([0.0])}}
params = vaejax.Params(
    theta={"prior": (), "likelihood": {"net": {"params": weights}}},
    phi={
        "loc": x / (1 + variance),
        "log_scale": jnp.full(1, math.log(ratio * posterior) / 2),
    },
)
log_p_x = -0.5 * (math.log(2 * math.pi * (1 + variance)) + 1.1**2 / (1 + variance))
q = line.posterior(params, x)
zs = jax.vmap(q.sample)(jax.random.split(jax.random.key(0), 2**18))
log_w = np.asarray(vaejax.log_weights(line, params, x, q, zs))
bounds = {
    "ELBO": vaejax.elbo_bound,
    "Renyi, alpha = 0.5": vaejax.renyi_bound(0.5),
    "IWAE": vaejax.iwae_bound,
    "jackknife (no bound)": vaejax.jackknife_bound,
}
ks = (2, 4, 8, 16, 32, 64)
values = {
    name: [vaejax.estimate(jax.vmap(bound)(jnp.reshape(log_w, (-1, k)))) for k in ks]
    for name, bound in bounds.items()
}
print(f"log p(x) = {log_p_x:.4f} nats; each bound less that, ± its error")
print(f"{'K':<22}" + "".join(f"{k:>18}" for k in ks[::2]))
for name, row in values.items():
    cells = "".join(f"{e.mean - log_p_x:>+10.4f} ±{e.standard_error:.4f}" for e in row[::2])
    print(f"{name:<22}{cells}")

gap = (ratio - 1 - math.log(ratio)) / 2
for value in values["ELBO"]:
    assert abs(value.mean - (log_p_x - gap)) < 6 * value.standard_error
first_order = (ratio / math.sqrt(2 * ratio - 1) - 1) / (2 * 64)
assert values["jackknife (no bound)"][0].mean > log_p_x
limit = math.log(2 * math.sqrt(ratio) / (1 + ratio))  # of alpha = 0.5, as K grows
assert abs(values["Renyi, alpha = 0.5"][-1].mean - (log_p_x + limit)) < 4e-3
at_64 = values["IWAE"][-1]
assert abs(at_64.mean - (log_p_x - first_order)) < 6 * at_64.standard_error + 2e-4

# %%
figure, [[axes]] = figure_of(size=(6.4, 3.4))
for (name, row), colour in zip(values.items(), (GREY, INK, BLUE, ORANGE), strict=True):
    means, errors = np.array(row).T
    axes.errorbar(
        ks, means - log_p_x, 1.96 * errors, fmt="o-", ms=4, lw=1.2, color=colour, label=name
    )
axes.axhline(0, color=INK, lw=0.8, ls=":")
finish(axes, xscale="log", xlabel="K", ylabel="bound - log p(x), nats", ylim=(-0.07, 0.016))
ticks_at(axes, ks)
legend(axes, "lower center", ncols=2)
figure

# %% [markdown]
# The mean of the ELBO does not depend on K: more samples make it quieter, not tighter. IWAE closes
# like 1/K. The jackknife takes that term out, and is above log p(x) here, so it must not be
# reported as a bound. The Rényi bound at 0.5 closes only a part: its limit is
# $\log p(x) + \log (2 \sqrt r / (1 + r))$ with $r = 1.5$, 0.0204 below.
#
# ## Tighter, and the encoder's signal to noise
#
# As the bound tightens, the gradient in $\phi$ vanishes like 1/K; the noise of `Pathwise` only like
# $K^{-1/2}$, and that of `DReG` like $K^{-3/2}$. So the encoder learns less from a tighter bound
# unless the estimator is changed with it. The same q, shifted by 0.3:

# %%
shifted = params._replace(phi={**params.phi, "loc": params.phi["loc"] + 0.3})
print(f"{'K':>4}{'signal / noise of Pathwise':>30}{'of DReG':>12}")
for k in (2, 16, 128):
    found = []
    for estimator in (vaejax.Pathwise(k, vaejax.iwae_bound), vaejax.DReG(k)):
        moments = vaejax.gradient_moments(
            vaejax.per_example(estimator, line),
            shifted,
            x,
            jax.random.key(1),
            4_000,
            order=2,
            strategy="scan",
            chunk=1,
        )
        mean, variances = (moment.phi["loc"].item() for moment in (moments.mean, moments.variance))
        found.append((abs(mean), variances**0.5))
    (_, noise), (signal, quiet) = found  # the means are equal, and that of DReG is known better
    print(f"{k:>4}{signal / noise:>30.3f}{signal / quiet:>12.3f}")

# %% [markdown]
# The experiment
# [snr_of_tighter_bounds.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/snr_of_tighter_bounds.py)
# measured slopes of -0.498 and +0.486 in 20 dimensions.
#
# ## How far to trust a number
#
# A bound with K samples is only as good as its weights. `evaluate` gives k-hat, the shape of their
# tail: above 0.7, K samples say little about what more of them would give. A q narrower than the
# posterior has such a tail: of two normals with the same mean and variances in the ratio $r < 1$
# the shape is $1 - r$, of which 5,000 draws see a part.

# %%
for share in (0.2, 0.8, 1.5):
    log_scale = jnp.full(1, math.log(share * posterior) / 2)
    q = line.posterior(params._replace(phi={**params.phi, "log_scale": log_scale}), x)
    zs = jax.vmap(q.sample)(jax.random.split(jax.random.key(2), 5_000))
    these = np.asarray(vaejax.log_weights(line, params, x, q, zs))
    shape = f"{1 - share:.1f}" if share < 1 else "bounded weights"
    print(f"r = {share}: k-hat {vaejax.pareto_k(these):.2f} of 5,000 weights, in theory {shape}")

# %% [markdown]
# ## What each choice loses
#
# - the ELBO: $\mathrm{KL}(q \,\|\, p(z \mid x))$. A model trained on it prefers posteriors that q
#   can follow (Burda et al. 2016).
# - IWAE: K evaluations of the decoder, the encoder's signal unless `DReG`, and comparability:
#   IWAE-5 and IWAE-50 are two bounds.
# - `renyi_bound`: at alpha below 0 it is not a lower bound.
# - `jackknife_bound`: it is not a bound.
# - `AIS`: time. Both sides on simulated data:
#   [ais_sandwich.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/ais_sandwich.py),
#   where 500 temperatures close the sandwich to 0.018 ± 0.016 nats.
#
# What goes together: the bounds go with every model; the estimators that carry them are in the
# [table of combinations](../compatibility.md). How good a model is, step by step:
# [evaluate](../howto/evaluate.md). A bound or an objective of your own:
# [your own objective](../howto/own_objective.md).
