# %% [markdown]
# # Choose a family for q
#
# After this page you know what a richer $q(z \mid x)$ can close of the gap between the ELBO and log
# p(x), what is the encoder's fault instead, and how to tell which.
#
# | if | then |
# |---|---|
# | you start | `DiagNormal` |
# | the latents given x depend on each other | `FullNormal`; `LowRankNormal` in high dimension |
# | the posterior bends, or has two modes | `RealNVP` |
# | the same, and `Pathwise` is all you need | `InverseAutoregressive` |
# | heavy tails | `Laplace`, or `NumPyroConditional` of a Student-t |
# | directions | `VonMisesFisher` |
# | switches, categories | `Bernoulli`, `OneHotCategorical`, or their relaxations |
# | several layers of latents | a [ladder](../notes/3_beyond.md): `PrecisionWeightedNormal` |
# | the encoder is at fault, not the family | a larger net, or `Refined` |
#
# The ELBO lies below log p(x) by $\mathrm{KL}(q \,\|\, p(z \mid x))$, and that has two parts: what
# no q of the family can do, the *approximation gap*, and what the encoder misses of the best q of
# its family, the *amortisation gap* (Cremer et al. 2018).

# %%
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, figure_of, finish

# %% [markdown]
# ## A posterior that bends
#
# Two latents, one observed number: $z \sim N(0, I)$,
# $x \mid z \sim N(z_2 + z_1 + z_1^2 / 2,\; 0.4^2)$. Given $x = 0$ the posterior leans and bends,
# and on a grid everything about it is exact. Each family gets its own best q for this one x: the
# net `Free` ignores x, so no encoder is at fault.


# %%
@vaejax.component
class Bent(vaejax.Conditional):
    support = vaejax.supports.REAL

    def init(self, key, z):
        return ()

    def __call__(self, params, z):
        log_scale = jnp.full(1, jnp.log(0.4))
        return vaejax.distributions.DiagNormalDensity(z[1:] + z[:1] + z[:1] ** 2 / 2, log_scale)


families = {
    "DiagNormal": vaejax.DiagNormal(vaejax.Free(2)),
    "FullNormal": vaejax.FullNormal(vaejax.Free(2, ("loc", "log_scale", "row 1", "row 2"))),
    "RealNVP": vaejax.RealNVP(vaejax.Free(2), num_layers=4, hidden=(32,)),
}
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
settings = {"num_steps": 2_000, "progress": False}
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 2_000))
xs = np.zeros((1, 1), np.float32)

axis = jnp.linspace(-4, 4, 241)
grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
cell = (axis[1] - axis[0]) ** 2
prior, likelihood = vaejax.StandardNormal(2), Bent()


def log_joint(x):
    p_z = prior((), None)
    return jax.vmap(lambda z: p_z.log_prob(z) + likelihood((), z).log_prob(x))(grid)


log_p_x = jax.nn.logsumexp(log_joint(xs[0])) + jnp.log(cell)
log_posterior = log_joint(xs[0]) - log_p_x

densities = {}
print(f"{'family':<12}{'KL(q||p), by the grid':>22}{'log p(x) - ELBO, by samples':>30}")
for name, family in families.items():
    model = vaejax.VAE(prior, likelihood, family)
    objective = vaejax.minibatch(vaejax.StickTheLanding(16), model)
    start = model.init(init_key, xs[0])
    run = vaejax.fit(objective, start, optimizer, xs, fit_key, batch_size=1, **settings)
    q = model.posterior(run.params, xs[0])
    log_q = jax.vmap(q.log_prob)(grid)
    kl = float(jnp.sum(jnp.exp(log_q) * (log_q - log_posterior)) * cell)
    zs = jax.vmap(q.sample)(jax.random.split(test_key, 20_000))
    gap = vaejax.estimate(log_p_x - vaejax.log_weights(model, run.params, xs[0], q, zs))
    print(f"{name:<12}{kl:>22.4f}{gap.mean:>21.4f} ± {gap.standard_error:.4f}")
    assert abs(kl - gap.mean) < 6 * gap.standard_error + 1e-3
    densities[name] = log_q, kl

