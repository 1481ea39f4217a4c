# %% [markdown]
# # 2.4 The reparameterisation trick
#
# After this page you can move a gradient through a sample, know where that is the quieter estimator
# and where it is not, and know two ways of making it quieter still.

# %%
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, GREY, ORANGE, figure_of, finish, legend, ticks_at

# %% [markdown]
# ## 2.4.1 Change of variables
#
# Draw noise $\epsilon \sim p(\epsilon)$ that knows nothing of $\phi$, and make $z$ of it by a
# differentiable and invertible map, $z = g(\epsilon, \phi, x)$. For a normal
#
# $$\epsilon \sim \mathcal N(0, I), \qquad z = \mu + \sigma \odot \epsilon.$$
#
# Then an expectation over $z$ is one over $\epsilon$, $\mathbb E_{q_\phi(z|x)}[f(z)] = \mathbb
# E_{p(\epsilon)}[f(g(\epsilon, \phi, x))]$. The first is an integral over $z$, the second one over
# $\epsilon$: two quadratures, by a sum over a grid and by the rule of Gauss and Hermite.

# %%
nodes, weights = np.polynomial.hermite_e.hermegauss(60)
weights = weights / weights.sum()  # E over N(0, 1) is a weighted sum


def g(epsilon, phi):
    return phi["loc"] + jnp.exp(phi["log_scale"]) * epsilon


def f(z):
    return jnp.cos(2 * z) + 0.3 * z**2


with jax.enable_x64(True):
    phi = {"loc": jnp.asarray(0.4), "log_scale": jnp.log(jnp.asarray(0.6))}
    grid = jnp.linspace(-10, 10, 4_001)
    q = vaejax.distributions.DiagNormalDensity(phi["loc"], phi["log_scale"])
    over_z = jnp.sum(jnp.exp(jax.vmap(q.log_prob)(grid)) * f(grid)) * (grid[1] - grid[0])
    over_noise = weights @ f(g(nodes, phi))
    print(f"over z {over_z:.12f}   over the noise {over_noise:.12f}")
    assert abs(over_z - over_noise) < 1e-12

# %% [markdown]
# ## 2.4.2 The gradient goes inside
#
# The distribution of $\epsilon$ does not depend on $\phi$, so now the exchange is right:
#
# $$\nabla_\phi\, \mathbb E_{q_\phi(z|x)}[f(z)]
# = \mathbb E_{p(\epsilon)}\big[\nabla_\phi f(g(\epsilon, \phi, x))\big].$$

# %%
with jax.enable_x64(True):

    def mean_over_z(phi):
        q = vaejax.distributions.DiagNormalDensity(phi["loc"], phi["log_scale"])
        return jnp.sum(jnp.exp(jax.vmap(q.log_prob)(grid)) * f(grid)) * (grid[1] - grid[0])

    of_the_mean = jax.grad(mean_over_z)(phi)
    along_paths = jax.vmap(jax.grad(lambda phi, noise: f(g(noise, phi))), (None, 0))(phi, nodes)
    mean_of_paths = jax.tree.map(lambda leaf: weights @ leaf, along_paths)
    for name in phi:
        print(f"{name:<10}{of_the_mean[name]:>13.9f}{mean_of_paths[name]:>14.9f}")
        assert abs(of_the_mean[name] - mean_of_paths[name]) < 1e-10

# %% [markdown]
# ## 2.4.3 The gradient of the ELBO
#
# So one draw of noise gives an unbiased estimate of the ELBO of one example, and automatic
# differentiation of it an unbiased estimate of the gradient, in all parameters at once:
#
# $$\epsilon \sim p(\epsilon), \quad z = g(\epsilon, \phi, x), \quad
# \tilde{\mathcal L} = \log p_\theta(x, z) - \log q_\phi(z|x).$$
#
# These are three lines, and `vaejax.Pathwise()` is those three lines. A distribution of the library
# that says `reparameterised = True` has its map $g$ inside of `sample`.

