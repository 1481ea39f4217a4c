# %% [markdown]
# # 2.1 The encoder, or approximate posterior
#
# After this page you can say what the encoder is, what it saves, and what it costs: the
# amortisation gap, as a number in nats.

# %%
import timeit
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax.plots import BLUE, INK, ORANGE, figure_of, finish, legend, ticks_at

# %% [markdown]
# ## A network that answers with a distribution
#
# The posterior $p_\theta(z|x)$ is [intractable](1_8_intractability.md), so we put a parametric
# inference model in its place,
#
# $$q_\phi(z|x) \approx p_\theta(z|x),$$
#
# with parameters $\phi$ that are shared by all $x$ and learned together with $\theta$. Its usual
# form is a normal whose parameters are the output of a neural network, the *encoder*:
#
# $$(\mu, \log \sigma) = \mathrm{Encoder}_\phi(x), \qquad
# q_\phi(z|x) = \mathcal N(z;\ \mu,\ \mathrm{diag}(\sigma^2)).$$
#
# In the library that is `vaejax.DiagNormal(net)`, where the net has two heads, one for $\mu$ and
# one for $\log \sigma$; the second is bounded softly so that a wild net cannot overflow.
# `model.posterior(params, x)` is the density, with a `sample` and a `log_prob`.

# %%
digits, binarise = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "static")
model = vaejax.VAE(
    prior=vaejax.StandardNormal(2),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(2, hidden=(64,), heads=2)),
)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
params = vaejax.fit(
    vaejax.minibatch(vaejax.AnalyticKL(), model),
    model.init(init_key, jnp.zeros((8, 8))),
    optax.adam(2e-3),
    digits.train.images,
    fit_key,
    num_steps=2_000,
    batch_size=100,
    transform=binarise,
    progress=False,
).params
images = binarise(digits.test.images[:40], test_key)

q = model.posterior(params, images[0])
z = q.sample(test_key)
mu, sigma = q.loc, jnp.exp(q.log_scale)
by_hand = jnp.sum(-0.5 * ((z - mu) / sigma) ** 2 - jnp.log(sigma) - 0.5 * jnp.log(2 * jnp.pi))
print(f"mu = {np.round(mu, 3)}, sigma = {np.round(sigma, 3)}")
print(f"log q(z|x) = {q.log_prob(z):.5f}, by hand {by_hand:.5f}")
assert abs(q.log_prob(z) - by_hand) < 1e-5

# %% [markdown]
# ## Any directed graph will do
#
# An inference model can be a directed graph of its own, with
#
# $$q_\phi(z|x) = q_\phi(z_1, \dots, z_M \,|\, x) = \prod_{j=1}^M q_\phi(z_j \,|\, Pa(z_j), x),$$
#
# where the parents $Pa(z_j)$ are latents that are drawn earlier. `vaejax.DirectedGraph` writes that
# down node by node, and `log_probs` has the factors. A product of normalised factors is normalised:
# its integral over both latents is one, here by a sum over a grid.

# %%
net = partial(vaejax.MLP, 1, hidden=(16,), heads=2)
graph = vaejax.DirectedGraph(
    (
        vaejax.Node("z1", vaejax.DiagNormal(net()), "x"),
        vaejax.Node("z2", vaejax.DiagNormal(net()), ("z1", "x")),
    ),
    inputs=("x",),
)
joint = graph(graph.init(init_key, images[0]), images[0])
value = joint.sample(test_key)
for name, log_q in joint.log_probs(value).items():
    print(f"log q of {name}     {log_q:.5f}")
print(f"of both together {joint.log_prob(value):.5f}")


def density(z1, z2):
    return jnp.exp(joint.log_prob({"z1": z1[None], "z2": z2[None]}))


wide = jnp.linspace(-15, 15, 301)
total = jnp.sum(jax.vmap(jax.vmap(density, (None, 0)), (0, None))(wide, wide)) * 0.1**2
print(f"integral over z1 and z2: {total:.6f}")
assert abs(total - 1) < 1e-4

# %% [markdown]
# ## One encoder for all data
#
# In classical variational inference each example has variational parameters of its own, found by an
# optimisation of their own. The encoder *amortises* that: it is trained once, and then gives
# $q_\phi(z|x)$ in a single evaluation, for images it has never seen too. What it misses of the best
# $q$ of its own family is the **amortisation gap**; what the best one misses is the **approximation
# gap**:
#
# $$\log p(x) - \mathcal L(q_\phi)
# = \underbrace{\log p(x) - \max_{q \in Q} \mathcal L(q)}_{\text{approximation}} +
# \underbrace{\max_{q \in Q} \mathcal L(q) - \mathcal L(q_\phi)}_{\text{amortisation}}.$$
#
# `vaejax.Refined(model, num_steps, start)` is the same model with the other kind of inference: its
# `posterior` is what so many gradient steps on this example's ELBO make of the encoder's $q$, or of
# $\mathcal N(0, I)$ with `start="standard"`. So all that takes a model takes it too.
#
# With two latents the gap is a sum over a grid, exactly.

# %%
side = np.linspace(-5, 5, 201)
points = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
area = (side[1] - side[0]) ** 2


