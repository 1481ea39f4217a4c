# %% [markdown]
# # Your own net
#
# After this page you can put a module of Flax Linen, Flax NNX, Equinox or Haiku into any model of
# the library, with dropout if you like, and you know why BatchNorm is refused.
#
# A **net** is a function of one example with parameters: a value with two methods,
#
# $$\text{params} = \texttt{net.init}(\text{key}, x), \qquad
# \text{outputs} = \texttt{net.apply}(\text{params}, x).$$
#
# It has no batch axis; `jax.vmap` makes one. It returns one array, or a tuple of as many as what
# uses it has names for: an encoder `DiagNormal` needs `(loc, log_scale)`, a likelihood `Bernoulli`
# one array of logits.
#
# The four blocks below make the same encoder, $x \mapsto (\mu, \log\sigma)$: an image of 8 x 8
# pixels, a layer of 100 with tanh, two outputs of size 5. Each stands alone: leave out the imports
# of libraries that you do not have.

# %%
import textwrap

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import vaejax
from vaejax import plots

data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
key = jax.random.key(0)
x = pixels(data.train.images[0], key)  # one example, [8, 8]


def model_of(encoder_net):
    return vaejax.VAE(
        prior=vaejax.StandardNormal(5),
        likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(100,))),
        encoder=vaejax.DiagNormal(encoder_net),
    )


# %% [markdown]
# ## Flax Linen
#
# A Linen module is a net as it stands.


# %%
class LinenEncoder(nn.Module):
    dim: int

    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(100)(x.ravel()))
        return nn.Dense(self.dim)(h), nn.Dense(self.dim)(h)


linen = model_of(LinenEncoder(5))

# %% [markdown]
# ## Flax NNX
#
# `vaejax.from_nnx` takes the class and its arguments, all but `rngs`, or a function of `rngs`.
# Every `nnx.Param` is learned.


# %%
class NNXEncoder(nnx.Module):
    def __init__(self, dim, *, rngs):
        self.hidden = nnx.Linear(64, 100, rngs=rngs)
        self.loc, self.log_scale = (nnx.Linear(100, dim, rngs=rngs) for _ in range(2))

    def __call__(self, x):
        h = nnx.tanh(self.hidden(x.ravel()))
        return self.loc(h), self.log_scale(h)


in_nnx = model_of(vaejax.from_nnx(NNXEncoder, 5))

# %% [markdown]
# ## Equinox
#
# `vaejax.from_equinox` takes the class and its arguments, all but `key`, or a function of `key`.
# Every array of floats is learned. (`pip install 'vaejax[equinox]'`.)


# %%
class EquinoxEncoder(eqx.Module):
    hidden: eqx.nn.Linear
    loc: eqx.nn.Linear
    log_scale: eqx.nn.Linear

    def __init__(self, dim, *, key):
        keys = jax.random.split(key, 3)
        self.hidden = eqx.nn.Linear(64, 100, key=keys[0])
        self.loc, self.log_scale = (eqx.nn.Linear(100, dim, key=key) for key in keys[1:])

    def __call__(self, x):
        h = jnp.tanh(self.hidden(x.ravel()))
        return self.loc(h), self.log_scale(h)


equinox = model_of(vaejax.from_equinox(EquinoxEncoder, 5))

# %% [markdown]
# ## Haiku
#
# `vaejax.from_haiku` takes the function that `hk.transform` takes, or the class of a module and its
# arguments. (`pip install 'vaejax[haiku]'`.)


# %%
def haiku_encoder(x):
    h = jnp.tanh(hk.Linear(100)(x.ravel()))
    return hk.Linear(5)(h), hk.Linear(5)(h)


in_haiku = model_of(vaejax.from_haiku(haiku_encoder))

# %% [markdown]
# ## The same numbers as the module itself
#
# With the same key, `init` makes the parameters that the library makes, and `apply` gives what the
# module gives.


# %%
def by_haiku(key, x):
    function = hk.without_apply_rng(hk.transform(haiku_encoder))
    return function.apply(function.init(key, x), x)


