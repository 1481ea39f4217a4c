# %% [markdown]
# # 2.6 and 2.7 The marginal likelihood, and the ELBO as a KL
#
# After this page you can estimate $\log p_\theta(x)$ of a trained model with a known error, and
# read maximum likelihood and the ELBO as two divergences between two pairs of distributions.

# %%
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, GREY, INK, ORANGE, figure_of, finish, legend, ticks_at

# %% [markdown]
# ## 2.6 Estimation of the marginal likelihood
#
# The evidence is an expectation under $q$, and an expectation can be averaged over $K$ samples:
#
# $$\log p_\theta(x) = \log \mathbb E_{q_\phi(z|x)}\left[\frac{p_\theta(x, z)}{q_\phi(z|x)}\right]
# \approx \log \frac 1K \sum_{k=1}^K w_k, \qquad w_k = \frac{p_\theta(x, z_k)}{q_\phi(z_k|x)}.$$
#
# This is `vaejax.log_marginal(model, params, x, key, num_samples)`, and with a gradient that
# trains, `vaejax.iwae`. The mean of the $w_k$ is unbiased for $p(x)$, but its logarithm is not for
# $\log p(x)$: by Jensen's inequality the estimate is too *low* on average. With $K = 1$ it is the
# estimate of the ELBO. With every further sample the bound
#
# $$\mathcal L_K = \mathbb E \log \frac 1K \sum_k w_k, \qquad
# \mathcal L_1 \le \mathcal L_2 \le \dots \le \log p_\theta(x),$$
#
# gets tighter, and to first order what is missing is $\mathrm{Var}[w / p(x)] / (2K)$.
#
# The model of [2.2](2_2_elbo.md), with one latent number: up to $K = 3$ the bound is an integral
# over $K$ independent noises, by the rule of Gauss and Hermite. For larger $K$ we average over
# 4,000 repetitions.


# %%
@vaejax.component
class Line:
    """z -> w z + b: anything with `init` and `apply` is a net."""

    def init(self, key, z):
        return {"w": jnp.ones(()), "b": jnp.zeros(())}

    def apply(self, params, z):
        return params["w"] * z + params["b"]


model = vaejax.VAE(
    prior=vaejax.StandardNormal(1),
    likelihood=vaejax.Gaussian(Line(), scale=0.8),
    encoder=vaejax.DiagNormal(vaejax.Free(1), max_log_scale=None),
)


def point():
    """x = 1.1, p(x|z) = N(1.3 z + 0.2, 0.8^2), q(z|x) = N(0.4, 0.6^2)."""
    line = {"w": jnp.asarray(1.3), "b": jnp.asarray(0.2)}
    theta = {"prior": (), "likelihood": {"net": line}}
    phi = {"loc": jnp.array([0.4]), "log_scale": jnp.log(jnp.array([0.6]))}
    return vaejax.Params(theta, phi), jnp.array([1.1])


variance = 1.3**2 + 0.8**2
log_p_x = -0.5 * (np.log(2 * np.pi * variance) + 0.9**2 / variance)

exact = {}
with jax.enable_x64(True):
    params, x = point()
    q = model.posterior(params, x)
    for k in (1, 2, 3):
        nodes, weights = np.polynomial.hermite_e.hermegauss(48)
        weights = weights / weights.sum()
        noise = np.stack(np.meshgrid(*[nodes] * k, indexing="ij"), -1).reshape(-1, k, 1)
        probability = np.prod(np.stack(np.meshgrid(*[weights] * k), -1).reshape(-1, k), axis=1)
        zs = q.loc + jnp.exp(q.log_scale) * noise
        log_w = jax.vmap(partial(vaejax.log_weights, model, params, x, q))(zs)  # [n, K]
        exact[k] = float(probability @ jax.vmap(vaejax.iwae_bound)(log_w))
        if k == 1:
            spread = float(probability @ jnp.exp(2 * (log_w[:, 0] - log_p_x))) - 1  # Var[w / p(x)]

for k, bound in exact.items():
    print(f"L_{k}       {bound:.6f} nats")
print(f"log p(x)  {log_p_x:.6f} nats")
assert exact[1] < exact[2] < exact[3] < log_p_x

# %% [markdown]
# The repetitions use a little trick. Since $\mathbb E[\bar w] = p(x)$ exactly, $\bar w / p(x) - 1$
# has mean zero, and taking it off changes no mean but removes nearly all of the noise.

# %%
ks, rows = (1, 2, 3, 4, 16, 64, 256), []
params, x = point()


@partial(jax.jit, static_argnums=1)
def missing(key, k):
    """(mean, standard error) of log p(x) - L_K, from 4,000 estimates."""

    def one(key):
        log_ratio = vaejax.iwae(model, params, x, key, k) - log_p_x
        return jnp.expm1(log_ratio) - log_ratio

    values = jax.vmap(one)(jax.random.split(key, 4_000))
    return values.mean(), values.std() / 4_000**0.5


