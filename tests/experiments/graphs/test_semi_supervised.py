"""M2's minibatch objective against the sum over classes by hand, and its weights."""

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from experiments.graphs import semi_supervised as experiment

NUM_CLASSES, ALPHA = 3, 2.5
CONFIG = experiment.Config(latent_dim=2, hidden=(6,))
MODEL = experiment.m2(CONFIG, (4,), NUM_CLASSES, vaejax.Bernoulli)
ESTIMATOR = experiment.SemiSupervised(ALPHA)
GENERATOR = np.random.default_rng(0)
IMAGES = (GENERATOR.random((5, 4)) < 0.5).astype(np.float32)
Y = np.eye(NUM_CLASSES, dtype=np.float32)[[2, 0]]
ROWS = experiment.paired_rows(IMAGES, IMAGES[[3, 1]], Y)
PARAMS = jax.tree.map(lambda leaf: 1.5 * leaf, MODEL.init(jax.random.key(0), IMAGES[0]))


def bound_of_class(params, x, y, key):
    """log p(y) + log p(z) + log p(x | z, y) - log q(z | x, y) at one z, factor by factor."""
    q = MODEL.encoder["z"].conditional(params.phi["z"], (x, y))
    z = q.sample(key)
    log_p_x = MODEL.graph["x"].conditional(params.theta["x"], (z, y)).log_prob(x)
    log_p_y = jax.nn.log_softmax(params.theta["y"]["logits"]) @ y
    return log_p_y - 0.5 * jnp.sum(z**2) - jnp.log(2 * jnp.pi) + log_p_x - q.log_prob(z)


def row_by_hand(params, row, key):
    """U(x) + weight [L(x', y') + alpha log q(y' | x')]."""
    unlabelled_key, labelled_key = jax.random.split(key)
    # That of the node z of the only sample.
    z_key = jax.random.split(jax.random.split(unlabelled_key, 1)[0])[1]
    log_q = jax.nn.log_softmax(MODEL.encoder["y"].conditional.logits(params.phi["y"], row["x"]))
    total = 0.0
    for y, log_q_y in zip(jnp.eye(NUM_CLASSES), log_q, strict=True):
        total += jnp.exp(log_q_y) * (bound_of_class(params, row["x"], y, z_key) - log_q_y)
    labelled_key = jax.random.split(labelled_key, 1)[0]
    labelled = bound_of_class(params, row["labelled"], row["y"], labelled_key)
    classifier = MODEL.encoder["y"].conditional
    log_q = jax.nn.log_softmax(classifier.logits(params.phi["y"], row["labelled"]))
    return total + row["weight"] * (labelled + ALPHA * log_q @ row["y"])


def by_hand(params, rows, key):
    """The mean over the rows."""
    keys = jax.random.split(key, len(rows["x"]))
    return jnp.mean(jax.vmap(row_by_hand, (None, 0, 0))(params, rows, keys))


def test_the_minibatch_objective_is_the_sum_by_hand():
    """Value and gradient."""
    objective = vaejax.minibatch(ESTIMATOR, MODEL)
    rows, key = jax.tree.map(jnp.asarray, ROWS), jax.random.key(1)
    maximised = jax.value_and_grad(lambda params: objective(params, rows, key, 0).objective)
    value, gradient = jax.jit(maximised)(PARAMS)
    expected, exact = jax.jit(jax.value_and_grad(lambda params: by_hand(params, rows, key)))(PARAMS)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for leaf, by_hand_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(leaf, by_hand_leaf, rtol=1e-4, atol=1e-5)


def test_the_rows_add_up_to_the_data_set():
    """Every image once, every labelled one with total weight 1: so the mean over rows is (1/N) of
    the objective of the data set.
    """
    np.testing.assert_array_equal(ROWS["x"], IMAGES)
    for image, y in zip(IMAGES[[3, 1]], Y, strict=True):
        mine = np.all(ROWS["labelled"] == image[None], axis=1)
        np.testing.assert_allclose(ROWS["weight"][mine].sum(), 1, rtol=1e-6)
        assert np.all(ROWS["y"][mine] == y[None])


def test_the_bound_is_without_the_classifier():
    row, key = jax.tree.map(lambda leaf: leaf[0], ROWS), jax.random.key(2)
    terms = jax.jit(lambda params: ESTIMATOR.terms(MODEL, params, row, key, 0))(PARAMS)
    log_q = experiment.log_q_class(MODEL, PARAMS, ROWS["labelled"][0], Y[0])
    extra = ROWS["weight"][0] * ALPHA * log_q
    np.testing.assert_allclose(terms.objective - terms.bound, extra, rtol=1e-4)
