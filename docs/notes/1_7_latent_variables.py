# %% [markdown]
# # 1.7 Latent variables
#
# After this page you can build mixtures of finitely and of infinitely many parts, compute their
# $p(x)$ exactly, and train a deep latent-variable model of digits without any approximation but a
# grid.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import vaejax
from vaejax import DirectedGraph, Free, Node, Table
from vaejax.plots import ORANGE, figure_of, finish, legend, show_image, tile

# %% [markdown]
# ## 1.7.1 What is not in the data
#
# A *latent* variable $z$ is a node of the graph that no one observes. The model is still a joint
# distribution $p_\theta(x, z)$, and what the data are drawn from is its marginal,
#
# $$p_\theta(x) = \int p_\theta(x, z)\, dz,$$
#
# called the *marginal likelihood* or the *evidence* when it is taken as a function of $\theta$. Why
# invent a variable? Because the marginal of simple factors need not be simple.
#
# ### Finite mixtures: a sum
#
# If $z$ has one of $K$ values the integral is a sum,
#
# $$p_\theta(x) = \sum_{k=1}^K p(z = k)\, p(x \mid z = k),$$
#
# a *mixture* of $K$ components. Our data are points in the plane, on two arcs; each component is an
# axis-parallel normal. `log_marginal` sums out what is not given.


# %%
def two_arcs(size, seed):
    """Points [n, 2] on two half circles, with noise."""
    generator = np.random.default_rng(seed)
    angle, upper = np.pi * generator.random(size), generator.random(size) < 0.5
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.where(upper[:, None], arc, [1.0, 0.5] - arc)
    noise = 0.1 * generator.normal(size=points.shape)
    return (points + noise).astype(np.float32)


train, test = two_arcs(1_000, seed=0), two_arcs(1_000, seed=1)

K = 8
mixture = DirectedGraph(
    (
        Node("z", vaejax.OneHotCategorical(Free(K, ("logits",)))),
        Node("x", vaejax.DiagNormal(Table(2, (K,), ("loc", "log_scale"))), "z"),
    )
)


def log_mixture(params, x, key):
    """log p(x) = log sum_z p(z) p(x | z), nats."""
    return mixture(params.theta).log_marginal({"x": x})


def maximise(log_p, theta, data, support, num_steps, batch_size, rate):
    """The parameters at which the mean log-likelihood of the data is highest."""
    return vaejax.fit(
        vaejax.minibatch(log_p, support=support),
        vaejax.Params(theta, ()),
        optax.adam(optax.cosine_decay_schedule(rate, num_steps)),
        data,
        jax.random.key(0),
        num_steps=num_steps,
        batch_size=batch_size,
        progress=False,
    ).params.theta


start = {  # the components start at eight of the points
    "z": {"logits": jnp.zeros(K)},
    "x": {"loc": jnp.asarray(train[:K]), "log_scale": jnp.full((K, 2), -1.0)},
}
of_mixture = maximise(log_mixture, start, train, vaejax.supports.REAL, 600, 200, 0.03)

# by hand: log sum_k exp(log p(k) + log N(x; loc_k, scale_k))
joint, x = mixture(of_mixture), train[0]
terms = [joint.log_prob({"z": k, "x": x}) for k in jnp.eye(K)]
assert abs(joint.log_marginal({"x": x}) - logsumexp(jnp.stack(terms))) < 1e-5
print(f"log p(x) of one point: {joint.log_marginal({'x': x}):.4f} nats, by hand the same")

# %% [markdown]
# Which component a point came from, the data do not say, and Bayes' rule does:
# $p(z \mid x) = p(x, z) / p(x)$, which for a finite $z$ is `condition`.

# %%
_, responsibility = joint.condition({"x": x}).marginal("z")
assert jnp.allclose(responsibility, jax.nn.softmax(jnp.stack(terms)), atol=1e-5)
print("p(z | x) =", np.round(np.asarray(responsibility), 3))