for k in ks:
    mean, error = (float(number) for number in missing(jax.random.key(k), k))
    rows.append((mean, error))
    assert k > 3 or abs(mean - (log_p_x - exact[k])) < 5 * error  # false alarm 6e-7

means, errors = np.array(rows).T
figure, [[axes]] = figure_of(size=(6.4, 3.5))
axes.plot(ks, spread / (2 * np.array(ks)), color=GREY, lw=1, label="Var[w / p(x)] / 2K")
axes.errorbar(ks, means, 4 * errors, fmt="o", ms=4, capsize=3, color=BLUE, label="measured")
axes.plot(list(exact), [log_p_x - bound for bound in exact.values()], "D", ms=7, mfc="none")
axes.lines[-1].set(color=ORANGE, label="exact")
finish(axes, xscale="log", yscale="log", xlabel="K", ylabel="log p(x) − L_K, nats")
ticks_at(axes, ks)
legend(axes, "lower left")
figure

# %% [markdown]
# ### How many samples are enough?
#
# On a trained model, where the weights are far from equal, more than here. With two latents we can
# hold the estimate against a grid. The second column takes the *prior* in place of the encoder,
# which is simple Monte Carlo: `DiagNormal(Free(2))` starts as $\mathcal N(0, I)$.

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
images = binarise(digits.test.images[:100], test_key)

points = vaejax.grids.grid_points((-6, -6), (6, 6), 201)
log_joint = jax.jit(lambda x, z: jax.vmap(partial(vae.log_joint, trained, x))(z))
# log p(x) of each x, nats
truth = np.array([vaejax.grids.on_grid(points, log_joint(x, points)).log_total for x in images])
blind = dataclasses.replace(vae, encoder=vaejax.DiagNormal(vaejax.Free(2)))
phi = blind.encoder.init(init_key, images[0])

print("    K    below log p(x), nats per image:  by q     by the prior")
for num_samples in (1, 30, 1_000):
    off = []
    for proposal, params in ((vae, trained), (blind, trained._replace(phi=phi))):
        estimator = partial(vaejax.log_marginal, proposal, num_samples=num_samples)
        estimates = vaejax.map_dataset(estimator, params, images, test_key)
        off.append(float((truth - np.asarray(estimates, np.float64)).mean()))
    print(f"{num_samples:>5}{off[0]:>39.3f}{off[1]:>14.3f}")
assert abs(off[0]) < 0.05

# %% [markdown]
# The encoder knows where to look. In many dimensions even it is not enough, and the estimate is too
# low by an unknown amount; `vaejax.evaluate` says how far to trust it (the tail index k-hat of the
# weights), and `vaejax.AIS` bounds $\log p(x)$ from both sides.
#
# ## 2.7 Marginal likelihood and ELBO as KL divergences
#
# Write $q_{\mathcal D}(x)$ for the distribution of the data. Maximum likelihood minimises a
# divergence between two distributions over $x$,
#
# $$\mathrm{KL}(q_{\mathcal D}(x) \,\Vert\, p_\theta(x))
# = -\mathbb E_{q_{\mathcal D}(x)}[\log p_\theta(x)] + \text{const},$$
#
# and the ELBO one between two distributions over $(x, z)$: one draws data and then encodes,
# $q_{\mathcal D, \phi}(x, z) = q_{\mathcal D}(x)\, q_\phi(z|x)$, the other draws a latent and then
# decodes:
#
# $$\mathrm{KL}(q_{\mathcal D, \phi}(x, z) \,\Vert\, p_\theta(x, z))
# = -\mathbb E_{q_{\mathcal D}(x)}[\mathcal L_{\theta, \phi}(x)] + \text{const}.$$
#
# The constant, $-\mathcal H(q_{\mathcal D})$, is the same. The second divergence is the first one
# plus what the encoder misses,
#
# $$\mathrm{KL}(q_{\mathcal D, \phi}(x, z) \,\Vert\, p_\theta(x, z))
# = \mathrm{KL}(q_{\mathcal D}(x) \,\Vert\, p_\theta(x)) +
# \mathbb E_{q_{\mathcal D}(x)}\big[\mathrm{KL}(q_\phi(z|x) \,\Vert\, p_\theta(z|x))\big],$$
#
# so the extra variable $z$ can only make it larger. To see all three exactly, take four pixels and
# three switches for latents, so that every expectation is a finite sum: `vaejax.Enumerate()` *is*
# the ELBO.

# %%
tiny = vaejax.VAE(
    prior=vaejax.FactorialBernoulli(3),
    likelihood=vaejax.Bernoulli(vaejax.MLP(4, hidden=(8,))),
    encoder=vaejax.Bernoulli(vaejax.MLP(3, hidden=(8,))),
)


def all_states(n):
    return np.array(np.meshgrid(*[[0.0, 1.0]] * n, indexing="ij")).reshape(n, -1).T