@jax.jit
def exact_posteriors(params, xs):
    """(log p(x), log p(z|x) at the points of the grid) of each x."""

    def of_one(x):
        log_joint = jax.vmap(partial(model.log_joint, params, x))(points)
        log_p_x = jax.nn.logsumexp(log_joint) + jnp.log(area)
        return log_p_x, log_joint - log_p_x

    return jax.lax.map(of_one, xs, batch_size=10)


@jax.jit
def kl_on_grid(qs, log_posteriors):
    """KL(q || p(z|x)) of each example, nats."""

    def of_one(q, log_posterior):
        log_q = jax.vmap(q.log_prob)(points)
        return jnp.sum(jnp.exp(log_q) * (log_q - log_posterior)) * area

    return jax.vmap(of_one)(qs, log_posteriors)


models = {"the encoder alone": model}
for steps in (3, 30, 300):
    models[f"{steps} steps from the encoder"] = vaejax.Refined(model, steps)
    models[f"{steps} steps from N(0, I)"] = vaejax.Refined(model, steps, start="standard")

log_p_x, log_posteriors = exact_posteriors(params, images)
kls, times = {}, {}
for name, entry in models.items():
    posteriors = jax.jit(jax.vmap(entry.posterior, (None, 0)))
    kls[name] = np.asarray(kl_on_grid(posteriors(params, images), log_posteriors), np.float64)
    seconds = timeit.repeat(
        lambda run=posteriors: run(params, images).loc.block_until_ready(), number=1, repeat=5
    )
    times[name] = min(seconds) / len(images)

print(f"{'q(z|x) of':<28}log p(x) - ELBO, nats   ms per image")
for name, kl in kls.items():
    print(f"{name:<28}{vaejax.estimate(kl)!s:>14}{1e3 * times[name]:18.3f}")

# %% [markdown]
# The rows are means over 40 test images with their standard error, and the last two agree: both are
# the best diagonal normal. So the rest, that 300 steps from anywhere leave, is the family's, and
# what lies between it and the first row is the encoder's.

# %%
best = np.minimum(kls["300 steps from the encoder"], kls["300 steps from N(0, I)"])
amortisation = kls["the encoder alone"] - best
print(f"approximation gap   {vaejax.estimate(best)} nats")
print(f"amortisation gap    {vaejax.estimate(amortisation)} nats")
assert best.min() > 0 and amortisation.min() > -1e-3

# The library's own function, from samples instead of the grid.
gap = vaejax.inference_gap(
    models["300 steps from the encoder"], params, images, log_p_x, test_key, num_samples=2_000
)
by_grid = kls["the encoder alone"].mean()
print(f"inference_gap       {vaejax.estimate(gap.total)} in all, by the grid {by_grid:.2f}")
assert abs(gap.total.mean() - by_grid) < 0.02  # the noise of 40 x 2,000 weights is far smaller

# %%
figure, [[axes]] = figure_of(size=(6.4, 3.6))
curves = (("from the encoder", BLUE), ("from N(0, I)", ORANGE))
for label, colour in curves:
    means = [kls[f"{steps} steps {label}"].mean() for steps in (3, 30, 300)]
    axes.plot((3, 30, 300), means, "o-", ms=5, color=colour, label=f"steps {label}")
axes.axhline(kls["the encoder alone"].mean(), color=INK, lw=1, ls=":", label="the encoder alone")
finish(axes, xscale="log", yscale="log", xlabel="steps of gradient ascent for one image")
axes.set_ylabel("log p(x) − ELBO, nats")
ticks_at(axes, (3, 30, 300))
legend(axes, "upper right")
figure

# %% [markdown]
# Amortised inference takes a small part of the time of 300 steps, and loses a fraction of a nat. It
# is what makes training possible: a step of training moves $\theta$ a little, and with it the
# posterior of *every* image.
#
# ## Exercises
#
# 1. Which images have the largest amortisation gap? Draw them, and their posteriors on the grid.
#
# 2. Give the encoder `hidden=(8,)`, then `(256,)`. Which of the two gaps moves?
#
#     ??? example "Solution"
#         The amortisation gap, for the approximation gap depends on the decoder and the family
#         alone. But $\theta$ is trained together with $\phi$, so it moves a little as well: train
#         $\phi$ alone, on one decoder, to see the first effect by itself.
#
# 3. Semi-amortised training lets the gradient of $\phi$ go through the steps:
#    `vaejax.Refined(model, 3, through_steps=True)`. Train with it. Is the encoder better after
#    training, or only the $q$ after three steps?
#
# **At full scale:**
# [amortisation.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/amortisation.py)
# (bound against time) and
# [inference_gap.py](https://github.com/vaejax/vaejax/blob/main/experiments/inference/inference_gap.py)
# (three families).
#
# **In the API:** [`DiagNormal`, `DirectedGraph`](../api/models.md), [`Free`](../api/networks.md),
# [`Refined`, `inference_gap`](../api/inference.md). **Choose** a [family of
# posteriors](../choose/posterior.md).
#
# Next: [2.2 The evidence lower bound](2_2_elbo.md).
