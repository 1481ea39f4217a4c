"""Bayes' rule on class-conditional Gaussians is LDA and QDA exactly; who leads, and where, in the
reduced experiment.

The comparisons are paired by seed. With n seeds of mean lead m and standard error s, that the true
lead has the other sign has the probability P(t_(n-1) > m / s), if the leads are normal: the
false-alarm rate that each test states. Every run is a function of its seeds, so that a test does
not fail by chance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from jax.scipy.special import logsumexp

import vaejax
from experiments.graphs import generative_classifier as experiment
from experiments.lib.classifiers import check_labels
from experiments.lib.data import require_labels
from tests.lib.scripts import files, run
from vaejax import DirectedGraph, Node
from vaejax.data.base import Split

NUM_CLASSES, DIM = 4, 3


@vaejax.component
class OfClass:
    """y one-hot -> the row of each array that is its class's."""

    def init(self, key, y):
        return jnp.zeros((NUM_CLASSES, DIM)), jnp.broadcast_to(
            jnp.eye(DIM), (NUM_CLASSES, DIM, DIM)
        )

    def apply(self, params, y):
        return tuple(jnp.tensordot(y, table, 1) for table in params)


def full_normal(loc, covariance):
    return npd.MultivariateNormal(loc, covariance_matrix=covariance)


GRAPH = DirectedGraph(
    (
        Node("y", vaejax.OneHotCategorical(vaejax.Free(NUM_CLASSES, ("logits",)))),
        Node("x", vaejax.NumPyroConditional(OfClass(), full_normal), "y"),
    )
)


def gaussians(shared: bool):
    """log p(y), means [c, d], covariances [c, d, d]."""
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(NUM_CLASSES, DIM, DIM))
    covariances = factors @ factors.transpose(0, 2, 1) + 0.5 * np.eye(DIM)[None]
    covariances = np.repeat(covariances[:1], NUM_CLASSES, axis=0) if shared else covariances
    return (
        np.log(generator.dirichlet(np.ones(NUM_CLASSES))),
        generator.normal(size=(NUM_CLASSES, DIM)),
        covariances,
    )


def posterior(log_prior, means, covariances, x):
    params = {
        "y": {"logits": jnp.asarray(log_prior)},
        "x": (jnp.asarray(means), jnp.asarray(covariances)),
    }
    return GRAPH(params).condition({"x": x}).marginal("y")[1]


XS = np.random.default_rng(1).normal(scale=2, size=(20, DIM))


def test_a_shared_covariance_gives_the_linear_discriminant(x64):
    """p(y | x) = softmax(log p(y) + x' S^-1 m_y - m_y' S^-1 m_y / 2): logits linear in x."""
    log_prior, means, covariances = gaussians(shared=True)
    weights = np.linalg.solve(covariances[0], means.T)  # [d, c]
    logits = XS @ weights + (log_prior - 0.5 * np.sum(means.T * weights, axis=0))[None]
    expected = np.exp(logits - np.asarray(logsumexp(logits, axis=1, keepdims=True)))
    actual = jax.jit(jax.vmap(lambda x: posterior(log_prior, means, covariances, x)))(
        jnp.asarray(XS)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-14)

    def log_odds(x):
        log_p = jnp.log(posterior(log_prior, means, covariances, x))
        return log_p[1:] - log_p[:1]

    slopes = jax.jit(jax.vmap(jax.jacobian(log_odds)))(jnp.asarray(XS[:3]))
    np.testing.assert_allclose(
        slopes,
        np.broadcast_to((weights[:, 1:] - weights[:, :1]).T, slopes.shape),
        rtol=1e-6,
        atol=1e-8,
    )


def test_a_covariance_for_each_class_gives_the_quadratic_discriminant(x64):
    """p(y | x) = softmax(log p(y) - log|S_y| / 2 - (x - m_y)' S_y^-1 (x - m_y) / 2)."""
    log_prior, means, covariances = gaussians(shared=False)
    d = XS[:, None] - means[None]  # [n, c, d]
    squares = np.einsum("nci,cij,ncj->nc", d, np.linalg.inv(covariances), d)
    logits = (log_prior - 0.5 * np.linalg.slogdet(covariances)[1])[None] - 0.5 * squares
    expected = np.exp(logits - np.asarray(logsumexp(logits, axis=1, keepdims=True)))
    actual = jax.jit(jax.vmap(lambda x: posterior(log_prior, means, covariances, x)))(
        jnp.asarray(XS)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-14)


