"""How parameters lie on a mesh changes rounding only, and what each device holds."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import vaejax
from tests.lib.training import KEY, MODEL, XS, Counted, checkpointed, fit, state
from tests.lib.trees import assert_same_bits
from vaejax.training.sharding import shardings

MESH = Mesh(np.array(jax.devices()), "data")
SIZE = len(jax.devices())
SPLIT = vaejax.FullyShardedDataParallel(at_least=64)
SPECS = {  # of arrays on 8 devices
    (64, 16): PartitionSpec("data"),
    (16, 64): PartitionSpec(None, "data"),
    (7, 9, 24): PartitionSpec(None, None, "data"),
    (63, 33): PartitionSpec(),  # no axis divides
    (8,): PartitionSpec(),  # fewer numbers than 64
    (): PartitionSpec(),
}


@pytest.mark.parametrize("shape, spec", SPECS.items(), ids=map(str, SPECS))
def test_the_largest_axis_that_divides(shape, spec):
    assert SPLIT.spec(shape, 8) == spec
    assert vaejax.Replicated().spec(shape, 8) == PartitionSpec()


def close(run, expected):
    """5e-6 relative, after 20 steps."""
    np.testing.assert_allclose(run.history["bound"], expected.history["bound"], rtol=5e-6)
    for leaf, right in zip(*map(jax.tree.leaves, (run.params, expected.params)), strict=True):
        np.testing.assert_allclose(leaf, right, rtol=5e-6, atol=5e-6 * np.abs(right).max())


@pytest.mark.parametrize("data", [XS, Counted(XS)], ids=["arrays", "a source"])
@pytest.mark.parametrize("rule", [None, SPLIT], ids=["replicated", "fully sharded"])
def test_sharded_equals_one_device(data, rule):
    run = fit(20, 40, data=data, mesh=MESH, sharding=rule)
    close(run, fit(20, 40))
    places = jax.tree.map(lambda leaf: leaf.sharding, (run.params, run.opt_state))
    expected = shardings(rule or vaejax.Replicated(), MESH, (run.params, run.opt_state))
    same = jax.tree.map(
        lambda leaf, place, right: place.is_equivalent_to(right, leaf.ndim),
        (run.params, run.opt_state),
        places,
        expected,
    )
    assert all(jax.tree.leaves(same))


def test_each_device_holds_its_part():
    """Of parameters and both moments of Adam, in whatever comes out of `fit`."""
    model = vaejax.VAE(
        vaejax.StandardNormal(2),
        vaejax.Bernoulli(vaejax.MLP((8, 8), (1024, 1024))),
        vaejax.DiagNormal(vaejax.MLP(2, (16,), heads=2)),
    )
    params = model.init(jax.random.key(0), XS[0])
    objective = vaejax.minibatch(vaejax.Pathwise(), model)
    rule = vaejax.FullyShardedDataParallel(at_least=2**10)
    run = fit(2, 8, objective=objective, params=params, mesh=MESH, sharding=rule)
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves((run.params, run.opt_state)))
    held = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((run.params, run.opt_state))
        for shard in leaf.addressable_shards
        if shard.device == jax.devices()[0]
    )
    assert whole / SIZE <= held <= 1.02 * whole / SIZE


def test_200_megabytes_are_25_on_each_of_8_devices():
    """Of shapes alone, by the default rule: what a device has of each array is for JAX to say."""
    wide = vaejax.MLP((28, 28), (4864, 4864, 4864))
    model = vaejax.VAE(
        vaejax.StandardNormal(64),
        vaejax.Bernoulli(wide),
        vaejax.DiagNormal(vaejax.MLP(64, (256,), heads=2)),
    )
    params = jax.eval_shape(model.init, jax.random.key(0), np.zeros((28, 28), np.float32))
    places = shardings(vaejax.FullyShardedDataParallel(), MESH, params)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    held = sum(
        int(np.prod(place.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf, place in zip(*map(jax.tree.leaves, (params, places)), strict=True)
    )
    assert 200e6 < whole < 210e6
    assert whole / SIZE <= held < 1.05 * whole / SIZE  # biases lie whole on each


def test_a_run_goes_on_under_another_rule(tmp_path):
    """Checkpoints are of the arrays, whole: 9 steps in parts, then on one device."""
    checkpointed(tmp_path, 9, mesh=MESH_OF_FOUR, sharding=SPLIT)
    resumed = checkpointed(tmp_path, 20, resume=True)
    close(resumed, checkpointed(None))
    again = checkpointed(tmp_path / "b", 9)
    assert_same_bits(state(again), state(checkpointed(None, 9)))
    resumed = checkpointed(tmp_path / "b", 20, resume=True, mesh=MESH_OF_FOUR, sharding=SPLIT)
    close(resumed, checkpointed(None))


MESH_OF_FOUR = Mesh(np.array(jax.devices()[:4]), "data")


def test_what_is_sharded_is_evaluated():
    rule = vaejax.FullyShardedDataParallel(at_least=16)
    run = fit(2, 40, mesh=MESH, sharding=rule, validation=vaejax.Validation(XS[:40], every=1))
    alone = fit(2, 40, validation=vaejax.Validation(XS[:40], every=1))
    np.testing.assert_allclose(
        run.history["validation_bound"], alone.history["validation_bound"], rtol=5e-6
    )
    sharded, expected = (
        vaejax.evaluate(MODEL, r.params, XS[:20], KEY, num_samples=8, transform=vaejax.Pixels(16))
        for r in (run, alone)
    )
    np.testing.assert_allclose(sharded.elbo, expected.elbo, rtol=5e-6)


def test_a_rule_needs_a_mesh_and_is_a_rule():
    with pytest.raises(ValueError, match="without a mesh; give one"):
        fit(sharding=SPLIT)
    with pytest.raises(TypeError, match="FullyShardedDataParallel"):
        fit(mesh=MESH, sharding="fsdp", batch_size=8)
    with pytest.raises(ValueError, match="at_least"):
        vaejax.FullyShardedDataParallel(0)
