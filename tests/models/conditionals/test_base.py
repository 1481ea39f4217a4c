"""What all conditionals share: values, events, batches by vmap, and the heads that they ask for."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.lib.conditionals import Outputs, gumbel_family
from vaejax.models.conditionals.flow_based import OfFlow

WITH_MLP = {
    "DiagNormal": vaejax.DiagNormal(vaejax.MLP(2, hidden=(4,), heads=2)),
    "FullNormal": vaejax.FullNormal(vaejax.MLP(2, hidden=(4,), heads=4)),
    "LowRankNormal": vaejax.LowRankNormal(vaejax.MLP(2, hidden=(4,), heads=3)),
    "Gaussian": vaejax.Gaussian(vaejax.MLP((2, 2), hidden=(4,)), scale="per-dimension"),
    "Laplace": vaejax.Laplace(vaejax.MLP(2, hidden=(4,), heads=2)),
    "RealNVP": vaejax.RealNVP(vaejax.MLP(2, hidden=(4,), heads=3), num_layers=2, hidden=(4,)),
    "InverseAutoregressive": vaejax.InverseAutoregressive(
        vaejax.MLP(2, hidden=(4,), heads=2), hidden=(4,)
    ),
    "VonMisesFisher": vaejax.VonMisesFisher(vaejax.MLP(3, hidden=(4,))),
    "Bernoulli": vaejax.Bernoulli(vaejax.MLP((2, 2), hidden=(4,))),
    "ContinuousBernoulli": vaejax.ContinuousBernoulli(vaejax.MLP((2, 2), hidden=(4,))),
    "Categorical": vaejax.Categorical(vaejax.MLP((2, 4), hidden=(4,)), num_levels=4),
    "DiscretizedLogistic": vaejax.DiscretizedLogistic(vaejax.MLP((2, 2), hidden=(4,), heads=6)),
    "Poisson": vaejax.Poisson(vaejax.MLP(2, hidden=(4,))),
    "NegativeBinomial": vaejax.NegativeBinomial(vaejax.MLP(2, hidden=(4,), heads=2)),
    "OneHotCategorical": vaejax.OneHotCategorical(vaejax.MLP((2, 3), hidden=(4,))),
    "RelaxedBernoulli": vaejax.RelaxedBernoulli(vaejax.MLP(2, hidden=(4,))),
    "RelaxedCategorical": vaejax.RelaxedCategorical(vaejax.MLP((2, 3), hidden=(4,))),
    "NumPyroConditional": vaejax.NumPyroConditional(
        vaejax.MLP(2, hidden=(4,), heads=2), gumbel_family
    ),
}


EVENTS = dict.fromkeys(
    ("Gaussian", "Bernoulli", "ContinuousBernoulli", "DiscretizedLogistic"), (2, 2)
) | {
    "VonMisesFisher": (3,),
    "OneHotCategorical": (2, 3),
    "RelaxedCategorical": (2, 3),
}


def random_params(conditional, given):
    shapes = jax.eval_shape(conditional.init, jax.random.key(0), given)
    return jax.tree.map(
        lambda leaf: np.random.default_rng(1).normal(size=leaf.shape).astype(leaf.dtype), shapes
    )


def a_batch(conditional, params, given, keys):
    """Distributions, samples and log-densities of a batch: here `vmap` gives back distributions, so
    every field must be mappable.
    """
    ps = jax.vmap(conditional, (None, 0))(params, given)
    return ps, *jax.vmap(lambda p, key: p.sample_and_log_prob(key))(ps, keys)


GIVEN = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


@pytest.mark.parametrize("name", WITH_MLP)
def test_a_sample_has_the_shape_of_the_event(name):
    """By tracing alone, which is what `jit` and `vmap` do before they compile."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = random_params(WITH_MLP[name], GIVEN[0])
    _, zs, log_probs = jax.eval_shape(partial(a_batch, WITH_MLP[name]), params, GIVEN, keys)
    assert zs.shape == (3, *EVENTS.get(name, (2,))) and log_probs.shape == (3,)


@pytest.mark.parametrize("name", ["FullNormal", "RealNVP", "RelaxedBernoulli"])
def test_a_batch_of_distributions_is_a_pytree(name):
    conditional, keys = WITH_MLP[name], jax.random.split(jax.random.key(0), 3)
    params = random_params(conditional, GIVEN[0])
    _, zs, log_probs = jax.jit(partial(a_batch, conditional))(params, GIVEN, keys)
    np.testing.assert_allclose(
        jax.jit(lambda x, z: conditional(params, x).log_prob(z))(GIVEN[1], zs[1]),
        log_probs[1],
        rtol=1e-4,
    )
    assert conditional.support.contains(np.asarray(zs))