by_the_library = {
    "Linen": (linen, LinenEncoder(5).init_with_output(key, x)[0]),
    "NNX": (in_nnx, NNXEncoder(5, rngs=nnx.Rngs(key))(x)),
    "Equinox": (equinox, EquinoxEncoder(5, key=key)(x)),
    "Haiku": (in_haiku, by_haiku(key, x)),
}
for name, (model, expected) in by_the_library.items():
    net = model.encoder.net
    heads = net.apply(net.init(key, x), x)
    difference = max(float(jnp.abs(a - b).max()) for a, b in zip(heads, expected, strict=True))
    assert difference < 1e-6
    print(f"{name:8} largest difference {difference:.1e}")

# %% [markdown]
# A net is a *value*: made twice from the same class and arguments it is equal, so that JAX traces
# it once, and a checkpoint can say whether it is resumed as the same model. So name a function
# once; each new `lambda` is another value.

# %%
assert vaejax.from_nnx(NNXEncoder, 5) == vaejax.from_nnx(NNXEncoder, 5)
assert vaejax.from_nnx(NNXEncoder, 5) != vaejax.from_nnx(NNXEncoder, 6)

# %% [markdown]
# Every estimator, objective and evaluation takes them. Here each of the four is trained for 300
# steps.


# %%
def trained(model):
    return vaejax.fit(
        vaejax.minibatch(vaejax.StickTheLanding(), model),
        model.init(key, x),
        optax.adam(3e-3),
        data.train.images,
        key,
        num_steps=300,
        batch_size=50,
        transform=pixels,
        progress=False,
    )


for name, (model, _) in by_the_library.items():
    bound = trained(model).history["bound"][-50:].mean()
    assert -36 < bound < -24
    print(f"{name:8} mean training ELBO of the last 50 steps {bound:.2f} nats")

# %% [markdown]
# They differ by how each library draws its first weights, and by the noise of so short a training.
#
# ## Dropout
#
# A net with dropout is a random net. Let $m$ be its masks. Training maximises
#
# $$\mathbb{E}_m\, \mathcal{L}(\theta, \phi, m; x),$$
#
# where at one $m$ all is an ordinary model, so that $\mathcal{L}(\theta, \phi, m; x) \le \log
# p_m(x)$ for each bound of the library, and every estimator is for it what it is for any other
# model. One $m$ is drawn for each example and each step, with a key of its own, so the value and
# the gradient of a minibatch are unbiased estimates. Everything else (`vaejax.evaluate`,
# validations, samples) takes the net without dropout: there it is a function of its parameters
# alone, and gives the same number each time.
#
# You write nothing for that but the dropout itself: `nnx.Dropout` with `rngs`; `eqx.nn.Dropout` in
# a module whose call takes `key`; a Haiku function that takes `is_training`; a Linen module that
# takes `deterministic`, in `vaejax.from_linen`.


