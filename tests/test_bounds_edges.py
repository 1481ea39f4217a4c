"""Bounds, baselines and estimators where weights are 0: their values by definition, their gradients
by the limit or by enumeration. What is no row of log-weights is refused.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vaejax
from tests.lib.binary import MODEL, PARAMS, X
from tests.lib.cases import cases
from tests.lib.given_keys import key_of_uniforms
from tests.lib.oracles import LinearGaussian
from vaejax.bounds import RenyiBound, log_mean_of_others, mean_of_others
from vaejax.estimators.base import mean_under, with_gradient_of
from vaejax.models.around import AroundModel

POINT = LinearGaussian()
INF = math.inf
ALPHAS = (-INF, -1.0, 0.5, 0.999, 1 - 1e-9, 1 + 1e-9, 2.0, INF)
BOUNDS = {
    "elbo_bound": vaejax.elbo_bound,
    "iwae_bound": vaejax.iwae_bound,
    "jackknife_bound": vaejax.jackknife_bound,
    "CIWAEBound": vaejax.CIWAEBound(0.3),
    **{f"renyi_bound({alpha})": vaejax.renyi_bound(alpha) for alpha in ALPHAS},
}
OF_EACH = {
    "log_mean_of_others": log_mean_of_others,
    "mean_of_others": mean_of_others,
    "LeaveOneOut": lambda log_w: vaejax.LeaveOneOut()((), X, log_w),
    "VIMCO": vaejax.VIMCO(3).control,
    "VIMCO, arithmetic": vaejax.VIMCO(3, "arithmetic").control,
    "OVIS": vaejax.OVIS(3).control,
}


OF_ONE_WEIGHT = [bound for name, bound in BOUNDS.items() if name != "jackknife_bound"]


@pytest.mark.parametrize("function", (BOUNDS | OF_EACH).values(), ids=BOUNDS | OF_EACH)
def test_a_batch_is_refused_where_one_example_belongs(function):
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    for wrong in (batch, batch[0, 0], batch[0, :0], batch[None]):
        with pytest.raises(ValueError, match=r"\[K\] of one example, and these have .* jax.vmap"):
            function(wrong)
    if function not in OF_ONE_WEIGHT:
        with pytest.raises(ValueError, match="leaves one weight out, so it needs num_samples"):
            function(batch[0, :1])
    rows, function = jax.jit(jax.vmap(function))(batch), jax.jit(function)
    np.testing.assert_allclose(rows, jnp.stack([function(row) for row in batch]), atol=1e-6)


# Values by definition, with the logarithms and the rules for infinities of NumPy.


def log_mean(log_w) -> float:
    return float(np.logaddexp.reduce(log_w) - np.log(len(log_w)))


def jackknife(log_w) -> float:
    k, bound = len(log_w), log_mean(log_w)
    others = np.mean([log_mean(np.delete(log_w, j)) for j in range(k)])
    return bound if bound == -INF else k * bound - (k - 1) * others


def renyi(alpha: float, log_w) -> float:
    if math.isinf(alpha):
        return float(np.max(log_w) if alpha < 0 else np.min(log_w))
    if abs(alpha - 1) < 1e-6 and np.isfinite(log_w).all():
        # mean l + c var l / 2, c = 1 - alpha, to the first order in c
        return float(np.mean(log_w) + (1 - alpha) * np.var(log_w) / 2)
    return log_mean((1 - alpha) * log_w) / (1 - alpha)


def defined(name: str, log_w) -> float:
    exact = {"elbo_bound": np.mean, "iwae_bound": log_mean, "jackknife_bound": jackknife}
    exact["CIWAEBound"] = lambda log_w: 0.3 * np.mean(log_w) + 0.7 * log_mean(log_w)
    if name in exact:
        return float(exact[name](log_w))
    return renyi(float(name.removeprefix("renyi_bound(").rstrip(")")), log_w)


def some_zero(k: int) -> np.ndarray:
    """Rows of k log-weights, with -inf in every way."""
    log_w = np.array([0.3, -1.2, 2.0, 0.7])[:k]
    return np.array([np.where(zero, -INF, log_w) for zero in itertools.product((0, 1), repeat=k)])


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_where_weights_are_zero(x64, name):
    """And the gradient, wherever the value is finite, is that at weights that are tiny."""
    value_and_gradient = jax.jit(jax.vmap(jax.value_and_grad(BOUNDS[name])))
    for k in (2, 3, 4):
        rows = some_zero(k)
        values, gradients = value_and_gradient(jnp.asarray(rows))
        np.testing.assert_allclose(values, [defined(name, row) for row in rows], rtol=1e-9)
        finite = np.isfinite(values)
        _, expected = value_and_gradient(jnp.asarray(np.maximum(rows, -1e15)))
        np.testing.assert_allclose(gradients[finite], expected[finite], atol=1e-9)
        if name in ("iwae_bound", "jackknife_bound"):
            np.testing.assert_array_equal(gradients[-1], 0)  # all are 0


def test_baselines_where_weights_are_zero():
    """One, then two of three: by definition."""
    one_zero, two_zeros = jnp.asarray([0.0, -INF, 1.0]), jnp.asarray([0.0, -INF, -INF])
    leave_one_out = vaejax.LeaveOneOut()
    np.testing.assert_allclose(leave_one_out((), X, one_zero), [-INF, 0.5, -INF])
    np.testing.assert_allclose(leave_one_out((), X, two_zeros), [-INF, -INF, -INF])
    # log of (w_2 + w_3 + 0, w_1 + w_3 + sqrt(w_1 w_3), w_1 + w_2 + 0) / 3
    geometric = np.log(np.array([math.e, 1 + math.e + math.exp(0.5), 1]) / 3)
    np.testing.assert_allclose(vaejax.VIMCO(3).control(one_zero), geometric, rtol=1e-6)
    arithmetic = np.log(np.array([math.e, 1 + math.e, 1]) / 2)
    control = vaejax.VIMCO(3, "arithmetic").control
    np.testing.assert_allclose(control(one_zero), arithmetic, rtol=1e-6)
    np.testing.assert_allclose(control(two_zeros), [-INF, -math.log(2), -math.log(2)])
    np.testing.assert_allclose(vaejax.VIMCO(3).control(two_zeros), [-INF, *[-math.log(3)] * 2])


def test_a_mean_of_others_keeps_its_digits():
    """By the sum of all less its own it would be 0."""
    np.testing.assert_allclose(mean_of_others(jnp.asarray([-1e30, 1.0, 2.0]))[0], 1.5)


@vaejax.component
class Forbidding(AroundModel):
    """The model, but that p(x, z) = 0 where all latents are 1."""

    model: vaejax.Model

    def log_joint(self, params, x, z):
        return jnp.where(jnp.all(z == 1), -INF, self.model.log_joint(params, x, z))


WEIGHTED = {
    "geometric": vaejax.VIMCO(2),
    "arithmetic": vaejax.VIMCO(2, "arithmetic"),
    "OVIS": vaejax.OVIS(2),
    "RWS": vaejax.RWS(2),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_gradients_where_weights_are_zero_by_enumeration(name):
    """Of all 8 x 8 pairs of samples 14 have one weight of 0 and one has two. The mean gradient is
    that of E[L] over those of which L is finite; the value is L of each, exactly.
    """
    model, estimator = FORBIDDING, WEIGHTED[name]
    states = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=3)))
    pairs = jnp.stack([states[jnp.asarray(i)] for i in itertools.product(range(8), repeat=2)])

    @jax.jit
    def bounds(params):
        """log q of each pair, and L."""
        log_q = jax.vmap(jax.vmap(model.posterior(params, X).log_prob))(pairs)
        log_joint = jax.vmap(jax.vmap(lambda z: model.log_joint(params, X, z)))(pairs)
        return log_q.sum(axis=1), jax.vmap(vaejax.iwae_bound)(log_joint - log_q)

    def expected(params):
        log_q, bound = bounds(params)
        return mean_under(log_q, jnp.where(bound == -INF, 0, bound))

    def drawn(zs):
        """At the samples zs: b = 1[u < p], so u = 0 gives 1 and u near 1 gives 0."""
        key = key_of_uniforms((1 - zs) * (1 - 1e-6))
        value, gradient = jax.value_and_grad(lambda p: estimator(model, p, X, key))(PARAMS)
        return value, ravel_pytree(gradient)[0]

    values, gradients = jax.jit(jax.vmap(drawn))(pairs)
    log_q, bound = bounds(PARAMS)
    assert np.isneginf(values).sum() == 1 and np.isfinite(gradients).all()
    np.testing.assert_allclose(values, bound, rtol=1e-6)
    if name != "RWS":  # whose mean is another
        exact = ravel_pytree(jax.jit(jax.grad(expected))(PARAMS))[0]
        np.testing.assert_allclose(jnp.exp(log_q) @ gradients, exact, atol=2e-5)


@vaejax.component
class Truncated(AroundModel):
    """The model, but that p(x, z) = 0 for z below 0.4."""

    model: vaejax.Model

    def log_joint(self, params, x, z):
        return jnp.where(z[0] < 0.4, -INF, self.model.log_joint(params, x, z))


# Of real latents, and of binary ones.
TRUNCATED, FORBIDDING = Truncated(POINT.model), Forbidding(MODEL)
OF_TRUNCATED = {
    "Pathwise of IWAE": vaejax.Pathwise(4, vaejax.iwae_bound),
    "Pathwise of the jackknife": vaejax.Pathwise(4, vaejax.jackknife_bound),
    "STL of IWAE": vaejax.StickTheLanding(4, vaejax.iwae_bound, "estimated"),
    "DReG": vaejax.DReG(4),
    "DReG, alpha = -1": vaejax.DReG(4, -1.0),
    "GeneralisedDReG": vaejax.GeneralisedDReG(4),
    "RWS": vaejax.RWS(4, doubly_reparameterised=True),
}
OF_FORBIDDING = {
    "ScoreFunction": vaejax.ScoreFunction(2),
    "ScoreFunction, MovingAverage": vaejax.ScoreFunction(2, vaejax.MovingAverage()),
    "OptimalConstant": vaejax.OptimalConstant(2),
    "DisARM": vaejax.DisARM(2),
    "REBAR": vaejax.REBAR(),
    "DoubleControlVariate": vaejax.DoubleControlVariate(),
}
QUICK = ("Pathwise of IWAE", "DReG, alpha = -1", "GeneralisedDReG", "OptimalConstant")
SLOW = [name for name in OF_TRUNCATED | OF_FORBIDDING if name not in QUICK]


@pytest.mark.parametrize("name", cases(tuple(OF_TRUNCATED | OF_FORBIDDING), slow=SLOW))
def test_where_a_bound_is_finite_so_is_its_gradient(name):
    """Of 200 keys, at most of which some sample has the weight 0; and no value is NaN."""
    if name in OF_TRUNCATED:
        model, params, x, estimator = TRUNCATED, POINT.params, POINT.datum, OF_TRUNCATED[name]
    else:
        model, params, x, estimator = FORBIDDING, PARAMS, X, OF_FORBIDDING[name]
    params = params._replace(psi=estimator.init(model, params, x, jax.random.key(1)))

    @jax.jit
    @jax.vmap
    def drawn(key):
        value, gradient = jax.value_and_grad(lambda p: estimator(model, p, x, key))(params)
        return value, ravel_pytree(gradient)[0]

    values, gradients = drawn(jax.random.split(jax.random.key(0), 200))
    assert not np.isnan(values).any() and np.isneginf(values).any()
    finite = np.isfinite(values)
    assert finite.any() and np.isfinite(gradients[finite]).all()


def test_a_state_that_q_never_takes_adds_nothing():
    log_q, f = jnp.log(jnp.asarray([0.5, 0.5, 0.0])), jnp.asarray([1.0, 3.0, jnp.nan])
    for last in (jnp.nan, INF, -INF):
        value, gradients = jax.value_and_grad(mean_under, (0, 1))(log_q, f.at[2].set(last))
        assert value == 2
        np.testing.assert_allclose(gradients, [[0.5, 1.5, 0], [0.5, 0.5, 0]])
    assert mean_under(log_q, jnp.asarray([1.0, -INF, 0])) == -INF


def test_a_value_is_what_it_is_whatever_its_surrogate():
    """An infinite surrogate leaves no NaN, a large one no rounding."""
    for surrogate in (INF, jnp.nan, 1e9):
        value, gradient = jax.value_and_grad(
            lambda number, surrogate=surrogate: with_gradient_of(0.1 * number, surrogate * number)
        )(jnp.ones(()))
        assert value == np.float32(0.1)
        np.testing.assert_array_equal(gradient, surrogate)


def test_log_marginal_of_chunks_that_are_all_zero(x64):
    """Half of the weights are 0; in chunks of one, half of the chunks."""

    def value_and_gradient(chunk):
        def bound(params):
            return vaejax.log_marginal(TRUNCATED, params, POINT.datum, jax.random.key(0), 30, chunk)

        value, gradient = jax.jit(jax.value_and_grad(bound))(POINT.params)
        return np.append(ravel_pytree(gradient)[0], value)

    chunked, whole = value_and_gradient(1), value_and_gradient(30)
    assert np.isfinite(chunked).all()
    np.testing.assert_allclose(chunked, whole, rtol=1e-9)


# The order of a Rényi bound.


@pytest.mark.parametrize("alpha", [math.nan, "0.5", True, None, 1j])
def test_an_order_that_is_no_number_is_refused(alpha):
    with pytest.raises(ValueError, match="renyi_bound: alpha = .*; give a number"):
        vaejax.renyi_bound(alpha)


@pytest.mark.parametrize(("alpha", "remedy"), [(1, "use renyi_bound"), (math.nan, "give a number")])
def test_the_limit_is_no_order_of_its_own(alpha, remedy):
    with pytest.raises(ValueError, match=f"RenyiBound.alpha = .*; {remedy}"):
        RenyiBound(alpha)


def test_the_limits_of_the_order():
    log_w = jnp.asarray([0.3, -1.2, 2.0, 0.7])
    for alpha in (-INF, INF):
        limit = vaejax.renyi_bound(math.copysign(1e4, alpha))(log_w)
        np.testing.assert_allclose(vaejax.renyi_bound(alpha)(log_w), limit, atol=1e-3)
    assert vaejax.renyi_bound(np.float32(0.5)) == vaejax.renyi_bound(0.5)
    assert vaejax.renyi_bound(np.int64(0)) is vaejax.iwae_bound


@pytest.mark.parametrize("power", range(1, 16))
def test_near_one_it_is_the_elbo_in_single_precision_too(power):
    """1 - alpha = +-10^-power against its series in it, the variance of log w over 2."""
    log_w = np.array([-100.3, -101.2, -98.0, -100.7], np.float32)
    for sign in (1, -1):
        alpha = 1 - sign * 10.0**-power
        exact = renyi(alpha, log_w.astype(np.float64))
        np.testing.assert_allclose(vaejax.renyi_bound(alpha)(log_w), exact, rtol=1e-6)


def test_the_jackknife_keeps_its_digits():
    """Of weights e^-10,000 times as large it is 10,000 less, to the rounding of that number."""
    log_w = np.random.default_rng(0).normal(size=300).astype(np.float32)
    near, far = (vaejax.jackknife_bound(jnp.asarray(log_w + shift)) for shift in (0, -8_192))
    np.testing.assert_allclose(far + 8_192, near, atol=0.01)
