"""The models of Burda et al. and nbip/IWAE: their parts and their start; what is said of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.burda import glorot_uniform, with_mean_image
from experiments.reproduce import conditional, iwae
from tests.lib.cases import cases

IMAGES = np.random.default_rng(0).integers(9, 256, (50, 28, 28)).astype(np.uint8)
IMAGES[:, 0, 0] = 0  # a pixel that is always dark
KEY = jax.random.key(0)


def shapes(params):
    flat = jax.tree_util.tree_leaves_with_path(params)
    return [leaf.shape for path, leaf in flat if "kernel" in jax.tree_util.keystr(path)]


def test_the_architectures_are_those_of_the_paper():
    shallow, deep = iwae.TABLE["iwae-5"], iwae.TABLE["two-layers-iwae-5"]
    params = shallow.start(shallow.model(), IMAGES, KEY)
    assert shapes(params.phi) == [(784, 200), (200, 200), (200, 2 * 50)]
    assert shapes(params.theta) == [(50, 200), (200, 200), (200, 784)]
    params = deep.start(deep.model(), IMAGES, KEY)
    assert shapes(params.phi["z1"]) == [(784, 200), (200, 200), (200, 2 * 100)]
    assert shapes(params.phi["z2"]) == [(100, 100), (100, 100), (100, 2 * 50)]
    assert shapes(params.theta["z1"]) == [(50, 100), (100, 100), (100, 2 * 100)]
    assert shapes(params.theta["x"]) == [(100, 200), (200, 200), (200, 784)]


def test_labels_go_into_prior_likelihood_and_encoder():
    row = conditional.TABLE["ciwae-5"]
    train = {"x": IMAGES, "y": np.eye(10, dtype=np.float32)[np.arange(50) % 10]}
    params = conditional.start(row.model(), train, KEY)
    assert shapes(params.phi) == [(794, 200), (200, 200), (200, 2 * 100)]
    assert shapes(params.theta["x"]) == [(110, 200), (200, 200), (200, 784)]
    assert shapes(params.theta["z"]) == [(10, 200), (200, 200), (200, 2 * 100)]
    transform = conditional.WithLabel(iwae.vaejax.Pixels(255))
    example = transform({"x": IMAGES[0], "y": train["y"][3]}, KEY)
    assert set(np.unique(example["x"])) <= {0, 1}
    np.testing.assert_array_equal(example["y"], np.eye(10)[3])


@pytest.mark.parametrize("heads", [1, 2])
def test_glorots_weights(heads):
    """Uniform up to sqrt(6 / (in + out)), of each head: mean 0 and variance limit^2 / 3, where the
    estimate of the variance has the relative standard error sqrt(0.8 / n); six of them."""
    params = {"Dense_0": {"kernel": jnp.ones((300, 400)), "bias": jnp.ones(400)}}
    drawn = glorot_uniform(params, KEY, heads)["Dense_0"]
    weights = np.asarray(drawn["kernel"], np.float64)
    limit = math.sqrt(6 / (300 + 400 / heads))
    assert np.abs(weights).max() <= limit * (1 + 1e-6)
    assert np.abs(weights).max() > 0.999 * limit
    assert abs(weights.mean()) < 6 * limit / math.sqrt(3 * weights.size)
    assert abs(weights.var() / (limit**2 / 3) - 1) < 6 * math.sqrt(0.8 / weights.size)
    assert not drawn["bias"].any()


def test_the_output_starts_at_the_mean_image():
    row = iwae.TABLE["vae-1"]
    model = row.model()
    params = row.start(model, IMAGES, KEY)
    decoder = params.theta["likelihood"]
    silent = jax.tree.map(lambda leaf: leaf if leaf.shape == (784,) else 0 * leaf, decoder)
    theta = {**params.theta, "likelihood": silent}
    mean = model.p_x_given_z(params._replace(theta=theta), jnp.zeros(50)).mean()
    expected = np.clip(IMAGES.mean(axis=0) / 255, 0.001, 0.999)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
    assert expected[0, 0] == 0.001
    other = with_mean_image(decoder, IMAGES, 510)
    assert not np.array_equal(
        other["params"]["Dense_2"]["bias"], decoder["params"]["Dense_2"]["bias"]
    )


def record(nll, **versus):
    pairs = {
        name: {"mean": mean, "standard_error": error, "examples": 10_000}
        for name, (mean, error) in versus.items()
    }
    return {"ours": {"nll": {"mean": nll, "standard_error": 0.01}}, "versus": pairs}


DIFFERENCES = {"yes": (-0.2, 0.05), "no": (0.2, 0.05), "undecided": (0.05, 0.05)}


@pytest.mark.parametrize("expected", cases(DIFFERENCES.keys()))
def test_claims_say_what_the_records_say(expected):
    pair = DIFFERENCES[expected]
    records = {
        "vae-1": record(86.8),
        "iwae-5": record(85.5),
        "iwae-50": record(84.8),
        "vae-5": record(86.9),
        "dreg-5": record(85.3, **{"iwae-5": pair}),
    }
    ordered_vae, ordered_iwae, dreg = iwae.TABLE.claims(records)
    assert ordered_vae == "The VAE with one layer falls with k: no, 86.80, 86.90 nats."
    assert ordered_iwae == "The IWAE with one layer falls with k: yes, 86.80, 85.50, 84.80 nats."
    assert f"`dreg-5` at or below `iwae-5`: {expected};" in dreg
    assert iwae.TABLE.claims({}) == []