@pytest.mark.parametrize("name", WITH_MLP)
def test_a_conditional_is_a_value(name):
    same = replace(WITH_MLP[name], net=replace(WITH_MLP[name].net))
    assert same == WITH_MLP[name] and hash(same) == hash(WITH_MLP[name])
    assert replace(same, net=vaejax.MLP(3)) != same


HEADS = {
    "DiagNormal": 2,
    "FullNormal": 5,
    "LowRankNormal": 3,
    "Laplace": 2,
    "RealNVP": 2,
    "InverseAutoregressive": 2,
    "NegativeBinomial": 2,
    "DiscretizedLogistic": 2,
}


ONE_HEAD = [
    "Bernoulli",
    "ContinuousBernoulli",
    "Categorical",
    "Poisson",
    "OneHotCategorical",
    "RelaxedBernoulli",
    "RelaxedCategorical",
]


@vaejax.component
class ZeroHeads:
    """A net whose parameters are its heads of these shapes; of one shape, one array."""

    shapes: tuple[tuple[int, ...], ...]

    def init(self, key, example):
        outputs = tuple(jnp.zeros(shape) for shape in self.shapes)
        return outputs if len(outputs) > 1 else outputs[0]

    def apply(self, params, example):
        return params


def given_heads(make, *shapes):
    """What `make` says to a net with heads of these shapes."""
    net = ZeroHeads(shapes)
    conditional, params = make(net), net.init(None, None)
    return conditional({"net": params} if isinstance(conditional, vaejax.Gaussian) else params, 0.0)


@pytest.mark.parametrize("name", HEADS)
def test_wrong_numbers_of_heads(name):
    make = getattr(vaejax, name)
    if issubclass(make, OfFlow):
        make = partial(_called_by_its_net, make)
    refusal = rf"{name} needs .*"
    for number in {
        "FullNormal": (1, 4, 6),
        "LowRankNormal": (1, 2),
        "DiscretizedLogistic": (1, 4, 5),
    }.get(name, (1, 4)):
        with pytest.raises(TypeError, match=refusal):
            given_heads(make, *[(3,)] * number)
    with pytest.raises(
        TypeError,
        match=(
            rf"{name} needs a net that returns \(.*\), such as vaejax.MLP\(dim,"
            rf" heads={HEADS[name]}\)"
        ),
    ):
        given_heads(make, (3,))
    with pytest.raises(
        TypeError, match=rf"{name} needs .* of one shape; its net's have \[\(3,\), \(2,\)"
    ):
        given_heads(make, (3,), (2,), *[(3,)] * (HEADS[name] - 2))


def _called_by_its_net(make, net):
    conditional = make(net)
    return lambda params, given: conditional({"net": params, "flow": ()}, given)


OF_ONE_HEAD = [
    *(getattr(vaejax, name) for name in ONE_HEAD),
    partial(vaejax.Gaussian, scale=1.0),
    vaejax.VonMisesFisher,
]


@pytest.mark.parametrize("make", OF_ONE_HEAD)
def test_two_heads_where_one_belongs(make):
    with pytest.raises(
        TypeError,
        match=r"needs a net that returns .* only, such as vaejax.MLP\(dim\), not 2 heads",
    ):
        given_heads(make, (3,), (3,))


def test_other_wrong_outputs():
    for name, number in (("FullNormal", 6), ("LowRankNormal", 3)):
        with pytest.raises(
            TypeError,
            match=(
                rf"{name} is a density of vectors, .*not \[\(2, 2\), .*write vaejax.MLP\(d, ...\)"
            ),
        ):
            given_heads(getattr(vaejax, name), *[(2, 2)] * number)
    with pytest.raises(
        TypeError,
        match=(
            r"Categorical needs .* logits of shape \[\*x.shape, 256\], such as .*, not \(3, 255\)"
        ),
    ):
        given_heads(vaejax.Categorical, (3, 255))
    with pytest.raises(
        TypeError, match=r"VonMisesFisher needs a vector of 2 or more .*, not shape \(1,\)"
    ):
        given_heads(vaejax.VonMisesFisher, (1,))
    for scale in (0.0, -1.0, "fixed"):
        with pytest.raises(ValueError, match='must be positive and finite in float32, "learned"'):
            vaejax.Gaussian(Outputs((2,)), scale)
    with pytest.raises(ValueError, match="optimal_scale"):
        vaejax.Gaussian(Outputs((2,)), "optimal")


def test_parameters_that_are_not_those_of_the_net_are_said_to_be():
    conditional = WITH_MLP["Bernoulli"]
    params = conditional.init(jax.random.key(0), jnp.zeros(2))
    with pytest.raises(ValueError, match="MLP got the parameters of another net"):
        conditional({"net": params}, jnp.zeros(2))
