# %% [markdown]
# # Sharp bits
#
# What surprises people who train VAEs, here and elsewhere: each with an example that runs, and what to do about it.

# %%
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax

net = partial(vaejax.MLP, hidden=(16,))
model = vaejax.VAE(
    prior=vaejax.StandardNormal(2),
    likelihood=vaejax.Bernoulli(net((8, 8))),
    encoder=vaejax.DiagNormal(net(2, heads=2)),
)
data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "static")
xs = jnp.asarray(data.train.images[:100], jnp.float32)  # [100, 8, 8], 0 and 1
key = jax.random.key(0)
params = model.init(key, xs[0])


def refusal(function, *args, **kwargs):
    """The message with which a call is refused."""
    try:
        function(*args, **kwargs)
    except (TypeError, ValueError) as error:
        return textwrap.fill(f"{type(error).__name__}: {error}", 80)
    raise AssertionError("nothing was refused")


# %% [markdown]
# ## One example, not a batch
#
# Every density, bound and estimator is a function of **one** example. A batch where an example belongs would broadcast,
# and a sum over the pixels would become a sum over the batch too; so it is refused.

# %%
print(refusal(vaejax.elbo, model, params, xs, key))

# %% [markdown]
# `jax.vmap` makes the batch: over examples and keys, with the parameters shared.

# %%
keys = jax.random.split(key, len(xs))
bounds = jax.vmap(partial(vaejax.elbo, model, params))(xs, keys)
print(bounds.shape, f"mean {bounds.mean():.2f} nats per example")
assert bounds.shape == (100,)

# %% [markdown]
# ## A key is used once
#
# A key is a number, not a stream: used twice, it gives the same noise twice. Here are "four samples" of one ELBO, whose
# mean is no better than one of them.

# %%
again = [float(vaejax.elbo(model, params, xs[0], key)) for _ in range(4)]
fresh = [float(vaejax.elbo(model, params, xs[0], key)) for key in jax.random.split(key, 4)]
print("one key four times:", np.round(again, 3))
print("four keys:         ", np.round(fresh, 3))
assert len(set(again)) == 1 and len(set(fresh)) == 4

# %% [markdown]
# Split a key by meaning (`init_key, train_key = jax.random.split(key)`), and never use it again after it was split.
# `fit` draws the noise and the order of the data of each step from `(key, step)` alone, so that a run that is resumed goes on
# to the same bits.

# %% [markdown]
# ## Bounds are sums, in nats
#
# $\log p(x \mid z)$ is summed over the pixels, with its normaliser, in nats. Code that *averages* the reconstruction
# over the pixels and then adds a KL has another objective: the average weighs the KL by the number of pixels, here
# $\beta = 64$, and that collapses the latent space.

# %%
q = model.posterior(params, xs[0])
z = q.sample(key)
total = model.log_likelihood(params, xs[0], z)
print(f"log p(x|z) = {total:.2f} nats, or {total / 64:.3f} per pixel")
bits = -total / (64 * np.log(2))
print(f"the same in bits per dimension: {bits:.3f}")
assert abs(bits * 64 * np.log(2) + total) < 1e-3

# %% [markdown]
# ## Grey images are no coin tosses
#
# A Bernoulli has a probability for 0 and for 1 and none for 0.4. Its cross-entropy takes grey values without
# complaint, but is then no log-likelihood, and no bound. Data that are not on the likelihood's set are refused before anything compiles:

# %%
objective = vaejax.minibatch(vaejax.Pathwise(), model)
grey = np.asarray(vaejax.load_dataset("digits").train.images / 16, np.float32)
settings = {"num_steps": 20, "batch_size": 50, "progress": False}
print(refusal(vaejax.fit, objective, params, optax.adam(1e-3), grey, key, **settings))

# %% [markdown]
# Either binarise, afresh at every step or once (`prepare_pixels(data, "dynamic")` or `"static"`; the two give numbers that are
# not comparable), or take a likelihood of grey values: `ContinuousBernoulli`, `DiscretizedLogistic`.

# %% [markdown]
# ## An estimate of log p(x) from few samples errs low
#
# $\log \frac1K \sum_k w_k$ is a lower bound *in expectation* at every $K$, and its error is not noise: it does not average out over the
# test set. Take $z \sim N(0, I)$ and $x \mid z \sim N(z, I)$ in eight dimensions, so that $\log p(x) = \log N(x; 0, 2I)$ is known, and a q with the
# posterior's mean $x/2$ and a scale of 1 in place of $\sqrt{1/2}$.

