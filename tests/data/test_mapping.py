"""A function over a data set, which is held against what the function asks of its examples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import vaejax
from tests.lib.kinds import KINDS, SHAPE, data_of, params_of
from vaejax.base.mapping import Transformed

KEY = jax.random.key(0)


def double(x, key):
    return 2 * x


def test_map_dataset_asks_what_the_function_asks():
    """Of the leaves that it hands to a model as they are, and after a transform; what it changes,
    or keeps to itself, is its own affair.
    """
    model = KINDS["VAE"]
    params, grey = params_of(model), np.full((3, *SHAPE), 0.5, np.float32)

    def of_a_part(params, pair, key):
        return vaejax.elbo(model, params, pair["image"], key) + jnp.sum(pair["label"])

    def of_rounded(params, x, key):
        return vaejax.elbo(model, params, jnp.round(x), key)

    labels = np.full((3, 1), np.nan)
    with pytest.raises(ValueError, match=r"data\['image'\] has values in \[0.5, 0.5\]"):
        vaejax.map_dataset(of_a_part, params, {"image": grey, "label": labels}, KEY)
    for xs in (grey, vaejax.Arrays(grey)):
        mapped = vaejax.map_source if xs is not grey else vaejax.map_dataset
        assert mapped(of_rounded, params, xs, KEY).shape == (3,)
        bound = partial(vaejax.elbo, model)
        assert mapped(Transformed(bound, double), params, xs, KEY).shape == (3,)
        assert mapped(Transformed(bound, vaejax.Pixels(1)), params, xs, KEY).shape == (3,)
        for transform, sentence in (
            (None, "data has values"),
            (lambda x, key: x / 2, "transformed data has values"),
            (vaejax.Pixels(1, "none"), "data is grey and this likelihood is for 0 and 1"),
        ):
            with pytest.raises(ValueError, match=sentence):
                mapped(Transformed(bound, transform), params, xs, KEY)


def test_the_next_part_of_a_data_set_traces_nothing():
    model, traced = KINDS["VAE"], []

    def function(params, x, key):
        traced.append(1)
        return vaejax.elbo(model, params, x, key)

    params = params_of(model)
    for start in range(3):
        vaejax.map_dataset(function, params, data_of(model), KEY, 2, start)
    assert len(traced) <= 3  # what it asks; the program, and its last, smaller part


@pytest.mark.parametrize("size, batch_size", [(29, 3), (24, 3), (2, 3), (1, 1)])
def test_a_mesh_shares_the_batches(size, batch_size):
    """To the same bits as one device, of arrays and of a source; each example once, with the key
    of its number.
    """
    xs, key = np.arange(size, dtype=np.float32)[:, None], jax.random.key(0)
    mesh = Mesh(np.array(jax.devices()[:4]), "data")

    def draw(params, x, key):
        return {"sum": params + x, "noise": jax.random.normal(key)}

    expected = vaejax.map_dataset(draw, 1.0, xs, key, batch_size, start=5)
    for data in (xs, vaejax.RandomAccess(list(xs))):
        draws = vaejax.map_dataset(draw, 1.0, data, key, batch_size, start=5, mesh=mesh)
        jax.tree.map(np.testing.assert_array_equal, draws, expected)


@pytest.mark.parametrize(
    "mesh, message",
    [
        (Mesh(np.array(jax.devices()[:2]), "model"), "the mesh has axes .'model',.; name the one"),
        (2, r"mesh = 2; give one, such as jax.make_mesh\(\(2,\), \(\"data\",\)\)"),
    ],
)
def test_what_is_no_mesh_of_examples_is_refused(mesh, message):
    with pytest.raises((TypeError, ValueError), match=message):
        vaejax.map_dataset(lambda p, x, key: x, None, np.ones(3), jax.random.key(0), mesh=mesh)


class Counted(vaejax.Source):
    """How often each row was read."""

    def __init__(self, xs):
        self.xs, self.reads = xs, np.zeros(len(xs), int)

    def __len__(self):
        return len(self.xs)

    def __getitem__(self, rows):
        np.add.at(self.reads, rows, 1)
        return self.xs[rows]


@pytest.mark.parametrize("dtype, looks", [(np.float32, 0), (np.float64, 1)])
def test_a_source_of_which_nothing_is_asked_is_read_once(dtype, looks):
    """But for its first row, of which shapes are taken; and once more where float32 has fewer
    digits than it.
    """
    source = Counted(np.arange(7, dtype=dtype)[:, None])
    vaejax.map_source(lambda params, x, key: x, None, source, KEY, batch_size=2)
    assert set(source.reads[1:]) == {1 + looks} and source.reads[0] > looks + 1
