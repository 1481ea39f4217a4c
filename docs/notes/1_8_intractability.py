# %% [markdown]
# # 1.8 Intractabilities
#
# After this page you know why neither the evidence $p_\theta(x)$ nor the posterior $p_\theta(z|x)$
# of a deep latent variable model can be computed, and have used the two answers, sampling and
# optimisation.

# %%
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, INK, ORANGE, PALE, figure_of, finish, legend

# %% [markdown]
# ## Two sides of one thing
#
# The joint density is easy: a prior times a likelihood, one evaluation of the decoder. In the
# library it is `model.log_joint(params, x, z)`. The marginal likelihood, or *evidence*, is an
# integral over it,
#
# $$p_\theta(x) = \int p_\theta(x, z)\, dz,$$
#
# through a neural network, and so without a closed form. The posterior has the same integral below
# the line,
#
# $$p_\theta(z|x) = \frac{p_\theta(x, z)}{p_\theta(x)}.$$
#
# So whoever knows one of the two knows the other, since the joint is known. The posterior over the
# *parameters*, $p(\theta|\mathcal D)$, is the same problem with more dimensions.
#
# First a model in which both can be had. With $p(z) = \mathcal N(0, I)$ and a linear decoder,
# $p(x|z) = \mathcal N(Wz + b, \tau^2 I)$, everything is normal: $p(x) = \mathcal N(b, W W^\top +
# \tau^2 I)$ and $p(z|x) = \mathcal N(\Lambda^{-1} W^\top (x - b) / \tau^2, \Lambda^{-1})$ with
# $\Lambda = I + W^\top W / \tau^2$. Whatever the $z$ at which we ask, $\log p(x, z) - \log p(z|x)$
# is the same number.

# %%
num_pixels, tau = 8, 0.8


def linear(dim):
    """(model, params, xs, W): a linear decoder of `dim` latents; xs are ten draws of the model."""
    model = vaejax.VAE(
        prior=vaejax.StandardNormal(dim),
        likelihood=vaejax.Gaussian(vaejax.MLP(num_pixels, hidden=()), scale=tau),
        encoder=vaejax.DiagNormal(vaejax.Free(dim)),
    )
    rows = jax.random.normal(jax.random.key(dim), (dim, num_pixels)) * 0.5
    net = {"params": {"Dense_0": {"kernel": rows, "bias": jnp.zeros(num_pixels)}}}
    params = model.init(jax.random.key(0), jnp.zeros(num_pixels))
    params = params._replace(theta={"prior": (), "likelihood": {"net": net}})
    xs, _ = jax.vmap(partial(model.sample, params))(jax.random.split(jax.random.key(1), 10))
    return model, params, xs, rows.T


def log_normal(value, mean, covariance):
    return jax.scipy.stats.multivariate_normal.logpdf(value, mean, covariance)


def log_evidence(x, W):
    return log_normal(x, jnp.zeros(num_pixels), W @ W.T + tau**2 * jnp.eye(num_pixels))


with jax.enable_x64(True):
    model, params, [x, *_], W = linear(dim=2)
    covariance = jnp.linalg.inv(jnp.eye(2) + W.T @ W / tau**2)
    mean = covariance @ W.T @ x / tau**2
    print("z                 log p(x, z)   log p(z|x)   difference")
    for z in jax.random.normal(jax.random.key(2), (4, 2)):
        log_joint, log_posterior = model.log_joint(params, x, z), log_normal(z, mean, covariance)
        difference = log_joint - log_posterior
        print(f"({z[0]:6.3f}, {z[1]:6.3f}){log_joint:13.6f}{log_posterior:13.6f}{difference:13.6f}")
        assert abs(difference - log_evidence(x, W)) < 1e-9
    print(f"log p(x) in closed form {log_evidence(x, W):.6f}")

# %% [markdown]
# ## What an integral costs
#
# Now suppose that we did not know the closed form. With one latent number, ten or twenty
# evaluations of the decoder and the rule of Gauss and Hermite do it. With $d$ of them the grid has
# $n^d$ points. How many evaluations does an error of 0.01 nats take?

# %%
MOST = 100_000  # evaluations


@partial(jax.jit, static_argnums=0)
def by_quadrature(model, params, xs, zs, log_weights):
    """log sum_i weight_i p(x | z_i) of each x; z_i and weight_i make an expectation under p(z)."""

    def of_one(x):
        log_likelihoods = jax.vmap(partial(model.log_likelihood, params, x))(zs)
        return jax.nn.logsumexp(log_likelihoods + log_weights)

    return jax.vmap(of_one)(xs)


def tensor_grid(dim, n):
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    mesh = np.meshgrid(*[nodes] * dim, indexing="ij")
    log_weights = np.meshgrid(*[np.log(weights / weights.sum())] * dim, indexing="ij")
    return np.stack(mesh, -1).reshape(-1, dim), sum(log_weights).ravel()


