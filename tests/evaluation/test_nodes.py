"""The KL of each node over data."""

from functools import partial

import jax
import numpy as np
import pytest

import vaejax
from tests.lib.kinds import IMAGES, KINDS, params_of
from vaejax.base.mapping import Transformed, estimate


@pytest.mark.parametrize("name", ["layers", "ladder"])
def test_it_is_the_mean_of_that_of_each_example(name):
    model, key = KINDS[name], jax.random.key(1)
    params = params_of(model)
    measured = vaejax.mean_kl_by_node(model, params, IMAGES, key, batch_size=4)
    function = Transformed(partial(vaejax.kl_by_node, model), None)
    _, kl = vaejax.map_dataset(function, params, IMAGES, key)
    assert set(measured) == {"top", "z"}
    for node, nats in measured.items():
        np.testing.assert_allclose(nats, estimate(kl[node]), rtol=1e-5)
    changed = vaejax.mean_kl_by_node(model, params, 1 - IMAGES, key, transform=lambda x, key: 1 - x)
    np.testing.assert_allclose(changed["z"], measured["z"], rtol=1e-5)


def test_what_has_no_nodes_is_refused():
    model = KINDS["VAE"]
    with pytest.raises(TypeError, match="a KL by node is of a GraphModel"):
        vaejax.mean_kl_by_node(model, params_of(model), IMAGES, jax.random.key(0))
    model = KINDS["ladder"]
    with pytest.raises(ValueError, match="is for 0 and 1"):
        vaejax.mean_kl_by_node(model, params_of(model), IMAGES + 0.5, jax.random.key(0))
