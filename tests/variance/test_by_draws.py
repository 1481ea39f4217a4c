"""Sums of powers over draws: equal to NumPy's over kept draws, whatever the chunks and the devices,
in memory that does not grow.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.gradient_moments import OBJECTIVE, POINT, all_draws, flat, measure
from tests.lib.programs import trip_counts
from vaejax.base.mapping import estimate
from vaejax.objectives.base import Maximised
from vaejax.variance.by_draws import Layout, Plan, Point, add_draws
from vaejax.variance.groups import Part
from vaejax.variance.layouts import strategy_for, ways_for


@pytest.mark.parametrize(
    "layout", [{"chunk": 1}, {"chunk": 64}, {"strategy": "scan", "chunk": 3}], ids=str
)
def test_moments_are_numpys(layout):
    """For 100 draws, a number that no chunk divides but 1."""
    moments, draws = measure(OBJECTIVE, num_draws=100, **layout), all_draws(OBJECTIVE, 100)
    mean = draws.mean(0)
    np.testing.assert_allclose(flat(moments.mean), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(moments.variance), draws.var(0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(
        flat(moments.third), ((draws - mean) ** 3).mean(0), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(flat(moments.fourth), ((draws - mean) ** 4).mean(0), rtol=1e-3)
    assert moments.num_draws == 100 and moments.squares["phi"].shape == (100,)
    draw_key = jax.random.split(jax.random.key(0))[1]
    keys = jax.vmap(lambda i: jax.random.fold_in(draw_key, i))(jnp.arange(100))
    values = jax.jit(jax.vmap(lambda key: Maximised(OBJECTIVE)(POINT.params, POINT.datum, key)))(
        keys
    )
    np.testing.assert_allclose(moments.value, estimate(values), rtol=1e-5)


def added(layout, count, block):
    """The program that adds 20 draws or fewer to no sums, and what it gives for so many."""
    plan = Plan(Maximised(OBJECTIVE), (Part(("phi",)),), layout, 20, block)
    point = Point(POINT.params, POINT.datum, jax.random.key(0), POINT.params)
    nothing = jax.tree.map(jnp.zeros_like, (POINT.params, POINT.params))
    return add_draws.lower(plan, point, nothing, 0, count).compile(), add_draws(
        plan, point, nothing, 0, count
    )


@pytest.mark.parametrize("layout", [Layout(False, 1), Layout(True, 4)], ids=str)
def test_blocks_of_chunks_add_the_same_draws(layout):
    """By rounding: of whole blocks, of some chunks left over, and of less than a chunk. A GPU is
    asked once a block.
    """
    for count in (20, 13, 3):
        (_, at_once), (program, in_blocks) = added(layout, count, 1), added(layout, count, 2)
        chex.assert_trees_all_close(in_blocks, at_once, rtol=1e-5)
        assert 2 in trip_counts(program.as_text())


def test_calls_go_on_with_other_draws(monkeypatch):
    """Of a call of 7 draws at a time, the moments are those of all 20."""
    monkeypatch.setattr("vaejax.variance.by_draws.DRAWS_PER_CALL", 7)
    moments, draws = measure(OBJECTIVE, num_draws=20, chunk=1), all_draws(OBJECTIVE, 20)
    np.testing.assert_allclose(flat(moments.mean), draws.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(moments.variance), draws.var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("layout", [{"chunk": 1}, {"chunk": 4}, {"strategy": "devices"}], ids=str)
def test_the_pilot_has_the_program_of_the_draws(layout):
    """One program to compile: it is most of the time of a measurement."""
    add_draws.clear_cache()
    measure(OBJECTIVE, num_draws=20, **layout)
    assert add_draws._cache_size() == 1


def test_squares_are_those_of_their_group():
    """Of each draw and group |g - mean|^2 about the mean so far: they go with those about the mean
    of all, and not with another group's.
    """
    groups = {"loc": Part(("phi", "loc")), "scale": Part(("phi", "log_scale"))}
    moments = measure(OBJECTIVE, num_draws=400, order=2, groups=groups, chunk=1)
    phi = all_draws(OBJECTIVE, 400)[:, -2:]  # theta's come before
    squares = (phi - phi.mean(0)) ** 2
    for column, name in enumerate(groups):
        assert np.corrcoef(moments.squares[name], squares[:, column])[0, 1] > 0.9
        np.testing.assert_allclose(
            moments.squares[name].mean(), phi[:, column].var(ddof=1), rtol=1e-3
        )


@pytest.mark.parametrize("chunk", [1, 3])
def test_devices_share_the_draws(chunk):
    """1,003 draws on eight devices, a number that they do not divide: the same draws, in the same
    order.
    """
    alone = measure(OBJECTIVE, num_draws=1_003, order=2)
    shared = measure(OBJECTIVE, num_draws=1_003, order=2, strategy="devices", chunk=chunk)
    np.testing.assert_allclose(flat(shared.variance), flat(alone.variance), rtol=1e-5)
    # About the mean of the draws so far, which on a device are fewer; other draws, or another
    # order, would not be correlated.
    assert np.corrcoef(shared.squares["phi"], alone.squares["phi"])[0, 1] > 0.95


@pytest.mark.parametrize("way", ["scan", "vmap", "devices"])
def test_the_fastest_way_takes_the_draws(way, monkeypatch):
    """The one that was measured to be: what it gives does not depend on the trials, and on which it
    is but for rounding.
    """

    def fastest(ways, trial, most_steps, computed):
        assert sorted(ways) == ["devices", "scan", "vmap"] and hash(computed)
        trial(way)(2)
        return way

    monkeypatch.setattr("vaejax.variance.by_draws.fastest", fastest)
    moments = measure(OBJECTIVE, num_draws=20, strategy="fastest")
    expected = measure(OBJECTIVE, num_draws=20, strategy=way)
    chex.assert_trees_all_equal(moments._asdict(), expected._asdict())
    draws = all_draws(OBJECTIVE, 20)
    np.testing.assert_allclose(flat(moments.variance), draws.var(0, ddof=1), rtol=1e-4)


def test_an_accelerator_tries_and_a_cpu_does_not(monkeypatch):
    assert strategy_for(None, None) == "scan" and strategy_for(None, 4) == "vmap"
    assert ways_for(40) == ["vmap", "devices"]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert strategy_for(None, None) == "fastest" and strategy_for("scan", None) == "scan"


def test_second_order_keeps_less():
    moments = measure(OBJECTIVE, num_draws=10, order=2)
    assert moments.third is None and moments.fourth is None
    np.testing.assert_allclose(
        flat(moments.variance), flat(measure(OBJECTIVE, num_draws=10).variance), rtol=1e-6
    )


def test_memory_does_not_grow_with_the_draws():
    """Temporaries of the compiled program, in bytes: at order 2 below three times the parameters
    and one chunk of gradients.
    """
    encoder = vaejax.DiagNormal(vaejax.MLP(8, (200,), heads=2))
    model = vaejax.VAE(vaejax.StandardNormal(8), vaejax.Bernoulli(vaejax.MLP(200, (200,))), encoder)
    params, x = model.init(jax.random.key(0), jnp.zeros(200)), jnp.zeros(200)
    sums = (params, params)

    point = Point(params, x, jax.random.key(0), params)
    function = Maximised(vaejax.per_example(vaejax.Pathwise(), model))

    def temporaries(size, chunk=1):
        plan = Plan(function, (Part(("phi",)),), Layout(False, chunk), size, 1)
        lowered = add_draws.lower(plan, point, sums, 0, size)
        memory: Any = lowered.compile().memory_analysis()
        return memory.temp_size_in_bytes

    bytes_of_params = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert temporaries(1_000) < temporaries(10) + 20_000
    assert temporaries(1_000) < 3 * bytes_of_params
    assert temporaries(1_000, chunk=4) < (3 + 4) * bytes_of_params
