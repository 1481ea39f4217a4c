"""Closed forms of a linear encoder on Gaussian data, reverse water-filling, planted collapse."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.lib.linear import Linear
from tests.lib.oracles import Z
from vaejax.base.mapping import estimate


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
    keys = jax.random.split(jax.random.key(0), 12)
    spaces = [vaejax.latent_space(model, PARAMS, xs, key) for key in keys]
    # Of 1,000 examples q(z) is a mixture and not quite its limit: each part is that of the limit to
    # within 0.02.
    for name, expected in (
        ("mutual_information", information),
        ("total_correlation", correlation),
        ("dimension_wise", dimension_wise),
    ):
        values = [getattr(space, name) for space in spaces]
        assert abs(np.mean(values) - expected) < 0.02 + Z * estimate(values).standard_error
    assert (
        abs(np.mean([space.marginal_kl for space in spaces]) - correlation - dimension_wise) < 0.04
    )
    rate = 0.5 * np.sum(np.diag(a @ c @ a.T) + v - 1 - np.log(v))
    np.testing.assert_allclose(spaces[0].rate.mean, rate, rtol=1e-10)
    np.testing.assert_allclose(spaces[0].kl.sum(), rate, rtol=1e-10)
    assert (
        spaces[0].limit == np.log(1_000)
        and spaces[0].active.all()
        and "active units              2 of 2" in str(spaces[0])
    )


def test_a_source_and_a_user_of_names_have_the_same_latent_space(x64):
    """From a source of single examples, and from the same model written as a graph."""
    model = model_of(((0.6, 0.3), (0.2, 0.7)), (-0.6, -0.5))
    xs, key = gaussian_data(np.eye(2), 50), jax.random.key(0)
    nodes = vaejax.Node("z", model.prior), vaejax.Node("x", model.likelihood, "z")
    graph = vaejax.GraphModel(vaejax.DirectedGraph(nodes), model.encoder)
    graph_params = vaejax.Params({"z": (), "x": {"net": ()}}, ())
    space = vaejax.latent_space(model, PARAMS, xs, key)
    for other in (
        vaejax.latent_space(model, PARAMS, vaejax.RandomAccess(list(xs)), key),
        vaejax.latent_space(graph, graph_params, xs, key),
        vaejax.latent_space(vaejax.Refined(model, 0), PARAMS, xs, key),
    ):
        np.testing.assert_allclose(other.kl, space.kl, rtol=1e-12)
        assert other.mutual_information == pytest.approx(space.mutual_information, rel=1e-12)
        assert other.total_correlation == pytest.approx(space.total_correlation, rel=1e-10)


def test_collapse_is_reported_and_its_absence_is_not():
    xs = gaussian_data(np.eye(2), 200)
    with pytest.warns(
        vaejax.PosteriorCollapseWarning,
        match=r"largest KL of a latent is 0.0000 nats.*vaejax.WarmUp",
    ):
        space = vaejax.latent_space(
            model_of(((0.0, 0.0), (0.0, 0.0)), (0.0, 0.0)), PARAMS, xs, jax.random.key(0)
        )
    assert (
        space.collapsed and not space.active.any() and "the posterior has collapsed" in str(space)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        used = vaejax.latent_space(
            model_of(((0.0, 0.0), (0.5, 0.0)), (0.0, -0.5)), PARAMS, xs, jax.random.key(0)
        )
    assert used.active.tolist() == [False, True] and not used.collapsed


def test_a_planted_collapse_is_reported():
    """A decoder that ignores z: training takes q to the prior."""
    model = model_of(((0.0, 0.0), (0.0, 0.0)), (0.0, 0.0), ((0.0, 0.0), (0.0, 0.0)))
    model = replace(model, encoder=vaejax.DiagNormal(vaejax.MLP(2, (), heads=2)))
    xs = gaussian_data(np.eye(2), 200).astype(np.float32)
    params = model.init(jax.random.key(0), jnp.asarray(xs[0]))
    objective = vaejax.minibatch(vaejax.AnalyticKL(), model)
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


def test_active_units():
    means = np.random.default_rng(0).normal(size=(1000, 3)) * [1.0, 0.05, 0.5]
    assert vaejax.active_units(means).tolist() == [True, False, True]


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
        objective = vaejax.minibatch(vaejax.StickTheLanding(4), model)
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
