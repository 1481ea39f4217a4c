# %% [markdown]
# # 2.2 The evidence lower bound
#
# After this page you can derive the ELBO line by line, have seen each line come out as the same
# number, and know what maximising it does to the model and to the encoder.
#
# The ELBO is one function of the library:
#
# $$\mathcal L_{\theta,\phi}(x)
# = \mathbb E_{q_\phi(z|x)}\big[\log p_\theta(x, z) - \log q_\phi(z|x)\big]$$
#
# is `vaejax.elbo(model, params, x, key)`, estimated from samples of $q$. On this page we compute it
# *exactly* instead, by quadrature, so that every equality can be checked to the last digit.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, GREY, INK, ORANGE, figure_of, finish, legend, ticks_at

# %% [markdown]
# ## A model in which everything is known
#
# One latent number, one observed number: $p(z) = \mathcal N(0, 1)$ and
# $p(x|z) = \mathcal N(wz + b, \tau^2)$. A sum of normals is normal, and so
#
# $$p(x) = \mathcal N(x;\, b,\, w^2 + \tau^2), \qquad
# p(z|x) = \mathcal N\Big(z;\ \frac{w (x - b)}{\tau^2 \lambda},\ \frac 1 \lambda\Big), \qquad
# \lambda = 1 + \frac{w^2}{\tau^2}.$$
#
# `Free` is a "net" that ignores $x$: here $q$ belongs to one data point, and is deliberately wrong.

# %%
w, b, tau = 1.3, 0.2, 0.8


@vaejax.component
class Line:
    """z -> w z + b: anything with `init` and `apply` is a net."""

    def init(self, key, z):
        return {"w": jnp.ones(()), "b": jnp.zeros(())}

    def apply(self, params, z):
        return params["w"] * z + params["b"]


model = vaejax.VAE(
    prior=vaejax.StandardNormal(1),
    likelihood=vaejax.Gaussian(Line(), scale=tau),
    encoder=vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None),
)
precision = 1 + w**2 / tau**2


def params_of(loc, scale):
    """theta as above, and q = N(loc, scale^2)."""
    theta = {"prior": (), "likelihood": {"net": {"w": jnp.asarray(w), "b": jnp.asarray(b)}}}
    return vaejax.Params(theta, {"loc": jnp.array([loc]), "log_scale": jnp.log(jnp.array([scale]))})


# %% [markdown]
# An expectation over one number is an integral over a line, and an integral is a sum over a fine
# grid: for smooth functions that vanish at both ends its error falls faster than any power of the
# spacing. All exact numbers are in float64.

# %%
grid = np.linspace(-30, 30, 6_001)
spacing = grid[1] - grid[0]


def integral(values):
    return jnp.sum(values) * spacing


def on_grid(function):
    """A function of one latent z, at every point of the grid."""
    return jax.vmap(function)(jnp.asarray(grid)[:, None])


# %% [markdown]
# ## The derivation, each line a number
#
# $$\begin{aligned}
# \log p(x) &= \log \int p(x, z)\, dz \\
# &= \mathbb E_q \big[\log p(x)\big]
#   && \text{a constant is its own mean} \\
# &= \mathbb E_q \Big[\log \frac{p(x, z)}{p(z|x)}\Big]
#   && \text{the product rule, } p(x, z) = p(x)\, p(z|x) \\
# &= \mathbb E_q \Big[\log \frac{p(x, z)}{q(z|x)} \cdot \frac{q(z|x)}{p(z|x)}\Big]
#   && \text{times one} \\
# &= \underbrace{\mathbb E_q \Big[\log \frac{p(x, z)}{q(z|x)}\Big]}_{\text{the ELBO}} +
#  \underbrace{\mathbb E_q \Big[\log \frac{q(z|x)}{p(z|x)}\Big]}_{KL(q(z|x)\,\Vert\,p(z|x))}
#   && \text{a log of a product is a sum}
# \end{aligned}$$
#
# In code, $\log p(x, z)$ is `model.log_joint`, $q(z|x)$ is `model.posterior`. The posterior
# $p(z|x)$ comes from its closed form, not from $p(x, z)$, so that the lines could disagree.