# %% [markdown]
# ### Infinite mixtures: an integral
#
# Let $z$ be a real number, $p(z) = \mathcal{N}(0, 1)$, and let a net say where each $z$ goes:
#
# $$p_\theta(x) = \int \mathcal{N}(z; 0, 1)\;
#   \mathcal{N}\big(x;\, m_\theta(z),\, s_\theta(z)^2\big)\, dz,$$
#
# a mixture with one component for each of infinitely many $z$. With one number a grid does the
# integral. Cut the prior into $K$ parts of equal mass and take the middle $z_k$ of each: then
# $p(x) \approx \frac{1}{K} \sum_k p(x \mid z_k)$, a mixture of $K$ equal parts that share one net.

# %%
curve = DirectedGraph(
    (
        Node("z", vaejax.StandardNormal(1)),
        Node("x", vaejax.DiagNormal(vaejax.MLP(2, hidden=(64, 64), heads=2)), "z"),
    )
)


def middles(K, dim):
    """[K^dim, dim]: the standard normal in K^dim parts of equal mass, the middle of each."""
    axis = norm.ppf((jnp.arange(K) + 0.5) / K)
    return jnp.stack(jnp.meshgrid(*dim * [axis]), axis=-1).reshape(-1, dim)


@partial(jax.jit, static_argnames="graph")
def log_likelihoods(graph, theta, x, zs):
    """log p(x | z) of each z, nats."""
    joint = graph(theta)
    return jax.vmap(lambda z: joint.factor("x", {"z": z}).log_prob(x))(zs)


def log_marginal(graph, K, dim, params, x, key=None):
    """log (1/K^dim) sum_k p(x | z_k), nats."""
    log_p = log_likelihoods(graph, params.theta, x, middles(K, dim))
    return logsumexp(log_p) - jnp.log(len(log_p))


# %% [markdown]
# Is the grid right? Where the net is a line, $x = w z + b$ with noise $s$, the marginal is known: a
# normal with the mean $b$ and the variance $w^2 + s^2$. (With more latents and pixels this is
# probabilistic principal component analysis.)

# %%
w, b, s = 1.5, 0.4, 0.3
straight = DirectedGraph(
    (
        Node("z", vaejax.StandardNormal(1)),
        Node("x", vaejax.Gaussian(vaejax.MLP(1, hidden=()), scale=s), "z"),
    )
)
dense = {"kernel": jnp.array([[w]]), "bias": jnp.array([b])}
params = vaejax.Params({"z": (), "x": {"net": {"params": {"Dense_0": dense}}}}, ())

print(" x      grid of 2,000    closed form")
for x in (-2.0, 0.4, 3.0):
    by_grid = log_marginal(straight, 2_000, 1, params, jnp.array([x]))
    closed_form = norm.logpdf(x, b, np.sqrt(w**2 + s**2))
    assert abs(by_grid - closed_form) < 1e-3
    print(f"{x:4.1f} {by_grid:14.4f} {closed_form:14.4f}")

# %% [markdown]
# Since $p(x)$ can be computed, it can be maximised, net and all. No encoder and no bound, only
# section 1.6 again:

# %%
of_curve = maximise(
    partial(log_marginal, curve, 150, 1),
    curve.init(jax.random.key(2)),
    train,
    vaejax.supports.REAL,
    num_steps=1_200,
    batch_size=100,
    rate=3e-3,
)


@jax.jit
def log_p_curve(x):
    return jax.vmap(partial(log_marginal, curve, 400, 1, vaejax.Params(of_curve, ())))(x)


@jax.jit
def log_p_mixture(x):
    return jax.vmap(lambda x: mixture(of_mixture).log_marginal({"x": x}))(x)


for name, log_p in {"8 components": log_p_mixture, "infinitely many": log_p_curve}.items():
    values = log_p(test)
    print(f"{name:16s} test log p(x) = {values.mean():.3f} ± {values.std() / 1_000**0.5:.3f} nats")