xs, zs = all_states(4), all_states(3)
patterns = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]])
q_data = np.array([0.24 if (x == patterns).all(1).any() else 0.04 / 12 for x in xs])


@jax.jit
def three(params):
    """(KL of the joints, KL of the marginals, mean KL to the posterior), each by its definition."""
    log_joint = jax.vmap(lambda x: jax.vmap(partial(tiny.log_joint, params, x))(zs))(xs)
    log_q = jax.vmap(lambda x: jax.vmap(tiny.posterior(params, x).log_prob)(zs))(xs)
    log_p_x = jax.nn.logsumexp(log_joint, axis=1)
    log_data, q = jnp.log(q_data), jnp.exp(log_q)
    joints = jnp.sum(q_data[:, None] * q * (log_data[:, None] + log_q - log_joint))
    marginals = jnp.sum(q_data * (log_data - log_p_x))
    posteriors = q_data @ jnp.sum(q * (log_q - (log_joint - log_p_x[:, None])), axis=1)
    return joints, marginals, posteriors


def mean_elbo(params):
    bound = partial(vaejax.Enumerate(), tiny, params)
    return q_data @ jax.vmap(lambda x: bound(x, jax.random.key(0)))(xs)


with jax.enable_x64(True):
    optimizer = optax.adam(0.02)

    def step(carry, _):
        params, state = carry
        gradient = jax.grad(mean_elbo)(params)
        updates, state = optimizer.update(jax.tree.map(jnp.negative, gradient), state)
        return (optax.apply_updates(params, updates), state), (three(params), mean_elbo(params))

    params = tiny.init(jax.random.key(4), jnp.asarray(xs[0]))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=600)[1])
    (joints, marginals, posteriors), bounds = jax.tree.map(
        np.asarray, run((params, optimizer.init(params)))
    )

entropy = -np.sum(q_data * np.log(q_data))
assert np.abs(joints - (marginals + posteriors)).max() < 1e-12
assert np.abs(joints - (-bounds - entropy)).max() < 1e-12
print("step   KL of joints = KL of marginals + KL to the posterior    -ELBO - H(q_D)")
for i in (0, 100, 599):
    numbers = f"{joints[i]:>12.6f}{marginals[i]:>17.6f}{posteriors[i]:>22.6f}"
    print(f"{i:>4}{numbers}{-bounds[i] - entropy:>22.6f}")

# %%
figure, [[axes]] = figure_of(size=(6.4, 3.2))
steps = np.arange(len(joints))
axes.plot(steps, joints, color=INK, lw=2.5, label="KL of the joints, the sum of")
axes.plot(steps, marginals, color=BLUE, label="KL of the marginals, and")
axes.plot(steps, posteriors, color=ORANGE, label="mean KL to the posterior")
finish(axes, xlabel="step of training", ylabel="nats", yscale="log", xlim=(0, steps[-1]))
legend(axes, "upper right")
figure

# %% [markdown]
# The direction of this KL has a consequence. Where the data are, the model *must* have mass, or the
# divergence is infinite; where the model has mass and no data are, little is paid. So a model too
# small for its data covers too much, and its samples are blurred: [2.8](2_8_challenges.md).
#
# ## Exercises
#
# 1. Show that $\mathcal L_K$ grows with $K$.
#
#     ??? example "Solution"
#         The mean of $K$ weights is the mean, over all subsets of $K - 1$ of them, of the means of
#         the subsets. The logarithm is concave, so $\log \bar w_K \ge$ the mean of the logarithms
#         of those, whose expectation is $\mathcal L_{K-1}$.
#
# 2. For which scales of $q$ is $\mathrm{Var}[w]$ infinite in the first model? What does the picture
#    look like there?
#
# 3. The joint KL splits the other way round too, by $z$ first: $\mathrm{KL}(q_\phi(z) \,\Vert\,
#    p_\theta(z)) + \mathbb E_{q_\phi(z)} \mathrm{KL}(q_\phi(x|z) \,\Vert\, p_\theta(x|z))$ with the
#    *aggregated posterior* $q_\phi(z) = \mathbb E_{q_{\mathcal D}} q_\phi(z|x)$. Add it to `three`.
#    (`vaejax.latent_space` measures its first term for a whole data set.)
#
# **At full scale:**
# [ais_sandwich.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/ais_sandwich.py),
# [snr_of_tighter_bounds.py](https://github.com/vaejax/vaejax/blob/main/experiments/gradients/snr_of_tighter_bounds.py),
# [rate_distortion.py](https://github.com/vaejax/vaejax/blob/main/experiments/representation/rate_distortion.py).
#
# **In the API:** [`log_marginal`, `iwae`, `log_weights`, `iwae_bound`](../api/bounds.md),
# [`Enumerate`](../api/estimators.md),
# [`evaluate`](../api/evaluation.md),
# [`AIS`](../api/inference.md). **Choose** a [bound](../choose/bound.md).
#
# Next: [2.8 Challenges](2_8_challenges.md).