# %%
with jax.enable_x64(True):
    x, params = jnp.array([1.1]), params_of(loc=0.4, scale=0.6)
    log_joint = on_grid(partial(model.log_joint, params, x))
    log_q = on_grid(model.posterior(params, x).log_prob)
    mean = w * (x - b) / (tau**2 * precision)
    posterior = vaejax.distributions.DiagNormalDensity(mean, jnp.log(precision**-0.5) + 0 * mean)
    log_posterior = on_grid(posterior.log_prob)

    def under_q(values):
        """E_q of a function of z, given by its values on the grid."""
        return integral(jnp.exp(log_q) * values)

    evidence = jnp.log(integral(jnp.exp(log_joint)))
    elbo = under_q(log_joint - log_q)
    kl_to_posterior = under_q(log_q - log_posterior)
    lines = {
        "log of the integral of p(x, z)": evidence,
        "E_q log p(x)": under_q(jnp.full_like(log_q, evidence)),
        "E_q log p(x, z) / p(z|x)": under_q(log_joint - log_posterior),
        "E_q log p(x, z)/q(z|x) q(z|x)/p(z|x)": under_q(
            (log_joint - log_q) + (log_q - log_posterior)
        ),
        "ELBO + KL(q || p(z|x))": elbo + kl_to_posterior,
    }
    variance = w**2 + tau**2
    closed_form = -0.5 * (np.log(2 * np.pi * variance) + (1.1 - b) ** 2 / variance)
    for name, number in lines.items():
        print(f"{name:<40}{number:.12f} nats")
        assert abs(number - closed_form) < 1e-12
print(f"{'log p(x) in closed form':<40}{closed_form:.12f} nats")
print(f"\nELBO {elbo:.6f} + KL {kl_to_posterior:.6f}")

# %% [markdown]
# The KL is never negative, so the ELBO is never above $\log p(x)$: it is a *lower bound* on the
# evidence, and what it misses is exactly $\mathrm{KL}(q(z|x) \,\Vert\, p(z|x))$. That gap has two
# readings: how far $q$ is from the posterior, and how loose the bound is. They are one number.
#
# The picture moves $q$ through a family of normals. The top of the blue area is the ELBO, and the
# orange rest is the KL. Their sum does not move.

# %%
with jax.enable_x64(True):
    scales = np.geomspace(0.12, 1.6, 60)

    def parts(scale):
        log_q = on_grid(model.posterior(params_of(0.4, scale), x).log_prob)
        q = jnp.exp(log_q)
        return integral(q * (log_joint - log_q)), integral(q * (log_q - log_posterior))

    elbos, kls = (np.asarray(values) for values in jax.jit(jax.vmap(parts))(scales))
assert np.abs(elbos + kls - closed_form).max() < 1e-12 and kls.min() > 0

figure, [[axes]] = figure_of(size=(6.4, 3.6))
floor = -4.0
axes.fill_between(scales, floor, elbos, color=BLUE, alpha=0.25, lw=0)
axes.fill_between(scales, elbos, closed_form, color=ORANGE, alpha=0.35, lw=0)
axes.plot(scales, elbos, color=BLUE, label="ELBO")
axes.axhline(closed_form, color=INK, lw=1.2, label="log p(x)")
axes.axvline(precision**-0.5, color=GREY, lw=0.8, ls=":", label="scale of the posterior")
axes.text(0.9, -1.85, "KL(q ‖ p(z|x))", fontsize=10, color="#a65308")
finish(axes, xscale="log", ylim=(floor, -0.9), xlabel="scale of q", ylabel="nats")
ticks_at(axes, (0.125, 0.25, 0.5, 1))
legend(axes, "lower center")
figure

# %% [markdown]
# ## Two ways to write it
#
# The joint density has two factors, $p(x, z) = p(x|z)\, p(z)$, and so the ELBO is also
#
# $$\mathcal L(x) = \mathbb E_q[\log p(x|z)] - \mathrm{KL}(q(z|x) \,\Vert\, p(z)):$$
#
# how well $x$ is reconstructed, minus what the code costs beyond the prior. The second term often
# has a closed form, `vaejax.kl_divergence(q, p)`, and `vaejax.AnalyticKL` is the estimator that
# uses it. Do not confuse this KL, to the *prior*, with the gap, which is the KL to the *posterior*.

# %%
with jax.enable_x64(True):
    q, prior = model.posterior(params, x), model.p_z(params)
    log_likelihood = on_grid(partial(model.log_likelihood, params, x))
    reconstruction, rate = under_q(log_likelihood), vaejax.kl_divergence(q, prior)
    print(f"E_q log p(x|z)   {reconstruction:10.6f}")
    print(f"KL(q || p(z))    {rate:10.6f}")
    print(f"difference       {reconstruction - rate:10.6f}   the ELBO {elbo:.6f}")
    assert abs(reconstruction - rate - elbo) < 1e-12