# %%
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "static")
vae = vaejax.VAE(
    prior=vaejax.StandardNormal(8),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(8, hidden=(64,), heads=2)),
)
init_key, fit_key, key = jax.random.split(jax.random.key(0), 3)
x = binarise(digits.test.images[0], key)
start = vae.init(init_key, x)


def by_hand(params, x, key):
    q = vae.posterior(params, x)
    epsilon = jax.random.normal(key, q.loc.shape)
    z = q.loc + jnp.exp(q.log_scale) * epsilon
    return vae.log_joint(params, x, z) - q.log_prob(z)


[only_key] = jax.random.split(key, 1)  # Pathwise gives each of its samples a key of its own
ours = jax.grad(by_hand)(start, x, only_key)
theirs = jax.grad(partial(vaejax.Pathwise(), vae))(start, x, key)
differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), ours, theirs)
largest = max(jax.tree.leaves(differences))
print(f"{len(differences)} parts of params, largest difference of the two gradients {largest:.1e}")
assert largest < 1e-5

# %% [markdown]
# ## 2.4.4 The density of what was drawn
#
# The log-density of $z$ is that of its noise, less the logarithm of how much the map stretches
# space:
#
# $$\log q_\phi(z|x) = \log p(\epsilon) -
# \log \left|\det \frac{\partial z}{\partial \epsilon}\right|.$$
#
# We check it for three families, with the Jacobian by automatic differentiation. A flow is the
# general case: it is nothing but a chain of such maps.

# %%
dim, net = 3, partial(vaejax.MLP, 3, hidden=(16,))
families = {
    "factorised normal": vaejax.DiagNormal(net(heads=2)),
    "full covariance": vaejax.FullNormal(net(heads=2 + dim)),
    "flow of two couplings": vaejax.RealNVP(net(heads=2), num_layers=2, hidden=(16,)),
}


@jax.jit
def two_ways(q, epsilon):
    """log q(z|x) as the library has it, and by the change of variables, at z = g(epsilon)."""

    def g(epsilon):  # a sample as a function of its noise, by the uniform numbers cdf(epsilon)
        return q.from_uniform(jax.scipy.stats.norm.cdf(epsilon))

    log_noise = jnp.sum(jax.scipy.stats.norm.logpdf(epsilon))
    log_det = jnp.linalg.slogdet(jax.jacfwd(g)(epsilon)).logabsdet
    return q.log_prob(g(epsilon)), log_noise - log_det


with jax.enable_x64(True):
    example, epsilon = jnp.linspace(-1, 1, 5), jax.random.normal(jax.random.key(1), (dim,))
    print(f"{'family':<24}log q(z|x)     log p(eps) - log |det|")
    for name, family in families.items():
        params = family.init(jax.random.key(2), example)
        q = family(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params), example)
        direct, changed = two_ways(q, epsilon)
        print(f"{name:<24}{direct:.10f}  {changed:.10f}")
        assert abs(direct - changed) < 1e-9

# %% [markdown]
# ## Where it loses
#
# **Discrete latents.** A sample of a Bernoulli does not move when its probability does, so there is
# no path to differentiate along. The library says so before anything runs:

# %%
switches = vaejax.VAE(
    vaejax.FactorialBernoulli(4),
    vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=())),
    vaejax.Bernoulli(vaejax.MLP(4, hidden=())),
)
try:
    vaejax.Pathwise()(switches, switches.init(key, x), x, key)
except TypeError as error:
    print(textwrap.fill(str(error), 88))

# %% [markdown]
# **Integrands that oscillate.** The score function multiplies the score by $f$, the path by $f'$.
# For $f(z) = \cos(kz)$ the first stays bounded as $k$ grows, while the second grows like $k$. Here
# are the exact variances of one sample's derivative in $\mu$, for $q = \mathcal N(1, 1)$, by
# quadrature (a setting of Mohamed et al. 2020).

