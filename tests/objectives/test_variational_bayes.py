"""q(theta) against a conjugate model: Bayesian linear regression, whose posterior and evidence are
known.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.fits import PARAMS, XS, beta_objective
from tests.lib.fits import fit as fit_lines
from tests.lib.hierarchies import TOP_DOWN
from tests.lib.lines import KEY, LEARNED, LINES, assert_close, params_of
from tests.lib.oracles import LinearGaussian, assert_mean
from tests.lib.recipes import recipe
from vaejax import TCVAE, FreeBits, FreeBitsByNode, VariationalBayes, WarmUp, kl_divergence
from vaejax.objectives.variational_bayes import q_theta

Halved = recipe("Objective")

NOISE, PRIOR_SCALE = 0.5, 1.5


@vaejax.component
class Linear:
    """w . u, without a constant."""

    def init(self, key, u):
        return jnp.zeros(jnp.shape(u))

    def apply(self, w, u):
        return (w @ u)[None]


REGRESSION = vaejax.Gaussian(Linear(), NOISE)


def log_likelihood(params, x, key):
    """log p(y | u, theta): no latents, so no sampling."""
    return REGRESSION(params.theta, x["u"]).log_prob(x["y"])


REGRESSION_OBJECTIVE = vaejax.minibatch(log_likelihood, support=vaejax.supports.REAL)


def regression_data(num_examples=60, dim=3):
    generator = np.random.default_rng(0)
    u = (
        generator.normal(size=(num_examples, dim))
        @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.2], [0.0, 0.0, 1.0]])
    ).astype(np.float32)
    y = u @ np.array([0.8, -1.1, 0.4]) + NOISE * generator.normal(size=num_examples)
    return {"u": u, "y": y[:, None].astype(np.float32)}


def posterior(data):
    """Precision and mean of p(theta | D)."""
    u, y = (np.asarray(data[name], np.float64) for name in ("u", "y"))
    precision = u.T @ u / NOISE**2 + np.eye(u.shape[1]) / PRIOR_SCALE**2
    return precision, np.linalg.solve(precision, u.T @ y[:, 0] / NOISE**2)


def test_it_matches_the_conjugate_posterior():
    """The mean-field optimum: the posterior's mean, and variances 1 / Lam_jj; by minibatches."""
    data = regression_data()
    bayes = vaejax.VariationalBayes(REGRESSION_OBJECTIVE, 60, PRIOR_SCALE)
    start = bayes.start(vaejax.Params(REGRESSION.init(jax.random.key(0), data["u"][0]), ()))
    run = vaejax.fit(
        bayes,
        start,
        optax.adam(optax.cosine_decay_schedule(0.03, 6_000)),
        data,
        jax.random.key(1),
        num_steps=6_000,
        batch_size=20,
        progress=False,
    )
    precision, mean = posterior(data)
    sd = np.diag(precision) ** -0.5
    np.testing.assert_allclose(run.params.theta["loc"]["net"], mean, atol=0.1 * sd.min())
    np.testing.assert_allclose(np.exp(run.params.theta["log_scale"]["net"]), sd, rtol=0.05)
    draws = jax.vmap(lambda key: bayes.draw(run.params, key).theta["net"])(
        jax.random.split(jax.random.key(2), 20_000)
    )
    assert_mean(draws, run.params.theta["loc"]["net"], detectable=0.01)


def test_at_an_orthogonal_design_it_bounds_the_evidence_with_equality():
    """Then the posterior is diagonal; the mean bound over minibatches and draws is log p(D) / N."""
    data = regression_data(40, 3)
    u, _ = np.linalg.qr(data["u"].astype(np.float64))
    data = {"u": (3 * u).astype(np.float32), "y": data["y"]}
    precision, mean = posterior(data)
    covariance = PRIOR_SCALE**2 * 9 * u @ u.T + NOISE**2 * np.eye(40)
    y = data["y"][:, 0].astype(np.float64)
    evidence = -0.5 * (
        40 * np.log(2 * np.pi)
        + np.linalg.slogdet(covariance)[1]
        + y @ np.linalg.solve(covariance, y)
    )
    bayes = vaejax.VariationalBayes(REGRESSION_OBJECTIVE, 40, PRIOR_SCALE)
    theta = {
        "loc": {"net": jnp.asarray(mean, jnp.float32)},
        "log_scale": {"net": jnp.asarray(-0.5 * np.log(np.diag(precision)), jnp.float32)},
    }
    params = vaejax.Params(theta, ())

    def value(key):
        rows_key, key = jax.random.split(key)
        rows = jax.random.choice(rows_key, 40, (10,), replace=False)
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data)
        return bayes(params, batch, key, 0).bound

    values = jax.jit(jax.vmap(value))(jax.random.split(jax.random.key(0), 40_000))
    assert_mean(values, evidence / 40, detectable=0.02)