# %% [markdown]
# From samples both estimate the same number. With 100,000 draws each, in float32, the intervals are
# four standard errors on either side.

# %%
keys = jax.random.split(jax.random.key(0), 100_000)
x32, params32 = jnp.array([1.1]), params_of(0.4, 0.6)
estimators = {
    "log p(x, z) - log q(z|x)": vaejax.elbo,
    "log p(x|z) - KL(q || p(z))": vaejax.AnalyticKL(),
}
for name, estimator in estimators.items():
    draws = jax.jit(jax.vmap(partial(estimator, model, params32, x32)))(keys)
    draws = np.asarray(draws, np.float64)
    error = draws.std() / np.sqrt(len(draws))
    print(f"{name:<28} {draws.mean():.4f} ± {4 * error:.4f}   deviation of one {draws.std():.2f}")
    assert abs(draws.mean() - float(elbo)) < 5 * error  # false alarm 6e-7

# %% [markdown]
# ## 2.2.1 Two for one
#
# Maximising the ELBO in all its parameters does two useful things at once. Read
# $\mathcal L = \log p_\theta(x) - \mathrm{KL}(q_\phi(z|x) \,\Vert\, p_\theta(z|x))$ again:
#
# - $\phi$ is in the second term alone. Moving $\phi$ uphill makes $q$ a better posterior, and does
#   nothing else: $\nabla_\phi \mathcal L = -\nabla_\phi KL$.
# - $\theta$ is in both. Moving it uphill raises $\log p_\theta(x)$, or makes the posterior easier
#   for $q$, or both: a better model, as far as $q$ can follow.
#
# First the claim about $\phi$, as two gradients that were computed apart.

# %%
with jax.enable_x64(True):

    def parts_at(params):
        """(log p(x), KL(q || p(z|x))), by quadrature alone: the posterior is p(x, z) / p(x)."""
        log_joint = on_grid(partial(model.log_joint, params, x))
        log_q = on_grid(model.posterior(params, x).log_prob)
        log_p_x = jnp.log(integral(jnp.exp(log_joint)))
        return log_p_x, integral(jnp.exp(log_q) * (log_q - log_joint + log_p_x))

    def elbo_at(params):
        q = model.posterior(params, x)
        log_q = on_grid(q.log_prob)
        return integral(jnp.exp(log_q) * (on_grid(partial(model.log_joint, params, x)) - log_q))

    of_elbo = jax.grad(elbo_at)(params)
    of_evidence = jax.grad(lambda params: parts_at(params)[0])(params)
    of_kl = jax.grad(lambda params: parts_at(params)[1])(params)

    print("gradient of        ELBO      log p(x)     KL(q || p(z|x))")
    names = ("bias b", "weight w", "loc of q", "log scale of q")
    trees = map(jax.tree.leaves, (of_elbo, of_evidence, of_kl))
    for name, *gradients in zip(names, *trees, strict=True):
        bound, log_p_x, kl = (float(gradient.item()) for gradient in gradients)
        print(f"{name:<15}{bound:>9.5f}{log_p_x:>13.5f}{kl:>16.5f}")
        assert abs(bound - (log_p_x - kl)) < 1e-10
        assert log_p_x == 0 or name in ("bias b", "weight w")

# %% [markdown]
# The rows of $q$ have a zero in the middle column, and those of $\theta$ do not: $\theta$ is pulled
# by both terms.
#
# Now a real, if small, training: the 8 × 8 digits and *one* latent number, so that $\log p(x)$ and
# the KL of every test image are still sums over a grid. A run of 300 steps is the beginning of a
# run of 3,000, for the order of the data and all noise are functions of the key and the step.

# %%
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "static")
vae = vaejax.VAE(
    prior=vaejax.StandardNormal(1),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(1, hidden=(64,), heads=2)),
)
objective, optimizer = vaejax.minibatch(vaejax.AnalyticKL(), vae), optax.adam(2e-3)
init_key, fit_key = jax.random.split(jax.random.key(0))
start = vae.init(init_key, jnp.zeros((8, 8)))


def trained(num_steps):
    settings = {"num_steps": num_steps, "batch_size": 100, "progress": False}
    images = digits.train.images
    return vaejax.fit(objective, start, optimizer, images, fit_key, **settings, transform=binarise)