# %%
normal = vaejax.distributions.DiagNormalDensity
prior = vaejax.distributions.standard_normal(jnp.zeros(8))
points = jnp.sqrt(2) * jax.random.normal(jax.random.key(1), (300, 8))  # [n, 8], from p(x)


def log_weight(x, key):
    """log p(x, z) - log q(z | x), z ~ q."""
    z, log_q = normal(x / 2, jnp.zeros(8)).sample_and_log_prob(key)
    return prior.log_prob(z) + normal(z, jnp.zeros(8)).log_prob(x) - log_q


def estimate(x, key, num_samples):
    keys = jax.random.split(key, num_samples)
    return vaejax.iwae_bound(jax.vmap(partial(log_weight, x))(keys))


exact = jax.vmap(normal(jnp.zeros(8), jnp.full(8, np.log(2) / 2)).log_prob)(points)
print("K       log p(x) less log (1/K) sum w, nats, mean over 300 x")
gaps = {}
for count in (1, 10, 100, 1_000):
    estimates = jax.vmap(partial(estimate, num_samples=count))(points, jax.random.split(key, 300))
    gaps[count] = float(jnp.mean(exact - estimates))
    print(f"{count:<7} {gaps[count]:.3f}")
assert gaps[1] > gaps[10] > gaps[100] > gaps[1_000] > -0.05

# %% [markdown]
# Report K with every such number, and look at whether it still moves: `evaluate` gives a ladder of K. `AIS` closes the gap where
# importance sampling does not, and `AIS.bdmc` bounds it from the other side on simulated data.

# %% [markdown]
# ## Weights with a heavy tail: k-hat
#
# Where q is narrower than the posterior, the weights have a heavy tail: the estimate rests on a handful of them, and its
# standard error means little. Pareto's $\hat k$ says so: above 0.7 the estimate is not to be trusted, and `evaluate` reports the share of
# such examples as `unreliable`. Here the posterior is $N(0, I)$ in four dimensions, and $q = N(0, s^2 I)$.

# %%
target = vaejax.distributions.standard_normal(jnp.zeros(4))
for scale in (1.2, 0.8, 0.3):
    q = normal(jnp.zeros(4), jnp.full(4, np.log(scale)))
    zs, log_q = jax.vmap(q.sample_and_log_prob)(jax.random.split(key, 4_000))
    log_w = jax.vmap(target.log_prob)(zs) - log_q
    estimate, k_hat = vaejax.iwae_bound(log_w), vaejax.pareto_k(log_w)
    print(f"s = {scale}: log mean w {estimate:+.3f}, exactly 0; k-hat {k_hat:+.2f}")
    assert (k_hat > 0.7) == (scale < 0.5)

# %% [markdown]
# ## A relaxed latent is another model
#
# A `RelaxedBernoulli` encoder with a relaxed prior has a bound of its own, on a model whose latents are continuous. It is not a bound on the
# discrete model's $\log p(x)$, and may lie above it. Train with it if you like, and evaluate the discrete model:
# `Relaxed` and `StraightThrough` do that, since their *value* is the discrete bound and only their gradient is relaxed.

# %%
binary = vaejax.VAE(
    prior=vaejax.FactorialBernoulli(4),
    likelihood=vaejax.Bernoulli(net((8, 8))),
    encoder=vaejax.Bernoulli(net(4)),
)
discrete = binary.init(key, xs[0])
enumerated = vaejax.Enumerate()(binary, discrete, xs[0], key)  # E log w, over all 16 states
estimates = jax.vmap(lambda key: vaejax.StraightThrough()(binary, discrete, xs[0], key))
values = np.asarray(estimates(jax.random.split(key, 4_000)))
error = values.std() / np.sqrt(len(values))
print(
    f"exact ELBO {enumerated:.3f}, mean value of StraightThrough {values.mean():.3f} ± {error:.3f}"
)
assert abs(values.mean() - enumerated) < 5.5 * error

# %% [markdown]
# ## float32 ends
#
# A probability of $1 - 10^{-9}$ is 1 in float32, and the logarithm of what is left is $-\infty$. So densities here are functions of
# logits and log-scales, and exact where a formula of probabilities is not; [how exact each one is](numerics.md) is measured.