# %%
figure, [panels] = figure_of(columns=3, size=(7, 2.8), sharey=True)
shape = (len(axis), len(axis))
for axes, (name, (log_q, kl)) in zip(panels, densities.items(), strict=True):
    axes.contourf(axis, axis, jnp.exp(log_posterior).reshape(shape), 12, cmap="Greys")
    highest = float(jnp.exp(log_q).max())
    levels = [highest * share for share in (0.05, 0.3, 0.7)]
    axes.contour(axis, axis, jnp.exp(log_q).reshape(shape), levels, colors=BLUE, linewidths=1.2)
    finish(axes, title=f"{name}: {kl:.2f} nats", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xlabel="$z_1$")
panels[0].set_ylabel("$z_2$")
figure

# %% [markdown]
# Grey is the posterior, blue is q at 0.05, 0.3 and 0.7 of its highest value. The full normal leans
# with the posterior, the flow bends with it.
#
# ## Family or encoder?
#
# Now an encoder, trained on draws of x, for the cheapest family. `inference_gap` takes log p(x),
# exact here, and `Refined` finds the best q of the family for each x by gradient ascent. The two
# parts add up to the gap.

# %%
model = vaejax.VAE(prior, likelihood, vaejax.DiagNormal(vaejax.MLP(2, hidden=(32,), heads=2)))
start = model.init(init_key, xs[0])
draws = jax.vmap(lambda key: model.sample(start, key)[0])(jax.random.split(test_key, 2_000))
objective = vaejax.minibatch(vaejax.StickTheLanding(4), model)
run = vaejax.fit(objective, start, optimizer, draws, fit_key, batch_size=100, **settings)

test = draws[:100]
exact = jax.lax.map(lambda x: jax.nn.logsumexp(log_joint(x)) + jnp.log(cell), test)
refined = vaejax.Refined(model, num_steps=300, num_samples=32)
gap = vaejax.inference_gap(refined, run.params, test, exact, test_key, num_samples=500)
for name in ("total", "approximation", "amortisation"):
    part = vaejax.estimate(getattr(gap, name))
    print(f"{name:<14} {part.mean:.3f} ± {part.standard_error:.3f} nats")
assert np.allclose(gap.total, gap.approximation + gap.amortisation)
assert vaejax.estimate(gap.approximation).mean > 0

# %% [markdown]
# Here the family is at fault, and the encoder of a scalar x is not. On images it is the other way
# round. The experiment
# [inference_gap.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/inference_gap.py)
# measured on the digits, log p(x) by annealed importance sampling, nats per example:
#
# | family | gap | approximation | amortisation |
# |---|---|---|---|
# | diagonal normal | 0.260 ± 0.017 | 0.096 ± 0.011 | 0.165 ± 0.013 |
# | full normal | 0.230 ± 0.014 | 0.035 ± 0.010 | 0.195 ± 0.011 |
# | RealNVP, 4 layers | 0.173 ± 0.013 | -0.001 ± 0.010 | 0.173 ± 0.009 |
#
# A richer family closes its own part, and its encoder does not follow. What steps of refinement buy
# and cost:
# [amortisation.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/amortisation.py)
# (5 steps from the encoder gain 0.15 ± 0.01 nats, 100 steps 0.24, at 90 times the time of the
# encoder). Against samples of the exact posterior:
# [mcmc_posterior.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/mcmc_posterior.py).
#
# ## What goes together
#
# q and prior must live on one set, and an estimator may need what a family lacks: the [table of
# combinations](../compatibility.md). The one surprise is the inverse autoregressive flow:

# %%
flow = vaejax.InverseAutoregressive(vaejax.MLP(2, hidden=(8,), heads=3), 2, (8,))
model = vaejax.VAE(prior, likelihood, flow)
try:
    vaejax.StickTheLanding()(model, model.init(init_key, xs[0]), xs[0], test_key)
except TypeError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## What each choice loses
#
# - `FullNormal`: a net with a row for each dimension, $d^2$ outputs.
# - `RealNVP`: the closed form of the KL, and one evaluation of each layer for a sample.
# - `InverseAutoregressive`: every estimator that asks for log q at a point it did not draw, and a
#   `VampPrior`.
# - `Refined`: time, at every evaluation.
# - discrete families: the path from x to z, so [other estimators](estimator.md).
