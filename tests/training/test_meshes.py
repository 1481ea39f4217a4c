"""Arrays on meshes of any kind, and a mesh that is set around, change rounding only."""

from contextlib import nullcontext

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import vaejax
from tests.lib.cases import cases
from tests.lib.optimizers import OBJECTIVE, PARAMS, XS, fit

EVERYWHERE, SPLIT = PartitionSpec(), PartitionSpec("data")
KEY = jax.random.key(0)


def mesh_of(kind, size=2):
    return Mesh(np.array(jax.devices()[:size]), "data", axis_types=(kind,))


EXPLICIT, AUTOMATIC = mesh_of(AxisType.Explicit), mesh_of(AxisType.Auto)
DATA = jax.device_put(XS, NamedSharding(EXPLICIT, SPLIT))
PLACED = jax.device_put(PARAMS, NamedSharding(EXPLICIT, EVERYWHERE))
# (the mesh that is set around, what fit is given)
TRAININGS = {
    "split data": (None, {"data": DATA, "validation": vaejax.Validation(DATA, every=2)}),
    "split data and placed params": (None, {"data": DATA, "params": PLACED}),
    "split data and a mesh": (None, {"data": DATA, "mesh": EXPLICIT}),
    "under a mesh": (AxisType.Explicit, {}),
    "under its mesh": (AxisType.Explicit, {"data": DATA, "params": PLACED}),
    "another mesh": (
        AxisType.Explicit,
        {"mesh": AUTOMATIC, "validation": vaejax.Validation(XS, every=2)},
    ),
    "another mesh, both automatic": (AxisType.Auto, {"mesh": AUTOMATIC}),
}
SLOW = {"split data and placed params", "split data and a mesh", "another mesh, both automatic"}


def around(kind, size=4):
    return nullcontext() if kind is None else jax.set_mesh(mesh_of(kind, size))


@pytest.mark.parametrize("case", cases(TRAININGS, SLOW))
def test_fit_gives_what_one_device_gives(case):
    kind, settings = case
    with around(kind, 2 if "data" in settings else 4):
        run = fit(optax.adam(1e-2), 4, **settings)
    expected = fit(optax.adam(1e-2), 4)
    np.testing.assert_allclose(run.history["bound"], expected.history["bound"], rtol=1e-5)
    assert len(run.history["validation_step"]) == 2 * ("validation" in settings)


@pytest.mark.parametrize(
    "strategy", ["cores", *(pytest.param(name, marks=pytest.mark.slow) for name in ("map", "vmap"))]
)
@pytest.mark.parametrize("kind", [None, AxisType.Explicit])
def test_seeds_give_what_one_device_gives(strategy, kind):
    keys = jax.random.split(KEY, 3)
    starts = jax.tree.map(lambda leaf: np.stack([leaf] * 3), PARAMS)
    settings = {"num_steps": 2, "batch_size": 4, "progress": False}
    with around(kind):
        data = DATA if kind is None else XS
        run = vaejax.fit_seeds(
            OBJECTIVE, starts, optax.adam(1e-2), data, keys, strategy=strategy, **settings
        )
    for s, key in enumerate(keys):
        alone = fit(optax.adam(1e-2), 2, key=key)
        np.testing.assert_allclose(run.history["bound"][s], alone.history["bound"], rtol=1e-5)


@pytest.mark.parametrize("strategy", ["scan", "devices"])
@pytest.mark.parametrize("kind", [None, AxisType.Explicit])
def test_moments_are_what_one_device_gives(strategy, kind):
    expected = vaejax.gradient_moments(OBJECTIVE, PARAMS, XS, KEY, 8, strategy="scan")
    with around(kind):
        data = DATA if kind is None else XS
        moments = vaejax.gradient_moments(OBJECTIVE, PARAMS, data, KEY, 8, strategy=strategy)
    jax.tree.map(
        lambda leaf, right: np.testing.assert_allclose(leaf, right, rtol=1e-5),
        moments.mean,
        expected.mean,
    )