# %%
figure, [panels] = figure_of(columns=2, size=(7.2, 3), sharey=True)
first, second = np.linspace(-1.6, 2.6, 130), np.linspace(-1.1, 1.6, 90)
plane = np.stack(np.meshgrid(first, second), -1).reshape(-1, 2).astype(np.float32)
titles = "a mixture of 8", "of infinitely many, on a curve m(z)"
for axes, log_p, title in zip(panels, (log_p_mixture, log_p_curve), titles, strict=True):
    density = np.exp(np.concatenate([log_p(part) for part in np.split(plane, 10)]))
    axes.contourf(first, second, density.reshape(90, 130), levels=12, cmap="Blues")
    axes.scatter(*train[:200].T, s=2, color=ORANGE)
    axes.set_aspect("equal")
    finish(axes, title=title)
panels[0].plot(*of_mixture["x"]["loc"].T, "k+", ms=7)
along = jax.vmap(lambda z: curve(of_curve).factor("x", {"z": z}).mean())(middles(1_000, 1))
panels[1].plot(*along.T, color="black", lw=0.8)
figure

# %% [markdown]
# The density follows the data around both arcs, and no factor of the model has such a shape: $p(z)$
# is a normal, and so is each $p(x \mid z)$. The curve must cross from one arc to the other, for the
# normal has no gap, and it makes the best of it: there it is fast and wide.
#
# ## 1.7.2 Deep latent-variable models
#
# That was one: a latent-variable model whose conditionals have nets in them. Usually
#
# $$p_\theta(x, z) = p_\theta(z)\, p_\theta(x \mid z)$$
#
# with a *prior* $p(z)$ and a *decoder* $p(x \mid z)$. Even when every factor is of a simple kind,
# the marginal $p_\theta(x)$ can be almost arbitrarily complex. That is what these models are for.
#
# ## 1.7.3 An example: images of binary pixels
#
# Let $x$ be an image of $D$ zeros and ones, and $z$ a vector of real numbers:
#
# $$\begin{aligned}
# p(z) &= \mathcal{N}(z; 0, I) \\
# \mathbf{p} &= \mathrm{DecoderNeuralNet}_\theta(z) \\
# \log p(x \mid z) &= \sum_{j=1}^D \log p(x_j \mid z) \\
#   &= \sum_{j=1}^D \log \mathrm{Bernoulli}(x_j; p_j) \\
#   &= \sum_{j=1}^D x_j \log p_j + (1 - x_j) \log (1 - p_j).
# \end{aligned}$$
#
# The graph has one node for each of the first two lines. The pixels are independent *given* $z$,
# and so their dependence has to come from $z$.

# %%
decoder = vaejax.MLP((8, 8), hidden=(100,))  # DecoderNeuralNet, up to the sigmoid
images = DirectedGraph(
    (
        Node("z", vaejax.StandardNormal(2)),
        Node("x", vaejax.Bernoulli(decoder), "z"),
    )
)
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "threshold")


def binary_images(split):
    keys = jax.random.split(jax.random.key(0), len(split.images))
    return np.asarray(jax.vmap(binarise)(split.images, keys))


train, test = binary_images(digits.train), binary_images(digits.test)

# %% [markdown]
# Line by line, at one $x$ and one $z$:

# %%
theta = images.init(jax.random.key(0))
x, z = jnp.asarray(train[0]), jnp.array([0.5, -1.0])

p = jax.nn.sigmoid(decoder.apply(theta["x"], z))  # p = DecoderNeuralNet(z)
lines = {
    "log p(z)": (
        norm.logpdf(z).sum(),
        images(theta).factor("z", {}).log_prob(z),
    ),
    "log p(x | z)": (
        jnp.sum(x * jnp.log(p) + (1 - x) * jnp.log(1 - p)),
        images(theta).factor("x", {"z": z}).log_prob(x),
    ),
    "log p(x, z)": (
        norm.logpdf(z).sum() + jnp.sum(x * jnp.log(p) + (1 - x) * jnp.log(1 - p)),
        images(theta).log_prob({"x": x, "z": z}),
    ),
}
print("                 the formula    vaejax")
for name, (formula, line) in lines.items():
    assert abs(formula - line) < 1e-4
    print(f"{name:14s} {formula:13.5f} {line:10.5f}")

