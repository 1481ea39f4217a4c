"""A log-density, a log-weight, a bound is one number: every kind of part that a user writes, with a
shape in its place, at every entry point; by shapes, so that nothing is computed.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.entry_points import ADAM, KEY, OF_ONE, OVER_DATA, SHORT
from tests.lib.kinds import DIM, IMAGES, PRIOR, SHAPE, graph, normal, params_of, pixels
from vaejax import Node


@vaejax.pytree
class Wide(vaejax.Distribution):
    """A normal that forgets its sum."""

    loc: jax.Array
    reparameterised = True

    def sample(self, key):
        return self.loc + jax.random.normal(key, self.loc.shape)

    def log_prob(self, value):
        return -0.5 * (value - self.loc) ** 2


@vaejax.pytree
class Narrow(Wide):
    """One that sums, over whatever is broadcast."""

    def log_prob(self, value):
        return jnp.sum(super().log_prob(value))


@vaejax.pytree
class WideBits(vaejax.Distribution):
    logits: jax.Array
    reparameterised = False

    def sample(self, key):
        return (jax.random.uniform(key, self.logits.shape) < jax.nn.sigmoid(self.logits)) * 1.0

    def mean(self):
        return jax.nn.sigmoid(self.logits)

    def log_prob(self, value):
        return value * self.logits - jax.nn.softplus(self.logits)


@vaejax.component
class OwnPrior(vaejax.Prior):
    kind: Any
    dim: int
    support = vaejax.supports.REAL

    def init(self, key, x):
        return ()

    def __call__(self, params, q):
        return self.kind(jnp.zeros(self.dim))


@vaejax.component
class OwnConditional(vaejax.Conditional):
    net: Any
    kind: Any
    support: Any

    def init(self, key, given):
        return self.net.init(key, given)

    def __call__(self, params, given):
        return self.kind(self.net.apply(params, given))


@vaejax.component
class OwnModel(vaejax.Model):
    """As a VAE, but for what a subclass says."""

    vae: vaejax.VAE
    support = vaejax.supports.BINARY
    latent_support = vaejax.supports.REAL

    def init(self, key, x):
        return self.vae.init(key, x)

    def p_z(self, params, x=None):
        return self.vae.p_z(params, x)

    def p_x_given_z(self, params, z, x=None):
        return self.vae.p_x_given_z(params, z, x)

    def posterior(self, params, x):
        return self.vae.posterior(params, x)


@vaejax.component
class NoEvent(OwnModel):
    """A forgotten `.to_event` in NumPyro."""

    def p_z(self, params, x=None):
        return npd.Normal(jnp.zeros(DIM), 1.0)


@vaejax.component
class WideLikelihood(OwnModel):
    def log_likelihood(self, params, x, z):
        logits = self.vae.p_x_given_z(params, z).mean()
        return npd.Bernoulli(logits).log_prob(x)


@vaejax.component
class WideJoint(OwnModel):
    def log_joint(self, params, x, z):
        return self.vae.log_joint(params, x, z) + 0 * z


BITS = OwnConditional(vaejax.MLP(SHAPE, (3,)), WideBits, vaejax.supports.BINARY)
LATENTS = OwnConditional(vaejax.MLP(DIM, (3,)), Wide, vaejax.supports.REAL)
GOOD = vaejax.VAE(PRIOR, pixels(), normal())
PARTS = {
    "prior": vaejax.VAE(OwnPrior(Wide, DIM), pixels(), normal()),
    "prior of one number": vaejax.VAE(OwnPrior(Narrow, 1), pixels(), normal()),
    "likelihood": vaejax.VAE(PRIOR, BITS, normal()),
    "encoder": vaejax.VAE(PRIOR, pixels(), LATENTS),
    "latent node": vaejax.GraphModel(
        graph(Node("z", OwnPrior(Wide, DIM)), Node("x", pixels(), "z")), normal()
    ),
    "observed node": vaejax.GraphModel(graph(Node("z", PRIOR), Node("x", BITS, "z")), normal()),
    "NumPyro": NoEvent(GOOD),
    "log_likelihood": WideLikelihood(GOOD),
    "log_joint": WideJoint(GOOD),
}
# What draws, or takes means, and asks for no density.
DRAWS = {
    "simulate", "reconstruct", "heads", "posterior_means", "calibration", "predictive_check",
    "reconstructions", "samples",
}  # fmt: skip
BY_PRIOR = {"log_joint", "log_likelihood", "AIS", "bdmc", "map_dataset of AIS"}
NOT_ASKED = {  # what asks for no density of this part, or for another one in its place
    "prior": {"log_likelihood"},
    "prior of one number": {"log_likelihood"},
    "latent node": {"log_likelihood"},
    "likelihood": {"latent_space"},
    "observed node": {"latent_space"},
    "encoder": BY_PRIOR,
    "NumPyro": {"log_likelihood"},
    "log_likelihood": {"latent_space", "kl_decomposition", "decoder_evaluations"},
    "log_joint": {
        "log_likelihood",
        "latent_space",
        "kl_decomposition",
        "decoder_evaluations",
        "Beta",
        "FreeBits",
        "TCVAE",
    },
}
SENTENCE = (
    r"has shape \(.*\); it must be one number|but one event has shape|has batch_shape \(\d+,\)"
)
OTHER = {  # what refuses such a part for another reason, which comes first
    "TCVAE": "must be diagonal normals",
    "kl_decomposition": "must be diagonal normals",
    "FreeBits": "must be diagonal normals",
    "Refined": "refine an encoder",
    "inference_gap": "refine an encoder",
    "AIS": "which its parameters do not fit",
    "bdmc": "which its parameters do not fit",
    "map_dataset of AIS": "which its parameters do not fit",
}
ALL = {**OF_ONE, **OVER_DATA}
QUICK = ("fit", "evaluate", "Beta", "log_marginal", "gradient_moments", "map_dataset of a lambda")


def refused(function, *arguments):
    """The one line with which a function refuses its arguments, or None."""
    try:
        function(*arguments)
    except (ValueError, TypeError) as error:
        line = str(error).split("\n---")[0]  # JAX adds a word on its tracebacks
        assert "\n" not in line
        return line
    return None


def check(name, asked):
    model = PARTS[name]
    params = params_of(model)
    for entry in asked:
        data = IMAGES if entry in OVER_DATA else jnp.asarray(IMAGES[0])
        line = refused(ALL[entry], model, params, data)
        assert line, f"{entry} takes it"
        assert re.search(f"{SENTENCE}|{OTHER.get(entry, SENTENCE)}", line), f"{entry}: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_every_entry_point_refuses_a_part_whose_density_has_a_shape(name):
    check(name, ALL.keys() - DRAWS - NOT_ASKED[name])


@pytest.mark.parametrize("name", ["likelihood", "prior of one number"])
def test_some_do(name):
    check(name, QUICK)


def test_a_graph_as_encoder_refuses_its_node_when_it_is_made():
    model = vaejax.GraphModel(
        graph(Node("z", PRIOR), Node("x", pixels(), "z")),
        graph(Node("z", LATENTS, "x"), inputs=("x",)),
    )
    assert re.search(SENTENCE, refused(params_of, model))


# What is made of them: a bound, an estimator, an objective.


def mean_of_each(log_w):
    return log_w[:, None]


@vaejax.component
class WideEstimator(vaejax.Estimator):
    def __call__(self, model, params, x, key):
        return model.posterior(params, x).loc


@vaejax.component
class WideObjective(vaejax.Objective):
    """One number for each example of the batch, or a bound that is none of one example."""

    model: vaejax.Model
    wide_bound: bool
    schedules = ()
    scale = 1

    def __call__(self, params, xs, key, step):
        bounds = jax.vmap(lambda x: vaejax.elbo(self.model, params, x, key))(xs)
        bound = jnp.mean(bounds) if self.wide_bound else bounds
        return vaejax.Terms(bound, bound)

    def bound(self, params, x, key):
        return self.model.posterior(params, x).loc


@vaejax.component
class WideBaseline(vaejax.Baseline):
    learned = False
    fewest_samples = 1

    def __call__(self, psi, x, log_w):
        return log_w[:, None]


OF_BATCH = {
    "bound": vaejax.minibatch(vaejax.Pathwise(2, mean_of_each), GOOD),
    "bound of another": vaejax.minibatch(vaejax.StickTheLanding(2, mean_of_each), GOOD),
    "estimator": vaejax.minibatch(WideEstimator(), GOOD),
    "function": vaejax.minibatch(lambda model, params, x, key: x, GOOD),
    "lambda": vaejax.minibatch(lambda params, x, key: x, support=vaejax.supports.BINARY),
    "objective": WideObjective(GOOD, wide_bound=False),
    "baseline": vaejax.minibatch(vaejax.ScoreFunction(2, WideBaseline()), GOOD),
}
THEIRS = r"has shape \(.*\); it must be one number|gave a baseline of shape \(2, 1\)"


@pytest.mark.parametrize("name", OF_BATCH)
def test_what_is_maximised_is_one_number(name):
    """In training, as in a gradient that is measured."""
    objective, params = OF_BATCH[name], params_of(GOOD)
    trainings = {
        "fit": lambda: vaejax.fit(objective, params, ADAM, IMAGES, KEY, **SHORT),
        "gradient_moments": lambda: vaejax.gradient_moments(objective, params, IMAGES, KEY, 2),
    }
    for entry, training in trainings.items():
        assert re.search(THEIRS, refused(training) or ""), entry


def test_a_validation_is_of_one_number_for_each_example():
    objective, params = WideObjective(GOOD, wide_bound=True), params_of(GOOD)
    validation = vaejax.Validation(IMAGES, every=1)
    line = refused(
        lambda: vaejax.fit(objective, params, ADAM, IMAGES, KEY, validation=validation, **SHORT)
    )
    assert re.search(r"WideObjective.bound has shape \(2,\); it must be one number", line)


def test_an_estimator_that_is_called_gives_one_number():
    params = params_of(GOOD)
    for estimator in (WideEstimator(), vaejax.Pathwise(2, mean_of_each)):
        line = refused(estimator, GOOD, params, jnp.asarray(IMAGES[0]), KEY)
        assert re.search(r"the bound of \w+ has shape", line)
