# %% [markdown]
# # 2.5 Factorised and full-covariance posteriors
#
# After this page you know what a diagonal normal cannot say, what a full covariance adds, and how
# many nats each leaves on the table.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import ORANGE, PALE, figure_of, finish

# %% [markdown]
# ## 2.5 A factorised posterior
#
# The usual choice is a normal with independent coordinates. In the order in which it is computed:
#
# $$(\mu, \log \sigma) = \mathrm{Encoder}_\phi(x), \qquad \epsilon \sim \mathcal N(0, I), \qquad
# z = \mu + \sigma \odot \epsilon.$$
#
# The Jacobian $\partial z / \partial \epsilon$ is $\mathrm{diag}(\sigma)$, so by
# [the change of variables](2_4_reparameterisation.md)
#
# $$\log q_\phi(z|x) = \log p(\epsilon) - \sum_i \log \sigma_i
# = \sum_i \big[\log \mathcal N(\epsilon_i; 0, 1) - \log \sigma_i\big].$$
#
# ## 2.5.1 A full covariance
#
# With a lower triangular $L$ in place of $\mathrm{diag}(\sigma)$, $z = \mu + L \epsilon$ has the
# covariance $L L^\top$. A triangular matrix has its determinant on its diagonal, so nothing gets
# harder:
#
# $$\log q_\phi(z|x) = \log p(\epsilon) - \sum_i \log |L_{ii}|.$$
#
# The encoder now gives $\mu$, $\log \sigma$ and the entries below the diagonal, $L = L_{mask} \odot
# L' + \mathrm{diag}(\sigma)$. `vaejax.FullNormal(vaejax.MLP(d, heads=2 + d))` is that, with what
# lies below the diagonal in units of $\sigma$: $L = \mathrm{diag}(\sigma)\, (I + \text{strictly
# lower})$.

# %%
dim = 3
example = jnp.linspace(-1, 1, 5)
families = {
    "factorised": vaejax.DiagNormal(vaejax.MLP(dim, hidden=(8,), heads=2)),
    "full covariance": vaejax.FullNormal(vaejax.MLP(dim, hidden=(8,), heads=2 + dim)),
}


def g(q, epsilon):
    """A sample of q as a function of its noise, by the uniform numbers cdf(epsilon)."""
    return q.from_uniform(jax.scipy.stats.norm.cdf(epsilon))


with jax.enable_x64(True):
    epsilon = jax.random.normal(jax.random.key(0), (dim,))
    log_noise = jnp.sum(jax.scipy.stats.norm.logpdf(epsilon))
    for name, family in families.items():
        params = family.init(jax.random.key(1), example)
        q = family(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params), example)
        L = jax.jacfwd(partial(g, q))(epsilon)
        print(f"{name}: L =\n{np.asarray(L).round(3) + 0.0}")
        by_formula = log_noise - jnp.sum(jnp.log(jnp.abs(jnp.diag(L))))
        assert abs(q.log_prob(g(q, epsilon)) - by_formula) < 1e-9
        assert jnp.abs(jnp.triu(L, 1)).max() < 1e-12

# %% [markdown]
# ## What independence costs
#
# Two causes of one observation are dependent once it is seen: if $x = z_1 + z_2 + \text{noise}$ is
# large, and $z_1$ was not, then $z_2$ was. With noise of variance $\tau^2$ the posterior is normal
# with precision $\Lambda = I + \mathbf 1 \mathbf 1^\top / \tau^2$ and the correlation $\rho = -1/(1
# + \tau^2)$. The best factorised normal has the right mean and the precisions $\Lambda_{ii}$, so it
# is *too narrow*, and it leaves
#
# $$\mathrm{KL}(q^* \,\Vert\, p(z|x)) = \tfrac 12 \Big(\sum_i \log \Lambda_{ii} - \log \det \Lambda\Big)
# = -\tfrac 12 \log(1 - \rho^2),$$
#
# whatever the encoder does. A full covariance leaves nothing. We let `vaejax.Refined` find the best
# member of each family, and take its KL from a grid.

# %%
tau = 0.5
two_causes = vaejax.VAE(
    prior=vaejax.StandardNormal(2),
    likelihood=vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=tau),
    encoder=vaejax.DiagNormal(vaejax.Free(2)),
)
x = jnp.array([1.5])
params = two_causes.init(jax.random.key(0), x)
sum_of_both = {"params": {"Dense_0": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}}
params = params._replace(theta={"prior": (), "likelihood": {"net": sum_of_both}})

points = vaejax.grids.grid_points((-5, -5), (5, 5), 301)


@partial(jax.jit, static_argnums=0)
def log_densities(model, params, x, points):
    """log p(x, z) and log q(z|x) at the points of the grid."""
    log_joint = jax.vmap(partial(model.log_joint, params, x))(points)
    return log_joint, jax.vmap(model.posterior(params, x).log_prob)(points)


def on_grid(model, params, x):
    """p(z|x) and q(z|x) on the grid."""
    both = log_densities(model, params, x, points)
    p, q = (vaejax.grids.on_grid(points, values) for values in both)
    assert abs(q.log_total) < 1e-3  # the grid is wide and fine enough
    return p, q


