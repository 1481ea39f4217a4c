# %% [markdown]
# # Your own distribution
#
# After this page you can write a density of your own, use it as a likelihood, and check it against
# an exact answer.
#
# The task: three measurements of one event, each the largest of many, so Gumbel and not normal; one
# latent says how large the event was. A distribution is a sampler and a log-density, and says
# whether its samples move smoothly with its parameters. A `Conditional` makes one from what a net
# says.

# %%
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

import vaejax


@vaejax.pytree
class Gumbel(vaejax.Distribution):
    loc: jax.Array
    reparameterised = True

    def sample(self, key):
        return self.loc + jax.random.gumbel(key, self.loc.shape)

    def log_prob(self, value):
        noise = vaejax.distributions.as_event("Gumbel", value, self.loc) - self.loc
        return -jnp.sum(noise + jnp.exp(-noise))


@vaejax.component
class Maxima(vaejax.Conditional):
    net: Any
    support = vaejax.supports.REAL

    def init(self, key, given):
        return self.net.init(key, given)

    def __call__(self, params, given):
        return Gumbel(self.net.apply(params, given))


generator = np.random.default_rng(0)
sizes = generator.normal(size=(2_000, 1))
xs = (sizes * [1.0, 0.5, -1.0] + generator.gumbel(size=(2_000, 3))).astype(np.float32)

model = vaejax.VAE(
    prior=vaejax.StandardNormal(1),
    likelihood=Maxima(vaejax.MLP(3, hidden=())),
    encoder=vaejax.DiagNormal(vaejax.MLP(1, hidden=(32,), heads=2)),
)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
run = vaejax.fit(
    vaejax.minibatch(vaejax.StickTheLanding(), model),
    model.init(init_key, xs[0]),
    optax.chain(optax.clip_by_global_norm(10.0), optax.adam(5e-3)),
    xs[:1_500],
    fit_key,
    num_steps=2_000,
    batch_size=100,
    progress=False,
)
evaluation = vaejax.evaluate(model, run.params, xs[1_500:], test_key, num_samples=500)
print(evaluation)

# %% [markdown]
# ## What each line is for
#
# - `@vaejax.pytree` makes the density a pytree: `jax.vmap` makes batches of it,
#   `jax.lax.stop_gradient` stops its parameters.
# - `reparameterised` has no default. `True`: `Pathwise` may differentiate through `sample`.
#   `False`: only the estimators that do not, such as `ScoreFunction`, will take it as q.
# - `log_prob` is normalised, in nats, and summed over the one event. `as_event` refuses a value of
#   another shape, which broadcasting would turn into one wrong number.
# - `Maxima` is the family $p(x \mid z)$: its net sees z and gives the location. One kind serves as
#   likelihood, encoder, node of a graph and classifier.
#
# The tail of this density is exponential: at the first step the bound is -4e7, and Adam remembers a
# gradient of that size for thousands of steps. So the gradient is clipped. Without that, all else
# equal, the test ELBO was -20.0 ± 3.6.
#
# `mean()`, `states()` and others have defaults that say "not known"; give `mean` where it has a
# closed form, and `reconstruct` uses it instead of an average of draws.
#
# ## Check it against an exact answer
#
# With one latent, $p(x) = \int N(z; 0, 1)\, p(x \mid z)\, dz$ is a sum over a grid. Its mean over
# the test examples is held against the importance-sampled one.

# %%
grid = jnp.linspace(-8, 8, 801)[:, None]


def exact_log_marginal(x):
    log_joint = jax.vmap(lambda z: model.log_joint(run.params, x, z))(grid)
    return jax.nn.logsumexp(log_joint) + jnp.log(grid[1, 0] - grid[0, 0])


exact = np.asarray(jax.lax.map(exact_log_marginal, jnp.asarray(xs[1_500:])))
sampled = evaluation.by_example["iwae_500"]
print(f"log p(x), by quadrature  {exact.mean():.4f} nats per example")
print(f"log p(x), K = 500        {sampled.mean():.4f}")
print(f"the ELBO                 {evaluation.by_example['elbo'].mean():.4f}")
assert abs(exact.mean() - sampled.mean()) < 0.01

# %% [markdown]
# The density itself: it integrates to 1, and equals NumPyro's.

# %%
one = Gumbel(jnp.array([0.5]))
values = jnp.linspace(-6, 30, 7_201)[:, None]
log_p = jax.vmap(one.log_prob)(values)
total = float(jnp.sum(jnp.exp(log_p)) * (values[1, 0] - values[0, 0]))
difference = float(jnp.max(jnp.abs(log_p - dist.Gumbel(0.5, 1.0).log_prob(values[:, 0]))))
print(f"the integral: {total:.6f}; the largest difference from NumPyro's: {difference:.1e} nats")
assert abs(total - 1) < 1e-4
assert difference < 1e-3

# %% [markdown]
# ## The shorter way, where NumPyro has the family
#
# No class at all: the net, and a function from its outputs to a distribution of one event.

# %%
maxima = vaejax.NumPyroConditional(
    vaejax.MLP(3, hidden=()), lambda loc: dist.Gumbel(loc, 1.0).to_event(1)
)
params, z = run.params.theta["likelihood"], jnp.array([0.3])
log_p = maxima(params, z).log_prob(xs[0])
print(f"log p(x|z) by NumPyro: {float(log_p):.4f} nats")
assert jnp.allclose(log_p, model.likelihood(params, z).log_prob(xs[0]), atol=1e-5)

# %% [markdown]
# ## What goes wrong, and what you are told
#
# A batch where one event belongs:

# %%
try:
    one.log_prob(jnp.zeros((5, 1)))
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# Which likelihood for which data: [choose a likelihood](../choose/likelihood.md).