# %%
with jax.enable_x64(True):
    z = jnp.linspace(-10, 12, 6_001)
    density = jnp.exp(jax.scipy.stats.norm.logpdf(z, 1.0)) * (z[1] - z[0])

    def mean_and_variance(values):
        mean = density @ values
        return mean, density @ (values - mean) ** 2

    def both(k):
        score, path = jnp.cos(k * z) * (z - 1.0), -k * jnp.sin(k * z)
        return mean_and_variance(score), mean_and_variance(path)

    ks = np.geomspace(0.3, 6, 200)
    (score_mean, by_score), (path_mean, by_path) = jax.vmap(both)(jnp.asarray(ks))
    # one mean, and it is that of the closed form E cos(kz) = cos(k mu) exp(-k^2/2)
    closed_form = -ks * np.sin(ks) * np.exp(-(ks**2) / 2)
    assert jnp.abs(score_mean - closed_form).max() < 1e-12
    assert jnp.abs(path_mean - closed_form).max() < 1e-12
    by_score, by_path = np.asarray(by_score), np.asarray(by_path)

loses_from = ks[by_path > by_score].min()
figure, [[axes]] = figure_of(size=(6.4, 3.2))
axes.axvspan(loses_from, ks.max(), color=ORANGE, alpha=0.08, lw=0)
axes.plot(ks, by_score, color=ORANGE, label="score function, b = 0")
axes.plot(ks, by_path, color=BLUE, label="pathwise")
finish(axes, xscale="log", yscale="log", xlabel="k, of cos(kz)", ylabel="variance in µ")
ticks_at(axes, (0.3, 1, 3, 6))
axes.text(1.05 * loses_from, 0.01, f"pathwise loses from k = {loses_from:.2f}", fontsize=9)
legend(axes, "upper left")
figure

# %% [markdown]
# ## Quieter paths
#
# **Stick the landing.** The gradient of $\log p_\theta(x, z) - \log q_\phi(z|x)$ in $\phi$ has two
# parts: through $z$, and directly through the $\phi$ of $\log q_\phi$. The second is minus the
# score, whose mean is zero: noise, though it may cancel some noise of the first part.
# `vaejax.StickTheLanding` leaves it out, by one `stop_gradient`. At $q = p(z|x)$ its variance is
# zero, where that of `Pathwise` is that of the score.
#
# **DReG.** With $K$ samples inside of the logarithm, $\log \frac 1K \sum_k w_k$, leaving the score
# out would be a bias. `vaejax.DReG` reparameterises a second time what the score multiplies. It has
# the mean of `Pathwise` with `iwae_bound`, and usually less variance in $\phi$.
#
# The picture compares estimators **at equal cost**. One that costs twice as much could be replaced
# by the mean of two gradients of the other, so the fair number is the variance times the cost, here
# in units of eight evaluations of the decoder, which `vaejax.decoder_evaluations` counts in the
# program. It is the variance of $\phi$'s gradient for one image, at the start and after 1,000 steps
# of training. Those of the upper group have one mean, the gradient of the ELBO, those of the lower
# group another one, that of IWAE-8.

# %%
trained = vaejax.fit(
    vaejax.minibatch(vaejax.Pathwise(), vae),
    start,
    optax.adam(2e-3),
    digits.train.images,
    fit_key,
    num_steps=1_000,
    batch_size=100,
    transform=binarise,
    progress=False,
).params

estimators = {
    "ScoreFunction(8)": vaejax.ScoreFunction(8),
    "Pathwise(8)": vaejax.Pathwise(8),
    "AnalyticKL(8)": vaejax.AnalyticKL(8),
    "StickTheLanding(8)": vaejax.StickTheLanding(8),
    "Pathwise(8, iwae_bound)": vaejax.Pathwise(8, vaejax.iwae_bound),
    "DReG(8)": vaejax.DReG(8),
}
costs = {
    name: vaejax.decoder_evaluations(estimator, vae, start, x, key).forward
    for name, estimator in estimators.items()
}
for name, cost in costs.items():
    print(f"{name:<24}{cost:>3} evaluations of the decoder")
group = {"phi": vaejax.groups.Part(("phi",))}