def best(model, family, num_steps=400):
    """The model with the best q of a family for each example; its parameters are free, no net."""
    return vaejax.Refined(model, num_steps, "standard", family)


names = ("loc", "log_scale", "row 1", "row 2")
diagonal, full = vaejax.DiagNormal(vaejax.Free(2)), vaejax.FullNormal(vaejax.Free(2, names))
rho = -1 / (1 + tau**2)
closed_form = {"factorised": -0.5 * np.log(1 - rho**2), "full covariance": 0.0}
shown = {}
for (name, exact), family in zip(closed_form.items(), (diagonal, full), strict=True):
    p, q = shown[name] = on_grid(best(two_causes, family), params, x)
    measured = q.kl(p)
    print(f"{name:<16} KL {measured:.4f} nats, in closed form {exact:.4f}")
    assert abs(measured - exact) < 2e-3

# %%
GREYS = "#9aa5ad", "#c3cacf", PALE


def draw(axes, p, q, name):
    """The posterior in grey, q in orange: the regions of 50, 90 and, in grey, 99 % of the mass."""
    axes.contourf(*p.picture(p.regions()), [0, 0.5, 0.9, 0.99], colors=GREYS)
    axes.contour(*q.picture(q.regions()), [0.5, 0.9], colors=ORANGE, linewidths=1.6)
    finish(axes, xlabel="$z_1$", aspect="equal")
    axes.set_title(f"{name}\nKL {abs(q.kl(p)):.2f}", fontsize=10)


figure, [panels] = figure_of(columns=2, size=(7, 3.6), sharex=True, sharey=True)
for axes, name in zip(panels, shown, strict=True):
    draw(axes, *shown[name], name)
panels[0].set(xlim=(-1.4, 2.7), ylim=(-1.4, 2.7), ylabel="$z_2$")
figure

# %% [markdown]
# ## A posterior that is not normal
#
# The posterior of a neural decoder is no normal at all. Here are the best members of three
# families, for images of digits and a decoder with two latents. The third is a flow
# ([3.2](3_beyond.md)), a normal that is bent by invertible layers into other shapes.

# %%
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "static")
vae = vaejax.VAE(
    prior=vaejax.StandardNormal(2),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(2, hidden=(64,), heads=2)),
)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
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
images = binarise(digits.test.images[:16], test_key)

flow = vaejax.RealNVP(vaejax.Free(2), num_layers=4, hidden=(16,))
families = {"factorised": diagonal, "full covariance": full, "flow of 4 couplings": flow}
grids, kls = {}, {}
for name, family in families.items():
    grids[name] = [on_grid(best(vae, family), trained, image) for image in images]
    kls[name] = np.array([q.kl(p) for p, q in grids[name]])
    gain = "" if family is diagonal else f"   gain {vaejax.estimate(kls['factorised'] - kls[name])}"
    print(f"{name:<20} KL {kls[name].mean():.3f} nats{gain}")

# %%
worst = int(kls["factorised"].argmax())
figure, [panels] = figure_of(columns=3, size=(7, 3), sharex=True, sharey=True)
for axes, name in zip(panels, families, strict=True):
    draw(axes, *grids[name][worst], name)
p, _ = grids["factorised"][worst]
near = p.points[p.log_prob > p.log_prob.max() - 7]
low, high = near.min(axis=0) - 0.1, near.max(axis=0) + 0.1
panels[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), ylabel="$z_2$")
figure

# %% [markdown]
# A richer family lowers the gap of the *best* $q$. Whether an encoder finds it is another question:
# often most of the gap is the [encoder's](2_1_encoder.md), and then a better family helps less than
# it could.
#
# ## Exercises
#
# 1. Derive the factorised $q^*$: write $\mathrm{KL}(q \,\Vert\, p(z|x))$ of two normals and set its
#    derivatives to zero. What would the best factorised $q$ be under the other KL,
#    $\mathrm{KL}(p(z|x) \,\Vert\, q)$?
#
#     ??? example "Solution"
#         The terms with $\sigma_i$ are $\frac 12 \Lambda_{ii} \sigma_i^2 - \log \sigma_i$, so
#         $\sigma_i^2 = 1 / \Lambda_{ii}$: the *conditional* variance. The other KL is least at the
#         *marginal* variance $(\Lambda^{-1})_{ii}$, which is larger: it covers where the first
#         excludes.
#
# 2. How many numbers does the encoder give for $d = 50$ in each family? Try `vaejax.LowRankNormal`.
#
# 3. Let $\tau \to 0$ in `two_causes`. What becomes of the two gaps?
#
# **At full scale:**
# [inference_gap.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/inference_gap.py),
# [mcmc_posterior.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/mcmc_posterior.py).
#
# **In the API:** [`DiagNormal`, `FullNormal`, `LowRankNormal`, `RealNVP`](../api/models.md),
# [`Free`](../api/networks.md),
# [`Refined`](../api/inference.md). **Choose** a [family of posteriors](../choose/posterior.md).
#
# Next: [2.6 and 2.7 The marginal likelihood](2_6_marginal_likelihood.md).