# %% [markdown]
# ### Its marginal, on a grid
#
# With two latents the integral over $z$ is a sum over a grid in the plane, $K^2$ points of equal
# prior mass. For a check, two other ways to do the same integral: Gauss-Hermite quadrature, which
# knows the normal weight, and Monte Carlo, the mean of $p(x \mid z)$ over draws from the prior.

# %%
by_grid = log_marginal(images, 60, 2, vaejax.Params(theta, ()), x)

nodes, weights = np.polynomial.hermite_e.hermegauss(30)
zs = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2).astype(np.float32)
log_weights = np.log(np.outer(weights, weights).ravel() / (2 * np.pi))
by_hermite = logsumexp(log_likelihoods(images, theta, x, zs) + log_weights)

draws = jax.random.normal(jax.random.key(1), (20_000, 2))
log_p_of_draws = log_likelihoods(images, theta, x, draws)
ratio = jnp.exp(log_p_of_draws - by_grid)  # p(x | z) / p(x), since p(x) itself is 1e-20
by_draws, error = by_grid + jnp.log(ratio.mean()), ratio.std() / 20_000**0.5

assert abs(by_grid - by_hermite) < 5e-3 and abs(by_draws - by_hermite) < 5 * error
print(f"log p(x) by 60 x 60 equal parts     {by_grid:.4f}")
print(f"         by Gauss-Hermite           {by_hermite:.4f}")
print(f"         by 20,000 draws of p(z)    {by_draws:.4f} ± {error:.4f}")

# %% [markdown]
# So we can train this model, too, by plain maximum likelihood. The grid of 16 x 16 is decoded once
# for each minibatch, since it does not depend on $x$. (Bishop, Svensén and Williams did this in
# 1998, with basis functions for a net, and called it the generative topographic mapping.)

# %%
theta = maximise(
    partial(log_marginal, images, 16, 2),
    images.init(jax.random.key(0)),
    train,
    vaejax.supports.BINARY,
    num_steps=1_200,
    batch_size=64,
    rate=5e-3,
)
params = vaejax.Params(theta, ())


@jax.jit
def posterior_on_grid(xs):
    """log p(x) [n], and the mass of p(z | x) on the grid [n, 32 * 32]."""
    log_p = jax.vmap(lambda x: log_likelihoods(images, theta, x, middles(32, 2)))(xs)
    return logsumexp(log_p, axis=1) - jnp.log(32**2), jax.nn.softmax(log_p, axis=1)


log_p, mass = posterior_on_grid(test)
independent = np.clip(train.mean(0), 1e-3, 1 - 1e-3)
without = np.sum(test * np.log(independent) + (1 - test) * np.log(1 - independent), axis=(1, 2))
gain = log_p - without
assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5
print(f"test log p(x), independent pixels    {without.mean():8.2f} nats")
print(f"test log p(x), two latents           {log_p.mean():8.2f} nats")

# %% [markdown]
# What have the two numbers come to mean? Left, the decoded means $\mathbf{p}$ over the plane of
# $z$. Right, the mean of $p(z \mid x) = p(x, z) / p(x)$ for each test image, from the same grid,
# coloured by labels that the model has never seen. A latent variable that was only asked to explain
# pixels has become a *representation*: kinds of digits live in different places.

# %%
shown = middles(14, 2)
decoded = jax.jit(jax.vmap(lambda z: images(theta).factor("x", {"z": z}).mean()))(shown)
decoded = decoded.reshape(14, 14, 8, 8)[::-1].reshape(-1, 8, 8)  # z_2 goes up
# Phi(z), so that equal areas have equal prior mass, as on the left
means = np.asarray(mass @ norm.cdf(middles(32, 2)))

