"""M2's objective: against the sum over classes by hand, and over all minibatches, the objective of
the data set.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from experiments.lib import few_labels as lib

NUM_CLASSES, ALPHA, CHOSEN = 3, 0.7, np.array([[0, 4], [3, 1]])
MODEL = lib.m2(
    partial(vaejax.MLP, hidden=(6,)), 2, NUM_CLASSES, vaejax.Bernoulli(vaejax.MLP((4,), (6,)))
)
GENERATOR = np.random.default_rng(0)
IMAGES = (GENERATOR.random((5, 4)) < 0.5).astype(np.float32)
Y = np.eye(NUM_CLASSES, dtype=np.float32)[[[1, 1], [2, 0]]]
DRAW = 1  # of the two
STORED = lib.paired_rows(IMAGES, CHOSEN, Y)
ROWS = jax.tree.map(lambda leaf: leaf.astype(np.float64), STORED)
ESTIMATOR = lib.SemiSupervised(ALPHA, 2 / 5)
OBJECTIVE = vaejax.minibatch(ESTIMATOR, MODEL)


@pytest.fixture
def params(x64):
    initial = MODEL.init(jax.random.key(0), jnp.asarray(IMAGES[0]))
    params = jax.tree.map(lambda leaf: 1.5 * jnp.asarray(leaf, jnp.float64), initial)
    return params._replace(psi=jnp.eye(2)[DRAW])


def log_q_y(params, x):
    return jax.nn.log_softmax(MODEL.encoder["y"].conditional.logits(params.phi["y"], x))


def elbo_by_hand(params, x, y, key):
    """log p(y) + log p(x | z, y) - KL(q(z | x, y), N(0, I)), by the formulas, at one z."""
    example = {"x": x, "y": y}
    z = MODEL.observe("y").posterior(params, example).sample(jax.random.split(key, 1)[0])["z"]
    loc, _ = MODEL.encoder["z"].conditional.net.apply(params.phi["z"], (x, y))
    log_scale = MODEL.encoder["z"].conditional(params.phi["z"], (x, y)).log_scale
    kl = 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale)
    logits = MODEL.graph["x"].conditional.net.apply(params.theta["x"], (z, y))
    return -jnp.log(NUM_CLASSES) + jnp.sum(x * logits - jax.nn.softplus(logits)) - kl


def image_by_hand(params, x, key):
    """sum_y q(y | x) [L(x, y) - log q(y | x)]."""
    classes = zip(jnp.eye(NUM_CLASSES), log_q_y(params, x), strict=True)
    return sum(jnp.exp(log_q) * (elbo_by_hand(params, x, y, key) - log_q) for y, log_q in classes)


def row_by_hand(params, row, key):
    """U(x) + weight [L(x', y') + alpha N/N_l log q(y' | x')]."""
    key, labelled_key = jax.random.split(key)
    image, y = row["labelled"][DRAW], row["y"][DRAW]
    labelled = elbo_by_hand(params, image, y, labelled_key)
    log_q = log_q_y(params, image) @ y
    weighed = row["weight"] * (labelled + ALPHA * 5 / 2 * log_q)
    return image_by_hand(params, row["x"], key) + weighed


def test_the_minibatch_objective_is_the_sum_by_hand(params):
    """Value and gradient."""
    rows, key = jax.tree.map(jnp.asarray, ROWS), jax.random.key(1)

    def by_hand(params):
        keys = jax.random.split(key, len(IMAGES))
        return jnp.mean(jax.vmap(row_by_hand, (None, 0, 0))(params, rows, keys))

    maximised = jax.value_and_grad(lambda params: OBJECTIVE(params, rows, key, 0).objective)
    value, gradient = jax.jit(maximised)(params)
    expected, exact = jax.jit(jax.value_and_grad(by_hand))(params)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    for leaf, by_hand_leaf in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(leaf, by_hand_leaf, rtol=1e-8, atol=1e-10)


def test_the_mean_over_all_minibatches_is_the_objective_of_the_data_set(params):
    """The balance of the terms: N times the mean over all minibatches of two rows is sum_x U(x) +
    sum_(labelled) [L(x, y) + alpha N/N_l log q(y | x)], where the decoder does not look at z, so
    that nothing is drawn.
    """
    first = params.theta["x"]["params"]["Dense_0"]
    blind = {**first, "kernel": first["kernel"].at[:2].set(0.0)}
    decoder = {"params": {**params.theta["x"]["params"], "Dense_0": blind}}
    params = params._replace(theta={**params.theta, "x": decoder})

    key, objective = jax.random.key(0), jax.jit(OBJECTIVE)
    batches = itertools.combinations(range(5), 2)
    values = [
        objective(params, jax.tree.map(lambda leaf: leaf[jnp.array(b)], ROWS), key, 0).objective
        for b in batches
    ]
    unlabelled = sum(image_by_hand(params, x, key) for x in jnp.asarray(IMAGES))
    labelled = sum(
        elbo_by_hand(params, x, y, key) + ALPHA * 5 / 2 * log_q_y(params, x) @ y
        for x, y in zip(jnp.asarray(IMAGES[CHOSEN[DRAW]]), jnp.asarray(Y[DRAW]), strict=True)
    )
    # the weights 1/3 of the rows are stored in float32
    np.testing.assert_allclose(5 * np.mean(values), unlabelled + labelled, rtol=1e-7)


def test_the_rows_have_every_image_once_and_every_label_with_weight_one():
    np.testing.assert_array_equal(STORED["x"], IMAGES)
    for draw in range(2):
        for image, y in zip(IMAGES[CHOSEN[draw]], Y[draw], strict=True):
            mine = np.all(STORED["labelled"][:, draw] == image[None], axis=1)
            np.testing.assert_allclose(STORED["weight"][mine].sum(), 1, rtol=1e-6)
            assert np.all(STORED["y"][mine, draw] == y[None])


def test_the_bound_is_without_the_classifier(params):
    row, key = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), ROWS), jax.random.key(2)
    terms = jax.jit(lambda params: ESTIMATOR.terms(MODEL, params, row, key, 0))(params)
    log_q = log_q_y(params, row["labelled"][DRAW]) @ row["y"][DRAW]
    extra = row["weight"] * ALPHA * 5 / 2 * log_q
    np.testing.assert_allclose(terms.objective - terms.bound, extra, rtol=1e-9)


def test_classes_look_alike_at_the_start_and_the_classifier_is_as_given():
    example, draw = jnp.asarray(IMAGES[0]), np.eye(2)[DRAW]
    phi_y = MODEL.init(jax.random.key(0), example).phi["y"]
    params = lib.start_of_m2(MODEL, example, draw, jax.random.key(1), phi_y)
    assert params.phi["y"] is phi_y
    elbos = jax.vmap(
        lambda y: lib.elbo_of_class(MODEL, params, {"x": example, "y": y}, jax.random.key(2))
    )(jnp.eye(NUM_CLASSES))
    assert 0 < np.ptp(elbos) < 1e-4
    log_q = log_q_y(lib.start_of_m2(MODEL, example, draw, jax.random.key(1)), example)
    np.testing.assert_allclose(log_q, -np.log(NUM_CLASSES), atol=1e-4)


def test_psi_never_moves_and_a_held_classifier_moves_after_its_steps():
    params = MODEL.init(jax.random.key(0), jnp.asarray(IMAGES[0]))._replace(psi=jnp.eye(2)[DRAW])
    optimizer = lib.adam_of_m2(0.1, 10, size=5, held_steps=2)
    gradient = jax.grad(lambda params: OBJECTIVE(params, ROWS, jax.random.key(0), 0).objective)
    state = optimizer.init(params)
    for step in range(3):
        steps, state = optimizer.update(gradient(params), state, params)
        assert not np.any(steps.psi)
        assert np.any(steps.phi["z"]["params"]["Dense_0"]["kernel"])
        moves = any(np.any(leaf) for leaf in jax.tree.leaves(steps.phi["y"]))
        assert moves == (step == 2)


def test_both_images_of_a_row_are_transformed_with_noise_of_their_own():
    transform = lib.BothImages(vaejax.Pixels(1))
    row = {"x": jnp.full(200, 0.5), "labelled": jnp.full(200, 0.5), "y": Y[0], "weight": 0.5}
    seen = transform(row, jax.random.key(0))
    assert set(np.unique(seen["x"])) == set(np.unique(seen["labelled"])) == {0, 1}
    # 200 fair coins agree in 60 to 140 places but for 1e-8
    assert 60 <= np.sum(seen["x"] == seen["labelled"]) <= 140
    assert seen["y"] is row["y"] and seen["weight"] == 0.5
