"""What the history has of each step, held against what a step is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.hierarchies import TOP_DOWN
from tests.lib.training import KEY, MODEL, NAMES, PARAMS, XS, fit
from vaejax.data.base import batch_rows
from vaejax.training.run import NO_HISTORY, Record, by_step, completed, recorded

BINARY = (XS > 7).astype(np.float32)
STILL = {"data": BINARY, "transform": None, "optimizer": optax.sgd(0.0)}


def batch(step):
    """The examples of a step."""
    order_key = jax.random.split(KEY, 3)[0]
    return jnp.asarray(BINARY[batch_rows(order_key, len(BINARY), 32, step, step + 1)[0]])


def test_the_rate_is_the_kl():
    """In closed form, at parameters that stand still; with the reconstruction it is the bound."""
    history = fit(3, objective=vaejax.minibatch(vaejax.AnalyticKL(), MODEL), **STILL).history

    def kl(x):
        return vaejax.kl_divergence(MODEL.posterior(PARAMS, x), MODEL.p_z(PARAMS))

    expected = [jax.vmap(kl)(batch(step)).mean() for step in range(3)]
    np.testing.assert_allclose(history["rate"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        history["reconstruction"] - history["rate"], history["bound"], rtol=1e-6
    )


class Apart(vaejax.Estimator):
    """The reconstruction alone, of the sample that `Pathwise` takes."""

    def __call__(self, model, params, x, key):
        z = vaejax.bounds.sample_posterior(model.posterior(params, x), key, 1)[0]
        return model.log_likelihood(params, x, z)


@pytest.mark.parametrize(
    "objective",
    [
        vaejax.minibatch(vaejax.Pathwise(), MODEL),
        vaejax.minibatch(vaejax.StickTheLanding(), MODEL),
        vaejax.minibatch(vaejax.StickTheLanding(coefficient=0.5), MODEL),
        vaejax.minibatch(vaejax.Beta(0.3), MODEL),
        vaejax.FreeBits(MODEL, 0.5),
        vaejax.TCVAE(MODEL, len(BINARY), beta=4.0),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_the_reconstruction_is_that_of_the_sample(objective):
    """Whatever is maximised: the sample is the same at the same key."""
    history = fit(2, objective=objective, **STILL).history
    expected = fit(2, objective=vaejax.minibatch(Apart(), MODEL), **STILL).history["bound"]
    np.testing.assert_allclose(history["reconstruction"], expected, rtol=1e-5)


HIERARCHY, OF_HIERARCHY = TOP_DOWN
BY_NODE = [
    vaejax.minibatch(vaejax.KLByNode(2), HIERARCHY),
    vaejax.minibatch(vaejax.KLByNode(), HIERARCHY, dataset_size=20),
    vaejax.FreeBitsByNode(HIERARCHY, 1.0, vaejax.WarmUp(2)),
]


@pytest.mark.parametrize(
    "objective", BY_NODE, ids=["two samples", "sum over the data", "free bits"]
)
def test_each_node_has_its_rate(objective):
    """That of the top node does not depend on the samples, so it is its KL in closed form, at
    parameters that stand still; the rates are parts of the whole one.
    """
    xs = np.random.default_rng(0).integers(0, 2, (20, 5)).astype(np.float32)
    run = vaejax.fit(
        objective, OF_HIERARCHY, optax.sgd(0.0), xs, KEY, num_steps=2, batch_size=20, progress=False
    )

    def top_kl(x):
        q, p = HIERARCHY.posterior(OF_HIERARCHY, x), HIERARCHY.joint(OF_HIERARCHY)
        return vaejax.kl_divergence(q.ready["z2"], p.ready["z2"])

    top, bottom = run.history["rate_z2"], run.history["rate_z1"]
    np.testing.assert_allclose(top, jax.vmap(top_kl)(xs).mean() * objective.scale, rtol=1e-5)
    np.testing.assert_allclose(top + bottom, run.history["rate"], rtol=1e-4)
    assert list(by_step(run.history))[-2:] == ["rate_z1", "rate_z2"]


def test_of_every_latent_the_parts_are_those_of_the_sum():
    """`Enumerate` is exact: the mean of log p(x | z) under q."""
    model = vaejax.VAE(
        vaejax.FactorialBernoulli(3),
        vaejax.Bernoulli(vaejax.MLP((8, 8), (16,))),
        vaejax.Bernoulli(vaejax.MLP(3, (16,))),
    )
    params, x = model.init(KEY, BINARY[0]), jnp.asarray(BINARY[0])
    terms = vaejax.Enumerate().terms(model, params, x, KEY, 0)
    q = model.posterior(params, x)
    zs = q.states()
    weights = jnp.exp(jax.jit(jax.vmap(q.log_prob))(zs))
    log_p_x = jax.jit(jax.vmap(lambda z: model.log_likelihood(params, x, z)))(zs)
    np.testing.assert_allclose(terms.reconstruction, jnp.sum(weights * log_p_x), rtol=1e-5)
    score = vaejax.ScoreFunction(4_000).terms(model, params, x, KEY, 0)
    spread = float(jnp.sqrt(jnp.sum(weights * (log_p_x - terms.reconstruction) ** 2) / 4_000))
    assert abs(score.reconstruction - terms.reconstruction) < 6 * spread


@vaejax.component
class OwnJoint(vaejax.Model):
    """A model with a `log_joint` that is no sum of the two densities: at half the heat."""

    inner: vaejax.VAE
    support, latent_support = MODEL.support, MODEL.latent_support

    def init(self, key, x):
        return self.inner.init(key, x)

    def p_z(self, params, x=None):
        return self.inner.p_z(params, x)

    def p_x_given_z(self, params, z, x=None):
        return self.inner.p_x_given_z(params, z, x)

    def posterior(self, params, x):
        return self.inner.posterior(params, x)

    def log_joint(self, params, x, z):
        return 0.5 * self.inner.log_joint(params, x, z)


@vaejax.component
class OwnPathwise(vaejax.Pathwise):
    """A bound of one's own around one that knows its parts."""

    def __call__(self, model, params, x, key):
        return 2 * vaejax.elbo(model, params, x, key)


