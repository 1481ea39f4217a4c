# %% [markdown]
# # Your own prior
#
# After this page you can write a prior in ten lines, train a model with it, and check that it is a
# density.
#
# The whole code first; it runs as it stands.

# %%
import textwrap

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import optax

import vaejax


@vaejax.component
class ScaledNormal(vaejax.Prior):
    dim: int
    support = vaejax.supports.REAL

    def init(self, key, x):
        return jnp.zeros(())

    def __call__(self, params, q):
        log_scale = jnp.full(self.dim, params)
        return vaejax.distributions.DiagNormalDensity(jnp.zeros(self.dim), log_scale)


data, pixels = vaejax.prepare_pixels(vaejax.load_dataset("digits"), "dynamic")
model = vaejax.VAE(
    prior=ScaledNormal(2),
    likelihood=vaejax.Bernoulli(vaejax.MLP((8, 8), hidden=(64,))),
    encoder=vaejax.DiagNormal(vaejax.MLP(2, hidden=(64,), heads=2)),
)
init_key, fit_key, test_key = jax.random.split(jax.random.key(0), 3)
run = vaejax.fit(
    vaejax.minibatch(vaejax.AnalyticKL(), model),
    model.init(init_key, pixels(data.train.images[0], init_key)),
    optax.adam(2e-3),
    data.train.images,
    fit_key,
    num_steps=1_000,
    batch_size=100,
    transform=pixels,
    progress=False,
)
test_images = data.test.images[:100]
print(vaejax.evaluate(model, run.params, test_images, test_key, num_samples=100, transform=pixels))
print(f"the learned scale of p(z): {jnp.exp(run.params.theta['prior']):.2f}")

# %% [markdown]
# ## What each line is for
#
# - `@vaejax.component` makes the class a value: equal fields, equal prior, one compiled program.
#   Fields are settings, such as `dim`.
# - `support` is the set that z lives on. An encoder on another set is refused before anything
#   compiles.
# - `init(key, x)` gives the parameters of the prior, $\theta_{\text{prior}}$, for examples like
#   `x`. Here it is one number, $\log s$. A prior without parameters returns `()`.
# - `__call__(params, q)` gives the density $p_\theta(z) = N(z; 0, s^2 I)$. It is any
#   `vaejax.Distribution`, or any NumPyro distribution with an empty batch shape.
#
# Because this density is a normal of the library's own, $\mathrm{KL}(q \,\|\, p)$ is known in
# closed form, and `AnalyticKL` takes it. For a density without a closed form use
# `vaejax.Pathwise()` or `vaejax.StickTheLanding()`, which need only `log_prob`.
#
# ## Check that it is a density
#
# A prior that does not integrate to 1 shifts every bound by a constant, and nothing else shows it.
# In two dimensions a sum over a grid is exact enough:

# %%
p = model.p_z(run.params)
scale = float(jnp.exp(run.params.theta["prior"]))
axis = jnp.linspace(-8 * scale, 8 * scale, 401)
points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
total = float(jnp.sum(jnp.exp(jax.vmap(p.log_prob)(points))) * (axis[1] - axis[0]) ** 2)
print(f"the integral of p(z): {total:.6f}")
assert abs(total - 1) < 1e-4

# %% [markdown]
# and its samples are from it: $E |z|^2 = 2 s^2$, within six standard errors of the mean of 10,000
# draws.

# %%
squares = jnp.sum(jax.vmap(p.sample)(jax.random.split(test_key, 10_000)) ** 2, axis=-1)
error = float(jnp.std(squares)) / 100
print(f"E |z|^2: {float(jnp.mean(squares)):.3f} ± {error:.3f}, and 2 s^2 = {2 * scale**2:.3f}")
assert abs(float(jnp.mean(squares)) - 2 * scale**2) < 6 * error

# %% [markdown]
# ## Two shorter ways
#
# A prior without parameters that NumPyro has is one line:

# %%
heavy = vaejax.NumPyroPrior(lambda: dist.Laplace(0.0, 1.0).expand([2]).to_event(1))
print(heavy(heavy.init(init_key, test_images[0]), None).log_prob(jnp.zeros(2)))
assert jnp.allclose(heavy((), None).log_prob(jnp.zeros(2)), -2 * jnp.log(2.0))


# %% [markdown]
# And a prior may be made of the encoder: `q` is the function $x \mapsto q_\phi(z \mid x)$. This one
# is the encoder's density at one learned image, a `VampPrior` of one component. Its support is
# `None`: z is wherever q puts it.


# %%
@vaejax.component
class OneImage(vaejax.Prior):
    support = None

    def init(self, key, x):
        return jnp.asarray(x, jnp.float32)

    def __call__(self, params, q):
        return q(params)


other = vaejax.VAE(OneImage(), model.likelihood, model.encoder)
params = other.init(init_key, pixels(test_images[0], init_key))
print(f"{float(vaejax.elbo(other, params, pixels(test_images[0], init_key), test_key)):.2f} nats")

# %% [markdown]
# ## What goes wrong, and what you are told
#
# A prior on another set than the encoder's, before anything compiles:

# %%
try:
    vaejax.VAE(vaejax.FactorialBernoulli(2), model.likelihood, model.encoder)
except ValueError as error:
    print(textwrap.fill(str(error), 80))

# %% [markdown]
# Which priors there are and what they buy: [choose a prior](../choose/prior.md). A density that
# neither the library nor NumPyro has: [your own distribution](own_distribution.md).