errors = {}  # {(d, n): the mean error over ten x}
with jax.enable_x64(True):
    for dim in (1, 2, 3, 4, 5):
        model, params, xs, W = linear(dim)
        exact = np.asarray(log_evidence(xs, W))
        for n in (n for n in (2, 4, 8, 16, 32) if n**dim <= MOST):
            estimates = by_quadrature(model, params, xs, *tensor_grid(dim, n))
            errors[dim, n] = np.abs(np.asarray(estimates) - exact).mean()

    # the time of one evaluation, where all is compiled
    started = time.perf_counter()
    by_quadrature(model, params, xs, *tensor_grid(dim, n)).block_until_ready()
    rate = len(xs) * n**dim / (time.perf_counter() - started)

figure, [[axes]] = figure_of(size=(6.4, 3.6))
for dim in (1, 2, 3, 4, 5):
    mine = [(n**dim, error) for (d, n), error in errors.items() if d == dim]
    shade = 0.25 + 0.15 * dim
    axes.plot(*zip(*mine, strict=True), "o-", ms=4, color=BLUE, alpha=shade, label=f"d = {dim}")
axes.axhline(0.01, color=INK, lw=0.8, ls=":")
finish(axes, xscale="log", yscale="log", xlabel="evaluations of the decoder", ylim=(1e-8, 50))
axes.set_ylabel("error of log p(x), nats")
legend(axes, "lower left", ncols=2)
figure

# %%
per_axis = 16
print("d   evaluations at 16 points per axis   mean error, nats")
for dim in (1, 2, 3, 4, 5):
    error = errors.get((dim, per_axis))
    print(
        f"{dim}{per_axis**dim:>15,}" + (" " * 21 + "not run" if error is None else f"{error:28.4f}")
    )
    assert error is None or error < 0.02
years = per_axis**20 / rate / 3.15e7
print(f"\nd = 20: 16^20 evaluations, {years:.0e} years at {rate:.0e} evaluations a second")

# %% [markdown]
# The number of points per axis hardly changes; it is the exponent that kills. No faster machine
# helps. What helps is that the posterior of one $x$ is a *small region* of the latent space, and
# that one does not need all of it. Two answers follow from this.
#
# ## A posterior to look at
#
# With two latents the exact answer on a grid is still cheap, so that is where we look. Here is a
# small VAE of the digits, and the posterior of one test image.

# %%
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "static")
vae = vaejax.VAE(
    prior=vaejax.StandardNormal(2),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(2, hidden=(64,), heads=2)),
)
init_key, fit_key, chain_key = jax.random.split(jax.random.key(0), 3)
trained = vaejax.fit(
    vaejax.minibatch(vaejax.AnalyticKL(), vae),
    vae.init(init_key, jnp.zeros((8, 8))),
    optax.adam(2e-3),
    digits.train.images,
    fit_key,
    num_steps=2_000,
    batch_size=100,
    transform=binarise,
    progress=False,
).params
image = binarise(digits.test.images[7], chain_key)
log_density = partial(vae.log_joint, trained, image)  # log p(x, z), all that either answer asks for

points = vaejax.grids.grid_points((-4, -4), (4, 4), 161)
posterior = vaejax.grids.on_grid(points, jax.jit(jax.vmap(log_density))(points))
print(f"log p(x) = {posterior.log_total:.3f} nats, from the grid")
assert posterior.prob.reshape(161, 161)[[0, -1]].max() < 1e-9  # the grid is wide enough

# %% [markdown]
# ## Markov chain Monte Carlo
#
# A Markov chain needs only *ratios* of the density at two points, and in
#
# $$\frac{p_\theta(z'|x)}{p_\theta(z|x)}
# = \frac{p_\theta(x, z') / p_\theta(x)}{p_\theta(x, z) / p_\theta(x)}
# = \frac{p_\theta(x, z')}{p_\theta(x, z)}$$
#
# the intractable $p_\theta(x)$ cancels. So any sampler runs on `log_density`, which is
# `model.log_joint` with two of its arguments filled in. `vaejax.mcmc.nuts` is the no-U-turn sampler
# of BlackJAX, a library of Markov chains (`pip install 'vaejax[experiments]'`), here with four
# chains that start at draws of the prior.