steps = (10, 30, 100, 300, 1_000, 3_000)
path = {0: start} | {step: trained(step).params for step in steps}

# %%
images = binarise(digits.test.images[:100], jax.random.key(1))


@jax.jit
def exact(params, xs):
    """(log p(x), KL(q || p(z|x))) of each image, nats, and the mass of q on the grid."""

    def of_one(x):
        log_joint = on_grid(partial(vae.log_joint, params, x))
        log_q = on_grid(vae.posterior(params, x).log_prob)
        log_p_x = jax.nn.logsumexp(log_joint) + jnp.log(spacing)
        q = jnp.exp(log_q)
        return log_p_x, integral(q * (log_q - log_joint + log_p_x)), integral(q)

    return jax.lax.map(of_one, xs, batch_size=20)


rows = []
with jax.enable_x64(True):
    for step, params in path.items():
        precise = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, images))
        evidence, gap, mass = (np.asarray(part) for part in exact(*precise))
        assert gap.min() > 0 and np.abs(mass - 1).max() < 1e-9
        rows.append((step, evidence.mean(), gap.mean(), (evidence - gap).mean()))
print("steps    log p(x)      KL     ELBO    nats per test image")
for step, evidence, gap, bound in rows:
    print(f"{step:>5}{evidence:>12.3f}{gap:>8.3f}{bound:>9.3f}")

# %%
figure, [[left, right]] = figure_of(columns=2, size=(7, 3.4))
at, evidence, gap, bound = np.array(rows).T
places = np.arange(len(at))
left.plot(places, evidence, "o-", ms=4, color=INK, label="log p(x)")
left.plot(places, bound, "o-", ms=4, color=BLUE, label="ELBO")
right.plot(places, gap, "o-", ms=4, color=ORANGE)
finish(left, xlabel="steps", ylabel="nats per test image", title="the model gets better")
finish(right, xlabel="steps", title="the gap, KL(q ‖ p(z|x))", yscale="log")
for axes in (left, right):
    axes.set_xticks(places, [f"{step:g}" for step in at], rotation=45)
legend(left, "lower right")
figure

# %% [markdown]
# Both happen, but not in step. At first the gap falls while the decoder hardly uses $z$: the
# posterior is near the prior, and easy to match. Later the decoder says more about $z$, the
# posterior becomes narrow, and the gap can rise again while the model gets better. "Two
# for one" promises that the difference of the two rises, not that each part moves the right way at
# every step.
#
# What is gained by looking at many samples of $q$ at once, and how to estimate $\log p(x)$ itself,
# is [2.6](2_6_marginal_likelihood.md); how the gradient of the ELBO is estimated,
# [2.3](2_3_optimisation.md).
#
# ## Exercises
#
# 1. Which $q$ makes all terms inside of the expectation, $\log p(x, z) - \log q(z|x)$, equal? What
#    is the variance of the estimate of the ELBO then?
#
#     ??? example "Solution"
#         $q(z|x) = p(z|x)$: then the difference is $\log p(x)$ at every $z$, and one sample gives
#         it exactly, with variance zero. Try `params_of(float(mean[0]), precision**-0.5)` in the
#         cell of 100,000 draws: the first row has a deviation of rounding only, the second has not.
#         So the estimator of less variance depends on $q$, which is what
#         [2.4](2_4_reparameterisation.md) uses.
#
# 2. Show that $\mathcal L \le \log p(x)$ without a KL, from Jensen's inequality for the logarithm
#    and $p(x) = \mathbb E_q[p(x, z)/q(z|x)]$. Where does equality hold?
#
# 3. Hold $\theta$ at 3,000 steps and train $\phi$ alone, by `optax.multi_transform` with
#    `optax.set_to_zero()` for theta. How far does the gap fall? The rest is the
#    [amortisation gap](2_1_encoder.md) and what no normal can do.
#
# **At full scale:**
# [inference_gap.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/inference_gap.py)
# splits the gap of a trained VAE into what the family and what the encoder is to blame for.
#
# **In the API:** [`elbo`](../api/bounds.md),
# [`AnalyticKL`](../api/estimators.md),
# [`kl_divergence`](../api/distributions.md),
# [`Model.log_joint`, `Model.posterior`](../api/models.md).
#
# Next: [2.3 Stochastic gradients of the ELBO](2_3_optimisation.md).
