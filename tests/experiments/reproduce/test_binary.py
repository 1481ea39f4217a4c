"""The models of binary.py: their start, what they learn, and what they do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from experiments.reproduce.binary import SHAPE, TABLE
from tests.lib.cases import cases
from vaejax.variance.cost import decoder_evaluations

IMAGES = (np.random.default_rng(0).random((50, *SHAPE)) < 0.3).astype(np.uint8)
KEY = jax.random.key(0)


def started(row):
    """The model and the parameters before the first step."""
    model, x = row.model(), jnp.zeros(SHAPE)
    params = row.start(model.init(KEY, x), IMAGES, KEY)
    return model, params._replace(psi=row.estimator.init(model, params, x, KEY))


def first_layer(row, params):
    return params.phi if row.name.startswith("one") else params.phi["b1"]


@pytest.mark.parametrize("name", ["one-disarm", "two-disarm"])
def test_both_ends_start_at_the_mean_image(name):
    """There every latent of the first layer is fair; and the decoder's bias gives it."""
    row = TABLE[name]
    model, params = started(row)
    mean = jnp.asarray(IMAGES.mean(axis=0), jnp.float32)
    is_one = name.startswith("one")
    encoder = model.encoder if is_one else model.encoder["b1"].conditional
    np.testing.assert_allclose(encoder(first_layer(row, params), mean).mean(), 0.5, atol=1e-6)
    decoder = params.theta["likelihood" if is_one else "x"]
    bias = decoder["params"]["Dense_0"]["bias"].reshape(SHAPE)
    np.testing.assert_allclose(jax.nn.sigmoid(bias), np.clip(mean, 0.001, 0.999), rtol=1e-5)


@pytest.mark.parametrize("name", cases(tuple(row.name for row in TABLE.rows)))
def test_as_many_evaluations_for_each(name):
    """Two in one layer, three in two."""
    row = TABLE[name]
    model, params = started(row)
    image = jnp.asarray(IMAGES[0], jnp.float32)
    evaluations = decoder_evaluations(row.estimator, model, params, image, KEY)
    assert evaluations.forward == (2 if name.startswith("one") else 3)


def test_a_step_leaves_the_mean_where_it_is():
    row = dataclasses.replace(TABLE["two-relax"], num_steps=3)
    model, params = started(row)
    run = vaejax.fit(
        vaejax.minibatch(row.estimator, model),
        params,
        row.optimizer(3),
        IMAGES,
        KEY,
        num_steps=3,
        batch_size=20,
        transform=vaejax.data.pixels.Pixels(1, "none"),
        progress=False,
    )
    before, after = (first_layer(row, trained) for trained in (params, run.params))
    np.testing.assert_array_equal(after["mean"], before["mean"])
    moved = jax.tree.map(
        lambda new, old: float(np.abs(new - old).max()),
        (run.params.psi, after["params"]),
        (params.psi, before["params"]),
    )
    assert min(jax.tree.leaves(moved)) > 0


def test_the_order_is_said_with_its_gaps():
    def record(row, *bounds):
        seeds = {str(i): {"numbers": numbers(bound)} for i, bound in enumerate(bounds)}
        means = {name: {"mean": value} for name, value in numbers(np.mean(bounds)).items()}
        return {"row": row, "seeds": seeds, "ours": means}

    def numbers(bound):
        return {"elbo": bound, "log_marginal": bound + 2}

    records = {
        "one-rebar": record("one-rebar", -114.0, -114.4),
        "one-relax": record("one-relax", -113.0, -113.6),
    }
    gaps = "`one-relax`, `one-rebar` (0.900 ± 0.100 behind)"
    assert TABLE.claims(records) == [
        f"one layer, by the ELBO, best first: {gaps}",
        f"one layer, by the bound of 100 samples, best first: {gaps}",
    ]
    assert TABLE.claims({}) == []
