"""Groups of parameters add up, and the heads are found by what they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.kinds import KINDS, REFINED, data_of
from tests.lib.kinds import params_of as params_of_kind
from vaejax.variance.groups import heads


def test_groups_add_up():
    model = vaejax.VAE(
        vaejax.LearnedNormal(2),
        vaejax.Bernoulli(vaejax.MLP(3, (4,))),
        vaejax.DiagNormal(vaejax.MLP(2, (4,), heads=2)),
    )
    params, x = model.init(jax.random.key(0), jnp.ones(3)), jnp.asarray([0.0, 1.0, 1.0])
    groups = heads(model, params, x)
    assert list(groups) == [
        "theta prior",
        "theta likelihood",
        "phi body",
        "phi location",
        "phi scale",
    ]
    moments = vaejax.gradient_moments(
        vaejax.per_example(vaejax.Pathwise(), model),
        params,
        x,
        jax.random.key(0),
        50,
        groups=groups,
    )
    spreads = vaejax.gradient_spread(moments, groups)
    np.testing.assert_allclose(
        sum(spread.trace for spread in spreads.values()),
        vaejax.tree_sum(moments.variance),
        rtol=1e-6,
    )
    location = groups["phi location"](moments.variance)
    np.testing.assert_allclose(
        location["bias"], moments.variance.phi["params"]["Dense_1"]["bias"][:2], rtol=1e-6
    )
    np.testing.assert_allclose(
        moments.squares["phi location"].mean(), spreads["phi location"].trace, rtol=1e-6
    )
    conv = vaejax.VAE(
        vaejax.StandardNormal(2), model.likelihood, vaejax.FullNormal(vaejax.MLP(2, (4,), heads=4))
    )
    with pytest.raises(
        ValueError, match=r"heads needs an encoder DiagNormal .* use parts\(params\)"
    ):
        heads(conv, conv.init(jax.random.key(0), x), x)


def encoder(hidden):
    return vaejax.DiagNormal(vaejax.MLP(2, hidden, heads=2))


@vaejax.component
class Nested:
    """A net whose parameters have other names, one layer deep and one at the top, with the kernel
    of the last layer the other way round.
    """

    def init(self, key, x):
        first, last = jax.random.split(key)
        return {
            "a": {"deep": [jax.random.normal(first, (3, 4))]},
            "w": 0.3 * jax.random.normal(last, (4, 4)),
            "c": jnp.zeros(4),
        }

    def apply(self, params, x):
        h = jnp.tanh(jnp.ravel(x) @ params["a"]["deep"][0])
        return tuple(jnp.split(params["w"] @ h + params["c"], 2))


def assert_heads(model, params, x, names):
    """A push of all weights in the location moves the location alone, and likewise the scale; and
    the three groups are all of phi.
    """
    groups = heads(model, params, x)
    body, location, scale = (groups[f"phi {part}"] for part in ("body", "location", "scale"))
    assert sum(size(part(params)) for part in (body, location, scale)) == size(params.phi)
    assert set(location(params)) == set(scale(params)) == names
    posterior = jax.jit(model.posterior)
    q = posterior(params, x)
    for select, moves in ((location, [True, False]), (scale, [False, True])):
        mask = jax.jit(jax.grad(lambda params, select=select: total(select(params))))(params)
        pushed = jax.tree.map(lambda leaf, entry: leaf + 0.1 * entry, params, mask)
        pairs = list(zip(jax.tree.leaves(q), jax.tree.leaves(posterior(pushed, x)), strict=True))
        assert [(before != after).all() for before, after in pairs] == moves
        assert [(before != after).any() for before, after in pairs] == moves


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def total(tree):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("hidden", [(), (4,), (4,) * 11], ids=["1 layer", "2", "12"])
def test_the_last_layer_is_found_by_what_it_does(hidden):
    """Of 12 layers Dense_11 is the last, and of widths that are all those of two heads."""
    x = jnp.asarray([0.2, 1.0, -1.0])
    model = vaejax.VAE(
        vaejax.StandardNormal(2), vaejax.Gaussian(vaejax.MLP(3, (4,)), 1.0), encoder(hidden)
    )
    params = model.init(jax.random.key(0), x)
    assert_heads(model, params, x, {"bias", "kernel"})
    location = heads(model, params, x)["phi location"](params)
    kernel = params.phi["params"][f"Dense_{len(hidden)}"]["kernel"]
    np.testing.assert_array_equal(location["kernel"], kernel[:, :2])


def test_the_last_layer_has_any_name():
    x = jnp.asarray([0.2, 1.0, -1.0])
    likelihood = vaejax.Gaussian(vaejax.MLP(3, (4,)), 1.0)
    model = vaejax.VAE(vaejax.StandardNormal(2), likelihood, vaejax.DiagNormal(Nested()))
    assert_heads(model, model.init(jax.random.key(0), x), x, {"w", "c"})


@pytest.mark.parametrize("name", ["VAE", "graph", "conditional"])
def test_heads_of_every_kind_of_model(name):
    model = KINDS[name]
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), data_of(model))
    params = params_of_kind(model)
    assert_heads(model, params, x, {"bias", "kernel"})
    refined = vaejax.Refined(model, 0)
    assert heads(refined, params, x) == heads(model, params, x)


@pytest.mark.parametrize(
    "model, reason",
    [
        pytest.param(KINDS["layers"], "q is ", id="layers"),
        pytest.param(KINDS["one-hot"], "q is ", id="one-hot"),
        pytest.param(KINDS["conditional layers"], "q is ", id="conditional layers"),
        pytest.param(KINDS["own"], "q is ", id="own"),
        pytest.param(REFINED["Refined VAE"], "this net ends in none", id="Refined, stopped"),
    ],
)
def test_other_encoders_have_no_heads(model, reason):
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), data_of(model))
    with pytest.raises(ValueError, match=rf"heads needs .* {reason}.*; use parts\(params\)"):
        heads(model, params_of_kind(model), x)
