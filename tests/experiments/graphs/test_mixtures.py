"""mixtures.py: the marginal is SciPy's mixture density, SGD is EM, the bound with y summed out is
brute force.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from experiments.graphs import mixtures as experiment
from experiments.lib.script import run

CONFIG = experiment.Config(num_steps=600, batch_size=200, learning_rate=2e-2)


def test_the_marginal_is_the_density_of_a_gaussian_mixture(x64):
    """The means and covariances are read off the linear layer by hand: log-scales within 7 tanh,
    the factor below the diagonal 30 tanh.
    """
    from scipy.special import logsumexp
    from scipy.stats import multivariate_normal

    graph, generator = experiment.finite_mixture(4), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), graph.init(jax.random.key(0))
    )
    raw = np.asarray(
        params["x"]["params"]["Dense_0"]["kernel"] + params["x"]["params"]["Dense_0"]["bias"][None]
    )
    logits = np.asarray(params["y"]["logits"])
    densities = []
    for k in range(4):
        loc, log_scale, _, row = raw[k].reshape(
            4, 2
        )  # the first row of the factor has nothing below the diagonal
        scale = np.exp(7 * np.tanh(log_scale / 7))
        factor = scale[:, None] * np.array([[1, 0], [30 * np.tanh(row[0] / 30), 1]])
        densities.append(multivariate_normal(loc, factor @ factor.T))
    log_weights = logits - logsumexp(logits)
    for x in generator.normal(size=(20, 2)):
        expected = logsumexp(log_weights + np.array([density.logpdf(x) for density in densities]))
        log_p = experiment.log_density(
            graph, vaejax.Params(params, ()), jnp.asarray(x), jax.random.key(0)
        )
        np.testing.assert_allclose(log_p, expected, rtol=1e-10)


def test_sgd_reaches_em():
    """Within 1e-4 nats of EM's mean log-likelihood, from 2 nats below: three clouds that overlap, K
    = 3.

    Both start at the same centres, so both climb to the same maximum. Over ten seeds of data and
    order SGD ended 7e-6 below EM at most, with standard deviation 2e-6: 1e-4 lies 40 of them away
    (false-alarm rate far below 1e-6), and it started 2.1 below at least.
    """
    em, start, end = log_likelihoods(0)
    assert start < em - 2
    assert abs(end - em) < 1e-4


def log_likelihoods(seed: int) -> tuple[float, float, float]:
    """Mean log p(x), nats: of EM, and of the finite mixture before and after SGD."""
    generator = np.random.default_rng(seed)
    centres = np.array([[-1.5, 0.0], [1.5, 0.0], [0.0, 2.0]])
    points = centres[generator.choice(3, p=[0.5, 0.3, 0.2], size=600)] + generator.normal(
        size=(600, 2)
    ) @ np.array([[0.8, 0.0], [0.3, 0.4]])
    points = points.astype(np.float32)
    graph, params = experiment.by_sgd(CONFIG, points, centres, jax.random.key(seed))
    theta = graph.init(jax.random.key(seed))
    start = vaejax.Params(theta | {"x": experiment.at_centres(theta["x"], centres, 0.3)}, ())
    density = jax.jit(jax.vmap(partial(experiment.log_density, graph), (None, 0, None)))
    before, after = (
        float(np.mean(density(parameters, points, jax.random.key(0))))
        for parameters in (start, params)
    )
    return float(np.mean(experiment.by_em(points, centres).score_samples(points))), before, after


def test_an_infinite_mixture_by_quantiles_and_by_importance_sampling():
    """The two estimates of log p(x) agree within 5 standard errors of the importance weights and
    1e-3 of the quantiles' grid.
    """
    vae, xs = experiment.infinite_mixture(), jnp.asarray(experiment.two_arcs(4, 0))
    params = vae.init(jax.random.key(0), xs[0])
    expected = experiment.log_density_by_quantiles(vae, params, xs)

    def log_weights(x, key):
        q = vae.posterior(params, x)
        return vaejax.log_weights(
            vae, params, x, q, jax.vmap(q.sample)(jax.random.split(key, 20_000))
        )

    log_w = np.asarray(
        jax.jit(jax.vmap(log_weights))(xs, jax.random.split(jax.random.key(1), len(xs))), np.float64
    )
    weights = np.exp(log_w - expected[:, None])  # of mean one
    error = weights.std(axis=1) / np.sqrt(20_000)
    assert np.all(error < 0.02)
    assert np.all(np.abs(weights.mean(axis=1) - 1) < 5 * error + 1e-3)


def test_the_density_of_the_arcs_sums_to_one():
    first, second = np.linspace(-2.5, 2.5, 201), np.linspace(-2, 2, 161)
    grid = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    mass = (
        np.exp(experiment.log_density_of_arcs(grid, 200)).sum()
        * (first[1] - first[0])
        * (second[1] - second[0])
    )
    np.testing.assert_allclose(mass, 1, atol=1e-6)


def test_the_bound_with_the_cluster_summed_out_is_brute_force(x64):
    """sum_y q(y|z) [log p(y) + log p(z|y) + log p(x|z) - log q(z|x) - log q(y|z)], at the same
    z.
    """
    model, x = (
        experiment.mixture_vae((3, 2), 4, 2, (5,)),
        jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
    )
    generator, key = np.random.default_rng(0), jax.random.key(1)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)),
        model.init(jax.random.key(0), x),
    )
    q, p = model.posterior(params, x), model.joint(params)
    z = q.factor("z", {}).sample(
        jax.random.split(jax.random.split(key, 1)[0])[0]
    )  # with the key of the node z of the one sample
    log_q_y, expected = jax.nn.log_softmax(q.factor("y", {"z": z}).logits), 0.0
    log_p_y, of_x, of_z = (
        jax.nn.log_softmax(params.theta["y"]["logits"]),
        p.factor("x", {"z": z}),
        q.factor("z", {}),
    )
    for k, y in enumerate(jnp.eye(4)):
        log_p = log_p_y[k] + p.factor("z", {"y": y}).log_prob(z) + of_x.log_prob(x)
        expected += jnp.exp(log_q_y[k]) * (log_p - of_z.log_prob(z) - log_q_y[k])
    np.testing.assert_allclose(
        vaejax.ByNode(enumerate=("y",))(model, params, x, key), expected, rtol=1e-10
    )


@pytest.mark.slow
def test_the_clusters_start_at_their_exact_posterior():
    """With round components of one scale, q(y | z) of `warm_started` is p(y | z): softmax of log
    N(z; m_y, s^2).
    """
    images = (np.random.default_rng(0).random((40, 3, 2)) < 0.5).astype(np.uint8)
    config = experiment.Config(
        num_clusters=4, latent_dim=2, hidden=(5,), num_steps=5, batch_size=20
    )
    model = experiment.mixture_vae((3, 2), 4, 2, (5,))
    params = experiment.warm_started(
        config, model, images, vaejax.Pixels(1, "none"), jax.random.key(0)
    )
    z, joint = jnp.asarray([0.4, -0.7]), model.joint(params)
    log_p = jnp.stack(
        [joint.log_prob({"y": y, "z": z, "x": jnp.zeros((3, 2))}) for y in jnp.eye(4)]
    )
    q = model.posterior(params, jnp.zeros((3, 2))).factor("y", {"z": z})
    np.testing.assert_allclose(q.mean(), jax.nn.softmax(log_p), rtol=1e-4, atol=1e-5)


def test_agreement_by_hand():
    labels, clusters = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 1, 1, 1, 7])
    assert experiment.agreement(clusters, labels)["purity"] == pytest.approx(5 / 6)
    assert experiment.agreement(labels + 3, labels) == {
        "clusters": 3,
        "purity": 1.0,
        "nmi": pytest.approx(1.0),
    }


@pytest.mark.slow
def test_main(tmp_path):
    flags = {
        "plane_examples": 60,
        "component_counts": (2,),
        "plane_steps": 10,
        "num_steps": 20,
        "num_clusters": 4,
        "hidden": (8,),
        "eval_samples": 5,
    }
    result = run(experiment.Config(**flags, out=str(tmp_path)), experiment.experiment)
    names = ["2 Gaussians by EM", "2 Gaussians by SGD", "infinitely many: a VAE", "the truth"]
    assert [row["model"] for row in result["plane"]] == names
    assert 0 <= result["digits"]["mixture"]["nmi"] <= 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "plane.png",
        "clusters.png",
        "result.json",
    }