# %%
logit = jnp.float32(20.0)
probability = jax.nn.sigmoid(logit)
print("log(1 - sigmoid(20)):", jnp.log(1 - probability))
print(
    "BernoulliDensity:    ", vaejax.distributions.BernoulliDensity(logit).log_prob(jnp.float32(0))
)
assert jnp.log(1 - probability) == -jnp.inf

# %% [markdown]
# ## float64 must be asked for
#
# JAX makes float64 arrays float32, unless it is told not to, before the arrays are made. `vaejax` never sets that for you; it follows
# what you set.


# %%
def log_prob_at(x):
    return vaejax.distributions.standard_normal(jnp.zeros(x.shape, x.dtype)).log_prob(x)


print("usually:        ", log_prob_at(jnp.asarray(np.ones(2))).dtype)
with jax.enable_x64(True):
    print("in enable_x64():", log_prob_at(jnp.asarray(np.ones(2))).dtype)

# %% [markdown]
# ## Parameters are yours
#
# `fit` gives the buffers of its own copy back to XLA, and never yours: the parameters that it started from can be used again,
# to compare or to start anew.

# %%
run = vaejax.fit(objective, params, optax.adam(1e-2), xs, key, **settings)
before = vaejax.elbo(model, params, xs[0], key)  # still there
print(f"before {before:.2f}, after {vaejax.elbo(model, run.params, xs[0], key):.2f} nats")

# %% [markdown]
# ## Fields are hashable; equal values share a program
#
# A component is a value. Equal fields, equal value, one compiled program: make as many as you like. A list has no hash, and is refused.

# %%
print(refusal(vaejax.MixtureOfGaussians, 2, [3]))
traces = 0


@partial(jax.jit, static_argnums=0)
def traced(estimator, params, x, key):
    global traces
    traces += 1
    return estimator(model, params, x, key)


for _ in range(3):
    traced(vaejax.Pathwise(num_samples=4), params, xs[0], key)
assert traces == 1

# %% [markdown]
# ## A lambda is another function each time
#
# A `transform=lambda x, key: ...` in a cell that is run again is a new function: JAX compiles it again, and keeps both programs
# (about 15 MiB each). It is also not known again when a run is resumed. Name the function once, in a module, or write a component:


# %%
@vaejax.component
class Flipped(vaejax.Transform):
    def __call__(self, stored, key):
        return stored[:, ::-1]

    def check(self, stored, support, name):
        """Flipping leaves every value what it was, so there is nothing to refuse."""


assert Flipped() == Flipped() and (lambda x, key: x) != (lambda x, key: x)

# %% [markdown]
# ## A warm-up changes what is maximised, not what is reported
#
# With `Beta(WarmUp(...))` the objective starts without the KL. The history's `bound` is the ELBO at $\beta = 1$ all the same, so curves with
# and without a warm-up can be compared; `objective` is what was maximised.

# %%
warmed = vaejax.minibatch(vaejax.Beta(vaejax.WarmUp(10)), model)
history = vaejax.fit(warmed, params, optax.adam(1e-3), xs, key, **settings).history
plain = vaejax.fit(objective, params, optax.adam(1e-3), xs, key, **settings).history
print(f"first step: bound {history['bound'][0]:.3f}, objective {history['objective'][0]:.3f}")
print(f"without a warm-up: bound {plain['bound'][0]:.3f}")
assert history["bound"][0] == plain["bound"][0] < history["objective"][0]

# %% [markdown]
# ## BatchNorm is not a function of one example
#
# With batch normalisation $q(z \mid x)$ depends on the other examples of its minibatch: the "ELBO of x" is then no function of x, and
# neither a bound nor a gradient estimator means what it says. Take `norm="layer"` or `norm="group"`; [nets of your own](howto/own_net.md) says more.

# %% [markdown]
# ## Seeds and devices
#
# One run of one seed says little: report several (`fit_seeds` trains them at once, each to the bits that `fit` gives it alone). The number of
# devices changes a result by rounding only, and the machine, its versions and the number of its threads too; after thousands of
# steps rounding is enough to make another run of it, so compare distributions over seeds, not digits.

# %%
keys = jax.random.split(key, 3)
starts = jax.vmap(model.init, (0, None))(keys, xs[0])
runs = vaejax.fit_seeds(objective, starts, optax.adam(1e-3), xs, keys, **settings)
print("bound at step 20, of three seeds:", np.round(runs.history["bound"][:, -1], 2), "nats")
assert runs.history["bound"].shape == (3, 20)