def test_where_the_parts_are_not_known_they_are_absent_and_the_bound_is_ones_own():
    own = OwnJoint(MODEL)
    objectives = {
        "iwae": vaejax.minibatch(vaejax.Pathwise(5, vaejax.iwae_bound), MODEL),
        "model": vaejax.minibatch(vaejax.Pathwise(), own),
        "estimator": vaejax.minibatch(OwnPathwise(), MODEL),
    }
    runs = {name: fit(2, objective=part, **STILL) for name, part in objectives.items()}
    assert all(sorted(run.history) == sorted(NO_HISTORY) for run in runs.values())
    plain = fit(2, **STILL).history["bound"]
    np.testing.assert_allclose(runs["estimator"].history["bound"], 2 * plain, rtol=1e-5)
    bound = fit(2, objective=vaejax.minibatch(vaejax.elbo, own), **STILL).history["bound"]
    np.testing.assert_allclose(runs["model"].history["bound"], bound, rtol=1e-6)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_norm_is_that_of_the_gradient_before_clipping(clip):
    sgd = optax.sgd(0.1)
    optimizer = sgd if clip is None else optax.chain(optax.clip_by_global_norm(clip), sgd)
    run = fit(1, data=BINARY, transform=None, optimizer=optimizer)
    moved = jax.tree.map(lambda after, before: (after - before) / 0.1, run.params, PARAMS)
    length = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(moved)))
    norm = run.history["gradient_norm"][0]
    if clip is None:
        np.testing.assert_allclose(norm, length, rtol=1e-4)
    else:
        assert norm > 1 and length < 1.01 * clip


def test_the_learning_rate_is_the_schedules():
    """Where the state has it: of each step, and of the steps after a resumption too."""
    schedule = optax.cosine_decay_schedule(1e-3, 10)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(schedule)
    )
    rates = fit(6, optimizer=optimizer).history["learning_rate"]
    np.testing.assert_allclose(rates, [schedule(step) for step in range(6)], rtol=1e-6)
    assert "learning_rate" not in fit(2).history


def test_seeds_have_the_same_history(tmp_path):
    keys = jax.random.split(KEY, 2)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    settings = {"num_steps": 4, "batch_size": 32, "progress": False}
    objective = vaejax.minibatch(vaejax.Pathwise(), MODEL)
    runs = vaejax.fit_seeds(objective, params, optax.adam(1e-3), BINARY, keys, **settings)
    alone = vaejax.fit(objective, PARAMS, optax.adam(1e-3), BINARY, keys[1], **settings)
    for name in set(NAMES) - {"validation_step", "validation_bound"}:
        np.testing.assert_allclose(runs.history[name][1], alone.history[name], rtol=1e-4)


def test_what_an_earlier_revision_did_not_record_is_nan():
    bound = np.arange(3, dtype=np.float32)
    old = completed({"bound": bound})
    assert np.isnan(old["gradient_norm"]).all() and old["gradient_norm"].shape == (3,)
    ones = np.ones(2, np.float32)
    history = recorded(old, Record(ones, ones, 2 * ones, {"z": ones}, ones, None))
    for name in ("rate", "rate_z"):
        assert np.isnan(history[name]).tolist() == [True] * 3 + [False] * 2
    assert (history["rate"][3:] == 1).all() and len(history["gradient_norm"]) == 5