def measured(estimator, params):
    objective = vaejax.per_example(estimator, vae)
    settings = {"order": 2, "groups": group, "strategy": "vmap", "chunk": 100}
    return vaejax.gradient_moments(objective, params, x, jax.random.key(3), 1_000, **settings)


at = {"at the start": start, "after 1,000 steps": trained}
moments = {
    (when, name): measured(estimator, params)
    for when, params in at.items()
    for name, estimator in estimators.items()
}

# %%
figure, [panels] = figure_of(columns=2, size=(7, 3.2), sharex=True, sharey=True)
for axes, when in zip(panels, at, strict=True):
    for place, name in enumerate(estimators):
        spread = vaejax.gradient_spread(moments[when, name], group)["phi"]
        trace, low, high = np.array(spread[:3]) * costs[name] / 8
        colour = BLUE if place < 4 else ORANGE
        bar = [[trace - low], [high - trace]]
        axes.errorbar(trace, -place, xerr=bar, fmt="o", ms=5, capsize=3, color=colour)
    axes.axhline(-3.5, color=GREY, lw=0.8, ls=":")
    finish(axes, xscale="log", xlabel="variance in φ, at equal cost", title=when)
    ticks_at(axes, (10, 100, 1_000, 10_000), "{:,}")
panels[0].set_yticks([-place for place in range(len(estimators))], list(estimators))
figure

# %% [markdown]
# As a ratio of two variances, from the same random numbers, and the same at equal cost:

# %%
pairs = (
    ("StickTheLanding(8)", "Pathwise(8)"),
    ("AnalyticKL(8)", "Pathwise(8)"),
    ("ScoreFunction(8)", "Pathwise(8)"),
    ("DReG(8)", "Pathwise(8, iwae_bound)"),
)
for when in at:
    print(f"variance in phi, {when:<32}ratio   (95 %)            at equal cost")
    for a, b in pairs:
        ratio = vaejax.variance_ratio(moments[when, a], moments[when, b], "phi")
        interval, fair = f"({ratio.low:.3f} to {ratio.high:.3f})", ratio.ratio * costs[a] / costs[b]
        print(f"{a:<18} over {b:<24}{ratio.ratio:8.3f}   {interval:<18}{fair:>8.3f}")

# %% [markdown]
# The order changes along a training: which estimator is quietest is a question about your $q$, so
# ask it at a checkpoint of your own. [Choose an estimator](../choose/estimator.md) has the rules of
# thumb.
#
# ## Exercises
#
# 1. For $p(x, z)$ of [2.3](2_3_optimisation.md) the pathwise derivative in the loc has the variance
#    $\lambda^2 s^2$, and that of `StickTheLanding` $(1 - \lambda s^2)^2 / s^2$. For which $s$ is
#    the second larger?
#
#     ??? example "Solution"
#         Where $|1 - \lambda s^2| > \lambda s^2$, so for $\lambda s^2 < 1/2$: where the variance of
#         $q$ is less than half the posterior's.
#
# 2. Find a map $g$ for the logistic distribution, and one for the exponential. Which noise do they
#    use?
#
#     ??? example "Solution"
#         $u \sim U(0, 1)$ and the inverse distribution function: $z = \mu + s \log(u / (1 - u))$,
#         and $z = -\log(1 - u) / \lambda$.
#
# 3. Where does `by_hand` need one `jax.lax.stop_gradient` to become `StickTheLanding`?
#
# **At full scale:**
# [sticking_the_landing.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/sticking_the_landing.py),
# [snr_of_tighter_bounds.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/snr_of_tighter_bounds.py),
# [mc_gradient_review.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/mc_gradient_review.py),
# [discrete_gradients.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/discrete_gradients.py).
#
# **In the API:** [`Pathwise`, `AnalyticKL`, `StickTheLanding`, `DReG`](../api/estimators.md),
# [`gradient_moments`, `gradient_spread`, `variance_ratio`](../api/variance.md).
#
# Next: [2.5 Factorised and full-covariance posteriors](2_5_posteriors.md).