figure, [[left, right]] = figure_of(columns=2, size=(7.4, 3.7))
show_image(left, tile(np.asarray(decoded), 14))
left.set_title("p = DecoderNeuralNet(z)", fontsize=11)
for c in range(10):
    right.scatter(*means[digits.test.labels == c].T, s=12, color=f"C{c}", label=str(c))
right.set_aspect("equal")
finish(right, xlim=(0, 1), ylim=(0, 1), xlabel="$\\Phi(z_1)$", ylabel="$\\Phi(z_2)$")
right.set_title("means of p(z | x)", fontsize=11)
legend(right, "center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1)
figure

# %% [markdown]
# A posterior is more than its mean. Here is $p(z \mid x)$ itself for four images, in the same
# plane, from one whose $z$ is well known to the one that leaves most open.

# %%
entropy = -jnp.sum(mass * jnp.log(mass + 1e-30), axis=1)  # of each posterior
chosen = np.argsort(entropy)[[len(test) // 4, len(test) // 2, -10, -1]]
figure, panels = figure_of(rows=2, columns=4, size=(7.2, 3), height_ratios=[1, 2])
for (above, below), row in zip(panels.T, chosen, strict=True):
    show_image(above, test[row])
    below.imshow(mass[row].reshape(32, 32), origin="lower", extent=(0, 1, 0, 1), cmap="Blues")
    below.set(xticks=[], yticks=[], xlabel=f"log p(x) = {log_p[row]:.1f} nats")
panels[1, 0].set_ylabel("p(z | x)")
figure

# %% [markdown]
# Everything on this page was exact up to a grid. The price: $16^2 = 256$ decodings for two latents
# are $16^{20} \approx 10^{24}$ for twenty. Section [1.8](1_8_intractability.md) takes it from
# there, and the rest of the book is about models like this one whose integral nobody can do.
#
# At full scale, finite, infinite and both at once on digits:
# [`mixtures.py`](https://github.com/vaejax/vaejax/blob/main/experiments/graphs/mixtures.py); what
# learned codes are worth:
# [`representation.py`](https://github.com/vaejax/vaejax/blob/main/experiments/representation/representation.py).
#
# ## Exercises
#
# **1.** A mixture of $K$ equal parts is normalised for every $K$. Show it for the grid of images:
# take a model of 2 x 2 pixels with random weights and a grid of only 3 x 3, and sum $p(x)$ over all
# images.
#
# ??? example "Solution"
#     ```python
#     small = DirectedGraph(
#         (
#             Node("z", vaejax.StandardNormal(2)),
#             Node("x", vaejax.Bernoulli(vaejax.MLP((2, 2), hidden=(10,))), "z"),
#         )
#     )
#     weights = vaejax.Params(small.init(jax.random.key(0)), ())
#     all_images = np.indices((2,) * 4).reshape(4, 16).T.reshape(16, 2, 2).astype(np.float32)
#     log_ps = jax.vmap(partial(log_marginal, small, 3, 2, weights))(all_images)
#     assert abs(jnp.exp(log_ps).sum() - 1) < 1e-5
#     ```
#
# **2.** After training, is the grid of 16 x 16 still fine enough? The net might have become good at
# its 256 points alone. Compare the mean of $\log p(x)$ over the training images by that grid and by
# the one of 32 x 32.
#
# ??? example "Solution"
#     It is: the posteriors are wide compared with its cells.
#
#     ```python
#     coarse = jax.vmap(partial(log_marginal, images, 16, 2, params))(train)
#     fine, _ = posterior_on_grid(train)
#     assert abs(coarse.mean() - fine.mean()) < 0.02
#     ```
#
# **3.** Train the curve with `StandardNormal(1)` replaced by a uniform prior,
# `vaejax.NumPyroPrior(...)`, and the middles of equal parts to match. What changes, and why can a
# decoder make up for it?
#
# In the API: [`DirectedGraph` and the priors](../api/models.md), [`MLP`,
# `Table`](../api/networks.md), [pictures](../api/plots.md). Next: [1.8
# Intractability](1_8_intractability.md).