# %%
class DroppedOut(NNXEncoder):
    def __init__(self, dim, rate, *, rngs):
        super().__init__(dim, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return super().__call__(self.dropout(x.ravel()))


class DroppedOutInLinen(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, deterministic):
        h = nn.Dropout(self.rate)(x.ravel(), deterministic=deterministic)
        return LinenEncoder(5)(h)


class DroppedOutInEquinox(EquinoxEncoder):
    dropout: eqx.nn.Dropout

    def __init__(self, dim, rate, *, key):
        super().__init__(dim, key=key)
        self.dropout = eqx.nn.Dropout(rate)

    def __call__(self, x, *, key=None):
        return super().__call__(self.dropout(x.ravel(), key=key))


def dropped_out_in_haiku(x, is_training):
    h = hk.dropout(hk.next_rng_key(), 0.3, x.ravel()) if is_training else x
    return haiku_encoder(h)


dropped_out = {
    "Linen": model_of(vaejax.from_linen(DroppedOutInLinen(0.3))),
    "NNX": model_of(vaejax.from_nnx(DroppedOut, 5, 0.3)),
    "Equinox": model_of(vaejax.from_equinox(DroppedOutInEquinox, 5, 0.3)),
    "Haiku": model_of(vaejax.from_haiku(dropped_out_in_haiku)),
}
for model in dropped_out.values():
    params = model.init(key, x)
    drawn, _ = vaejax.draw_nets(params, key)  # what training does, once for each example
    without, with_a_mask = (model.posterior(p, x).mean() for p in (params, drawn))
    assert (without != with_a_mask).all()
    assert (without == model.posterior(params, x).mean()).all()

model = dropped_out["NNX"]
params = trained(model).params
score = vaejax.evaluate(
    model, params, data.test.images[:100], key, num_samples=10, transform=pixels
)
print(f"trained with dropout, evaluated without: ELBO of 100 test images {score.elbo} nats")

# %% [markdown]
# What training sees of one image is a distribution over masks. Here it is for the ELBO of the net
# that was just trained, with the same 100 samples for each of 500 masks. The mean is what training
# maximises; the dashed line is the net without dropout, which is what is evaluated.

# %%
estimator = vaejax.AnalyticKL(num_samples=100)


def at_one_mask(mask_key):
    drawn, _ = vaejax.draw_nets(params, mask_key)
    return estimator(model, drawn, x, key)


bounds = jax.jit(jax.vmap(at_one_mask))(jax.random.split(key, 500))
without = estimator(model, params, x, key)

figure, [[axes]] = plots.figure_of(size=(6.5, 3.2))
axes.hist(np.asarray(bounds), bins=40, color=plots.BLUE, alpha=0.6, label="one mask each")
axes.axvline(bounds.mean(), color=plots.BLUE, label="their mean, which is maximised")
axes.axvline(without, color=plots.INK, linestyle="--", label="without dropout")
plots.finish(axes, xlabel="ELBO of one image, nats", ylabel="masks, of 500")
plots.legend(axes, "upper left")
figure

# %% [markdown]
# ### The exact check
#
# With two inputs and a rate of 1/4 there are four masks, of probabilities 9/16, 3/16, 3/16 and
# 1/16, so the expectation is a sum. An encoder that is dropout and nothing else, and a bound that
# is not random at one mask:


# %%
class Dropped(nnx.Module):
    def __init__(self, *, rngs):
        self.dropout, self.weight = nnx.Dropout(0.25, rngs=rngs), nnx.Param(jnp.ones(2))

    def __call__(self, x):
        return self.weight * self.dropout(x)


encoder = vaejax.Gaussian(vaejax.from_nnx(Dropped), 0.5)  # q(z | x) = N(x * mask / 0.75, 0.25 I)
pair = jnp.asarray([0.7, -1.1])


def minus_kl(params, x, key):  # -KL(q || N(0, I)), nats
    return -vaejax.kl_divergence(encoder(params, x), vaejax.StandardNormal(2)((), None))


def minus_kl_at(mask):  # the formula: (1/2) sum [sigma^2 + mu^2 - 1 - log sigma^2]
    loc = pair * mask / 0.75
    return -0.5 * jnp.sum(0.25 + loc**2 - 1 - jnp.log(0.25))


masks = jnp.asarray([[1, 1], [1, 0], [0, 1], [0, 0]])
exact = jnp.asarray([9, 3, 3, 1]) / 16 @ jax.vmap(minus_kl_at)(masks)

objective = vaejax.minibatch(minus_kl, support=vaejax.supports.REAL)
batch = jnp.tile(pair, (100_000, 1))  # one example, so that the mean over it is over masks
found = objective(encoder.init(key, pair), batch, key, 0).bound
print(f"the sum over masks {exact:.4f} nats, the mean of 100,000 examples {found:.4f} nats")
assert abs(found - exact) < 0.01  # six standard errors

# %% [markdown]
# `TCVAE` and `optimal_scale` hold the examples of a batch against each other, and with dropout each
# example has another net. They refuse it:

# %%
try:
    vaejax.TCVAE(model, 100)(params, jnp.stack([x, x]), key, 0)
except TypeError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## Why BatchNorm is refused
#
# A net is a function of its parameters and *one* example. BatchNorm subtracts the mean of a batch
# and divides by its standard deviation, so that $q(z \mid x_i)$ depends on the other examples of
# the batch. Then $\mathcal{L}(\theta, \phi; x_i)$ is not a function of $x_i$, the sum over a data
# set is not a bound on $\sum_i \log p(x_i)$, an average over minibatches is not an estimate of that
# sum, and what is evaluated with running averages is not what was trained. The picture shows it:
# the ELBO of one image, with the same noise, in 300 batches of 20 whose other images differ. With
# BatchNorm it is whatever the others make of it; with a norm of one example it is one number.

# %%
images = jax.vmap(pixels)(data.train.images[:400], jax.random.split(key, 400))
images = images.reshape(400, 64)
start = linen.init(key, x)
weights, decoder = start.phi["params"], start.theta["likelihood"]


def dense(name, h):
    return h @ weights[name]["kernel"] + weights[name]["bias"]


def elbo_with(normalised):
    """The ELBO of the first image, whose hidden layer is normalised."""
    h = jnp.tanh(normalised)
    q = vaejax.distributions.DiagNormalDensity(dense("Dense_1", h), dense("Dense_2", h))
    log_p_x = linen.likelihood(decoder, q.sample(key)).log_prob(images[0].reshape(8, 8))
    return log_p_x - vaejax.kl_divergence(q, vaejax.distributions.standard_normal(q.loc))


def in_a_batch(batch_key):
    others = jax.random.choice(batch_key, images[1:], (19,), replace=False)
    hidden = dense("Dense_0", jnp.concatenate([images[:1], others]))
    return elbo_with(((hidden - hidden.mean(0)) / hidden.std(0))[0])


by_batch = jax.jit(jax.vmap(in_a_batch))(jax.random.split(key, 300))
hidden = dense("Dense_0", images[0])
by_itself = elbo_with((hidden - hidden.mean()) / hidden.std())
print(
    f"BatchNorm: from {by_batch.min():.1f} to {by_batch.max():.1f} nats; one example by itself: "
    f"{by_itself:.1f} nats"
)
assert by_batch.std() > 0.5

figure, [[axes]] = plots.figure_of(size=(6.5, 3.2))
axes.hist(np.asarray(by_batch), bins=40, color=plots.ORANGE, alpha=0.6, label="BatchNorm")
axes.axvline(by_itself, color=plots.INK, label="a norm of one example")
plots.finish(axes, xlabel="ELBO of one image, nats", ylabel="batches, of 300")
plots.legend(axes, "upper left")
figure


# %% [markdown]
# So a module that keeps such statistics, or any other state beside its parameters, is refused with
# the reason. Instead: `norm="layer"` or `norm="group"` of the library's own nets, or `LayerNorm` of
# each of the four libraries.


# %%
class WithBatchNorm(nnx.Module):
    def __init__(self, *, rngs):
        self.linear = nnx.Linear(64, 10, rngs=rngs)
        self.norm = nnx.BatchNorm(10, rngs=rngs)

    def __call__(self, x):
        h = self.norm(self.linear(x.ravel()))
        return h[:5], h[5:]


try:
    model_of(vaejax.from_nnx(WithBatchNorm)).init(key, x)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# ## Exercises
#
# 1. Give the NNX encoder a `nnx.LayerNorm(100, rngs=rngs)` before the tanh. Which of its parameters
#    are learned?
# 2. Write a likelihood net in Equinox and an encoder in Haiku, and train the two together.
# 3. Put `vaejax.HalfPrecision(...)` around one of the nets. By how many nats does the ELBO of an
#    image move?
# 4. Write a net with noise of its own, a value whose `init` gives `vaejax.Stochastic(params)`: the
#    docstring of `vaejax.Stochastic` is the recipe.
#
# Next: [your own gradient estimator](own_estimator.md), [your own prior](own_prior.md), [your own
# data](own_data.md).
