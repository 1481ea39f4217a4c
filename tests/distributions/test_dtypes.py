"""One rule for dtypes: every density, of ours and of NumPyro, is computed in the widest float among
its value and parameters, and in float32 at least.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import vaejax
from tests.lib.cases import cases
from tests.lib.densities import FAMILIES, mixture
from vaejax.distributions import as_event
from vaejax.distributions.bernoulli import BernoulliDensity
from vaejax.distributions.normal import DiagNormalDensity
from vaejax.distributions.numpyro import from_numpyro

KEY = jax.random.key(0)
# Parameters of these are computed from those below before we see them, in bfloat16.
MADE_IN_HALF = {
    "RelaxedBernoulliLogits",
    "MultivariateNormal",
    "LowRankMultivariateNormal",
    "Poisson",
}
HALVES = jnp.bfloat16, jnp.float16


def twice(family, arrays, dtype):
    """The density at these parameters in a dtype, and at the same numbers in float32."""
    rounded = [jnp.asarray(array).astype(dtype) for array in arrays]
    return family(*rounded), family(*[array.astype(jnp.float32) for array in rounded])


def assert_same(q, expected):
    z = expected.sample(KEY)
    np.testing.assert_allclose(q.sample(KEY), z, rtol=1e-6)
    for value in (z, np.asarray(z, np.float32)):
        log_prob = q.log_prob(value)
        assert log_prob.dtype == jnp.float32
        np.testing.assert_allclose(log_prob, expected.log_prob(z), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in MADE_IN_HALF])
def test_parameters_in_half_precision_and_whole_numbers(name):
    family, arrays, _ = FAMILIES[name]
    for dtype in HALVES:
        if name != "VonMisesFisher":  # a rounded direction has another length than 1
            assert_same(*twice(family, arrays, dtype))
    if name not in ("RelaxedOneHotCategorical", "VonMisesFisher", "DiscretizedLogistic"):
        assert_same(*twice(family, [np.rint(array) for array in arrays], jnp.int32))


def test_the_instances_of_the_report():
    p = DiagNormalDensity(jnp.asarray([0, 1]), jnp.asarray([0, 0]))
    np.testing.assert_allclose(
        p.log_prob(np.array([0.5, 0.5])), -np.log(2 * np.pi) - 0.25, rtol=1e-6
    )
    shares = 0.1 * np.ones(2)
    for make in (lambda: npd.Binomial(255, shares), lambda: npd.BetaBinomial(2.0, shares, 255)):
        p = from_numpyro(make())
        whole = [p.log_prob(np.asarray([255, 3], dtype)) for dtype in (np.uint8, np.float32)]
        assert whole[0] == whole[1] and np.isfinite(whole[0])
    p = from_numpyro(npd.GeometricLogits(jnp.full(2, 0.3)))
    assert p.log_prob(np.asarray([255, 3], np.uint16)) == p.log_prob(np.asarray([255.0, 3.0])) < 0


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.float16, jnp.bfloat16, np.float64])
def test_values_of_any_dtype(dtype):
    x, logits = np.asarray([1, 0]), jnp.asarray([0.3, -1.7])
    densities = {
        "ours": BernoulliDensity(logits),
        "counts": from_numpyro(npd.Poisson(jnp.exp(logits))),
        "normal": DiagNormalDensity(logits, logits),
        "NumPyro's": from_numpyro(npd.Laplace(logits, 1.0)),
        "labels": from_numpyro(npd.Categorical(jnp.ones((2, 3)) / 3)),
    }
    for p in densities.values():
        log_prob = p.log_prob(jnp.asarray(x).astype(dtype))
        assert log_prob == p.log_prob(x) and log_prob.dtype == jnp.float32


NUMPYROS = {
    "Normal": lambda a: npd.Normal(a, a),
    "Gamma": lambda a: npd.Gamma(a, a),
    "Beta": lambda a: npd.Beta(a, a),
    "Weibull": lambda a: npd.Weibull(a, a),
    "Gumbel": lambda a: npd.Gumbel(a, a),
    "Uniform": lambda a: npd.Uniform(a - 1, a + 5),
    "Dirichlet": npd.Dirichlet,
    "GeometricLogits": npd.GeometricLogits,
    "CategoricalLogits": npd.CategoricalLogits,
    "GammaPoisson": lambda a: npd.GammaPoisson(a, a),
    "BinomialLogits": lambda a: npd.BinomialLogits(a, 7),
    "BetaBinomial": lambda a: npd.BetaBinomial(a, a, 7),
    "ZeroInflatedPoisson": lambda a: npd.ZeroInflatedPoisson(0.25, a),
}


QUICK = {"Normal", "Beta", "GeometricLogits", "BetaBinomial", "ZeroInflatedPoisson"}


@pytest.mark.parametrize("family", cases(NUMPYROS, slow=NUMPYROS.keys() - QUICK))
def test_numpyros_families(family):
    for dtype in (jnp.bfloat16, jnp.int32):
        assert_same(*twice(lambda a: from_numpyro(family(a)), [np.array([1, 2, 3])], dtype))


def test_doubles_stay_doubles(x64):
    """However narrow the rest is."""
    for loc in (jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.float32)):
        p = DiagNormalDensity(loc, loc)
        assert p.log_prob(np.full(2, 0.1)).dtype == jnp.float64
        assert p.log_prob(np.full(2, 0.1, np.float32)).dtype == jnp.float32
        np.testing.assert_allclose(
            p.log_prob(np.full(2, 0.1)), -np.log(2 * np.pi) - 0.01, rtol=1e-14
        )
    assert (
        DiagNormalDensity(jnp.zeros(2), jnp.zeros(2, jnp.float32))
        .log_prob(np.zeros(2, np.float32))
        .dtype
        == jnp.float64
    )


def test_a_density_of_ones_own_has_the_rule():
    """By `as_event`, and by the fields that it declares."""

    @vaejax.pytree
    class Gumbel(vaejax.Distribution):
        loc: jax.Array
        reparameterised = True

        def sample(self, key):
            return self.loc + jax.random.gumbel(key, self.loc.shape)

        def log_prob(self, value):
            noise = as_event("Gumbel", value, self.loc) - self.loc
            return -jnp.sum(noise + jnp.exp(-noise))

    for dtype in (jnp.int32, *HALVES):
        assert_same(*twice(Gumbel, [np.array([1.0, -2.0])], dtype))


def test_fields_that_are_no_floats_stay_as_they_are():
    @vaejax.pytree
    class Table(vaejax.Distribution):
        index: jax.Array
        reparameterised = False

    assert Table(jnp.arange(2)).index.dtype == jnp.int32
    key = jax.random.key(0)
    assert Table(key).index is key


def test_the_compiled_program_in_float32_has_no_casts():
    """What the rule costs where there is nothing to do."""
    logits = jnp.asarray([0.3, -1.0, 0.2])
    x = jnp.asarray([0.0, 1.0, 0.0])
    densities = DiagNormalDensity(logits, logits), BernoulliDensity(logits), mixture()
    for p, value in zip(densities, (x, x, x[:1]), strict=True):
        program = jax.jit(jax.grad(lambda p, x: p.log_prob(x))).lower(p, value).compile()
        assert "convert(" not in program.as_text()


# Whole numbers in a graph.


@vaejax.component
class Identity:
    def init(self, key, given):
        return ()

    def apply(self, params, given):
        return given


ROOTS = {
    "Poisson": vaejax.Poisson(vaejax.Free(3, ("raw",))),
    "labels": vaejax.NumPyroConditional(
        vaejax.Free((3, 4), ("raw",)), lambda raw: npd.Categorical(logits=raw)
    ),
    "Binomial": vaejax.NumPyroPrior(lambda: npd.Binomial(5, 0.3 * jnp.ones(3)).to_event(1)),
}
CHILDREN = {
    "Gaussian": vaejax.Gaussian(Identity(), 0.5),
    "Bernoulli": vaejax.Bernoulli(Identity()),
    "ContinuousBernoulli": vaejax.ContinuousBernoulli(Identity()),
    "OneHotCategorical": vaejax.OneHotCategorical(Identity()),
    "Poisson": vaejax.Poisson(Identity()),
    "RelaxedBernoulli": vaejax.RelaxedBernoulli(Identity()),
    "RelaxedCategorical": vaejax.RelaxedCategorical(Identity()),
    "NumPyroConditional": vaejax.NumPyroConditional(Identity(), lambda l: npd.Normal(l, 0.5)),
}


@pytest.mark.parametrize("child", CHILDREN)
def test_an_integer_node_may_be_a_parent(child):
    """The density at whole numbers is that at the same floats, and so are samples."""
    for root in ROOTS.values() if child == "Gaussian" else [ROOTS["Poisson"]]:
        nodes = vaejax.Node("a", root), vaejax.Node("b", CHILDREN[child], "a")
        graph = vaejax.DirectedGraph(nodes)
        p = graph(graph.init(KEY))
        v = p.sample(jax.random.key(1))
        floats = {"a": v["a"].astype(jnp.float32), "b": v["b"]}
        assert p.log_prob(v) == p.log_prob(floats) and np.isfinite(p.log_prob(v))
        np.testing.assert_array_equal(p.complete({"a": floats["a"]}, KEY)["b"],
                                      p.complete({"a": v["a"]}, KEY)["b"])  # fmt: skip
