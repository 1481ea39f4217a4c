"""Closed forms of a linear encoder on Gaussian data, reverse water-filling, planted collapse and
planted miscalibration.
"""

import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.oracles import LinearGaussian, Z, assert_mean
from vaejax.base.mapping import estimate

POINT = LinearGaussian()


@vaejax.component
class Linear:
    """x -> (A x, log s), or with one head A x; as rows of a tuple, so that the value is
    hashable.
    """

    matrix: tuple[tuple[float, ...], ...]
    shift: tuple[float, ...] | None = None
    log_scale: tuple[float, ...] | None = None

    def init(self, key, example):
        return ()

    def apply(self, params, x):
        loc = jnp.asarray(self.matrix, x.dtype) @ x + (
            0 if self.shift is None else jnp.asarray(self.shift, x.dtype)
        )
        return loc if self.log_scale is None else (loc, jnp.asarray(self.log_scale, x.dtype))


def model_of(encoder_matrix, log_scale, decoder_matrix=((1.0, 0.0), (0.0, 1.0)), sigma=0.5):
    encoder = vaejax.DiagNormal(Linear(encoder_matrix, None, log_scale), max_log_scale=None)
    return vaejax.VAE(
        vaejax.StandardNormal(len(log_scale)),
        vaejax.Gaussian(Linear(decoder_matrix), sigma),
        encoder,
    )


PARAMS = vaejax.Params({"prior": (), "likelihood": {"net": ()}}, ())


def gaussian_data(covariance, size, seed=0):
    """[size, d] with exactly this covariance and mean 0."""
    raw = np.random.default_rng(seed).normal(size=(size, len(covariance)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / size)).T
    return white @ np.linalg.cholesky(np.asarray(covariance)).T


def test_the_parts_of_the_kl_have_their_closed_forms(x64):
    """q(z) = N(0, V + A C A') of q(z|x) = N(A x, V): mutual information, total correlation and
    dimension-wise KL, nats.
    """
    a, v, c = (
        np.array([[0.6, 0.3], [0.2, 0.7]]),
        np.array([0.3, 0.4]),
        np.array([[1.0, 0.5], [0.5, 1.5]]),
    )
    model = model_of(tuple(map(tuple, a)), tuple(0.5 * np.log(v)))
    xs = gaussian_data(c, 2_000)
    marginal = np.diag(v) + a @ c @ a.T
    log_det = np.linalg.slogdet(marginal)[1]
    information = 0.5 * (log_det - np.log(v).sum())
    correlation = 0.5 * (np.log(np.diag(marginal)).sum() - log_det)
    dimension_wise = 0.5 * np.sum(np.diag(marginal) - 1 - np.log(np.diag(marginal)))
    found = [
        vaejax.latent_space(model, PARAMS, xs, key)
        for key in jax.random.split(jax.random.key(0), 12)
    ]
    # Of 1,000 examples q(z) is a mixture and not quite its limit: each part is that of the limit to
    # within 0.02.
    for name, expected in (
        ("mutual_information", information),
        ("total_correlation", correlation),
        ("dimension_wise", dimension_wise),
    ):
        values = [getattr(of, name) for of in found]
        assert abs(np.mean(values) - expected) < 0.02 + Z * estimate(values).standard_error
    assert abs(np.mean([of.marginal_kl for of in found]) - correlation - dimension_wise) < 0.04
    rate = 0.5 * np.sum(np.diag(a @ c @ a.T) + v - 1 - np.log(v))
    np.testing.assert_allclose(found[0].rate.mean, rate, rtol=1e-10)
    np.testing.assert_allclose(found[0].kl.sum(), rate, rtol=1e-10)
    assert (
        found[0].limit == np.log(1_000)
        and found[0].active.all()
        and "active units              2 of 2" in str(found[0])
    )