# %%
sampler = partial(vaejax.mcmc.nuts, vae, num_chains=4, num_warmup=300, num_samples=500)
chains = jax.jit(sampler)(trained, image, chain_key)
samples = np.asarray(chains.samples).reshape(-1, 2)
mean, deviation = posterior.mean(), posterior.deviation()
effective = np.asarray(chains.effective_sample_size())
off = (samples.mean(axis=0) - mean) / (deviation / np.sqrt(effective))
print(f"mean of the posterior, grid   ({mean[0]:.3f}, {mean[1]:.3f})")
print(f"                       NUTS   ({samples[:, 0].mean():.3f}, {samples[:, 1].mean():.3f})")
print(f"standard errors apart         ({off[0]:.1f}, {off[1]:.1f})")
print(f"2,000 draws are worth         {effective[0]:.0f} and {effective[1]:.0f} independent ones")
assert np.abs(off).max() < 5

# %% [markdown]
# ## Variational inference
#
# Or choose a family that is tractable, and find its member nearest to the posterior by
# optimisation,
#
# $$q^* = \arg\min_q \mathrm{KL}(q(z) \,\Vert\, p_\theta(z|x)),$$
#
# That $q^*$ also maximises the *evidence lower bound*, or ELBO, which needs no $p_\theta(x)$ either:
# [2.2](2_2_elbo.md) derives it. `vaejax.Refined` takes gradient steps on the ELBO of one example,
# here 300 from $\mathcal N(0, I)$.

# %%
refined = vaejax.Refined(vae, num_steps=300, start="standard")
q = jax.jit(refined.posterior)(trained, image)
best = vaejax.grids.on_grid(points, jax.vmap(q.log_prob)(points))
kl = best.kl(posterior)
print(f"KL(q || p(z|x)) = {kl:.3f} nats, from the grid")
print(f"standard deviations of q over those of p(z|x): {np.round(best.deviation() / deviation, 2)}")
assert 0 < kl < 1

# %%
figure, [panels] = figure_of(columns=2, size=(7, 3.7), sharex=True, sharey=True)
greys = "#9aa5ad", "#c3cacf", PALE
for axes in panels:
    # the regions of 50, 90 and 99 % of the mass
    regions = posterior.picture(posterior.regions())
    axes.contourf(*regions, [0, 0.5, 0.9, 0.99], colors=greys)
    finish(axes, xlabel="$z_1$", aspect="equal")
near = posterior.prob > posterior.prob.max() * 1e-4
low, high = posterior.points[near].min(axis=0) - 0.1, points[near].max(axis=0) + 0.1
panels[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), ylabel="$z_2$")
panels[0].scatter(*samples[::5].T, s=4, color=BLUE, lw=0)
panels[0].set_title("NUTS: as near as you can wait")
panels[1].contour(*best.picture(best.regions()), [0.5, 0.9], colors=ORANGE)
panels[1].set_title(f"best diagonal normal: KL {kl:.2f}")
figure

# %% [markdown]
# Grey is the exact posterior: regions of 50, 90 and 99 % of the mass. The chain is exact in the
# limit, and has to be run again for every image and every $\theta$, which is too slow inside of a
# training. The variational answer is biased by its family, and is fast. The [next
# page](2_1_encoder.md) makes it faster still: one network gives $q(z|x)$ for every $x$.
#
# ## Exercises
#
# 1. Write the Metropolis step for `log_density`, and hold its mean against the grid.
#
#     ??? example "Solution"
#         ```python
#         def step(z, key):
#             move_key, accept_key = jax.random.split(key)
#             proposal = z + 0.3 * jax.random.normal(move_key, z.shape)
#             log_ratio = log_density(proposal) - log_density(z)
#             accept = jnp.log(jax.random.uniform(accept_key)) < log_ratio
#             z = jnp.where(accept, proposal, z)
#             return z, z
#
#         keys = jax.random.split(jax.random.key(0), 20_000)
#         _, draws = jax.jit(lambda keys: jax.lax.scan(step, jnp.zeros(2), keys))(keys)
#         ```
#
# 2. Simple Monte Carlo, $p(x) \approx \frac 1K \sum_k p(x|z_k)$ with $z_k \sim p(z)$, has an error
#    that falls like $1/\sqrt K$ in any dimension. Why does it not solve the problem? In
#    `linear(dim)` the encoder starts as the prior, so it is `vaejax.log_marginal(model, params, x,
#    key, K)`: try `dim=20`.
#
# 3. Is the posterior always unimodal? Look at other test images.
#
# **At full scale:**
# [mcmc_posterior.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/mcmc_posterior.py)
# (NUTS, a grid, and three families of $q$),
# [bayesian_decoder.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/bayesian_decoder.py)
# (a posterior over the decoder's weights),
# [ais_sandwich.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/ais_sandwich.py)
# ($\log p(x)$ from both sides).
#
# **In the API:** [`Model.log_joint`](../api/models.md),
# [`Refined`, `AIS`, `grids`, `mcmc`](../api/inference.md),
# [`log_marginal`](../api/bounds.md).
#
# Next: [2.1 The encoder](2_1_encoder.md).