def test_what_the_sampling_does_is_measured_by_the_halves():
    """Two halves that differ by 2 e in one score of four have a standard error of e there, and e /
    2 over all.
    """
    scores = np.log([[[0.5, 0.25], [0.5, 0.25]], [[0.2, 0.3], [0.2, 0.3 * np.exp(-1.0)]]])
    numbers = experiment.measured(scores, np.array([0, 1]))
    np.testing.assert_allclose(numbers["error_of_log_joint"], 0.25)
    second = 0.3 * np.exp(-1.0)
    p = np.array([2 / 3, (0.3 + second) / (0.4 + 0.3 + second)])
    np.testing.assert_allclose(numbers["log_class"], np.log(p).mean())
    np.testing.assert_allclose(
        numbers["error_of_probability"], (0.6 - second / (0.2 + second)) / 2 / np.sqrt(2)
    )
    assert numbers["changed"] == 0.5 and numbers["accuracy"] == (1.0 if p[1] > 0.5 else 0.5)


def test_importance_sampling_against_a_sum():
    """A decoder that does not look at z: log p(x, y) is exact in every sample if q is p(z)."""
    config = experiment.Config(latent_dim=2, hidden=(), eval_samples=4)
    classifier = experiment.classifier(config, "conditional VAE", (3,), 2)
    example = {"x": jnp.asarray([1.0, 0.0, 1.0]), "y": jnp.asarray([0.0, 1.0])}
    params = jax.tree.map(jnp.zeros_like, classifier.init(jax.random.key(0), example))
    scores = jax.jit(classifier.scores)(params, example["x"], jax.random.key(1))
    np.testing.assert_allclose(scores, np.full((2, 2), -4 * np.log(2)), rtol=1e-6)


# The direction.


def planted(size: int, seed: int, dim: int = 64) -> Split:
    """Two classes, pixels independent given the class: naive Bayes is true here, as in the
    theorem.
    """
    rates = np.random.default_rng(0).uniform(0.3, 0.7, size=(2, dim))
    generator = np.random.default_rng([1, seed])
    labels = generator.integers(2, size=size)
    return Split((generator.random((size, dim)) < rates[labels]).astype(np.float32), labels)


def test_generative_is_ahead_where_its_model_is_true():
    """Naive Bayes on its own data with 200 labels, 2 classes, 10 seeds: t > 10.72 has a false-alarm
    rate of 1e-6.
    """
    config = experiment.Config(label_counts=(200,), num_steps=400, num_seeds=10)
    rows = experiment.compare(
        config, planted(3_000, 0), planted(10_000, 1), ("naive Bayes", "logistic regression")
    )
    lead = experiment.lead(rows, "naive Bayes", 200)
    assert lead.mean > 10.72 * lead.standard_error and lead.mean > 0.01


@pytest.mark.slow
def test_discriminative_is_ahead_where_the_model_is_false():
    """Naive Bayes on the digits with 1,000 labels, 12 seeds: t < -9.05 has a false-alarm rate of
    1e-6, for this pool of images.
    """
    config = experiment.Config(label_counts=(1_000,), num_steps=300, num_seeds=12)
    digits = vaejax.load_dataset("digits")
    train, test = (
        Split((split.images > 8).astype(np.float32), split.labels)
        for split in (digits.train, digits.test)
    )
    rows = experiment.compare(config, train, test, ("naive Bayes", "logistic regression"))
    lead = experiment.lead(rows, "naive Bayes", 1_000)
    assert lead.mean < -9.05 * lead.standard_error and lead.mean < -0.03


def test_mistakes_are_named():
    digits = vaejax.load_dataset("digits")
    with pytest.raises(ValueError, match="num_labels = 15; give multiples of 10 up to"):
        check_labels(digits, digits.train.labels, "num_labels", 15)
    with pytest.raises(ValueError, match="digits has no labels to learn from; choose a set"):
        require_labels(digits._replace(train=digits.train._replace(labels=None)), "to learn from")


@pytest.mark.slow
def test_script(tmp_path):
    flags = [
        "--label-counts",
        "10",
        "20",
        "--num-steps",
        "4",
        "--num-seeds",
        "2",
        "--hidden",
        "8",
        "--eval-samples",
        "4",
    ]
    result, printed = run("generative_classifier", *flags, folder=tmp_path)
    assert (
        set(result["lead"]) == set(experiment.PAIRS) and printed.count("| conditional VAE |") == 2
    )
    assert files(tmp_path) == {"accuracy.png", "result.json"}