def test_around_a_vae():
    """theta of the decoder is uncertain, phi a point; data and validation are checked as for any
    objective.
    """
    model = vaejax.VAE(
        vaejax.StandardNormal(1),
        vaejax.Bernoulli(vaejax.MLP(4, (3,))),
        vaejax.DiagNormal(vaejax.MLP(1, (3,), heads=2)),
    )
    xs = (np.random.default_rng(0).random((50, 4)) < 0.3).astype(np.float32)
    bayes = vaejax.VariationalBayes(vaejax.minibatch(vaejax.Pathwise(), model), 50)
    params = bayes.start(model.init(jax.random.key(0), xs[0]))
    fit = partial(
        vaejax.fit,
        bayes,
        params,
        optax.adam(1e-2),
        key=jax.random.key(1),
        batch_size=10,
        progress=False,
    )
    run = fit(data=xs, num_steps=30, validation=vaejax.Validation(xs[:10], every=10))
    assert np.isfinite(run.history["validation_bound"]).all()
    assert (
        vaejax.elbo(
            model, bayes.draw(run.params, jax.random.key(2)), xs[0], jax.random.key(3)
        ).shape
        == ()
    )
    with pytest.raises(ValueError, match="this likelihood is for 0 and 1"):
        fit(data=255 * xs, num_steps=1)


# Around every objective: its value at the drawn theta, less KL / N.

WITH_SCALE = params_of(likelihood={"log_scale": jnp.zeros(())}, dtype=np.float32)
BINARY = (np.random.default_rng(0).random((60, 5)) < 0.4).astype(np.float32)
AROUND = {
    "Beta": (beta_objective(0.5), PARAMS, XS),
    "Beta, warmed up": (beta_objective(WarmUp(10, end=2.0)), PARAMS, XS),
    "Beta, scaled": (
        vaejax.minibatch(vaejax.Beta(WarmUp(10)), LINES, dataset_size=60),
        PARAMS,
        XS,
    ),
    "FreeBits": (FreeBits(LINES, 1.0), PARAMS, XS),
    "TCVAE": (TCVAE(LINES, 60, beta=WarmUp(10, end=3.0)), PARAMS, XS),
    "FreeBitsByNode": (FreeBitsByNode(TOP_DOWN[0], 1.0, WarmUp(10)), TOP_DOWN[1], BINARY),
    "optimal_scale": (
        vaejax.optimal_scale(vaejax.minibatch(vaejax.Beta(WarmUp(10)), LEARNED)),
        WITH_SCALE,
        XS,
    ),
    "a user's own": (Halved(beta_objective(WarmUp(10))), PARAMS, XS),
    "a user's own, twice": (Halved(Halved(beta_objective(2.0))), PARAMS, XS),
}


def scale_of(objective):
    """What the mean over a batch is multiplied by: 60 in the one case that says dataset_size."""
    return 60 if objective == AROUND["Beta, scaled"][0] else 1


@pytest.mark.parametrize("inner, params, xs", AROUND.values(), ids=AROUND)
def test_around_any_objective(inner, params, xs):
    """Value and gradient at several steps, written out; then 20 steps of fit, with validation."""
    bayes = VariationalBayes(inner, 60, prior_scale=0.7)
    assert bayes.schedules == inner.schedules and bayes.model == inner.model
    uncertain = bayes.start(params, log_scale=-2.0)

    def written_out(params, step, part):
        theta_key, bound_key = jax.random.split(KEY)
        terms = inner(bayes.draw(params, theta_key), xs[:10], bound_key, step)
        q = q_theta(params.theta)
        prior = vaejax.distributions.DiagNormalDensity(0 * q.loc, 0 * q.loc + np.log(0.7))
        return terms._asdict()[part] - kl_divergence(q, prior) / 60 * scale_of(inner)

    @jax.jit
    def both(params, step):
        ours = jax.value_and_grad(lambda p: bayes(p, xs[:10], KEY, step).objective)(params)
        theirs = jax.value_and_grad(lambda p: written_out(p, step, "objective"))(params)
        bounds = bayes(params, xs[:10], KEY, step).bound, written_out(params, step, "bound")
        return (*bounds, ours, theirs)

    for step in (0, 4, 11):
        bound, expected_bound, ours, theirs = both(uncertain, step)
        np.testing.assert_allclose(bound, expected_bound, rtol=1e-5)
        assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    validation = vaejax.Validation(xs[:20], every=10)
    run = fit_lines(20, bayes, uncertain, data=xs, validation=validation)
    assert np.isfinite(run.history["objective"]).all() and len(run.history["bound"]) == 20
    assert np.isfinite(run.history["validation_bound"]).all()


def test_mistakes_are_named():
    model = LinearGaussian().model
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    with pytest.raises(ValueError, match="dataset_size = 0"):
        VariationalBayes(objective, 0)
    with pytest.raises(ValueError, match="prior_scale = -1"):
        VariationalBayes(objective, 10, prior_scale=-1.0)
    for given in (log_likelihood, partial(vaejax.Pathwise(), model), vaejax.Beta(0.5)):
        with pytest.raises(TypeError, match="is not an objective: write vaejax.minibatch"):
            VariationalBayes(given, 10)