def test_collapse_is_reported_and_its_absence_is_not():
    xs = gaussian_data(np.eye(2), 200)
    with pytest.warns(
        vaejax.PosteriorCollapseWarning,
        match=r"largest KL of a latent is 0.0000 nats.*vaejax.WarmUp",
    ):
        found = vaejax.latent_space(
            model_of(((0.0, 0.0), (0.0, 0.0)), (0.0, 0.0)), PARAMS, xs, jax.random.key(0)
        )
    assert (
        found.collapsed and not found.active.any() and "the posterior has collapsed" in str(found)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = vaejax.latent_space(
            model_of(((0.0, 0.0), (0.5, 0.0)), (0.0, -0.5)), PARAMS, xs, jax.random.key(0)
        )
    assert one.active.tolist() == [False, True] and not one.collapsed


def test_a_planted_collapse_is_reported():
    """A decoder that ignores z: training takes q to the prior."""
    model = model_of(((0.0, 0.0), (0.0, 0.0)), (0.0, 0.0), ((0.0, 0.0), (0.0, 0.0)))
    model = replace(model, encoder=vaejax.DiagNormal(vaejax.MLP(2, (), heads=2)))
    xs = gaussian_data(np.eye(2), 200).astype(np.float32)
    params = model.init(jax.random.key(0), jnp.asarray(xs[0]))
    objective = vaejax.minibatch(partial(vaejax.AnalyticKL(), model))
    run = vaejax.fit(
        objective,
        params,
        optax.adam(0.03),
        xs,
        jax.random.key(1),
        num_steps=500,
        batch_size=50,
        progress=False,
    )
    with pytest.warns(vaejax.PosteriorCollapseWarning):
        vaejax.latent_space(model, run.params, xs, jax.random.key(0))


def exact_model(factor=1.0):
    """The frozen linear-Gaussian model with its exact posterior, the scale of q times `factor`."""
    slope = POINT.w / (POINT.tau**2 * POINT.lam)
    net = Linear(((slope,),), (-slope * POINT.b,), (float(np.log(factor * POINT.lam**-0.5)),))
    return replace(POINT.model, encoder=vaejax.DiagNormal(net, max_log_scale=None))


def test_calibration_passes_the_exact_q_and_fails_a_wrong_scale(x64):
    """At a false-alarm rate of 1e-6; a scale wrong by 1.2 is caught with room to spare: p below
    1e-12 of 10,000 simulations.
    """
    params = POINT.params._replace(phi=())
    settings = {"num_simulations": 10_000}
    right = vaejax.calibration(exact_model(), params, jax.random.key(0), **settings)
    assert right.p_value > 1e-6 and right.ranks.shape == (10_000, 1)
    for factor in (1.2, 1 / 1.2):
        assert (
            vaejax.calibration(exact_model(factor), params, jax.random.key(0), **settings).p_value
            < 1e-12
        )
    with pytest.raises(ValueError, match="num_bins = 10; .* divide num_draws . 1 = 64"):
        vaejax.calibration(exact_model(), params, jax.random.key(0), num_bins=10)


def first(x):
    return x[0]


def squared(x):
    return x[0] ** 2


def test_predictive_checks_see_a_wrong_variance(x64):
    """Data of the model's own pass; data twice as wide fail in the square and pass in the mean. |z|
    < 4.9 has a false alarm of 1e-6.
    """
    params, rng = POINT.params, np.random.default_rng(0)
    wide = POINT.b + np.sqrt(POINT.w**2 + POINT.tau**2) * rng.normal(size=(4_000, 1))
    for factor, statistic, passes in ((1, first, True), (1, squared, True), (2, squared, False)):
        check = vaejax.predictive_check(
            statistic, POINT.model, params, factor * wide, jax.random.key(0)
        )
        assert (abs(check.z_score) < Z) == passes
    assert_mean(check.drawn, POINT.b**2 + POINT.w**2 + POINT.tau**2, detectable=0.6)


EIGENVALUES, SIGMA = np.array([5.0, 3.0, 1.5, 0.6, 0.2]), 0.5


@pytest.mark.slow
def test_a_linear_vae_reaches_the_maximum_likelihood_of_ppca():
    """-7.60289 nats at sigma^2 = 0.25, and at the learned sigma^2 = mean of the two discarded
    eigenvalues with three latents.
    """
    xs = gaussian_data(np.diag(EIGENVALUES), 500).astype(np.float32)
    for dim, scale in ((5, SIGMA), (3, "learned")):
        floor = SIGMA**2 if scale == SIGMA else EIGENVALUES[3:].mean()
        variances = np.where(np.arange(5) < dim, np.maximum(EIGENVALUES, floor), floor)
        expected = -0.5 * np.sum(np.log(2 * np.pi * variances) + EIGENVALUES / variances)
        if scale == SIGMA:
            assert expected == pytest.approx(-7.602890328185609, abs=1e-12)
        likelihood = vaejax.Gaussian(vaejax.MLP(5, ()), scale)
        model = vaejax.VAE(
            vaejax.StandardNormal(dim), likelihood, vaejax.DiagNormal(vaejax.MLP(dim, (), heads=2))
        )
        params = model.init(jax.random.key(0), jnp.asarray(xs[0]))
        objective = vaejax.minibatch(partial(vaejax.StickTheLanding(4), model))
        optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 8_000))
        run = vaejax.fit(
            objective,
            params,
            optimizer,
            xs,
            jax.random.key(1),
            num_steps=8_000,
            batch_size=100,
            progress=False,
        )
        evaluation = vaejax.evaluate(model, run.params, xs, jax.random.key(2), num_samples=1_000)
        # Both bounds: at the optimum q is the posterior.
        np.testing.assert_allclose(
            [evaluation.elbo.mean, evaluation.log_marginal.mean], expected, atol=0.015
        )
